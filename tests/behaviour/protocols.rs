//! Bodies, streams and responses of other filters: only the endpoint's own time and its own end count.

use std::collections::BTreeMap;

use crate::scene::{Ending, address, begin, candidates, config, ms, pass, respond, serve, single, target};
use crate::world::{Plugin, Stream, World};

/// A policy that decides by latency alone.
const BY_LATENCY: &str = r#""policy":"peak_ewma","slow_start":"0s""#;
const BROKEN: &str = "upstream_reset_after_response_started{connection_termination}";

/// A request with a body, past its headers.
fn begin_upload<W: World>(world: &mut W, plugin: Plugin) -> W::Stream {
    let mut stream = world.stream(plugin, &[(":method", b"POST"), (":path", b"/"), (":authority", b"web")]);
    stream.property(&["xds", "cluster_name"], b"web");
    assert!(stream.request_headers_of(false), "the request goes on");
    stream
}

fn end(stream: &mut impl Stream, ending: &Ending) {
    respond(stream, ending);
    stream.log();
    stream.done();
}

/// How a client sends its body; the rest is up to the caller.
#[derive(Clone, Copy, Debug)]
enum Sending {
    AllAtOnce,
    InParts,
    WithTrailers,
    /// The response comes before the end of the body.
    NeverEnding,
}

/// Five seconds of sending, for whatever reason.
fn send<W: World>(world: &mut W, stream: &mut W::Stream, how: Sending) {
    match how {
        Sending::AllAtOnce => {
            world.advance(ms(5_000));
            stream.request_body(true);
        }
        Sending::InParts => {
            for last in [false, false, false, false, true] {
                world.advance(ms(1_000));
                stream.request_body(last);
            }
        }
        Sending::WithTrailers => {
            world.advance(ms(3_000));
            stream.request_body(false);
            world.advance(ms(2_000));
            stream.request_trailers();
        }
        Sending::NeverEnding => {
            world.advance(ms(5_000));
            stream.request_body(false);
        }
    }
}

