//! A part of the requests is left to Envoy's own policy; if those do better, all are, in every worker.

use std::time::Duration;

use testbed::serde_json::{Value, from_slice};

use engine::rng::Rng;

use crate::scene::{Ending, address, begin, config, load, ms, respond, single, target};
use crate::world::{Plugin, Stream, World};

pub const STATUS: &str = r#""status":{"path":"/_evenkeel"}"#;
const HARM: &str = "steering was significantly worse";

pub fn crew<W: World>(world: &mut W, threads: usize, percent: f64) -> Vec<Plugin> {
    let upstream = format!(r#""policy":"round_robin","guard":{{"holdout_percent":{percent}}}"#);
    let json = config(4, &upstream, STATUS);
    (0..threads)
        .map(|_| {
            let thread = world.thread();
            load(world, thread, &json)
        })
        .collect()
}

/// A request that takes `steered` ms if it is steered and `left` ms if Envoy decides; returns whether it was steered.
pub fn serve<W: World>(world: &mut W, plugin: Plugin, (steered, left): (u64, u64)) -> bool {
    let mut stream = begin(world, plugin);
    let is_steered = !target(&stream).is_empty();
    world.advance(ms(if is_steered { steered } else { left }));
    let served_by = if is_steered { None } else { Some(address(0)) };
    respond(&mut stream, &Ending { served_by, ..Ending::good() });
    stream.log();
    stream.done();
    is_steered
}

/// A second of requests to each of `crew`, all of which tick.
fn second<W: World>(world: &mut W, crew: &[Plugin], times: (u64, u64)) {
    for _ in 0..10 {
        world.advance(ms(60));
        for plugin in crew {
            world.tick(*plugin);
            serve(world, *plugin, times);
        }
    }
}

/// How many log lines contain `text`.
fn logged<W: World>(world: &W, text: &str) -> usize {
    world.logs().iter().filter(|line| line.contains(text)).count()
}

/// How many seconds of requests pass until this many log lines contain `text`.
fn until<W: World>(world: &mut W, crew: &[Plugin], times: (u64, u64), (text, lines): (&str, usize)) -> usize {
    for seconds in 0..120 {
        if logged(world, text) >= lines {
            return seconds;
        }
        second(world, crew, times);
    }
    panic!("no {text:?}: {:#?}", world.logs());
}

fn steered<W: World>(world: &mut W, plugin: Plugin, requests: usize) -> usize {
    (0..requests).filter(|_| serve(world, plugin, (10, 10))).count()
}

/// Time without requests; only these plugins tick.
pub fn rest<W: World>(world: &mut W, plugins: &[Plugin], seconds: usize) {
    for _ in 0..seconds * 2 {
        world.advance(ms(500));
        plugins.iter().for_each(|plugin| world.tick(*plugin));
    }
}

pub fn guard_of<W: World>(world: &mut W, plugin: Plugin) -> Value {
    let headers: [(&str, &[u8]); 3] =
        [(":method", b"GET"), (":path", b"/_evenkeel/status.json"), (":authority", b"web")];
    let mut stream = world.stream(plugin, &headers);
    assert!(!stream.request_headers(), "answered here");
    let body = stream.local_body();
    stream.done();
    let status: Value = from_slice(&body).expect("JSON");
    status["upstreams"][0]["guard"].clone()
}

fn the_part_that_is_held_out_is_the_configured_one_and_no_harm_is_seen_in_it(mut world: impl World) {
    let crew = crew(&mut world, 2, 10.0);
    let mut left = 0;
    for _ in 0..1000 {
        for plugin in &crew {
            world.tick(*plugin);
            left += usize::from(!serve(&mut world, *plugin, (10, 10)));
        }
    }
    // Four standard deviations of Binomial(2000, 0.1).
    assert!(left.abs_diff(200) < 54, "{left}");
    rest(&mut world, &crew, 3);
    for plugin in crew {
        let guard = guard_of(&mut world, plugin);
        assert_eq!(guard["aside"], Value::Bool(false), "{guard}");
        let counted = guard["today"]["held_out"].as_u64().expect("counted");
        // Counts from before the leader knows a worker are lost.
        assert!(counted > 100 && counted <= left as u64, "{counted} of {left}: {guard}");
    }
}

fn harm_is_found_all_step_aside_and_try_again(mut world: impl World) {
    let crew = crew(&mut world, 3, 50.0);
    let found = until(&mut world, &crew, (40, 10), (HARM, 1));
    assert!(found < 60, "{found} s");
    rest(&mut world, &crew, 2);
    for plugin in &crew {
        assert_eq!(steered(&mut world, *plugin, 20), 0, "every worker is aside");
        let guard = guard_of(&mut world, *plugin);
        assert_eq!((&guard["aside"], guard["asides"].as_u64()), (&Value::Bool(true), Some(1)), "{guard}");
    }
    // Each worker falls silent for a while, including the holder of the lease: the next holder knows.
    for silent in &crew {
        let others: Vec<Plugin> = crew.iter().copied().filter(|plugin| plugin != silent).collect();
        rest(&mut world, &others, 8);
        for plugin in &others {
            assert_eq!(steered(&mut world, *plugin, 10), 0);
            assert_eq!(guard_of(&mut world, *plugin)["asides"].as_u64(), Some(1));
        }
    }
    rest(&mut world, &crew, 600);
    assert_eq!(logged(&world, "steering resumed"), 1);
    assert!(crew.iter().map(|plugin| steered(&mut world, *plugin, 40)).sum::<usize>() > 20);
    // Harm is still harm, and the second pause is longer.
    until(&mut world, &crew, (40, 10), (HARM, 2));
    rest(&mut world, &crew, 700);
    assert_eq!(steered(&mut world, crew[0], 20), 0, "twice as long");
}

/// As in the place of one whose VM has ended, or that has panicked in the native module.
fn a_worker_that_begins_while_the_guard_is_aside_steers_nothing(mut world: impl World) {
    let first = crew(&mut world, 1, 50.0);
    until(&mut world, &first, (40, 10), (HARM, 1));
    rest(&mut world, &first, 2);
    let next = crew(&mut world, 1, 50.0);
    assert_eq!(steered(&mut world, next[0], 20), 0, "before its first tick");
}

/// A configuration with one cluster more shares nothing with the one before: its worker takes the finding over.
fn harm_that_was_found_outlives_a_new_cluster(mut world: impl World) {
    let thread = world.thread();
    let json = config(4, r#""policy":"round_robin","guard":{"holdout_percent":50}"#, STATUS);
    let old = load(&mut world, thread, &json);
    until(&mut world, &[old], (40, 10), (HARM, 1));
    rest(&mut world, &[old], 1);
    assert_eq!(steered(&mut world, old, 20), 0, "aside");
    let upstreams = json.strip_suffix("]}").expect("the upstreams come last");
    let beside = r#"{"cluster":"api","endpoints":{"static":["10.9.0.1:80"]}}"#;
    let new = load(&mut world, thread, &format!("{upstreams},{beside}]}}"));
    assert_eq!(steered(&mut world, new, 20), 0, "still aside, before its first tick");
    rest(&mut world, &[new], 3);
    assert_eq!(steered(&mut world, new, 20), 0, "still aside");
    let guard = guard_of(&mut world, new);
    assert_eq!((&guard["aside"], guard["asides"].as_u64()), (&Value::Bool(true), Some(1)), "{guard}");
}

/// The only key of the plugin with this name that ends like this.
fn key_of(world: &impl World, plugin: &str, end: &str) -> String {
    let (plugin, mut keys) = (format!("/{plugin}/"), world.shared_keys());
    keys.retain(|key| key.contains(&plugin) && key.ends_with(end));
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys.remove(0)
}

/// A leader stands still between renewing its lease and writing what it has found, until another worker has taken the
/// lease. Its finding is that of another plugin here.
fn what_the_leader_before_found_last_is_not_lost(mut world: impl World) {
    let thread = world.thread();
    let json = config(4, r#""policy":"round_robin","guard":{"holdout_percent":50}"#, STATUS);
    let another = world.configure(thread, "another", &json).expect("accepted");
    until(&mut world, &[another], (40, 10), (HARM, 1));
    let harm = world.shared(&key_of(&world, "another", "/guards"));
    let crew = crew(&mut world, 2, 50.0);
    (0..3).for_each(|_| second(&mut world, &crew, (10, 10)));
    let (lease, guards) = (key_of(&world, "evenkeel", "/lease"), key_of(&world, "evenkeel", "/guards"));
    let before = world.shared(&lease);
    rest(&mut world, &crew[..1], 2);
    assert_ne!(world.shared(&lease), before, "the first one leads, and renews its lease");
    let before = world.shared(&lease);
    for _ in 0..100 {
        world.advance(ms(50));
        world.tick(crew[1]);
        if world.shared(&lease) != before {
            break;
        }
    }
    assert_ne!(world.shared(&lease), before, "the second one has taken the lease");
    assert!(steered(&mut world, crew[1], 20) > 0, "no harm so far");
    world.set_shared(&guards, &harm);
    rest(&mut world, &crew[1..], 2);
    assert_eq!(steered(&mut world, crew[1], 20), 0, "aside");
}

/// The number of requests that have been judged, as this worker shows it.
pub fn judged<W: World>(world: &mut W, plugin: Plugin) -> u64 {
    let today = guard_of(world, plugin)["today"].clone();
    ["steered", "held_out"].iter().map(|arm| today[*arm].as_u64().expect("counted")).sum()
}

/// Workers fall silent and come back, each time long enough for the lease to move, and to come back to one that has held
/// it before. What is counted while it moves may be lost to the comparison, but nothing counts twice.
fn no_request_is_judged_twice_however_the_lease_moves<W: World>(_: W) {
    for seed in 0..6 {
        let mut world = W::new(seed);
        let mut rng = Rng::new(seed);
        let crew = crew(&mut world, 2 + rng.below(2) as usize, 40.0);
        (0..6).for_each(|_| second(&mut world, &crew, (10, 10)));
        rest(&mut world, &crew, 4);
        let before = judged(&mut world, crew[0]);
        let mut served = 0;
        for round in 0..6 {
            // In turn, so that the one that led comes back.
            let awake = crew[(round + seed as usize) % crew.len()];
            let seconds = 8 + rng.below(6) as usize;
            (0..seconds).for_each(|_| second(&mut world, &[awake], (10, 10)));
            served += 10 * seconds as u64;
        }
        rest(&mut world, &crew, 8);
        let shown: Vec<u64> = crew.iter().map(|plugin| judged(&mut world, *plugin)).collect();
        assert!(shown.iter().all(|of| *of == shown[0]), "seed {seed}: {shown:?}");
        let judged = shown[0] - before;
        assert!((served / 3..=served).contains(&judged), "seed {seed}: {judged} of {served}");
    }
}

fn failures_that_steering_adds_are_harm(mut world: impl World) {
    let plugin = single(
        &mut world,
        &config(4, r#""guard":{"holdout_percent":50},"failover":{"none_eligible":"reject"}"#, ""),
    );
    for _ in 0..400 {
        world.advance(ms(100));
        world.tick(plugin);
        let mut stream =
            world.stream(plugin, &[(":method", b"GET"), (":path", b"/"), (":authority", b"web")]);
        stream.property(&["xds", "cluster_name"], b"web");
        let goes_on = stream.request_headers();
        if goes_on {
            let steered = !target(&stream).is_empty();
            world.advance(ms(10));
            let served_by = if steered { None } else { Some(String::new()) };
            let ending = if steered { Ending::local("503", "response_timeout") } else { Ending::good() };
            respond(&mut stream, &Ending { served_by, ..ending });
        }
        stream.log();
        stream.done();
        if logged(&world, HARM) > 0 {
            return;
        }
    }
    panic!("{:#?}", world.logs());
}

fn endpoints_that_no_client_waits_for_are_harm(mut world: impl World) {
    let plugin = single(&mut world, &config(4, r#""policy":"random","guard":{"holdout_percent":50}"#, ""));
    for _ in 0..400 {
        world.advance(ms(60));
        world.tick(plugin);
        let mut stream = begin(&mut world, plugin);
        let steered = !target(&stream).is_empty();
        world.advance(ms(if steered { 100 } else { 10 }));
        let ending = if steered { Ending::cancelled() } else { Ending::good() };
        respond(&mut stream, &Ending { served_by: Some(address(0)), ..ending });
        stream.log();
        stream.done();
        if logged(&world, HARM) > 0 {
            return;
        }
    }
    panic!("{:#?}", world.logs());
}

fn what_is_only_observed_is_not_held_out(mut world: impl World) {
    let plugin = single(
        &mut world,
        &config(2, r#""guard":{"holdout_percent":50}"#, r#""mode":"observe","status":{"path":"/_evenkeel"}"#),
    );
    (0..40).for_each(|_| _ = serve(&mut world, plugin, (10, 10)));
    assert_eq!(guard_of(&mut world, plugin), Value::Null);
}

fn a_key_stays_on_its_endpoint_and_the_rest_is_drawn(mut world: impl World) {
    let upstream =
        r#""policy":"consistent_hash","affinity":{"header":"x-user"},"guard":{"holdout_percent":50}"#;
    let plugin = single(&mut world, &config(4, upstream, STATUS));
    let mut left = [0, 0];
    for n in 0..400usize {
        world.advance(ms(20));
        world.tick(plugin);
        let mut headers: Vec<(&str, &[u8])> =
            vec![(":method", b"GET"), (":path", b"/"), (":authority", b"web")];
        let keyed = n % 2 == 0;
        headers.extend(keyed.then_some(("x-user", b"client-7".as_slice())));
        let mut stream = world.stream(plugin, &headers);
        stream.property(&["xds", "cluster_name"], b"web");
        assert!(stream.request_headers());
        left[usize::from(keyed)] += usize::from(target(&stream).is_empty());
        respond(&mut stream, &Ending { served_by: Some(address(0)), ..Ending::good() });
        stream.log();
        stream.done();
    }
    // Four standard deviations of Binomial(200, 0.5).
    assert!(left[0].abs_diff(100) < 29 && left[1] == 0, "{left:?}");
    rest(&mut world, &[plugin], 3);
    let today = guard_of(&mut world, plugin)["today"].clone();
    let counted = |arm: &str| today[arm].as_u64().expect("counted");
    assert!(counted("held_out") <= left[0] as u64 && counted("steered") <= 200 - left[0] as u64, "{today}");
}

/// Both arms are judged alike, whether the endpoint that answers is known or not.
fn failure_in_the_body_counts_in_both_arms(mut world: impl World) {
    let plugin = single(&mut world, &config(2, r#""guard":{"holdout_percent":50}"#, STATUS));
    let headers: [(&str, &[u8]); 3] = [(":method", b"POST"), (":path", b"/"), (":authority", b"web")];
    let web = b"application/grpc-web+proto".as_slice();
    let mut left = 0;
    for _ in 0..100 {
        world.advance(ms(60));
        world.tick(plugin);
        let mut stream = world.stream(plugin, &headers);
        stream.property(&["xds", "cluster_name"], b"web");
        assert!(stream.request_headers_of(false));
        stream.request_body(true);
        let steered = target(&stream);
        left += u64::from(steered.is_empty());
        let by = if steered.is_empty() { "10.9.9.9:80" } else { &steered };
        stream.property(&["upstream", "address"], by.as_bytes());
        stream.property(&["response", "code_details"], b"via_upstream");
        stream.response_headers(&[(":status", b"200"), ("content-type", web)]);
        stream.response_part(b"\x80\x00\x00\x00\x10grpc-status:14\r\n", true);
        stream.log();
        stream.done();
    }
    rest(&mut world, &[plugin], 3);
    let guard = guard_of(&mut world, plugin);
    let today = &guard["today"];
    assert_eq!(today["failures"]["held_out"], today["held_out"], "{guard}");
    assert_eq!(today["failures"]["steered"], today["steered"], "{guard}");
    assert!(today["held_out"].as_u64().is_some_and(|counted| counted > 10 && counted <= left), "{guard}");
}

/// What ends is no response, but another protocol or a tunnel.
fn what_has_no_end_of_its_own_is_no_failure(mut world: impl World) {
    for (method, status) in [("GET", "101"), ("CONNECT", "200")] {
        let plugin = single(&mut world, &config(2, r#""guard":{"holdout_percent":50}"#, STATUS));
        for _ in 0..100 {
            world.advance(ms(60));
            world.tick(plugin);
            let mut stream = world.stream(plugin, &[(":method", method.as_bytes()), (":authority", b"web")]);
            stream.property(&["xds", "cluster_name"], b"web");
            assert!(stream.request_headers_of(false));
            let steered = target(&stream);
            let by = if steered.is_empty() { address(0) } else { steered };
            stream.property(&["upstream", "address"], by.as_bytes());
            stream.response_headers(&[(":status", status.as_bytes())]);
            stream.response_body(false);
            stream.property(
                &["response", "code_details"],
                b"upstream_reset_after_response_started{connection_termination}",
            );
            stream.log();
            stream.done();
        }
        rest(&mut world, &[plugin], 3);
        let guard = guard_of(&mut world, plugin);
        let failures = &guard["today"]["failures"];
        assert_eq!(
            (&failures["held_out"], &failures["steered"]),
            (&0.into(), &0.into()),
            "{method}: {guard}"
        );
        assert!(guard["today"]["held_out"].as_u64().is_some_and(|counted| counted > 10), "{guard}");
    }
}

fn day_is_logged_when_it_ends(mut world: impl World) {
    let crew = crew(&mut world, 2, 50.0);
    (0..40).for_each(|_| second(&mut world, &crew, (10, 20)));
    // All are counted on this day.
    rest(&mut world, &crew, 3);
    assert_eq!(logged(&world, "summary of the day"), 0);
    world.advance(Duration::from_secs(86_400));
    rest(&mut world, &crew, 5);
    let lines: Vec<String> =
        world.logs().into_iter().filter(|line| line.contains("summary of the day")).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = &lines[0];
    for part in
        ["guard: cluster=web", "p50 \u{2212}", " % (95 %: \u{2212}", "no failures today", "left to Envoy"]
    {
        assert!(line.contains(part), "{part}: {line}");
    }
    world.advance(Duration::from_secs(86_400));
    rest(&mut world, &crew, 5);
    assert_eq!(logged(&world, "summary of the day"), 1, "of a day without requests there is nothing to say");
}

fn hostile_counts_and_conclusions_stop_nothing(mut world: impl World) {
    let crew = crew(&mut world, 2, 10.0);
    for damage in 0..40usize {
        second(&mut world, &crew, (10, 10));
        for key in
            world.shared_keys().into_iter().filter(|key| key.contains("/arms/") || key.ends_with("/guards"))
        {
            let mut bytes = world.shared(&key);
            let length = bytes.len().max(1);
            match damage % 4 {
                0 => bytes.truncate(damage * 31 % length),
                1 => bytes.extend([0xff; 40]),
                _ => {
                    let at = 1 + damage * 37 % length;
                    bytes
                        .iter_mut()
                        .skip(at)
                        .take(8)
                        .for_each(|byte| *byte = if damage % 2 == 0 { 0xff } else { 0x7f });
                }
            }
            world.set_shared(&key, &bytes);
        }
        rest(&mut world, &crew, 1);
    }
    rest(&mut world, &crew, 60);
    let all = crew.iter().map(|plugin| steered(&mut world, *plugin, 20)).sum::<usize>();
    let aside =
        crew.iter().filter(|plugin| guard_of(&mut world, **plugin)["aside"] == Value::Bool(true)).count();
    assert!(all > 20 || aside == 2, "{all} {aside}");
}

both!(
    the_part_that_is_held_out_is_the_configured_one_and_no_harm_is_seen_in_it,
    harm_is_found_all_step_aside_and_try_again,
    a_worker_that_begins_while_the_guard_is_aside_steers_nothing,
    harm_that_was_found_outlives_a_new_cluster,
    what_the_leader_before_found_last_is_not_lost,
    no_request_is_judged_twice_however_the_lease_moves,
    failures_that_steering_adds_are_harm,
    endpoints_that_no_client_waits_for_are_harm,
    what_is_only_observed_is_not_held_out,
    a_key_stays_on_its_endpoint_and_the_rest_is_drawn,
    failure_in_the_body_counts_in_both_arms,
    what_has_no_end_of_its_own_is_no_failure,
    day_is_logged_when_it_ends,
    hostile_counts_and_conclusions_stop_nothing,
);
