//! The cost of the real `.wasm` in interpreter fuel and host calls: the same on every machine.

use std::collections::BTreeMap;

use wasmhost::Request;

use crate::discovery;
use crate::lease::crew;
use crate::scene::{Ending, address, begin, config, load, ms, pass, picks, respond, single, traffic};
use crate::wasm::Wasm;
use crate::world::{Answer, Plugin, World};

/// The fuel limit of a whole request: one unit per instruction of every function it enters, up to the loops and
/// branches in them, whether they are executed or not; so rarely needed code is in functions of its own. It uses 28,490
/// now.
const FUEL_PER_REQUEST: u64 = 28_500;
/// The fuel limit of a tick per endpoint and worker; it uses 2,050 now.
const FUEL_PER_ENDPOINT_AND_TICK: u64 = 2_100;
/// The fuel limit of a tick before which nothing happened, with any number of workers; it uses 6,300 now.
const FUEL_PER_IDLE_TICK: u64 = 7_000;

fn request(world: &mut Wasm, plugin: Plugin, ending: &Ending) -> Request {
    let mut stream = begin(world, plugin);
    world.advance(ms(10));
    respond(&mut stream, ending);
    stream.finish();
    stream
}

/// The mean fuel of a request once everything is warm.
fn fuel_of_requests(endpoints: usize, upstream: &str) -> u64 {
    let mut world = Wasm::new(7);
    let plugin = single(&mut world, &config(endpoints, upstream, ""));
    (0..100).for_each(|_| _ = request(&mut world, plugin, &Ending::good()));
    world.tick(plugin);
    (0..100).map(|_| request(&mut world, plugin, &Ending::good()).fuel()).sum::<u64>() / 100
}

