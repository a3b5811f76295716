//! A slow endpoint gets few requests, and is found again once it is fast.

use std::collections::BTreeMap;

use crate::scene::{Ending, address, begin, begin_call, config, ms, respond, single, target, traffic};
use crate::world::{Plugin, Stream, World};

/// Requests in flight, each with the time of its response.
type Open<W> = Vec<(u64, <W as World>::Stream)>;

/// A hundred requests per second for `seconds`, each answered after the `latency` (ms) of its endpoint; those that take
/// longer are left in `open`.
fn sent<W: World>(
    world: &mut W,
    plugin: Plugin,
    seconds: usize,
    open: &mut Open<W>,
    latency: impl Fn(&str) -> u64,
) -> BTreeMap<String, usize> {
    sent_and_ended(world, plugin, seconds, open, |to| (latency(to), Ending::good()))
}

/// The same, with the latency and the ending of each endpoint's responses.
fn sent_and_ended<W: World>(
    world: &mut W,
    plugin: Plugin,
    seconds: usize,
    open: &mut Open<W>,
    of: impl Fn(&str) -> (u64, Ending),
) -> BTreeMap<String, usize> {
    begun_and_ended(world, plugin, begin, seconds, open, of)
}

/// The same, with how a request begins.
fn begun_and_ended<W: World>(
    world: &mut W,
    plugin: Plugin,
    begin: fn(&mut W, Plugin) -> W::Stream,
    seconds: usize,
    open: &mut Open<W>,
    of: impl Fn(&str) -> (u64, Ending),
) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for step in 0..seconds * 100 {
        world.advance(ms(10));
        let now = world.now();
        let (due, later): (Vec<_>, Vec<_>) =
            core::mem::take(open).into_iter().partition(|(end, _)| *end <= now);
        *open = later;
        for (_, stream) in due {
            let (_, ending) = of(&target(&stream));
            answer(stream, &ending);
        }
        if step % 5 == 0 {
            world.tick(plugin);
        }
        let stream = begin(world, plugin);
        let to = target(&stream);
        open.push((now + of(&to).0 * 1_000_000, stream));
        *counts.entry(to).or_default() += 1;
    }
    counts
}

fn answer(mut stream: impl Stream, ending: &Ending) {
    respond(&mut stream, ending);
    stream.log();
    stream.done();
}

/// The same, with all requests answered at the end.
fn paced<W: World>(
    world: &mut W,
    plugin: Plugin,
    seconds: usize,
    latency: impl Fn(&str) -> u64,
) -> BTreeMap<String, usize> {
    let mut open = Vec::new();
    let counts = sent(world, plugin, seconds, &mut open, latency);
    for (_, stream) in open {
        world.advance(ms(1));
        answer(stream, &Ending::good());
    }
    counts
}

fn a_slow_endpoint_gets_little_and_comes_back_when_it_heals(mut world: impl World) {
    let plugin = single(&mut world, &config(6, "", ""));
    let slow = address(4);
    let counts = paced(&mut world, plugin, 20, |to| if to == slow { 400 } else { 20 });
    let given = counts.get(&slow).copied().unwrap_or(0);
    assert!((1..=60).contains(&given), "tried, and mostly spared: {counts:?}");
    paced(&mut world, plugin, 40, |_| 20);
    let counts = paced(&mut world, plugin, 10, |_| 20);
    assert!(counts.get(&slow).copied().unwrap_or(0) >= 80, "a sixth would be 167: {counts:?}");
}

fn an_endpoint_that_hangs_is_left_before_any_time_out(mut world: impl World) {
    let plugin = single(&mut world, &config(6, "", ""));
    let hung = address(1);
    paced(&mut world, plugin, 5, |_| 20);
    let counts = paced(&mut world, plugin, 5, |to| if to == hung { 60_000 } else { 20 });
    assert!(counts.get(&hung).copied().unwrap_or(0) <= 12, "{counts:?}");
}

