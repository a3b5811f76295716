//! The host's clock is a wall clock: it may step forward or back by an hour.

use std::time::Duration;

use engine::rng::Rng;
use testbed::serde_json::{Value, from_slice};

use crate::lease::crew;
use crate::scene::{
    Ending, address, begin, config, give, load, ms, pass, pass_with, picks, picks_of, single, target, traffic,
};
use crate::world::{Answer, Plugin, Stream, World};

const HOUR: u64 = 3_600_000_000_000;

fn step<W: World>(world: &mut W, back: bool) {
    let now = world.now();
    world.set_now(if back { now - HOUR } else { now + HOUR });
}

fn requests_on_their_way_survive_a_step_either_way(mut world: impl World) {
    let plugin = single(&mut world, &config(4, "", ""));
    for back in [true, false] {
        let mut streams: Vec<_> = (0..20).map(|_| begin(&mut world, plugin)).collect();
        step(&mut world, back);
        world.tick(plugin);
        for stream in &mut streams {
            crate::scene::respond(stream, &Ending::good());
            stream.log();
            stream.done();
        }
        let counts = traffic(&mut world, &[plugin], 30);
        assert!(counts.len() == 4 && counts.values().all(|count| *count >= 100), "back: {back}: {counts:?}");
    }
}

/// The clock was set forward, or the process stood still: what was on its way meanwhile was not kept waiting by anyone.
fn no_endpoint_is_charged_with_a_time_that_was_lost<W: World>(_: W) {
    for (lost_s, policy) in
        [(3600, "adaptive"), (3, "adaptive"), (3600, "least_request"), (10, "round_robin")]
    {
        let mut world = W::new(lost_s);
        let plugin = single(&mut world, &config(4, &format!(r#""policy":"{policy}""#), ""));
        traffic(&mut world, &[plugin], 10);
        // Half of them, so that one half could look better than the other; each of these has several.
        let (mut kept, others): (Vec<_>, Vec<_>) = (0..40)
            .map(|_| begin(&mut world, plugin))
            .partition(|stream| [address(0), address(1)].contains(&target(stream)));
        for mut stream in others {
            crate::scene::respond(&mut stream, &Ending::good());
            stream.done();
        }
        pass(&mut world, &[plugin], ms(50));
        world.advance(Duration::from_secs(lost_s));
        // An answer comes before the tick that is overdue, and then the tick before the others.
        for (nth, stream) in kept.iter_mut().enumerate() {
            crate::scene::respond(stream, &Ending::good());
            stream.done();
            if nth == 0 {
                world.tick(plugin);
            }
        }
        let counts = traffic(&mut world, &[plugin], 10);
        assert!(
            counts.len() == 4 && counts.values().all(|count| *count >= 30),
            "{lost_s} s, {policy}: {counts:?}"
        );
    }
}

fn extreme_times_are_survived(mut world: impl World) {
    let crew = crew(&mut world, 2, "");
    for now in [0, 1, u64::MAX, u64::MAX / 2, 1_000] {
        for _ in 0..5 {
            world.set_now(now);
            crew.iter().for_each(|plugin| world.tick(*plugin));
            for call in world.calls() {
                world.answer(&call, &Answer::Failed);
            }
            for plugin in &crew {
                let mut stream = begin(&mut world, *plugin);
                assert!(!crate::scene::target(&stream).is_empty());
                crate::scene::respond(&mut stream, &Ending::status("500"));
                stream.done();
            }
        }
    }
}

fn ejected_endpoint_returns_after_a_clock_step(mut world: impl World) {
    let plugin = single(&mut world, &config(4, r#""policy":"round_robin""#, ""));
    (0..3).for_each(|_| {
        if picks_of(&mut world, plugin, &address(2), 4) > 0 {
            give(&mut world, plugin, &address(2), &Ending::local("504", "response_timeout"));
        }
    });
    step(&mut world, true);
    let mut back = 0;
    for _ in 0..120 {
        pass(&mut world, &[plugin], ms(500));
        back = picks_of(&mut world, plugin, &address(2), 40);
        if back >= 8 {
            return;
        }
    }
    panic!("a minute later it gets {back} of 40");
}

/// Eight seconds in which Prometheus reports a long queue at `loaded`.
fn report<W: World>(world: &mut W, crew: &[Plugin], loaded: usize) {
    let series = |endpoint: usize| {
        let value = if endpoint == loaded { 90 } else { 1 };
        format!(r#"{{"metric":{{"instance":"{}"}},"value":[1,"{value}"]}}"#, address(endpoint))
    };
    let series: Vec<String> = (0..4).map(series).collect();
    let answer =
        format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{}]}}}}"#, series.join(","));
    pass_with(world, crew, ms(8000), |world| {
        for call in world.calls() {
            world.answer(&call, &Answer::Http(200, answer.as_bytes()));
        }
    });
}

fn polls_and_signals_go_on_after_a_step_back(mut world: impl World) {
    let crew = crew(&mut world, 3, r#","policy":{"name":"least_signal","signal":"queue"}"#);
    report(&mut world, &crew, 0);
    assert!(picks_of(&mut world, crew[1], &address(0), 200) < 6);
    step(&mut world, true);
    report(&mut world, &crew, 3);
    for plugin in &crew {
        assert!(picks_of(&mut world, *plugin, &address(3), 200) < 6, "what is new counts");
        assert!(picks_of(&mut world, *plugin, &address(0), 200) > 20, "what is old does not");
    }
}

fn the_lease_moves_also_after_a_step_back(mut world: impl World) {
    let crew = crew(&mut world, 2, "");
    pass(&mut world, &crew, ms(2000));
    let holder = world.calls().last().expect("somebody asks").thread;
    step(&mut world, true);
    // The holder dies at the same time; its lease says that it is valid for another hour.
    let heir: Vec<_> = crew.iter().copied().filter(|plugin| plugin.0 != holder.0).collect();
    let before = world.calls().len();
    pass(&mut world, &heir, Duration::from_secs(10));
    assert!(world.calls()[before..].iter().any(|call| call.thread != holder));
}

fn a_dead_workers_requests_are_forgotten_also_after_a_step_back(mut world: impl World) {
    let json = config(2, r#""policy":"least_request""#, "");
    let crew: Vec<_> = (0..2)
        .map(|_| {
            let thread = world.thread();
            crate::scene::load(&mut world, thread, &json)
        })
        .collect();
    crew.iter().for_each(|plugin| _ = picks(&mut world, *plugin, 1));
    pass(&mut world, &crew, ms(1000));
    // Unequal on purpose: the dead worker's requests in flight would pull everything to one side.
    let held: Vec<_> = (0..40).map(|_| begin(&mut world, crew[0])).collect();
    let keep = |stream: &_| crate::scene::target(stream) == address(0);
    let (kept, given_back): (Vec<_>, Vec<_>) = held.into_iter().partition(keep);
    given_back.into_iter().for_each(|mut stream| stream.done());
    assert_eq!(kept.len(), 20);
    pass(&mut world, &crew, ms(500));
    step(&mut world, true);
    pass(&mut world, &crew[1..], ms(40_000));
    let open: Vec<_> = (0..10).map(|_| begin(&mut world, crew[1])).collect();
    assert_eq!(open.iter().filter(|stream| keep(*stream)).count(), 5);
}

/// The workers that the status page shows, and the requests that it has counted.
fn shown<W: World>(world: &mut W, plugin: Plugin) -> (u64, u64) {
    let headers: [(&str, &[u8]); 2] = [(":method", b"GET"), (":path", b"/_evenkeel/status.json")];
    let mut page = world.stream(plugin, &headers);
    assert!(!page.request_headers(), "answered here");
    let status: Value = from_slice(&page.local_body()).expect("JSON");
    page.done();
    let endpoints = status["upstreams"][0]["endpoints"].as_array().expect("endpoints");
    let requests = endpoints.iter().map(|of| of["requests"].as_u64().expect("a number")).sum();
    (status["workers"].as_u64().expect("a number"), requests)
}

/// After any step every worker looks gone to the others, and enters the registry anew. One is gone indeed.
fn the_page_counts_workers_and_requests_once_after_any_step<W: World>(_: W) {
    const STEPS_S: [i64; 8] = [-3600, -31, -10, -4, 4, 31, 95, 3600];
    for seed in 0..16 {
        let mut world = W::new(seed);
        let mut rng = Rng::new(seed);
        let json = config(3, r#""policy":"round_robin""#, r#""status":{"path":"/_evenkeel"}"#);
        let workers = 2 + rng.below(3) as usize;
        let threads: Vec<_> = (0..workers).map(|_| world.thread()).collect();
        let mut crew: Vec<_> = threads.iter().map(|thread| load(&mut world, *thread, &json)).collect();
        let mut served = 0;
        for round in 0..4 {
            for plugin in &crew {
                served += 5;
                picks(&mut world, *plugin, 5);
            }
            pass(&mut world, &crew, ms(700));
            if round == 2 && rng.below(2) == 0 {
                crew.pop();
            }
            let step_s = STEPS_S[rng.below(STEPS_S.len() as u32) as usize];
            world.set_now(world.now().saturating_add_signed(step_s * 1_000_000_000));
            // The report of a worker that is gone counts for three seconds, and as long again as a small step back takes.
            pass(&mut world, &crew, ms(8000));
            for plugin in &crew {
                let shown = shown(&mut world, *plugin);
                assert_eq!(shown, (crew.len() as u64, served), "seed {seed}, {step_s} s in round {round}");
            }
        }
    }
}

both!(
    the_page_counts_workers_and_requests_once_after_any_step,
    requests_on_their_way_survive_a_step_either_way,
    no_endpoint_is_charged_with_a_time_that_was_lost,
    extreme_times_are_survived,
    ejected_endpoint_returns_after_a_clock_step,
    polls_and_signals_go_on_after_a_step_back,
    the_lease_moves_also_after_a_step_back,
    a_dead_workers_requests_are_forgotten_also_after_a_step_back,
);
