//! What one worker learns, the others know.

use crate::scene::{Ending, address, begin, config, give, load, ms, pass, picks, picks_of, respond, target};
use crate::world::{Answer, Plugin, Stream, World};
use engine::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// Threads with the same configuration that know each other: each has carried traffic and ticked.
fn crew<W: World>(world: &mut W, threads: usize, json: &str) -> Vec<Plugin> {
    let plugins: Vec<Plugin> = (0..threads)
        .map(|_| {
            let thread = world.thread();
            load(world, thread, json)
        })
        .collect();
    plugins.iter().for_each(|plugin| _ = picks(world, *plugin, 1));
    pass(world, &plugins, ms(1000));
    plugins
}

fn a_failure_that_one_sees_all_know_after_a_tick(mut world: impl World) {
    let crew = crew(&mut world, 3, &config(4, r#""policy":"round_robin""#, ""));
    for plugin in &crew {
        assert_eq!(picks_of(&mut world, *plugin, &address(2), 40), 10, "all is well");
    }
    give(&mut world, crew[0], &address(2), &Ending::local("504", "response_timeout"));
    crew.iter().for_each(|plugin| world.tick(*plugin));
    for plugin in &crew {
        assert_eq!(picks_of(&mut world, *plugin, &address(2), 40), 0);
    }
}

/// What the second endpoint gets after each of these workers has seen one request to it end like this, at the same
/// time.
fn left_after_one_each<W: World>(world: &mut W, threads: usize, ending: &Ending) -> Vec<usize> {
    let patient = r#""policy":"round_robin","health":{"suspect_after":3,"fail_after":3}"#;
    let crew = crew(world, threads, &config(4, patient, ""));
    let streams: Vec<_> = crew
        .iter()
        .map(|plugin| {
            loop {
                let stream = begin(world, *plugin);
                if target(&stream) == address(1) {
                    break stream;
                }
            }
        })
        .collect();
    world.advance(ms(10));
    for mut stream in streams {
        crate::scene::respond(&mut stream, ending);
        stream.done();
    }
    for plugin in &crew {
        world.tick(*plugin);
    }
    crew.iter().for_each(|plugin| world.tick(*plugin));
    crew.iter().map(|plugin| picks_of(world, *plugin, &address(1), 40)).collect()
}

fn failures_that_each_sees_once_add_up(mut world: impl World) {
    assert_eq!(left_after_one_each(&mut world, 3, &Ending::status("500")), [0; 3]);
}

fn two_bad_answers_are_not_three(mut world: impl World) {
    assert_eq!(left_after_one_each(&mut world, 2, &Ending::status("500")), [10; 2]);
}

fn connections_that_break_together_are_a_crash(mut world: impl World) {
    assert_eq!(left_after_one_each(&mut world, 2, &broken()), [0; 2]);
}

fn broken() -> Ending {
    Ending::local("503", "upstream_reset_before_response_started{connection_termination}")
}

fn streams_that_break_with_one_connection_are_one_failure<W: World>(_: W) {
    for (sources, left) in [(["10.9.9.9:50001", "10.9.9.9:50002"], 0), (["10.9.9.9:50001"; 2], 10)] {
        let mut world = W::new(5);
        let patient = r#""policy":"round_robin","health":{"suspect_after":3,"fail_after":3}"#;
        let plugin = crew(&mut world, 1, &config(4, patient, ""))[0];
        let mut streams: Vec<_> = (0..8).map(|_| begin(&mut world, plugin)).collect();
        streams.retain(|stream| target(stream) == address(1));
        world.advance(ms(10));
        for (mut stream, source) in streams.into_iter().zip(sources) {
            stream.property(&["upstream", "local_address"], source.as_bytes());
            crate::scene::respond(&mut stream, &broken());
            stream.done();
        }
        world.tick(plugin);
        assert_eq!(picks_of(&mut world, plugin, &address(1), 40), left, "{sources:?}");
    }
}

fn one_sees_what_the_others_have_in_flight(mut world: impl World) {
    let crew = crew(&mut world, 2, &config(2, r#""policy":"least_request""#, ""));
    // One endpoint gets twenty long requests, all from the first thread.
    let mut held = Vec::new();
    let mut others = Vec::new();
    while held.len() < 20 {
        let stream = begin(&mut world, crew[0]);
        if target(&stream) == address(0) { held.push(stream) } else { others.push(stream) }
    }
    for mut stream in others.drain(..) {
        stream.done();
    }
    crew.iter().for_each(|plugin| world.tick(*plugin));
    for _ in 0..20 {
        let stream = begin(&mut world, crew[1]);
        assert_eq!(target(&stream), address(1));
        others.push(stream);
    }
}

/// How an endpoint fails that is ejected for it.
fn failure(rng: &mut Rng) -> Ending {
    match rng.below(4) {
        0 => Ending::status("503"),
        1 => Ending::local("503", "upstream_reset_before_response_started{connection_failure}"),
        2 => Ending::local("504", "response_timeout"),
        _ => Ending::grpc_headers("14"),
    }
}

const NO_SERIES: &[u8] = br#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;

/// Some workers of which one alone has seen an endpoint fail and has ejected it, without a tick since. Returns all, the
/// one that knows, and the endpoint. They poll, and have seen that there was news of that: until there has been any,
/// workers look at every tick.
fn one_knows<W: World>(world: &mut W, rng: &mut Rng) -> (Vec<Plugin>, Plugin, String) {
    let health = r#""health":{"ejection":"300s"}"#;
    let policy = ["round_robin", "least_request", "adaptive", "random"][rng.below(4) as usize];
    let upstream = format!(r#""policy":"{policy}","signals":[{{"name":"queue","query":"queue"}}],{health}"#);
    let polled = r#""prometheus":{"cluster":"prometheus","interval":"60s"}"#;
    world.add_cluster("prometheus");
    let json = config(3 + rng.below(4) as usize, &upstream, polled);
    let crew = crew(world, 2 + rng.below(3) as usize, &json);
    let asked = world.calls();
    assert_eq!(asked.len(), 1, "polled once so far");
    world.answer(&asked[0], &Answer::Http(200, NO_SERIES));
    pass(world, &crew, ms(500));
    let knows = crew[rng.below(crew.len() as u32) as usize];
    let failing = address(rng.below(3) as usize);
    let (ending, mut open, mut met) = (failure(rng), Vec::new(), 0);
    while met < 5 {
        open.push(begin(world, knows));
        met += usize::from(open.last().is_some_and(|stream| target(stream) == failing));
    }
    world.advance(ms(10));
    for mut stream in open {
        let failed = target(&stream) == failing;
        let good = Ending::good();
        respond(&mut stream, if failed { &ending } else { &good });
        stream.log();
        stream.done();
    }
    assert_eq!(picks_of(world, knows, &failing, 60), 0, "ejected");
    (crew, knows, failing)
}

/// How many requests each worker but one gives to an endpoint.
fn others_picks<W: World>(world: &mut W, crew: &[Plugin], but: Plugin, endpoint: &str, each: usize) -> usize {
    let others = crew.iter().filter(|plugin| **plugin != but);
    others.map(|plugin| picks_of(world, *plugin, endpoint, each)).sum()
}

/// The others look at their next tick, though they had no request since their last and the time to look has not come.
fn what_one_has_found_the_next_tick_of_another_heeds<W: World>(_: W) {
    for seed in 0..12 {
        let mut world = W::new(seed);
        let mut rng = Rng::new(seed);
        let (crew, knows, failing) = one_knows(&mut world, &mut rng);
        let others = || crew.iter().filter(|plugin| **plugin != knows);
        // They have just been at work when it publishes.
        others().for_each(|plugin| world.tick(*plugin));
        world.advance(ms(1));
        world.tick(knows);
        world.advance(ms(1));
        others().for_each(|plugin| world.tick(*plugin));
        assert_eq!(others_picks(&mut world, &crew, knows, &failing, 40), 0, "seed {seed}");
    }
}

/// Half seconds of the others with ten requests each, in which this worker ticks as seldom as one at rest does; returns how
/// many of these requests got to the endpoint.
fn beside_a_silent_one<W: World>(world: &mut W, crew: &[Plugin], silent: Plugin, endpoint: &str) -> usize {
    let others: Vec<Plugin> = crew.iter().copied().filter(|plugin| *plugin != silent).collect();
    let mut next_tick = world.now();
    let mut got = 0;
    for _ in 0..60 {
        for plugin in &others {
            if world.now() >= next_tick {
                world.tick(silent);
                next_tick = world.now() + ms(2000).as_nanos() as u64;
            }
            pass(world, &others, ms(500) / others.len() as u32);
            got += picks_of(world, *plugin, endpoint, 10);
        }
    }
    got
}

fn what_a_silent_worker_knows_counts_for_as_long_as_it_lives<W: World>(_: W) {
    for seed in 0..12 {
        let mut world = W::new(seed);
        let mut rng = Rng::new(seed);
        let (crew, knows, failing) = one_knows(&mut world, &mut rng);
        pass(&mut world, &crew, ms(300));
        let got = beside_a_silent_one(&mut world, &crew, knows, &failing);
        assert_eq!(got, 0, "seed {seed}");
    }
}

fn what_a_silent_worker_has_in_flight_counts_for_as_long_as_it_lives(mut world: impl World) {
    let crew = crew(&mut world, 3, &config(2, r#""policy":"least_request""#, ""));
    let mut held: Vec<_> = (0..60).map(|_| begin(&mut world, crew[0])).collect();
    for stream in held.iter_mut() {
        world.advance(ms(1));
        if target(stream) == address(1) {
            respond(stream, &Ending::good());
            stream.done();
        } else {
            // The body goes on for long.
            stream.response_headers(&[(":status", b"200")]);
        }
    }
    assert_eq!(beside_a_silent_one(&mut world, &crew, crew[0], &address(0)), 0);
}

fn a_worker_that_is_gone_is_forgotten(mut world: impl World) {
    let crew = crew(&mut world, 2, &config(2, r#""policy":"least_request""#, ""));
    let held: Vec<_> = (0..40).map(|_| begin(&mut world, crew[0])).collect();
    let busy: Vec<_> = held.iter().filter(|stream| target(*stream) == address(0)).collect();
    assert_eq!(busy.len(), 20);
    let mut open: Vec<_> = (0..10).map(|_| begin(&mut world, crew[1])).collect();
    // The first thread dies with its requests in flight.
    pass(&mut world, &crew[1..], ms(10_000));
    open.extend((0..30).map(|_| begin(&mut world, crew[1])));
    let first = open.iter().filter(|stream| target(*stream) == address(0)).count();
    assert_eq!((open.len(), first), (40, 20), "only its own requests count");
}

fn verifying_a_suspect_is_shared_work(mut world: impl World) {
    let crew = crew(&mut world, 4, &config(8, r#""policy":"round_robin""#, ""));
    let failing = address(5);
    give(&mut world, crew[0], &failing, &Ending::local("504", "response_timeout"));
    let mut probes = 0;
    for _ in 0..1200 {
        world.advance(ms(50));
        for plugin in &crew {
            world.tick(*plugin);
            let ending = |to: &str| if to == failing { Ending::status("503") } else { Ending::good() };
            probes += usize::from(crate::scene::serve(&mut world, *plugin, ending) == failing);
        }
    }
    // A minute and four workers: once a second while it is suspect, then at growing intervals.
    assert!((3..=40).contains(&probes), "{probes}");
}

fn workers_choose_different_endpoints_between_two_ticks(mut world: impl World) {
    let crew = crew(&mut world, 4, &config(80, "", ""));
    let mut met = 0;
    for _ in 0..5 {
        crate::scene::traffic(&mut world, &crew, 5);
        let held: Vec<_> =
            (0..8).flat_map(|_| crew.clone()).map(|plugin| begin(&mut world, plugin)).collect();
        let chosen: BTreeSet<String> = held.iter().map(target).collect();
        met += held.len() - chosen.len();
        held.into_iter().for_each(|mut stream| {
            crate::scene::respond(&mut stream, &Ending::good());
            stream.done();
        });
    }
    // Of 32 requests at once to 80 endpoints, five would meet one of another worker's each time if these chose at
    // random what looks free, 25 in all, with a standard deviation of 4.
    assert!(met <= 10, "{met}");
}

fn endpoints_get_equal_parts_of_workers_with_unequal_traffic(mut world: impl World) {
    let crew = crew(&mut world, 3, &config(8, "", ""));
    let mut got = BTreeMap::new();
    let mut total = 0.0;
    for step in 0..4000 {
        world.advance(ms(10));
        // Nine of ten requests meet the second worker, the third has none.
        let plugin = crew[usize::from(step % 10 != 0)];
        let to = crate::scene::serve(&mut world, plugin, |_| Ending::good());
        if step % 4 == 0 {
            crew.iter().for_each(|plugin| world.tick(*plugin));
        }
        // The rates are known after some seconds.
        if step >= 1000 {
            total += 1.0;
            *got.entry(to).or_insert(0.0) += 1.0;
        }
    }
    let even: f64 = total / 8.0;
    for (endpoint, got) in &got {
        // Five standard deviations of a binomial count.
        assert!((got - even).abs() < 5.0 * even.sqrt(), "{endpoint}: {got}, not {even}");
    }
    assert_eq!(got.len(), 8);
}

/// Plugins of one name on two listeners know each other, and each has its own clusters to look after.
fn plugins_of_one_name_look_after_their_own_clusters<W: World>(_: W) {
    for seed in 0..6 {
        let mut world = W::new(seed);
        let thread = world.thread();
        let clusters = ["web", "api"];
        let plugins = clusters.map(|cluster| {
            let json =
                config(4, r#""policy":"round_robin""#, "").replace(r#""web""#, &format!("{cluster:?}"));
            load(&mut world, thread, &json)
        });
        let serve = |world: &mut W, at: usize| {
            let mut stream = world.stream(plugins[at], &[(":method", b"GET"), (":path", b"/")]);
            stream.property(&["xds", "cluster_name"], clusters[at].as_bytes());
            stream.request_headers();
            let fails = target(&stream) == address(2);
            world.advance(ms(10));
            respond(&mut stream, &if fails { Ending::status("500") } else { Ending::good() });
            stream.done();
        };
        for _ in 0..20 {
            (0..8).for_each(|nth| serve(&mut world, nth % 2));
            pass(&mut world, &plugins, ms(100));
        }
        for cluster in clusters {
            let ejections = world.counter(&format!("evenkeel.upstream=.={cluster};.;fleet_ejections_total"));
            assert_eq!(ejections, Some(1), "{cluster}, seed {seed}");
            let said =
                |line: &String| line.contains(&format!("cluster={cluster} endpoint={} ejected", address(2)));
            assert_eq!(world.logs().iter().filter(|line| said(line)).count(), 1, "{cluster}, seed {seed}");
        }
    }
}

both!(
    plugins_of_one_name_look_after_their_own_clusters,
    a_failure_that_one_sees_all_know_after_a_tick,
    failures_that_each_sees_once_add_up,
    two_bad_answers_are_not_three,
    connections_that_break_together_are_a_crash,
    streams_that_break_with_one_connection_are_one_failure,
    one_sees_what_the_others_have_in_flight,
    what_one_has_found_the_next_tick_of_another_heeds,
    what_a_silent_worker_knows_counts_for_as_long_as_it_lives,
    what_a_silent_worker_has_in_flight_counts_for_as_long_as_it_lives,
    a_worker_that_is_gone_is_forgotten,
    verifying_a_suspect_is_shared_work,
    workers_choose_different_endpoints_between_two_ticks,
    endpoints_get_equal_parts_of_workers_with_unequal_traffic,
);
