//! In whatever order Envoy calls, every request in flight is given back exactly once.

use std::collections::BTreeMap;

use crate::scene::{Ending, address, begin, config, ms, respond, single, target};
use crate::world::{Plugin, Stream, World};

/// The number of requests of the kind under test to one endpoint.
const ROUNDS: usize = 6;
/// How many more requests the other endpoint has in flight meanwhile.
const AHEAD: usize = 10;

/// Runs `exchange` [`ROUNDS`] times on one of two endpoints, then checks that it left the endpoint's in-flight
/// unchanged.
///
/// One endpoint is kept [`AHEAD`] requests ahead, so `least_request` gives everything to the other. Afterwards that one
/// gets exactly the missing requests before the two alternate.
fn exact<W: World>(mut world: W, exchange: impl Fn(&mut W, Plugin)) {
    // Failures eject none, so that in-flight alone decides.
    let alone = r#""policy":"least_request","health":{"max_ejected_percent":0}"#;
    let plugin = single(&mut world, &config(2, alone, ""));
    let mut busy = Vec::new();
    let mut idle = Vec::new();
    for _ in 0..4 * AHEAD {
        let stream = begin(&mut world, plugin);
        if target(&stream) == address(0) { busy.push(stream) } else { idle.push(stream) }
    }
    assert_eq!((busy.len(), idle.len()), (2 * AHEAD, 2 * AHEAD));
    for mut stream in idle.drain(AHEAD..) {
        world.advance(ms(1));
        respond(&mut stream, &Ending::good());
        stream.log();
        stream.done();
    }
    for _ in 0..ROUNDS {
        world.advance(ms(5));
        exchange(&mut world, plugin);
    }
    let next: Vec<_> = (0..AHEAD + 2).map(|_| begin(&mut world, plugin)).collect();
    let targets: Vec<String> = next.iter().map(target).collect();
    assert!(targets[..AHEAD].iter().all(|to| *to == address(1)), "too much in flight is left: {targets:?}");
    let of_busy = targets[AHEAD..].iter().filter(|to| **to == address(0)).count();
    assert_eq!(of_busy, 1, "too little in flight is left: {targets:?}");
}

/// A request up to but not including its end.
fn answered<W: World>(world: &mut W, plugin: Plugin, ending: &Ending) -> W::Stream {
    let mut stream = begin(world, plugin);
    assert_eq!(target(&stream), address(1));
    world.advance(ms(5));
    respond(&mut stream, ending);
    stream
}

/// Why Envoy ended a request that it sent no answer to, not even its own.
const SILENCES: [&str; 9] = [
    "upstream_reset_before_response_started{remote_reset}",
    "upstream_reset_before_response_started{connection_termination}",
    "upstream_reset_before_response_started{connection_failure}",
    "upstream_reset_before_response_started{overflow}",
    "response_timeout",
    "max_duration_timeout",
    "stream_idle_timeout",
    "internal_redirect",
    "downstream_remote_disconnect",
];

fn endings() -> Vec<Ending> {
    let mut endings =
        SILENCES.map(|details| Ending { details: Some(details), ..Ending::cancelled() }).to_vec();
    endings.extend([
        Ending::cancelled(),
        Ending::good(),
        Ending::status("429"),
        Ending::grpc_trailers("0"),
        Ending::local("503", "no_healthy_upstream"),
        Ending { served_by: Some("203.0.113.9:1".into()), ..Ending::good() },
    ]);
    endings
}

/// [`exact`], in a separate world for each end.
fn each_ending<W: World>(_: W, end: impl Fn(&mut W::Stream)) {
    for ending in endings() {
        exact(W::new(2), |world, plugin| {
            let mut stream = answered(world, plugin, &ending);
            end(&mut stream);
        });
    }
}

fn given_back_on_done_alone(world: impl World) {
    each_ending(world, |stream| stream.done());
}

fn given_back_once_on_log_and_done(world: impl World) {
    each_ending(world, |stream| {
        stream.log();
        stream.done();
    });
}

fn a_stream_without_request_headers_owes_nothing(world: impl World) {
    exact(world, |world, plugin| {
        let mut stream = world.stream(plugin, &[]);
        stream.log();
        stream.done();
    });
}

fn a_response_without_a_request_owes_nothing(world: impl World) {
    exact(world, |world, plugin| {
        let mut stream = world.stream(plugin, &[]);
        respond(&mut stream, &Ending { served_by: Some(address(1)), ..Ending::grpc_trailers("0") });
        stream.log();
        stream.done();
    });
}

fn a_second_response_changes_nothing(world: impl World) {
    exact(world, |world, plugin| {
        let mut stream = answered(world, plugin, &Ending::good());
        stream.disorder();
        respond(&mut stream, &Ending::grpc_trailers("14"));
        respond(&mut stream, &Ending { served_by: Some(address(0)), ..Ending::good() });
        stream.log();
        stream.done();
    });
}

fn trailers_without_response_headers_change_nothing(world: impl World) {
    exact(world, |world, plugin| {
        let mut stream = begin(world, plugin);
        stream.disorder();
        stream.response_trailers(&[("grpc-status", b"14")]);
        stream.log();
        stream.done();
    });
}

fn an_unmatched_route_owes_nothing(world: impl World) {
    exact(world, |world, plugin| {
        let mut stream = world.stream(plugin, &[(":path", b"/")]);
        stream.property(&["xds", "cluster_name"], b"elsewhere");
        stream.request_headers();
        respond(&mut stream, &Ending { served_by: Some(address(1)), ..Ending::good() });
        stream.log();
        stream.done();
    });
}