/// 17 requests per second for each endpoint: three of them wait after a fifth of a second, and for as long as it takes.
fn whatever_the_policy_a_hung_endpoint_is_out_until_it_answers<W: World>(_: W) {
    for policy in ["round_robin", "weighted_round_robin", "random", "least_request"] {
        let mut world = W::new(5);
        let plugin = single(&mut world, &config(6, &format!(r#""policy":"{policy}""#), ""));
        let hung = address(1);
        let given = |counts: &BTreeMap<String, usize>| counts.get(&hung).copied().unwrap_or(0);
        paced(&mut world, plugin, 5, |_| 20);
        let counts = paced(&mut world, plugin, 5, |to| if to == hung { 60_000 } else { 20 });
        assert!(given(&counts) <= 15, "{policy}: {counts:?}");
        // The open requests have been answered.
        let counts = paced(&mut world, plugin, 20, |_| 20);
        assert!(given(&counts) >= 200, "{policy}, a sixth would be 333: {counts:?}");
    }
}

/// Nothing times out and no client cancels: only a probe can show that it answers again.
fn a_hung_endpoint_is_looked_at_until_it_answers<W: World>(_: W) {
    for policy in ["round_robin", "random"] {
        let mut world = W::new(5);
        let plugin = single(&mut world, &config(6, &format!(r#""policy":"{policy}""#), ""));
        let hung = address(1);
        let mut open = Vec::new();
        sent(&mut world, plugin, 5, &mut open, |_| 20);
        let counts = sent(&mut world, plugin, 30, &mut open, |to| if to == hung { 3_600_000 } else { 20 });
        let given = counts.get(&hung).copied().unwrap_or(0);
        assert!((8..=22).contains(&given), "{policy}, looked at every five seconds: {counts:?}");
        let counts = sent(&mut world, plugin, 20, &mut open, |_| 20);
        let given = counts.get(&hung).copied().unwrap_or(0);
        assert!(given >= 200, "{policy}, a sixth would be 333: {counts:?}");
    }
}

fn answers_that_are_late_by_nature_do_not_make_an_endpoint_hung<W: World>(mut world: W) {
    let plugin = single(&mut world, &config(6, r#""policy":"round_robin""#, ""));
    let mut open = Vec::new();
    sent(&mut world, plugin, 5, &mut open, |_| 20);
    // Three streams at each of four endpoints, whose headers come after an hour.
    for nth in 0..24 {
        let stream = begin(&mut world, plugin);
        let quick = [address(4), address(5)].contains(&target(&stream));
        let latency_ms = if quick { 20 } else { 3_600_000 };
        open.push((world.now() + latency_ms * 1_000_000, stream));
        world.advance(ms(if nth % 6 == 5 { 50 } else { 0 }));
    }
    for second in 0..10 {
        let counts = sent(&mut world, plugin, 1, &mut open, |_| 20);
        assert!(counts.len() == 6 && counts.values().all(|count| *count >= 12), "{second}: {counts:?}");
    }
}

fn no_endpoint_is_ejected_where_all_hang(mut world: impl World) {
    let plugin = single(&mut world, &config(6, r#""policy":"round_robin""#, ""));
    paced(&mut world, plugin, 5, |_| 20);
    let counts = paced(&mut world, plugin, 5, |_| 60_000);
    assert!(counts.values().all(|count| (80..=86).contains(count)), "{counts:?}");
}

fn a_majority_that_was_slow_is_found_again(mut world: impl World) {
    let plugin = single(&mut world, &config(5, "", ""));
    paced(&mut world, plugin, 10, |to| if to == address(0) { 20 } else { 3000 });
    paced(&mut world, plugin, 60, |_| 20);
    let counts = paced(&mut world, plugin, 10, |_| 20);
    assert!(
        counts.len() == 5 && counts.values().all(|count| *count >= 80),
        "a fifth would be 200: {counts:?}"
    );
}

/// A pod that lost its data or its key answers at once. What it turns down shows nothing of how quick it is.
fn an_endpoint_that_turns_everything_down_at_once_attracts_nothing<W: World>(_: W) {
    let declines: [fn() -> Ending; 6] = [
        || Ending::status("429"),
        || Ending::grpc_headers("8"),
        || Ending::status("404"),
        || Ending::status("302"),
        || Ending::status("401"),
        || Ending::grpc_headers("12"),
    ];
    for policy in ["adaptive", "peak_ewma", "weighted_score"] {
        for decline in declines {
            let mut world = W::new(5);
            let plugin = single(&mut world, &config(4, &format!(r#""policy":"{policy}""#), ""));
            let empty = address(1);
            let of = |to: &str| if to == empty { (1, decline()) } else { (25, Ending::good()) };
            let counts = sent_and_ended(&mut world, plugin, 10, &mut Vec::new(), of);
            let given = counts.get(&empty).copied().unwrap_or(0);
            assert!(given <= 480, "{policy}, a fourth would be 250: {counts:?}");
        }
    }
}

/// The same where the status follows the headers: in trailers or at the end of the body.
fn an_endpoint_that_turns_calls_down_at_their_end_attracts_nothing<W: World>(_: W) {
    let forms: [fn(&str) -> Ending; 2] = [Ending::grpc_trailers, Ending::grpc_web];
    for policy in ["adaptive", "peak_ewma", "weighted_score"] {
        for (form, status) in forms.iter().flat_map(|form| ["7", "8", "16"].map(|status| (form, status))) {
            let mut world = W::new(5);
            let plugin = single(&mut world, &config(4, &format!(r#""policy":"{policy}""#), ""));
            let locked = address(1);
            let of = |to: &str| if to == locked { (1, form(status)) } else { (25, form("0")) };
            let counts = begun_and_ended(&mut world, plugin, begin_call, 10, &mut Vec::new(), of);
            let given = counts.get(&locked).copied().unwrap_or(0);
            assert!(given <= 480, "{policy}, {status}, a fourth would be 250: {counts:?}");
        }
    }
}

/// Nor does one show anything that sends its headers at once and nothing more, until its clients leave.
fn an_endpoint_whose_calls_are_left_unfinished_attracts_nothing<W: World>(_: W) {
    let mut world = W::new(5);
    let plugin = single(&mut world, &config(4, "", ""));
    let hung = address(1);
    let mut left: Open<W> = Vec::new();
    let mut open: Open<W> = Vec::new();
    let mut given = 0;
    for step in 0..1000 {
        world.advance(ms(10));
        let now = world.now();
        let due = |(end, _): &(u64, W::Stream)| *end <= now;
        for (_, mut stream) in left.extract_if(.., |stream| due(stream)) {
            stream.property(&["response", "code_details"], b"downstream_remote_disconnect");
            stream.log();
            stream.done();
        }
        for (_, mut stream) in open.extract_if(.., |stream| due(stream)) {
            let to = target(&stream);
            if to != hung {
                answer(stream, &Ending::grpc_trailers("0"));
                continue;
            }
            stream.property(&["upstream", "address"], to.as_bytes());
            stream.property(&["response", "code_details"], b"via_upstream");
            stream.response_headers(&[(":status", b"200"), ("content-type", b"application/grpc")]);
            left.push((now + 30_000_000, stream));
        }
        if step % 5 == 0 {
            world.tick(plugin);
        }
        let stream = begin_call(&mut world, plugin);
        let to = target(&stream);
        given += usize::from(to == hung);
        open.push((now + if to == hung { 1 } else { 25 } * 1_000_000, stream));
    }
    assert!(given <= 330, "a fourth would be 250: {given}");
}

/// Quick calls that do what was asked are the reason to balance by latency.
fn an_endpoint_that_serves_calls_quickly_gets_more<W: World>(_: W) {
    let forms: [fn(&str) -> Ending; 2] = [Ending::grpc_trailers, Ending::grpc_web];
    for form in forms {
        let mut world = W::new(5);
        let plugin = single(&mut world, &config(4, "", ""));
        let quick = address(1);
        let of = |to: &str| (if to == quick { 5 } else { 100 }, form("0"));
        let counts = begun_and_ended(&mut world, plugin, begin_call, 10, &mut Vec::new(), of);
        assert!(counts.get(&quick).copied().unwrap_or(0) >= 700, "a fourth would be 250: {counts:?}");
    }
}

/// An endpoint that sends its headers at once and its body slowly; the others send both at once, later.
fn an_endpoint_with_quick_headers_and_slow_bodies_attracts_little<W: World>(_: W) {
    for policy in ["adaptive", "peak_ewma"] {
        let mut world = W::new(5);
        let plugin = single(&mut world, &config(4, &format!(r#""policy":"{policy}""#), ""));
        let slow = address(1);
        let mut flowing: Vec<(u64, W::Stream)> = Vec::new();
        let mut open: Open<W> = Vec::new();
        let mut given = 0;
        for step in 0..1000 {
            world.advance(ms(10));
            let now = world.now();
            let due = |(end, _): &(u64, W::Stream)| *end <= now;
            for (_, mut stream) in flowing.extract_if(.., |stream| due(stream)) {
                stream.response_body(true);
                stream.log();
                stream.done();
            }
            for (_, mut stream) in open.extract_if(.., |stream| due(stream)) {
                let to = target(&stream);
                stream.property(&["upstream", "address"], to.as_bytes());
                stream.property(&["response", "code_details"], b"via_upstream");
                stream.response_headers(&[(":status", b"200")]);
                let body_ms = if to == slow { 400 } else { 0 };
                flowing.push((now + body_ms * 1_000_000, stream));
            }
            if step % 5 == 0 {
                world.tick(plugin);
            }
            let stream = begin(&mut world, plugin);
            let to = target(&stream);
            given += usize::from(to == slow);
            open.push((now + if to == slow { 1 } else { 25 } * 1_000_000, stream));
        }
        assert!(given <= 330, "{policy}, a fourth would be 250: {given}");
    }
}

/// Nor does it hide that one is slow.
fn an_endpoint_that_is_slow_to_turn_down_is_spared(mut world: impl World) {
    let plugin = single(&mut world, &config(4, "", ""));
    let slow = address(1);
    let of = |to: &str| (if to == slow { 400 } else { 20 }, Ending::status("404"));
    let counts = sent_and_ended(&mut world, plugin, 20, &mut Vec::new(), of);
    assert!(counts.get(&slow).copied().unwrap_or(0) <= 60, "{counts:?}");
}

fn equals_share_alike(mut world: impl World) {
    let plugin = single(&mut world, &config(8, "", ""));
    let counts = traffic(&mut world, &[plugin], 80);
    assert!(counts.len() == 8 && counts.values().all(|count| (140..=260).contains(count)), "{counts:?}");
}

both!(
    a_slow_endpoint_gets_little_and_comes_back_when_it_heals,
    an_endpoint_that_hangs_is_left_before_any_time_out,
    whatever_the_policy_a_hung_endpoint_is_out_until_it_answers,
    a_hung_endpoint_is_looked_at_until_it_answers,
    answers_that_are_late_by_nature_do_not_make_an_endpoint_hung,
    no_endpoint_is_ejected_where_all_hang,
    a_majority_that_was_slow_is_found_again,
    an_endpoint_that_turns_everything_down_at_once_attracts_nothing,
    an_endpoint_that_turns_calls_down_at_their_end_attracts_nothing,
    an_endpoint_whose_calls_are_left_unfinished_attracts_nothing,
    an_endpoint_that_serves_calls_quickly_gets_more,
    an_endpoint_with_quick_headers_and_slow_bodies_attracts_little,
    an_endpoint_that_is_slow_to_turn_down_is_spared,
    equals_share_alike,
);
