//! The steering header and other headers of the request when it leaves the filter.

use std::collections::BTreeSet;

use crate::scene::{
    Ending, HEADER, address, begin, candidates, config, give, pass, picks, respond, single, target,
};
use crate::world::{Plugin, Stream, World};

/// A request to `cluster` from a client that sends steering headers itself, past its headers.
fn spoofed<W: World>(world: &mut W, plugin: Plugin, header: &str, cluster: &str) -> W::Stream {
    let upper = header.to_uppercase();
    let spoof: [(&str, &[u8]); 4] =
        [(":path", b"/"), (header, b"6.6.6.6:66"), (&upper, b"6.6.6.7:66"), ("x-other", b"stays")];
    let mut stream = world.stream(plugin, &spoof);
    if !cluster.is_empty() {
        stream.property(&["xds", "cluster_name"], cluster.as_bytes());
    }
    assert!(stream.request_headers());
    assert_eq!(stream.request_values("x-other"), [b"stays"]);
    stream
}

fn the_header_names_as_many_distinct_endpoints_as_configured(mut world: impl World) {
    let fleet: BTreeSet<String> = (0..10).map(address).collect();
    for wanted in 1..=8 {
        let json = config(10, "", &format!(r#""steering":{{"candidates":{wanted}}}"#));
        let plugin = single(&mut world, &json);
        for _ in 0..50 {
            let stream = begin(&mut world, plugin);
            let named = candidates(&stream);
            assert_eq!(stream.request_values(HEADER), [named.join(",").into_bytes()]);
            assert_eq!(named.len(), wanted);
            let distinct: BTreeSet<String> = named.into_iter().collect();
            assert_eq!(distinct.len(), wanted);
            assert!(distinct.is_subset(&fleet), "{distinct:?}");
        }
    }
}

/// Envoy hands over short values in one place and long ones in another.
fn names_and_headers_may_be_of_any_length(mut world: impl World) {
    for length in [1, 87, 88, 89, 255, 512] {
        let name = "w".repeat(length);
        let json = config(2, "", "").replace("\"web\"", &format!("{name:?}"));
        let plugin = single(&mut world, &json);
        let mut stream = spoofed(&mut world, plugin, HEADER, &name);
        assert!([address(0), address(1)].contains(&candidates(&stream)[0]), "{length}");
        stream.property(&["upstream", "address"], target(&stream).as_bytes());
        let long = vec![b'9'; length];
        stream.response_headers(&[(":status", b"200"), ("grpc-status", &long), ("x-envoy-degraded", &long)]);
        stream.response_body(true);
        stream.done();
        assert!(candidates(&spoofed(&mut world, plugin, HEADER, &name[..length - 1])).is_empty(), "{length}");
    }
}

fn a_fleet_smaller_than_the_candidates_is_named_in_full(mut world: impl World) {
    let plugin = single(&mut world, &config(3, "", r#""steering":{"candidates":8}"#));
    assert_eq!(candidates(&begin(&mut world, plugin)).len(), 3);
}

fn stateful_session_gets_base64_and_its_answer_is_hidden(mut world: impl World) {
    let plugin = single(&mut world, &config(1, "", r#""steering":{"via":"stateful_session"}"#));
    for complete in [false, true] {
        let mut stream = spoofed(&mut world, plugin, HEADER, "web");
        assert_eq!(stream.request_values(HEADER), [b"MTAuMC4wLjE6ODA4MA=="]);
        stream.property(&["upstream", "address"], address(0).as_bytes());
        let headers: [(&str, &[u8]); 3] =
            [(":status", b"200"), (HEADER, b"MTAuMC4wLjE6ODA4MA=="), ("x-own", b"1")];
        stream.response_headers_of(&headers, complete);
        assert!(stream.response_values(HEADER).is_empty(), "the client learns no addresses: {complete}");
        assert_eq!(stream.response_values("x-own"), [b"1"]);
        stream.log();
        stream.done();
    }
}

fn original_dst_has_a_header_of_its_own(mut world: impl World) {
    let header = "x-envoy-original-dst-host";
    let plugin = single(&mut world, &config(1, "", r#""steering":{"via":"original_dst"}"#));
    let stream = spoofed(&mut world, plugin, header, "web");
    assert_eq!(stream.request_values(header), [address(0).into_bytes()]);
    assert!(stream.request_values(HEADER).is_empty());
}

fn a_configured_header_replaces_the_default(mut world: impl World) {
    let plugin = single(&mut world, &config(1, "", r#""steering":{"header":"X-To","candidates":1}"#));
    let stream = spoofed(&mut world, plugin, "x-to", "web");
    assert_eq!(stream.request_values("x-to"), [address(0).into_bytes()]);
}

fn client_steering_header_is_removed_in_every_mode_and_route(mut world: impl World) {
    for root in ["", r#""mode":"observe""#] {
        let plugin = single(&mut world, &config(2, "", root));
        for cluster in ["web", "elsewhere", ""] {
            let stream = spoofed(&mut world, plugin, HEADER, cluster);
            let ours = candidates(&stream);
            let steered = cluster == "web" && root.is_empty();
            assert_eq!(ours.len(), if steered { 2 } else { 0 }, "{root} {cluster}: {ours:?}");
            assert!(ours.iter().all(|named| named.starts_with("10.")), "{ours:?}");
        }
    }
}

/// The mark of a filter of another plugin before this one.
const MARK: &[&str] = &["evenkeel_steered"];

/// Two plugins in one chain, each for clusters of its own: the second leaves what the first has steered.
fn what_another_plugin_has_steered_stays_steered(mut world: impl World) {
    for (root, header) in [("", HEADER), (r#""steering":{"header":"x-to"}"#, "x-to")] {
        let plugin = single(&mut world, &config(2, "", root));
        for (mark, stays) in [(header, true), ("x-another", false), ("", false)] {
            let mut stream = world.stream(plugin, &[(":path", b"/"), (header, b"10.9.9.9:1")]);
            stream.property(&["xds", "cluster_name"], b"elsewhere");
            if !mark.is_empty() {
                stream.property(MARK, mark.as_bytes());
            }
            stream.request_headers();
            assert_eq!(!stream.request_values(header).is_empty(), stays, "{header} {mark}");
        }
        // A decision of its own replaces it.
        let mut stream = world.stream(plugin, &[(":path", b"/"), (header, b"10.9.9.9:1")]);
        stream.property(&["xds", "cluster_name"], b"web");
        stream.property(MARK, header.as_bytes());
        stream.request_headers();
        let values = stream.request_values(header);
        assert!(values.len() == 1 && values[0].starts_with(b"10.0.0."), "{values:?}");
    }
}

fn an_unmatched_route_is_left_alone_to_its_end(mut world: impl World) {
    let plugin = single(&mut world, &config(2, r#""policy":"round_robin""#, ""));
    for ending in [Ending::good(), Ending::status("503"), Ending::cancelled(), Ending::grpc_trailers("14")] {
        let mut stream = spoofed(&mut world, plugin, HEADER, "elsewhere");
        respond(&mut stream, &Ending { served_by: Some(address(0)), ..ending });
        stream.log();
        stream.done();
    }
    assert_eq!(picks(&mut world, plugin, 40).len(), 2, "its failures are nobody's");
}

fn star_pattern_balances_the_rest(mut world: impl World) {
    let star = |others: &str| {
        format!(r#"{{"upstreams":[{others}{{"cluster":"*","endpoints":{{"static":["10.9.9.9:1"]}}}}]}}"#)
    };
    let alone = single(&mut world, &star(""));
    let named = r#"{"cluster":"web","endpoints":{"static":["10.0.0.1:8080"]}},"#;
    let beside = single(&mut world, &star(named));
    for (plugin, cluster, to) in [
        (alone, "web", "10.9.9.9:1"),
        (alone, "", "10.9.9.9:1"),
        (beside, "web", "10.0.0.1:8080"),
        (beside, "other", "10.9.9.9:1"),
    ] {
        assert_eq!(target(&spoofed(&mut world, plugin, HEADER, cluster)), to, "{cluster}");
    }
}

fn observing_sets_nothing_and_still_learns(mut world: impl World) {
    let thread = world.thread();
    let observing = config(4, r#""policy":"round_robin""#, r#""mode":"observe""#);
    let plugin = world.configure(thread, "evenkeel", &observing).expect("accepted");
    for _ in 0..3 {
        let mut stream = begin(&mut world, plugin);
        assert!(candidates(&stream).is_empty());
        world.advance(crate::scene::ms(10));
        respond(&mut stream, &Ending { served_by: Some(address(2)), ..Ending::status("500") });
        stream.log();
        stream.done();
    }
    let enforcing = config(4, r#""policy":"round_robin""#, "");
    let plugin = world.configure(thread, "evenkeel", &enforcing).expect("accepted");
    let counts = picks(&mut world, plugin, 30);
    assert_eq!(counts.len(), 3, "the one that failed is known: {counts:?}");
    assert!(!counts.contains_key(&address(2)));
}

/// All endpoints ejected and panic off: only then is no endpoint eligible.
const NOBODY: &str = r#""policy":"round_robin","health":{"max_ejected_percent":100}"#;

fn exhaust<W: World>(world: &mut W, plugin: Plugin) {
    give(world, plugin, &address(0), &Ending::local("504", "response_timeout"));
}

fn no_eligible_endpoint_ends_as_configured(mut world: impl World) {
    for (none, header, answer) in [
        (r#""none_eligible":"envoy""#, "", None),
        (r#""none_eligible":"safe_endpoint","safe_endpoint":"10.7.7.7:7""#, "10.7.7.7:7", None),
        (r#""none_eligible":"reject""#, "", Some(503)),
    ] {
        let failover = format!(r#"{NOBODY},"failover":{{"panic_percent":0,{none}}}"#);
        let plugin = single(&mut world, &config(1, &failover, ""));
        exhaust(&mut world, plugin);
        let mut stream = world.stream(plugin, &[(":path", b"/"), (HEADER, b"6.6.6.6:66")]);
        stream.property(&["xds", "cluster_name"], b"web");
        assert_eq!(stream.request_headers(), answer.is_none(), "{none}");
        assert_eq!(target(&stream), header, "{none}");
        let response = stream.local_response();
        assert_eq!(response.as_ref().map(|(status, _)| *status), answer, "{none}");
        if let Some((_, headers)) = response {
            for name in ["x-evenkeel-reason", "retry-after"] {
                assert!(headers.iter().any(|(key, value)| key == name && !value.is_empty()), "{headers:?}");
            }
        }
        stream.log();
        stream.done();
    }
}

fn in_panic_all_endpoints_serve(mut world: impl World) {
    // Whatever happens to them, at least half of the endpoints serve.
    let upstream =
        r#""policy":"round_robin","health":{"max_ejected_percent":100},"failover":{"panic_percent":50}"#;
    let plugin = single(&mut world, &config(4, upstream, ""));
    for endpoint in 0..2 {
        give(&mut world, plugin, &address(endpoint), &Ending::local("504", "response_timeout"));
        // Enough requests for the failure to be known to the other workers.
        let serving = picks(&mut world, plugin, 300);
        assert!(!serving.contains_key(&address(endpoint)), "{serving:?}");
    }
    give(&mut world, plugin, &address(2), &Ending::local("504", "response_timeout"));
    pass(&mut world, &[plugin], crate::scene::ms(100));
    let serving = picks(&mut world, plugin, 40);
    assert_eq!(serving.len(), 4, "a quarter would be left, so all serve: {serving:?}");
}

both!(
    what_another_plugin_has_steered_stays_steered,
    the_header_names_as_many_distinct_endpoints_as_configured,
    a_fleet_smaller_than_the_candidates_is_named_in_full,
    stateful_session_gets_base64_and_its_answer_is_hidden,
    original_dst_has_a_header_of_its_own,
    a_configured_header_replaces_the_default,
    client_steering_header_is_removed_in_every_mode_and_route,
    names_and_headers_may_be_of_any_length,
    an_unmatched_route_is_left_alone_to_its_end,
    star_pattern_balances_the_rest,
    observing_sets_nothing_and_still_learns,
    no_eligible_endpoint_ends_as_configured,
    in_panic_all_endpoints_serve,
);
