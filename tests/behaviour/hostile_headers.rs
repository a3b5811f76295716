//! Header values and properties that no proper endpoint sends.

use crate::scene::{Ending, HEADER, address, begin, config, ms, pass, picks, respond, serve, single, target};
use crate::world::{Stream, World};

const VALUES: [&[u8]; 12] = [
    b"",
    b" ",
    b"\xff\xfe\xfd",
    b"200 OK",
    b"-1",
    b"+14",
    b"14\0",
    b"0x0e",
    b"4294967310",
    b"99999999999999999999999999999999999999",
    b"\xd9\xa1\xd9\xa4",
    b"1e1",
];

fn statuses_that_are_none_end_as_good_answers(mut world: impl World) {
    let plugin = single(&mut world, &config(4, r#""policy":"round_robin""#, ""));
    for value in VALUES {
        let ending = Ending { headers: Some(vec![(":status", value.to_vec())]), ..Ending::good() };
        (0..4).for_each(|_| _ = serve(&mut world, plugin, |_| ending.clone()));
        let none = Ending { headers: Some(vec![]), ..Ending::good() };
        serve(&mut world, plugin, |_| none.clone());
    }
    assert_eq!(picks(&mut world, plugin, 40).values().copied().collect::<Vec<_>>(), [10; 4]);
}

fn grpc_statuses_that_are_none_are_no_failures(mut world: impl World) {
    let plugin = single(&mut world, &config(4, r#""policy":"round_robin""#, ""));
    for value in VALUES.iter().copied().chain([&b"9".repeat(100_000)[..]]) {
        let mut in_headers = Ending::grpc_headers("0");
        in_headers.headers.as_mut().expect("headers")[2].1 = value.to_vec();
        let mut in_trailers = Ending::grpc_trailers("0");
        in_trailers.trailers = Some(vec![("grpc-status", value.to_vec())]);
        for ending in [in_headers, in_trailers] {
            (0..4).for_each(|_| _ = serve(&mut world, plugin, |_| ending.clone()));
        }
    }
    assert_eq!(picks(&mut world, plugin, 40).len(), 4);
}

/// Numbers that gRPC does not define, and none at all.
fn grpc_statuses_that_grpc_does_not_define_are_no_failures(mut world: impl World) {
    let plugin = single(&mut world, &config(4, r#""policy":"round_robin""#, ""));
    for status in ["17", "4294967295", "-1", "", "x"] {
        for ending in [Ending::grpc_headers(status), Ending::grpc_trailers(status), Ending::grpc_web(status)]
        {
            (0..4).for_each(|_| _ = serve(&mut world, plugin, |_| ending.clone()));
        }
    }
    assert_eq!(picks(&mut world, plugin, 40).len(), 4);
}

fn steering_headers_of_any_bytes_are_stripped(mut world: impl World) {
    let plugin = single(&mut world, &config(4, "", ""));
    for value in VALUES {
        let mut stream = world.stream(plugin, &[(HEADER, value), (HEADER, value), ("x-evil", value)]);
        stream.property(&["xds", "cluster_name"], b"web");
        assert!(stream.request_headers());
        let values = stream.request_values(HEADER);
        assert_eq!(values.len(), 1);
        assert!(values[0].starts_with(b"10."), "{values:?}");
        assert_eq!(stream.request_values("x-evil"), [value]);
        stream.log();
        stream.done();
    }
}

fn properties_of_any_bytes_are_harmless(mut world: impl World) {
    let plugin = single(&mut world, &config(4, r#""policy":"round_robin""#, ""));
    for value in VALUES {
        let mut lost = world.stream(plugin, &[(":path", b"/")]);
        lost.property(&["xds", "cluster_name"], value);
        assert!(lost.request_headers());
        assert!(target(&lost).is_empty(), "no route of ours");
        let mut stream = begin(&mut world, plugin);
        for path in
            [["upstream", "address"], ["response", "code_details"], ["upstream", "request_attempt_count"]]
        {
            stream.property(&path, value);
        }
        stream.response_headers(&[(":status", b"503"), (":status", value), ("content-type", value)]);
        for stream in [&mut lost, &mut stream] {
            stream.log();
            stream.done();
        }
    }
    assert_eq!(picks(&mut world, plugin, 40).len(), 4);
}

fn a_thousand_headers_are_not_looked_at(mut world: impl World) {
    let plugin = single(&mut world, &config(4, "", ""));
    let names: Vec<String> = (0..1000).map(|i| format!("x-{i}")).collect();
    let headers: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"\xff"[..])).collect();
    let mut stream = world.stream(plugin, &headers);
    stream.property(&["xds", "cluster_name"], b"web");
    assert!(stream.request_headers());
    world.advance(ms(5));
    respond(&mut stream, &Ending { served_by: Some(address(0)), ..Ending::good() });
    stream.disorder();
    stream.response_headers(&headers);
    stream.response_trailers(&headers);
    stream.log();
    stream.done();
    pass(&mut world, &[plugin], ms(100));
    assert_eq!(stream.request_values("x-999"), [b"\xff"]);
}

both!(
    statuses_that_are_none_end_as_good_answers,
    grpc_statuses_that_are_none_are_no_failures,
    grpc_statuses_that_grpc_does_not_define_are_no_failures,
    steering_headers_of_any_bytes_are_stripped,
    properties_of_any_bytes_are_harmless,
    a_thousand_headers_are_not_looked_at,
);