#[test]
fn a_request_costs_the_same_among_ten_and_among_ten_thousand() {
    for policy in ["adaptive", "least_request", "round_robin"] {
        let upstream = format!(r#""policy":"{policy}""#);
        let (few, many) = (fuel_of_requests(10, &upstream), fuel_of_requests(10_000, &upstream));
        println!("{policy}: {few} fuel a request among 10 endpoints, {many} among 10,000");
        assert!(many * 2 <= few * 3, "{policy}: {few} among 10, {many} among 10,000");
        assert!(many <= FUEL_PER_REQUEST, "{policy}: {many}");
    }
}

/// The mean fuel of a request in one of two workers that know of each other.
#[test]
fn a_request_beside_another_worker_costs_a_tenth_more_at_most() {
    for policy in ["adaptive", "least_request"] {
        let upstream = format!(r#""policy":"{policy}""#);
        let alone = fuel_of_requests(100, &upstream);
        let mut world = Wasm::new(7);
        let plugins: Vec<Plugin> = (0..2)
            .map(|_| {
                let thread = world.thread();
                load(&mut world, thread, &config(100, &upstream, ""))
            })
            .collect();
        traffic(&mut world, &plugins, 3);
        let beside =
            (0..100).map(|_| request(&mut world, plugins[0], &Ending::good()).fuel()).sum::<u64>() / 100;
        println!("{policy}: {alone} fuel a request alone, {beside} beside another worker");
        assert!(beside * 10 <= alone * 11, "{policy}: {alone} alone, {beside} beside another worker");
    }
}

/// The fuel of a request by stage, and of a tick: the figures of `docs/benchmarks/instructions.md`.
#[test]
fn the_stages_of_a_request_and_what_a_tick_costs() {
    let mut world = Wasm::new(7);
    let plugin = single(&mut world, &config(10, "", ""));
    (0..100).for_each(|_| _ = request(&mut world, plugin, &Ending::good()));
    world.tick(plugin);
    let mut stages: BTreeMap<&str, (u64, BTreeMap<&str, u64>)> = BTreeMap::new();
    for _ in 0..100 {
        for cost in request(&mut world, plugin, &Ending::good()).costs() {
            let (fuel, calls) = stages.entry(cost.callback).or_default();
            *fuel += cost.fuel;
            cost.hostcalls.iter().for_each(|(name, count)| *calls.entry(name).or_default() += count);
        }
    }
    for (stage, (fuel, calls)) in stages {
        println!("{stage}: {} fuel, hundredths of calls {calls:?}", fuel / 100);
    }
    for (workers, endpoints) in [(1, 10), (2, 10), (16, 10), (64, 10), (2, 100)] {
        let (busy, rest) = fuel_of_ticks(workers, endpoints);
        println!("{workers} workers, {endpoints} endpoints: {busy} fuel a tick, {rest} without a request");
        assert!(rest <= FUEL_PER_IDLE_TICK, "{workers} workers, {endpoints} endpoints: {rest}");
    }
}

/// The fuel of a worker's tick after a request, and of one without.
fn fuel_of_ticks(workers: usize, endpoints: usize) -> (u64, u64) {
    let mut world = Wasm::new(5);
    let json = config(endpoints, "", "");
    let plugins: Vec<Plugin> = (0..workers)
        .map(|_| {
            let thread = world.thread();
            load(&mut world, thread, &json)
        })
        .collect();
    for _ in 0..3 {
        for plugin in &plugins {
            (0..20).for_each(|_| _ = request(&mut world, *plugin, &Ending::good()));
        }
        pass(&mut world, &plugins, ms(300));
    }
    let tick = |world: &mut Wasm| {
        world.advance(ms(5));
        let (vm, root) = world.vm(plugins[0]);
        vm.tick(root);
        vm.last_cost().fuel
    };
    request(&mut world, plugins[0], &Ending::good());
    (tick(&mut world), tick(&mut world))
}

#[test]
fn a_request_costs_the_same_every_time_the_same_happens() {
    assert_eq!(fuel_of_requests(10, ""), fuel_of_requests(10, ""));
}

/// The host calls of a request with this end, and all crossings of the border: with callbacks and the host's memory
/// requests.
fn trips(world: &mut Wasm, plugin: Plugin, ending: &Ending) -> (u64, u64) {
    let stream = request(world, plugin, ending);
    for costs in stream.costs() {
        for forbidden in ["shared_data", "http_call", "log", "map_pairs", "metric"] {
            let named = costs.hostcalls.keys().any(|name| name.contains(forbidden));
            assert!(!named, "{} in {}: {:?}", forbidden, costs.callback, costs.hostcalls);
        }
    }
    let trips = stream.costs().iter().flat_map(|cost| cost.hostcalls.values()).sum();
    // Callbacks that the filter does not export are not called.
    let entered = stream.costs().iter().filter(|cost| cost.fuel > 0);
    let into: u64 = entered.map(|cost| 1 + cost.allocations).sum();
    (trips, trips + into)
}

#[test]
fn a_request_takes_few_trips_to_the_host_and_none_to_shared_data() {
    let mut world = Wasm::new(3);
    let plugin = single(&mut world, &config(10, "", ""));
    for (ending, most) in [
        // Two of them read what the endpoint says about itself.
        (Ending::good(), (9, 17)),
        (Ending::status("503"), (10, 19)),
        (Ending::local("504", "response_timeout"), (7, 16)),
        (Ending::grpc_headers("14"), (10, 20)),
        (Ending::grpc_trailers("0"), (10, 19)),
        (Ending::cancelled(), (6, 10)),
        (Ending::cut("upstream_reset_after_response_started{remote_reset}"), (11, 19)),
    ] {
        let (trips, crossings) = trips(&mut world, plugin, &ending);
        println!("{trips} trips, {crossings} crossings: {ending:?}");
        assert!(trips <= most.0 && crossings <= most.1, "{trips}, {crossings}: {ending:?}");
    }
    let star = r#"{"upstreams":[{"cluster":"*","endpoints":{"static":["10.0.0.1:1","10.0.0.2:1"]}}]}"#;
    let plugin = single(&mut world, star);
    let named = single(&mut world, &config(2, "", ""));
    let (star, named) =
        (trips(&mut world, plugin, &Ending::good()), trips(&mut world, named, &Ending::good()));
    assert!(star.0 < named.0, "one entry for all need not ask for the cluster's name: {star:?}, {named:?}");
}

#[test]
fn a_part_of_a_request_takes_a_trip_to_the_clock_and_one_of_a_response_none() {
    let mut world = Wasm::new(3);
    let plugin = single(&mut world, &config(10, "", ""));
    let mut stream = world.stream(plugin, &[(":method", b"POST"), (":path", b"/")]);
    stream.property(&["xds", "cluster_name"], b"web".as_slice());
    stream.request_headers(false);
    let of_a_part = |stream: &Request| stream.costs().last().expect("a part").hostcalls.values().sum::<u64>();
    for last in [false, false, true] {
        stream.request_body(b"part", last);
        assert_eq!(of_a_part(&stream), 1);
    }
    stream.property(&["upstream", "address"], address(0).as_bytes());
    stream.response_headers(&[(":status", "200")], false);
    for _ in 0..2 {
        stream.response_body(b"part", false);
        assert_eq!(of_a_part(&stream), 0);
        world.advance(ms(1_000));
        world.tick(plugin);
    }
    stream.finish();
}

#[test]
fn a_tick_grows_with_the_fleet_and_no_faster() {
    let cost = |endpoints: usize| {
        let mut world = Wasm::new(5);
        let json = config(endpoints, "", "");
        let plugins: Vec<Plugin> = (0..2)
            .map(|_| {
                let thread = world.thread();
                load(&mut world, thread, &json)
            })
            .collect();
        for plugin in &plugins {
            (0..20).for_each(|_| _ = request(&mut world, *plugin, &Ending::good()));
        }
        pass(&mut world, &plugins, ms(300));
        world.advance(ms(50));
        let (vm, root) = world.vm(plugins[0]);
        vm.tick(root);
        vm.last_cost().fuel
    };
    let (few, many) = (cost(100), cost(10_000));
    println!("{few} fuel a tick with 100 endpoints, {many} with 10,000");
    assert!(many <= 150 * few, "{few} with 100, {many} with 10,000");
    assert!(many <= 2 * 10_000 * FUEL_PER_ENDPOINT_AND_TICK, "{many}");
}

#[test]
fn a_tick_comes_the_less_often_the_more_there_is_to_do() {
    let period = |endpoints: usize| {
        let mut world = Wasm::new(5);
        let plugin = single(&mut world, &config(endpoints, "", ""));
        let (vm, root) = world.vm(plugin);
        vm.tick_period(root).expect("a timer")
    };
    assert!(period(10) <= ms(50), "workers see each other's requests almost at once");
    assert!(period(10_000) >= ms(200) && period(10_000) <= ms(1000));
}

#[test]
fn a_worker_ticks_less_often_while_it_has_nothing_to_do() {
    let mut world = Wasm::new(5);
    let plugin = single(&mut world, &config(10, "", ""));
    let period = |world: &mut Wasm, ticks: usize| {
        for _ in 0..ticks {
            world.advance(ms(20));
            world.tick(plugin);
        }
        let (vm, root) = world.vm(plugin);
        vm.tick_period(root).expect("a timer")
    };
    let idle = period(&mut world, 10);
    let mut streams: Vec<_> = (0..100).map(|_| begin(&mut world, plugin)).collect();
    world.advance(ms(20));
    for stream in &mut streams {
        respond(stream, &Ending::good());
        stream.finish();
    }
    let busy = period(&mut world, 1);
    assert!(busy <= ms(20) && idle > 2 * busy, "{busy:?} busy, {idle:?} idle");
    assert_eq!(period(&mut world, 10), idle);
    // One request at a time: a tick after each would cost more than the requests.
    let mut few = idle;
    for _ in 0..40 {
        world.advance(ms(1000));
        request(&mut world, plugin, &Ending::good());
        few = period(&mut world, 1);
    }
    assert_eq!(few, ms(250));
}

#[test]
fn a_process_without_requests_hardly_ticks_and_the_first_request_wakes_it() {
    let mut world = Wasm::new(5);
    world.add_cluster("prometheus");
    let json = config(
        4,
        r#""signals":[{"name":"queue","query":"queue"}]"#,
        r#""prometheus":{"cluster":"prometheus"}"#,
    );
    let threads: Vec<_> = (0..3).map(|_| world.thread()).collect();
    let plugins: Vec<Plugin> = threads.into_iter().map(|thread| load(&mut world, thread, &json)).collect();
    let period = |world: &Wasm, plugin: Plugin| {
        let (vm, root) = world.vm(plugin);
        vm.tick_period(root).expect("a timer")
    };
    plugins.iter().for_each(|plugin| _ = request(&mut world, *plugin, &Ending::good()));
    pass(&mut world, &plugins, ms(1000));
    let mut open = begin(&mut world, plugins[0]);
    pass(&mut world, &plugins, ms(4000));
    assert_eq!(period(&world, plugins[0]), ms(50), "an answer is due");
    respond(&mut open, &Ending::good());
    open.finish();
    pass(&mut world, &plugins, ms(4000));
    let periods = |world: &Wasm| plugins.iter().map(|plugin| period(world, *plugin)).collect::<Vec<_>>();
    let asks = periods(&world).into_iter().filter(|period| *period == ms(500)).count();
    assert_eq!(asks, 1, "a tenth of the polls' interval for the one that asks: {:?}", periods(&world));
    assert!(periods(&world).iter().all(|period| *period >= ms(500)), "{:?}", periods(&world));
    // A request to one worker wakes that one at once, and the others at their next tick.
    begin(&mut world, plugins[1]).finish();
    assert_eq!(period(&world, plugins[1]), ms(1));
    pass(&mut world, &plugins, ms(100));
    assert!(periods(&world).iter().all(|period| *period <= ms(250)), "{:?}", periods(&world));
}

/// Envoy's main thread has a VM, too, and no requests.
#[test]
fn a_worker_that_gets_no_requests_rests_beside_those_that_do() {
    let mut world = Wasm::new(5);
    let plugins: Vec<Plugin> = (0..3)
        .map(|_| {
            let thread = world.thread();
            load(&mut world, thread, &config(4, "", ""))
        })
        .collect();
    for _ in 0..100 {
        let mut streams = [0, 1].map(|at| begin(&mut world, plugins[at]));
        pass(&mut world, &plugins, ms(50));
        for stream in &mut streams {
            respond(stream, &Ending::good());
            stream.finish();
        }
    }
    let period = |world: &Wasm, at: usize| {
        let (vm, root) = world.vm(plugins[at]);
        vm.tick_period(root).expect("a timer")
    };
    assert_eq!(period(&world, 2), ms(1000), "it leads, because it has the time");
    assert!([0, 1].iter().all(|at| period(&world, *at) <= ms(50)));
    begin(&mut world, plugins[2]).finish();
    assert_eq!(period(&world, 2), ms(1), "its first request ends the rest");
}

#[test]
fn memory_does_not_grow_with_requests_ticks_or_answers() {
    let mut world = Wasm::new(9);
    let plugins = crew(&mut world, 2, "");
    let body = br#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
    let work = |world: &mut Wasm, rounds: usize| {
        for _ in 0..rounds {
            pass(world, &plugins, ms(100));
            for call in world.calls() {
                world.answer(&call, &Answer::Http(200, body));
            }
            for plugin in &plugins {
                request(world, *plugin, &Ending::good());
                request(world, *plugin, &Ending::status("503"));
            }
        }
        world.vms[0].memory_bytes()
    };
    let before = work(&mut world, 100);
    assert_eq!(work(&mut world, 1000), before);
}

/// The fuel limit of reading one host of Envoy's list, about a kilobyte, and making it an endpoint. In a real Envoy
/// five thousand hosts take some 60 ms of its main thread, printing included.
const FUEL_PER_MEMBER: u64 = 200_000;

#[test]
fn envoys_list_costs_so_much_a_member_and_no_more_the_more_there_are() {
    let cost = |members: usize| {
        let mut world = Wasm::new(5);
        let crew = discovery::crew(&mut world, 1, &discovery::plugin(&discovery::by_envoy(), ""));
        let call = discovery::asked(&mut world, &crew, discovery::ADMIN);
        let body = discovery::printed(0, members);
        world.answer(&call, &Answer::Http(200, body.as_bytes()));
        let (vm, _) = world.vm(crew.main());
        (vm.last_cost().fuel / members as u64, body.len() / members, vm.memory_bytes())
    };
    let few = cost(100);
    println!("fuel and bytes a member, and memory: {few:?} with 100");
    let many = cost(2000);
    println!("{many:?} with 2,000");
    assert!(few.0 <= FUEL_PER_MEMBER && many.0 <= FUEL_PER_MEMBER, "{few:?} {many:?}");
    assert!(many.2 <= 40 << 20, "{} bytes of memory", many.2);
}

/// The fuel limit of skipping a megabyte of clusters that were not asked for: Envoy before 1.38 prints all of its
/// clusters.
const FUEL_PER_STRANGE_MEGABYTE: u64 = 25_000_000;

#[test]
fn other_clusters_are_skipped_cheaply() {
    let mut world = Wasm::new(5);
    let crew = discovery::crew(&mut world, 1, &discovery::plugin(&discovery::by_envoy(), discovery::RANDOM));
    let call = discovery::asked(&mut world, &crew, discovery::ADMIN);
    let body = discovery::unfiltered(402, 50);
    world.answer(&call, &Answer::Http(200, body.as_bytes()));
    let (vm, _) = world.vm(crew.main());
    let (fuel, memory) = (vm.last_cost().fuel, vm.memory_bytes());
    let megabytes = body.len() as u64 >> 20;
    println!("{} fuel a megabyte of {megabytes}, {memory} bytes of memory", fuel / megabytes);
    [crew.main(), crew[0]].iter().for_each(|plugin| world.tick(*plugin));
    assert_eq!(picks(&mut world, crew[0], 1000).len(), 50);
    assert!(megabytes >= 15 && fuel <= FUEL_PER_STRANGE_MEGABYTE * megabytes, "{fuel} for {megabytes} MB");
    assert!(memory <= 4 << 20, "{memory} bytes of memory");
}

#[test]
fn memory_does_not_grow_with_endpoints_that_come_and_go() {
    let mut world = Wasm::new(9);
    let crew = discovery::crew(&mut world, 2, &discovery::plugin(&discovery::by_envoy(), ""));
    let mut replace = |rounds: std::ops::Range<usize>| {
        for round in rounds {
            discovery::report_hosts(&mut world, &crew, &discovery::printed(5 * round, 10));
            crew.iter().for_each(|plugin| _ = request(&mut world, *plugin, &Ending::good()));
        }
        (world.vms[0].memory_bytes(), world.shared_keys().len())
    };
    let before = replace(0..20);
    let after = replace(20..120);
    assert_eq!(after.1, before.1);
    // Counts of endpoints that have left are kept up to a limit; one request per round is a few pages in all.
    assert!(after.0 <= before.0 + (4 << 16), "{before:?} {after:?}");
}

#[test]
fn a_guard_costs_a_request_little() {
    let (off, on) = (fuel_of_requests(10, ""), fuel_of_requests(10, r#""guard":{"holdout_percent":10}"#));
    println!("{off} fuel a request without a guard, {on} with one");
    assert!(on <= off + off / 10 && on <= FUEL_PER_REQUEST, "{off} without, {on} with");
}