fn a_slow_upload_makes_no_endpoint_look_slow(mut world: impl World) {
    for observed in [false, true] {
        for how in [Sending::AllAtOnce, Sending::InParts, Sending::WithTrailers, Sending::NeverEnding] {
            let thread = world.thread();
            let mode = if observed { r#""mode":"observe""# } else { "" };
            let plugin = world.configure(thread, "evenkeel", &config(2, BY_LATENCY, mode)).expect("accepted");
            for upload in 0..20 {
                let mut stream = begin_upload(&mut world, plugin);
                let to = if observed { address(upload % 2) } else { target(&stream) };
                if to == address(0) {
                    send(&mut world, &mut stream, how);
                } else {
                    stream.request_body(true);
                }
                world.advance(ms(10));
                end(&mut stream, &Ending { served_by: Some(to), ..Ending::good() });
            }
            // Another text: for the same one Envoy would keep the worker.
            let json = config(2, BY_LATENCY, "") + " ";
            let plugin = world.configure(thread, "evenkeel", &json).expect("accepted");
            let mut counts = BTreeMap::<String, usize>::new();
            (0..40)
                .for_each(|_| *counts.entry(serve(&mut world, plugin, |_| Ending::good())).or_default() += 1);
            assert!(counts.values().all(|count| *count >= 10) && counts.len() == 2, "{how:?}: {counts:?}");
        }
    }
}

/// Eight requests at the same time, answered after 10 ms; returns how many each endpoint gets.
fn together<W: World>(world: &mut W, plugin: Plugin) -> BTreeMap<String, usize> {
    let mut open: Vec<W::Stream> = (0..8).map(|_| begin(world, plugin)).collect();
    world.advance(ms(10));
    let mut counts = BTreeMap::new();
    for stream in &mut open {
        *counts.entry(target(stream)).or_default() += 1;
        end(stream, &Ending::good());
    }
    counts
}

/// Two endpoints that are known to be equal.
fn equals<W: World>(world: &mut W) -> Plugin {
    let plugin = single(world, &config(2, r#""policy":"adaptive""#, ""));
    for _ in 0..20 {
        together(world, plugin);
        pass(world, &[plugin], ms(50));
    }
    plugin
}

/// How the request of a client ends.
enum Upload {
    Open,
    EndsWithTheBody,
    EndsWithTrailers,
}

/// A request waits at one of two endpoints without a response for five seconds; returns how many of the eight requests
/// that follow go there, too. `tried` if the filter also sees its attempt.
fn followers<W: World>(world: &mut W, (upgrade, tried): (bool, bool), upload: Upload) -> usize {
    let plugin = equals(world);
    let thread = world.thread_of(plugin);
    let upstream = tried.then(|| world.follow(thread));
    let mut headers: Vec<(&str, &[u8])> = vec![(":method", b"POST"), (":path", b"/"), (":authority", b"web")];
    if upgrade {
        headers.push(("upgrade", b"websocket"));
    }
    let mut quiet = loop {
        let mut stream = world.stream(plugin, &headers);
        stream.property(&["xds", "cluster_name"], b"web");
        assert!(stream.request_headers_of(false));
        if target(&stream) == address(0) {
            break stream;
        }
        stream.request_body(true);
        world.advance(ms(10));
        end(&mut stream, &Ending::good());
        pass(world, &[plugin], ms(50));
    };
    let mut attempt = upstream.map(|upstream| world.attempt(upstream, &quiet, &address(0)));
    attempt.iter_mut().for_each(|attempt| _ = attempt.request_headers_of(false));
    match upload {
        Upload::Open => {}
        Upload::EndsWithTheBody => quiet.request_body(true),
        Upload::EndsWithTrailers => {
            quiet.request_body(false);
            quiet.request_trailers();
        }
    }
    pass(world, &[plugin], ms(5_000));
    together(world, plugin).get(&address(0)).copied().unwrap_or(0)
}

fn silence_counts_from_the_end_of_the_upload<W: World>(_: W) {
    let followers = |upgrade, upload| followers(&mut W::new(4), (upgrade, false), upload);
    assert_eq!(followers(false, Upload::EndsWithTheBody), 0, "it owes answers");
    assert_eq!(followers(false, Upload::EndsWithTrailers), 0, "it owes answers");
    assert_eq!(followers(true, Upload::Open), 0, "who asks for an upgrade waits for an answer");
    let uploading = followers(false, Upload::Open);
    assert!(uploading > 0, "it waits for its clients");
}

fn silence_of_an_attempt_counts_from_the_end_of_the_upload<W: World>(_: W) {
    let followers = |upgrade| followers(&mut W::new(4), (upgrade, true), Upload::Open);
    assert_eq!(followers(true), 0, "who asks for an upgrade waits for an answer");
    assert!(followers(false) > 0, "it waits for its clients");
}

fn upload_that_the_client_cancels_is_no_failure(mut world: impl World) {
    let plugin = equals(&mut world);
    for _ in 0..10 {
        let mut stream = begin_upload(&mut world, plugin);
        if target(&stream) == address(0) {
            world.advance(ms(20_000));
        } else {
            stream.request_body(true);
            world.advance(ms(10));
            respond(&mut stream, &Ending::good());
        }
        stream.log();
        stream.done();
    }
    let counts = together(&mut world, plugin);
    assert!(counts.len() == 2 && counts.values().all(|count| *count >= 2), "{counts:?}");
}

/// A 401 of an authorisation filter, a redirect, a page from a cache: no endpoint was asked, so none was fast.
fn answers_of_other_filters_are_no_latency(mut world: impl World) {
    for status in ["200", "302", "401"] {
        let plugin = single(&mut world, &config(2, BY_LATENCY, ""));
        let mut counts = BTreeMap::<String, usize>::new();
        for _ in 0..60 {
            let mut stream = begin(&mut world, plugin);
            let to = target(&stream);
            // Requests steered to one of the two are answered by a filter, at once.
            let here = to == address(0);
            world.advance(ms(if here { 0 } else { 10 }));
            let served_by = if here { String::new() } else { to.clone() };
            end(&mut stream, &Ending { served_by: Some(served_by), ..Ending::status(status) });
            *counts.entry(to).or_default() += 1;
        }
        assert!(counts.get(&address(1)).is_some_and(|count| *count >= 15), "{status}: {counts:?}");
    }
}

/// A stream that flows for hours counts as good: an ejected endpoint returns while the stream is still open.
fn an_open_stream_counts_as_good_once_it_flows(mut world: impl World) {
    let plugin = single(&mut world, &config(2, r#""policy":"round_robin""#, ""));
    crate::scene::give(&mut world, plugin, &address(0), &Ending::status("503"));
    let mut open = Vec::new();
    let mut returned = false;
    for _ in 0..200 {
        pass(&mut world, &[plugin], ms(500));
        let mut stream = begin(&mut world, plugin);
        let named = candidates(&stream);
        if named[0] == address(0) {
            stream.property(&["upstream", "address"], named[0].as_bytes());
            stream.response_headers(&[(":status", b"200"), ("content-type", b"text/event-stream")]);
            open.push(stream);
        } else {
            end(&mut stream, &Ending::good());
        }
        open.iter_mut().for_each(|stream| stream.response_body(false));
        // Probes come every few seconds; its share of the traffic comes twice a second.
        returned = open.len() > 40;
        if returned {
            break;
        }
    }
    assert!(returned, "{} streams", open.len());
    for stream in &mut open {
        stream.response_body(true);
        stream.log();
        stream.done();
    }
}

/// A tunnel has no end of its own: the side that closes its connection ends it.
fn a_tunnel_that_the_endpoint_closes_is_no_failure(mut world: impl World) {
    let patient = r#""policy":"round_robin","health":{"suspect_after":3,"fail_after":3}"#;
    for (method, mode, eligible) in
        [("CONNECT", "enforce", 2), ("POST", "enforce", 1), ("CONNECT", "observe", 2), ("POST", "observe", 1)]
    {
        let root = format!(r#"{},"mode":"{mode}""#, crate::following::STATUS);
        let plugin = single(&mut world, &config(2, patient, &root));
        for nth in 0..12 {
            let mut stream = world.stream(plugin, &[(":method", method.as_bytes()), (":authority", b"x:80")]);
            stream.property(&["xds", "cluster_name"], b"web");
            assert!(stream.request_headers_of(false));
            let to = if mode == "observe" { address(nth % 2) } else { target(&stream) };
            stream.request_body(false);
            world.advance(ms(10));
            stream.property(&["upstream", "address"], to.as_bytes());
            stream.response_headers(&[(":status", b"200")]);
            stream.response_body(false);
            if to == address(0) {
                stream.property(&["response", "code_details"], BROKEN.as_bytes());
            } else {
                stream.response_body(true);
            }
            stream.log();
            stream.done();
        }
        pass(&mut world, &[plugin], ms(500));
        let page = crate::following::page(&mut world, plugin);
        assert_eq!(page["upstreams"][0]["eligible"], eligible, "{method}, {mode}: {page}");
    }
}

/// The same stream counts as a failure if its endpoint breaks it off, however late.
fn a_long_stream_that_the_endpoint_breaks_is_a_failure(mut world: impl World) {
    let patient = r#""policy":"round_robin","health":{"suspect_after":3,"fail_after":3}"#;
    for (details, left) in [(BROKEN, 1), ("downstream_remote_disconnect", 2), ("stream_idle_timeout", 2)] {
        let plugin = single(&mut world, &config(2, patient, ""));
        let mut open = Vec::new();
        for _ in 0..8 {
            let mut stream = begin(&mut world, plugin);
            let to = target(&stream);
            if to == address(0) {
                stream.property(&["upstream", "address"], to.as_bytes());
                stream.response_headers(&[(":status", b"200"), ("content-type", b"text/event-stream")]);
                open.push(stream);
            } else {
                end(&mut stream, &Ending::good());
            }
        }
        world.advance(ms(60_000));
        // From here on it is known to flow, and counts as good until its end.
        world.tick(plugin);
        open.iter_mut().for_each(|stream| stream.response_body(false));
        for stream in &mut open {
            stream.property(&["response", "code_details"], details.as_bytes());
            stream.log();
            stream.done();
        }
        let counts = crate::scene::picks(&mut world, plugin, 20);
        assert_eq!(counts.len(), left, "{details}: {counts:?}");
    }
}

both!(
    a_slow_upload_makes_no_endpoint_look_slow,
    silence_counts_from_the_end_of_the_upload,
    silence_of_an_attempt_counts_from_the_end_of_the_upload,
    upload_that_the_client_cancels_is_no_failure,
    answers_of_other_filters_are_no_latency,
    an_open_stream_counts_as_good_once_it_flows,
    a_long_stream_that_the_endpoint_breaks_is_a_failure,
    a_tunnel_that_the_endpoint_closes_is_no_failure,
);
