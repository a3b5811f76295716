//! What counts as a failure: the operator's list, deadlines, redirects that Envoy follows, the last frame of gRPC-Web.

use std::collections::BTreeSet;

use crate::following::{STATUS, page, shown};
use crate::scene::{
    Ending, address, begin, config, give, ms, pass, picks, picks_of, respond, serve, single, target,
    web_trailers,
};
use crate::world::{Plugin, Stream, World};

const RESET: &str = "upstream_reset_before_response_started{connection_termination}";

fn counting(failures: &str) -> String {
    let health = format!(
        r#""policy":"round_robin","health":{{"suspect_after":3,"fail_after":3,"failures":{failures}}}"#
    );
    config(4, &health, "")
}

fn configured_failures_decide_what_counts(mut world: impl World) {
    let local_time_out = Ending::local("504", "response_timeout");
    let grpc = |status: &str| Some(vec![("grpc-status", status.into())]);
    for (failures, ending, counts) in [
        (r#"["gateway"]"#, Ending::status("502"), true),
        (r#"["gateway"]"#, Ending::local("503", RESET), true),
        (r#"["gateway"]"#, local_time_out.clone(), true),
        (r#"["gateway"]"#, Ending::grpc_trailers("14"), true),
        (r#"["gateway"]"#, Ending::status("500"), false),
        (r#"["gateway"]"#, Ending::grpc_headers("13"), false),
        (r#"[429]"#, Ending::status("429"), true),
        (r#"[429]"#, Ending::grpc_trailers("8"), true),
        (r#"[429]"#, Ending::status("503"), false),
        (r#"[429]"#, Ending::local("503", RESET), false),
        (r#"[429]"#, local_time_out.clone(), false),
        (r#"["400-409", 418]"#, Ending::status("404"), true),
        (r#"["400-409", "418"]"#, Ending::status("418"), true),
        (r#"["400-409"]"#, Ending::status("410"), false),
        (r#"["4xx"]"#, Ending::local("403", "ext_authz_denied"), false),
        (r#"["local_origin"]"#, Ending::local("503", RESET), true),
        (r#"["local_origin"]"#, Ending { details: Some(RESET), ..Ending::grpc_headers("14") }, true),
        (r#"["local_origin"]"#, local_time_out, true),
        (r#"["local_origin"]"#, Ending::status("503"), false),
        (r#"["local_origin"]"#, Ending::grpc_headers("14"), false),
        (r#"["5xx", "ABORTED"]"#, Ending::grpc_trailers("10"), true),
        (r#"["5xx", "ABORTED"]"#, Ending::grpc_trailers("14"), false),
        (r#"["5xx"]"#, Ending::grpc_trailers("12"), false),
        // What the headers say so far is not the last word.
        (r#"["5xx"]"#, Ending { trailers: grpc("14"), ..Ending::grpc_headers("0") }, true),
        (r#"["5xx"]"#, Ending { trailers: grpc("0"), ..Ending::grpc_headers("5") }, false),
        (r#"["5xx"]"#, Ending { trailers: grpc("0"), ..Ending::grpc_headers("14") }, true),
    ] {
        let plugin = single(&mut world, &counting(failures));
        for _ in 0..16 {
            serve(&mut world, plugin, |to| if to == address(1) { ending.clone() } else { Ending::good() });
        }
        let out = picks_of(&mut world, plugin, &address(1), 40) == 0;
        assert_eq!(out, counts, "{failures}: {ending:?}");
    }
}

/// What the client of a call sends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sends {
    Everything,
    /// A message, then it waits for a response.
    Message,
    /// Messages until it cancels.
    AllTheTime,
}

/// A call to `endpoint` without a response: its client cancels after `after` ms, at the deadline or not. Meanwhile
/// another call to the endpoint may be answered.
fn unanswered<W: World>(
    world: &mut W,
    plugin: Plugin,
    endpoint: &str,
    (timeout, after, sends): (&[u8], u64, Sends),
    alive: bool,
) {
    loop {
        let headers: [(&str, &[u8]); 3] = [(":method", b"POST"), (":path", b"/"), ("grpc-timeout", timeout)];
        let mut call = world.stream(plugin, &headers[..if timeout.is_empty() { 2 } else { 3 }]);
        call.property(&["xds", "cluster_name"], b"web");
        call.request_headers_of(false);
        call.request_body(sends == Sends::Everything);
        let named = target(&call);
        call.property(&["upstream", "address"], named.as_bytes());
        if named != endpoint {
            world.advance(ms(10));
            respond(&mut call, &Ending::good());
            call.log();
            call.done();
            continue;
        }
        if alive {
            world.advance(ms(after / 2));
            give(world, plugin, endpoint, &Ending::good());
            world.advance(ms(after / 2));
        } else if sends == Sends::AllTheTime {
            for _ in 0..100 {
                world.advance(ms(after / 100));
                call.request_body(false);
            }
        } else {
            world.advance(ms(after));
        }
        call.log();
        call.done();
        return;
    }
}

fn a_deadline_that_passes_counts_against_a_silent_endpoint(mut world: impl World) {
    for (timeout, after, alive, failures, counts) in [
        (&b"1S"[..], 1_000, false, r#"["5xx"]"#, true),
        (b"250m", 250, false, r#"["gateway"]"#, true),
        // The client cancelled before the deadline, or had none.
        (b"1S", 500, false, r#"["5xx"]"#, false),
        (b"", 1_000, false, r#"["5xx"]"#, false),
        // No endpoint could have met it.
        (b"15m", 15, false, r#"["5xx"]"#, false),
        // It answered other calls meanwhile.
        (b"1S", 1_000, true, r#"["5xx"]"#, false),
        // Timeouts do not count.
        (b"1S", 1_000, false, r#"[500]"#, false),
        (b"\xff\xff", 1_000, false, r#"["5xx"]"#, false),
    ] {
        let plugin = single(&mut world, &counting(failures));
        picks(&mut world, plugin, 40);
        pass(&mut world, &[plugin], ms(1000));
        let call = (timeout, after, Sends::Everything);
        (0..2).for_each(|_| unanswered(&mut world, plugin, &address(2), call, alive));
        let out = picks_of(&mut world, plugin, &address(2), 40) == 0;
        assert_eq!(out, counts, "{timeout:?} {after} {alive} {failures}");
    }
}

/// A stream whose client waits for a response, and has not ended it.
fn deadline_counts_against_an_endpoint_with_a_silent_stream(mut world: impl World) {
    for (sends, timeout, alive, counts) in [
        (Sends::Message, &b"1S"[..], false, true),
        (Sends::Message, b"", false, false),
        (Sends::Message, b"1S", true, false),
        (Sends::AllTheTime, b"1S", false, false),
    ] {
        let plugin = single(&mut world, &counting(r#"["5xx"]"#));
        picks(&mut world, plugin, 40);
        pass(&mut world, &[plugin], ms(1000));
        let call = (timeout, 1_000, sends);
        (0..2).for_each(|_| unanswered(&mut world, plugin, &address(2), call, alive));
        let out = picks_of(&mut world, plugin, &address(2), 40) == 0;
        assert_eq!(out, counts, "{sends:?} {timeout:?} {alive}");
    }
}

/// Streams that overlap: each begins while others still wait.
fn streams_that_their_deadlines_end_one_after_the_other_count(mut world: impl World) {
    let plugin = single(&mut world, &counting(r#"["5xx"]"#));
    picks(&mut world, plugin, 40);
    let (mut waiting, mut late) = (std::collections::VecDeque::new(), 0);
    for stream in 0..80 {
        pass(&mut world, &[plugin], ms(90));
        let headers: [(&str, &[u8]); 3] = [(":method", b"POST"), (":path", b"/"), ("grpc-timeout", b"1S")];
        let mut call = world.stream(plugin, &headers);
        call.property(&["xds", "cluster_name"], b"web");
        call.request_headers_of(false);
        call.request_body(false);
        let named = target(&call);
        call.property(&["upstream", "address"], named.as_bytes());
        world.advance(ms(10));
        if named == address(2) {
            late += usize::from(stream >= 40);
            waiting.push_back((world.now() + 1_000_000_000, call));
        } else {
            respond(&mut call, &Ending::good());
            call.log();
            call.done();
        }
        while waiting.front().is_some_and(|(until, _)| *until <= world.now()) {
            let (_, mut call) = waiting.pop_front().expect("it is there");
            call.log();
            call.done();
        }
    }
    assert!(late <= 4, "{late} of 40");
}

/// Envoy ends the call at its deadline and answers instead of the endpoint.
fn a_deadline_that_envoy_keeps_counts_the_same(mut world: impl World) {
    for (details, nobody, counts) in [
        ("max_duration_timeout", false, true),
        ("upstream_max_stream_duration_reached", false, true),
        // It had not been sent to an endpoint yet.
        ("max_duration_timeout", true, false),
    ] {
        let plugin = single(&mut world, &counting(r#"["5xx"]"#));
        picks(&mut world, plugin, 40);
        pass(&mut world, &[plugin], ms(1000));
        let mut given = 0;
        while given < 2 {
            let mut call = begin(&mut world, plugin);
            let failing = target(&call) == address(2);
            let ending = Ending {
                details: Some(details),
                served_by: nobody.then(String::new),
                ..Ending::grpc_headers("4")
            };
            world.advance(ms(if failing { 1_000 } else { 10 }));
            respond(&mut call, &if failing { ending } else { Ending::good() });
            call.log();
            call.done();
            given += usize::from(failing);
        }
        let out = picks_of(&mut world, plugin, &address(2), 40) == 0;
        assert_eq!(out, counts, "{details} {nobody}");
    }
}

/// Envoy consumes the response and starts anew: the stream ends without one.
fn a_redirect_that_envoy_follows_is_an_answer(mut world: impl World) {
    let health = r#""policy":"round_robin","health":{"ejection":"6s","suspect_after":3,"fail_after":3}"#;
    let plugin = single(&mut world, &config(4, health, ""));
    (0..3).for_each(|_| give(&mut world, plugin, &address(1), &Ending::local("503", RESET)));
    assert_eq!(picks_of(&mut world, plugin, &address(1), 40), 0);
    for _ in 0..300 {
        pass(&mut world, &[plugin], ms(200));
        redirected(&mut world, plugin, Some(302));
    }
    assert!(picks_of(&mut world, plugin, &address(1), 40) >= 8, "it is back");
}

/// A request that Envoy starts anew if it goes to the second endpoint; with the status of the answer it consumed.
fn redirected<W: World>(world: &mut W, plugin: Plugin, status: Option<i64>) {
    let mut stream = begin(world, plugin);
    let to = target(&stream);
    world.advance(ms(10));
    if to == address(1) {
        stream.property(&["upstream", "address"], to.as_bytes());
        stream.property(&["response", "code_details"], b"internal_redirect");
        status.iter().for_each(|status| stream.property(&["response", "code"], &status.to_le_bytes()));
    } else {
        respond(&mut stream, &Ending::good());
    }
    stream.log();
    stream.done();
}

/// `custom_response` sends the client to an error page in the same way: the status of the answer tells.
fn an_error_page_in_place_of_the_answer_hides_no_failure(mut world: impl World) {
    let health = r#""policy":"round_robin","health":{"ejection":"6s","suspect_after":3,"fail_after":3}"#;
    for (status, given) in [(Some(503), 0), (None, 0), (Some(404), 10)] {
        let plugin = single(&mut world, &config(4, health, ""));
        (0..120).for_each(|_| redirected(&mut world, plugin, status));
        assert_eq!(picks_of(&mut world, plugin, &address(1), 40), given, "{status:?}");
    }
}

/// A gRPC-Web call to `endpoint`, whose response body comes in these parts.
fn over_the_web<W: World>(
    world: &mut W,
    plugin: Plugin,
    endpoint: &str,
    (kind, trailers): (&[u8], bool),
    parts: &[&[u8]],
) {
    loop {
        let mut call = world.stream(plugin, &[(":method", b"POST"), (":path", b"/a.B/C")]);
        call.property(&["xds", "cluster_name"], b"web");
        assert!(call.request_headers_of(false));
        call.request_body(true);
        let named = target(&call);
        world.advance(ms(10));
        call.property(&["upstream", "address"], named.as_bytes());
        call.property(&["response", "code_details"], b"via_upstream");
        call.response_headers(&[(":status", b"200"), ("content-type", kind)]);
        let parts = if named == endpoint { parts } else { &[&b"good"[..]] };
        for (at, part) in parts.iter().enumerate() {
            call.response_part(part, !trailers && at + 1 == parts.len());
        }
        if trailers {
            call.response_trailers(&[]);
        }
        call.log();
        call.done();
        if named == endpoint {
            return;
        }
    }
}

fn a_failure_in_the_last_frame_of_grpc_web_counts(mut world: impl World) {
    let (bad, good) = (web_trailers("14"), web_trailers("0"));
    let large = vec![0; 200_000];
    let all = [&large[..], &bad[..]].concat();
    let web = b"application/grpc-web+proto".as_slice();
    let text = b"application/grpc-web-text".as_slice();
    for (kind, parts, counts) in [
        (web, vec![&b"\0\0\0\0\x01x"[..], &bad[..]], true),
        (web, vec![&bad[..7], &bad[7..], b""], true),
        (web, vec![&large[..], &bad[..]], true),
        (web, vec![&all[..]], true),
        (text, vec![&b"YQ=="[..], b"gAAAABBncnBjLXN0YXR1czoxNA0K"], true),
        (b"Application/gRPC-Web", vec![&bad[..]], true),
        (b"application/grpc-web-TEXT+proto", vec![&b"YQ=="[..], b"gAAAABBncnBjLXN0YXR1czoxNA0K"], true),
        (text, vec![&b"YQ==gAAAABBncnBjLXN0YX"[..], b"R1czoxNA0K"], true),
        (web, vec![&good[..]], false),
        (web, vec![&bad[..], b"more"], false),
        (b"application/octet-stream", vec![&bad[..]], false),
    ] {
        // Envoy's own filter for gRPC-Web leaves empty trailers behind what it puts into the body.
        for trailers in [false, true] {
            let plugin = single(&mut world, &counting(r#"["5xx"]"#));
            let kind = (kind, trailers);
            (0..3).for_each(|_| over_the_web(&mut world, plugin, &address(2), kind, &parts));
            let out = picks_of(&mut world, plugin, &address(2), 40) == 0;
            assert_eq!(out, counts, "{kind:?} {}", parts.len());
        }
    }
}

/// Nothing happens between the ticks, so the same endpoints stay in use: requests that panic sends to failing endpoints
/// excuse none of them.
fn the_same_evidence_has_the_same_endpoints_in_use(mut world: impl World) {
    for endpoints in [2usize, 3, 4, 6] {
        for failing in 1..=endpoints {
            for after in [1, 2, 3] {
                let upstream = format!(
                    r#""policy":"round_robin","health":{{"fail_after":{after},"max_ejected_percent":100}}"#
                );
                let plugin = single(&mut world, &config(endpoints, &upstream, STATUS));
                picks(&mut world, plugin, 10 * endpoints);
                pass(&mut world, &[plugin], ms(20_000));
                let fails = |to: &str| (0..failing).any(|at| to == address(at));
                for _ in 0..10 * endpoints {
                    serve(
                        &mut world,
                        plugin,
                        |to| if fails(to) { Ending::status("503") } else { Ending::good() },
                    );
                }
                pass(&mut world, &[plugin], ms(1000));
                let seen: BTreeSet<(u64, bool)> = (0..20)
                    .map(|_| {
                        pass(&mut world, &[plugin], ms(50));
                        (
                            shown(&mut world, plugin, "eligible"),
                            page(&mut world, plugin)["upstreams"][0]["panic"] == true,
                        )
                    })
                    .collect();
                assert_eq!(seen.len(), 1, "{failing} of {endpoints} fail, out after {after}: {seen:?}");
            }
        }
    }
}

both!(
    an_error_page_in_place_of_the_answer_hides_no_failure,
    the_same_evidence_has_the_same_endpoints_in_use,
    configured_failures_decide_what_counts,
    a_deadline_that_passes_counts_against_a_silent_endpoint,
    deadline_counts_against_an_endpoint_with_a_silent_stream,
    streams_that_their_deadlines_end_one_after_the_other_count,
    a_deadline_that_envoy_keeps_counts_the_same,
    a_redirect_that_envoy_follows_is_an_answer,
    a_failure_in_the_last_frame_of_grpc_web_counts,
);