fn a_request_that_went_elsewhere_is_given_back_there(world: impl World) {
    exact(world, |world, plugin| {
        let elsewhere = Ending { served_by: Some(address(0)), ..Ending::good() };
        let mut stream = answered(world, plugin, &elsewhere);
        stream.log();
        stream.done();
    });
}

/// An attempt of `request`, as the upstream filter sees it, from its headers to its end.
fn attempted<W: World>(world: &mut W, upstream: Plugin, request: &W::Stream, to: &str) {
    let mut attempt = world.attempt(upstream, request, to);
    attempt.request_headers();
    attempt.response_headers(&[(":status", b"200")]);
    attempt.response_body(true);
    attempt.done();
}

fn an_attempt_at_a_foreign_host_is_given_back(world: impl World) {
    exact(world, |world, plugin| {
        let thread = world.thread_of(plugin);
        let upstream = world.follow(thread);
        let mut request = begin(world, plugin);
        let stranger = "203.0.113.9:1";
        attempted(world, upstream, &request, stranger);
        respond(&mut request, &Ending { served_by: Some(stranger.to_owned()), ..Ending::good() });
        request.log();
        request.done();
    });
}

fn an_attempt_after_the_end_of_its_request_is_none_of_ours(world: impl World) {
    exact(world, |world, plugin| {
        let thread = world.thread_of(plugin);
        let upstream = world.follow(thread);
        let mut request = begin(world, plugin);
        attempted(world, upstream, &request, &address(1));
        respond(&mut request, &Ending::good());
        request.log();
        request.done();
        // It stays open: whatever is counted for it would never be given back.
        let mut late = world.attempt(upstream, &request, &address(1));
        late.request_headers();
    });
}

/// A request with a body, whose upload and response are up to `exchange`.
fn uploads<W: World>(world: W, exchange: impl Fn(&mut W, &mut W::Stream)) {
    exact(world, |world, plugin| {
        let mut stream = world.stream(plugin, &[(":method", b"POST"), (":path", b"/")]);
        stream.property(&["xds", "cluster_name"], b"web");
        assert!(stream.request_headers_of(false));
        exchange(world, &mut stream);
        stream.log();
        stream.done();
    });
}

fn an_upload_is_given_back_however_it_goes(world: impl World) {
    uploads(world, |world, stream| {
        world.advance(ms(5));
        stream.request_body(false);
        stream.request_body(true);
        stream.disorder();
        stream.request_body(true);
        respond(stream, &Ending::good());
    });
}

fn an_upload_that_is_given_up_is_given_back(world: impl World) {
    uploads(world, |_, stream| stream.request_body(false));
}

fn an_answer_before_the_end_of_the_upload_is_given_back_once(world: impl World) {
    uploads(world, |_, stream| {
        stream.request_body(false);
        respond(stream, &Ending::status("413"));
        stream.request_body(false);
        stream.request_trailers();
    });
}

fn a_response_that_breaks_off_is_given_back(world: impl World) {
    uploads(world, |_, stream| {
        stream.request_body(true);
        respond(stream, &Ending::cut("downstream_remote_disconnect"));
    });
}

fn a_stream_that_is_open_counts_until_its_end(mut world: impl World) {
    let plugin = single(&mut world, &config(2, r#""policy":"least_request""#, ""));
    let mut first = begin(&mut world, plugin);
    let taken = target(&first);
    respond(&mut first, &Ending { trailers: None, ..Ending::grpc_trailers("0") });
    let second = begin(&mut world, plugin);
    assert_ne!(target(&second), taken, "headers are not the end");
    first.disorder();
    first.response_trailers(&[("grpc-status", b"0")]);
    first.log();
    first.done();
    assert_eq!(target(&begin(&mut world, plugin)), taken);
}

/// The first endpoint to answer only looks like the only fast one while nothing is known of the others.
fn streams_that_open_before_the_first_tick_are_spread<W: World>(mut world: W) {
    let plugin = single(&mut world, &config(4, "", ""));
    let mut counts = BTreeMap::new();
    let open: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = begin(&mut world, plugin);
            *counts.entry(target(&stream)).or_insert(0) += 1;
            world.advance(ms(1));
            stream.property(&["upstream", "address"], target(&stream).as_bytes());
            stream.response_headers(&[(":status", b"200")]);
            stream
        })
        .collect();
    assert_eq!(counts.values().collect::<Vec<_>>(), [&2; 4], "{counts:?}");
    drop(open);
}

both!(
    given_back_on_done_alone,
    given_back_once_on_log_and_done,
    a_stream_without_request_headers_owes_nothing,
    a_response_without_a_request_owes_nothing,
    a_second_response_changes_nothing,
    trailers_without_response_headers_change_nothing,
    an_unmatched_route_owes_nothing,
    a_request_that_went_elsewhere_is_given_back_there,
    an_attempt_at_a_foreign_host_is_given_back,
    an_attempt_after_the_end_of_its_request_is_none_of_ours,
    an_upload_is_given_back_however_it_goes,
    an_upload_that_is_given_up_is_given_back,
    an_answer_before_the_end_of_the_upload_is_given_back_once,
    a_response_that_breaks_off_is_given_back,
    a_stream_that_is_open_counts_until_its_end,
    streams_that_open_before_the_first_tick_are_spread,
);
