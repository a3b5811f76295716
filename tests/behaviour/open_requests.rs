//! Requests that their clients have not ended: long uploads, and streams in both directions.

use crate::scene::{Ending, address, config, ms, pass, respond, single, target};
use crate::world::{Plugin, Stream, World};
use std::collections::BTreeMap;

/// Begins a request with a body, whose first part has arrived.
fn open<W: World>(world: &mut W, plugin: Plugin) -> W::Stream {
    let headers: &[(&str, &[u8])] = &[
        (":method", b"POST"),
        (":path", b"/chat"),
        (":authority", b"web"),
        ("content-type", b"application/grpc"),
    ];
    let mut stream = world.stream(plugin, headers);
    stream.property(&["xds", "cluster_name"], b"web");
    assert!(stream.request_headers_of(false));
    stream.request_body(false);
    stream
}

/// Streams that begin twice a second for `seconds`. Those at endpoints for which `answers` is true are answered and
/// closed, the others stay open. Returns how many each endpoint got.
fn streams<W: World>(
    world: &mut W,
    plugin: Plugin,
    seconds: u64,
    (kept, answers): (&mut Vec<W::Stream>, impl Fn(&str) -> bool),
) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..2 * seconds {
        let mut stream = open(world, plugin);
        let to = target(&stream);
        world.advance(ms(10));
        if answers(&to) {
            respond(&mut stream, &Ending::good());
            stream.log();
            stream.done();
        } else {
            kept.push(stream);
        }
        *counts.entry(to).or_default() += 1;
        pass(world, &[plugin], ms(490));
    }
    counts
}

/// All policies but those that hash, which keep a key on its endpoint as long as possible.
const POLICIES: [&str; 4] = ["round_robin", "least_request", "random", "adaptive"];

fn endpoint_with_unanswered_streams_is_avoided(mut world: impl World) {
    for policy in POLICIES {
        let plugin = single(&mut world, &config(4, &format!(r#""policy":"{policy}""#), ""));
        let mut kept = Vec::new();
        let hung = |to: &str| to != address(1);
        streams(&mut world, plugin, 30, (&mut kept, hung));
        let later = streams(&mut world, plugin, 30, (&mut kept, hung));
        let got = later.get(&address(1)).copied().unwrap_or(0);
        // A probe every five seconds, at growing intervals; a fair share would be 15.
        assert!(got <= 6, "{policy}: {later:?}");
        // Clients that wait in vain cancel, which makes it no better; when it answers again it is back.
        for stream in &mut kept {
            stream.log();
            stream.done();
        }
        kept.clear();
        let gone = streams(&mut world, plugin, 10, (&mut kept, hung));
        assert!(gone.get(&address(1)).copied().unwrap_or(0) <= 3, "{policy}: {gone:?}");
        for stream in &mut kept {
            stream.log();
            stream.done();
        }
        let healed = streams(&mut world, plugin, 40, (&mut kept, |_| true));
        let last = streams(&mut world, plugin, 10, (&mut kept, |_| true));
        assert!(last.get(&address(1)).is_some_and(|got| *got >= 2), "{policy}: {healed:?}, {last:?}");
    }
}

fn slow_clients_eject_no_endpoint(mut world: impl World) {
    let plugin = single(&mut world, &config(4, r#""policy":"round_robin""#, ""));
    // Twelve uploads, a part every two seconds; nothing is answered for five minutes.
    let mut uploads: Vec<_> = (0..12).map(|_| open(&mut world, plugin)).collect();
    let mut counts = BTreeMap::<String, usize>::new();
    for step in 0..150 {
        pass(&mut world, &[plugin], ms(2_000));
        uploads.iter_mut().for_each(|upload| upload.request_body(false));
        if step % 10 == 0 {
            let stream = open(&mut world, plugin);
            *counts.entry(target(&stream)).or_default() += 1;
            uploads.push(stream);
        }
    }
    assert!(counts.len() == 4 && counts.values().all(|count| *count >= 3), "{counts:?}");
}

fn streams_that_are_quiet_everywhere_eject_no_endpoint(mut world: impl World) {
    let plugin = single(&mut world, &config(4, r#""policy":"round_robin""#, ""));
    // Watches, which are only answered when there is an event: four each.
    let mut watches: Vec<_> = (0..16).map(|_| open(&mut world, plugin)).collect();
    pass(&mut world, &[plugin], ms(60_000));
    let mut counts = BTreeMap::<String, usize>::new();
    for _ in 0..8 {
        let watch = open(&mut world, plugin);
        *counts.entry(target(&watch)).or_default() += 1;
        watches.push(watch);
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [2; 4]);
}

fn quiet_stream_beside_quick_answers_ejects_no_endpoint(mut world: impl World) {
    let plugin = single(&mut world, &config(4, r#""policy":"round_robin""#, ""));
    // Five watches at one endpoint; every endpoint answers its other requests.
    let mut watches = Vec::new();
    while watches.len() < 5 {
        let mut stream = open(&mut world, plugin);
        if target(&stream) == address(2) {
            watches.push(stream);
        } else {
            respond(&mut stream, &Ending::good());
            stream.log();
            stream.done();
        }
    }
    let counts = streams(&mut world, plugin, 60, (&mut watches, |_| true));
    assert!(counts.values().all(|count| *count == 30), "{counts:?}");
}

both!(
    endpoint_with_unanswered_streams_is_avoided,
    slow_clients_eject_no_endpoint,
    streams_that_are_quiet_everywhere_eject_no_endpoint,
    quiet_stream_beside_quick_answers_ejects_no_endpoint,
);
