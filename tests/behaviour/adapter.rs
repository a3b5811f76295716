//! What is between the worker and Envoy and exists in the `.wasm` alone: statuses, levels, bounds, what is read and given
//! back, and the order in which Envoy calls.

use testbed::serde_json::{Value, from_slice};
use wasmhost::Level;

use crate::lease::crew;
use crate::scene::{Ending, address, begin, config, load, ms, pass, picks, respond, single, target};
use crate::wasm::Wasm;
use crate::world::{Plugin, Stream, World};

/// What an operator filters by.
#[test]
fn lines_have_the_levels_that_they_are_written_with() {
    let mut world = Wasm::new(1);
    let json = config(
        4,
        r#""signals":[{"name":"queue","query":"queue"}]"#,
        r#""log":{"failures":true,"sample_percent":100},"prometheus":{"cluster":"nowhere","interval":"1s","timeout":"1s"}"#,
    );
    let plugin = single(&mut world, &json);
    picks(&mut world, plugin, 3);
    pass(&mut world, &[plugin], ms(2000));
    let thread = world.thread_of(plugin);
    assert!(world.configure(thread, "other", "{").is_err());
    let logs = world.process.logs();
    let levels = |part: &str| -> Vec<Level> {
        logs.iter().filter(|line| line.message.contains(part)).map(|line| line.level).collect()
    };
    assert_eq!(levels("cluster \"nowhere\" is unknown to Envoy"), [Level::Warn], "{logs:?}");
    assert_eq!(levels("acquired the polling lease"), [Level::Debug], "{logs:?}");
    assert_eq!(levels("web: by="), [Level::Info; 3], "{logs:?}");
    assert!(levels("configuration refused").iter().all(|level| *level == Level::Error), "{logs:?}");
    assert!(!levels("configuration refused").is_empty(), "{logs:?}");
}

/// Whether a request is given a number for its attempts.
fn is_numbered(world: &mut Wasm, plugin: Plugin) -> bool {
    let mut request = begin(world, plugin);
    let numbered = request.hostcalls("proxy_set_property") > 0;
    respond(&mut request, &Ending::good());
    request.finish();
    numbered
}

/// Numbering a request costs a trip to the host, so it ends with the last upstream filter.
#[test]
fn requests_are_numbered_as_long_as_there_are_upstream_filters() {
    let mut world = Wasm::new(1);
    let plugin = single(&mut world, &config(4, "", ""));
    let thread = world.thread_of(plugin);
    assert!(!is_numbered(&mut world, plugin));
    let upstreams = [world.follow(thread), world.follow(thread)];
    for upstream in upstreams {
        assert!(is_numbered(&mut world, plugin));
        let (vm, root) = world.vm(upstream);
        assert!(vm.configure_again(root, r#"{"role":"upstream"}"#));
        assert!(vm.stop_root(root));
    }
    assert!(!is_numbered(&mut world, plugin));
}

/// Envoy keeps a metric for as long as it runs.
#[test]
fn however_many_upstreams_there_are_metrics_are_bounded() {
    let mut world = Wasm::new(1);
    let upstream =
        |at: usize| format!(r#"{{"cluster":"web-{at}","endpoints":{{"static":["{}"]}}}}"#, address(at));
    let mut plugins = Vec::new();
    for part in 0..4 {
        let thread = if part == 0 { world.thread() } else { world.thread_of(plugins[0]) };
        let all: Vec<String> = (0..64).map(|at| upstream(64 * part + at)).collect();
        let json = format!(r#"{{"upstreams":[{}]}}"#, all.join(","));
        plugins.push(world.configure(thread, &format!("plugin-{part}"), &json).expect("accepted"));
        pass(&mut world, &plugins[part..], ms(1000));
    }
    let defined = world.process.metric_names().len();
    assert_eq!(defined, 4096, "each has more than 16");
}

/// A failure that Envoy delivers in the middle of the call, to a worker that is at work: it is handled when that is done.
#[test]
fn an_answer_in_the_middle_of_its_call_counts() {
    let mut world = Wasm::new(3);
    let [plugin] = crew(&mut world, 1, "")[..] else { panic!("one worker") };
    world.process.fail_at_once("prometheus");
    pass(&mut world, &[plugin], ms(5000));
    let failed =
        world.logs().iter().filter(|line| line.contains("prometheus poll failed: cluster=web")).count();
    assert_eq!(failed, 1, "{:?}", world.logs());
    assert!(world.logs().iter().any(|line| line.contains("no response: timed out")), "{:?}", world.logs());
    let mut request = begin(&mut world, plugin);
    assert!(!target(&request).is_empty());
    respond(&mut request, &Ending::good());
    request.finish();
}

/// Two threads of Envoy may enter the registry at the same time.
#[test]
fn a_write_that_loses_a_race_overwrites_nothing() {
    let json = config(3, "", "");
    let entered = |world: &mut Wasm, workers: usize| {
        for _ in 0..workers {
            let thread = world.thread();
            let plugin = load(world, thread, &json);
            picks(world, plugin, 1);
            pass(world, &[plugin], ms(600));
        }
        world.shared_keys().into_iter().find(|key| key.ends_with("/workers")).expect("a registry")
    };
    // What the other workers write, from another process.
    let mut other = Wasm::new(77);
    let key = entered(&mut other, 3);
    let theirs = other.shared(&key);
    let mut world = Wasm::new(1);
    assert_eq!(entered(&mut world, 1), key);
    let ours = world.shared(&key);
    world.process.race(&key, &theirs);
    assert_eq!(entered(&mut world, 1), key);
    let entry = (theirs.len() - ours.len()) / 2;
    assert_eq!(world.shared(&key).len(), theirs.len() + entry, "it enters beside the three");
}

/// A worker without requests sees by its ticks what the others have in flight.
#[test]
fn a_worker_does_not_rest_while_others_have_requests() {
    let mut world = Wasm::new(5);
    let json = config(4, "", "");
    let plugins: Vec<Plugin> = (0..2)
        .map(|_| {
            let thread = world.thread();
            load(&mut world, thread, &json)
        })
        .collect();
    plugins.iter().for_each(|plugin| _ = picks(&mut world, *plugin, 4));
    let period = |world: &Wasm, plugin: Plugin| {
        let (vm, root) = world.vm(plugin);
        vm.tick_period(root).expect("a timer")
    };
    for _ in 0..100 {
        pass(&mut world, &plugins, ms(50));
        picks(&mut world, plugins[0], 1);
    }
    assert_eq!(period(&world, plugins[1]), ms(250), "none is in flight when the other reports");
    for _ in 0..100 {
        let mut stream = begin(&mut world, plugins[0]);
        pass(&mut world, &plugins, ms(50));
        respond(&mut stream, &Ending::good());
        stream.finish();
    }
    assert!(period(&world, plugins[1]) <= ms(50), "{:?}", period(&world, plugins[1]));
    pass(&mut world, &plugins, ms(10_000));
    let mut rest = [period(&world, plugins[0]), period(&world, plugins[1])];
    rest.sort();
    assert_eq!(rest, [ms(1000), ms(2000)], "the leader's and the other's");
}

/// Ticks are rare at rest; what is known by the next one is of use to the requests that come now.
#[test]
fn the_first_request_ends_a_rest_at_once() {
    for seconds in [10, 30, 200] {
        let mut world = Wasm::new(seconds);
        let plugin = single(&mut world, &config(4, "", ""));
        picks(&mut world, plugin, 4);
        pass(&mut world, &[plugin], ms(1000 * seconds));
        let period = |world: &Wasm| {
            let (vm, root) = world.vm(plugin);
            vm.tick_period(root).expect("a timer")
        };
        assert!(period(&world) >= ms(1000), "{:?}", period(&world));
        let requests: Vec<_> = (0..3).map(|_| begin(&mut world, plugin)).collect();
        assert_eq!(period(&world), ms(1));
        world.tick(plugin);
        assert!((ms(2)..=ms(50)).contains(&period(&world)), "{:?}", period(&world));
        drop(requests);
    }
}

/// Ticks of a large fleet may be as far apart at rest as under traffic. The one that the first request asks for is followed
/// by others at that distance all the same: Envoy keeps the period that it was given last.
#[test]
fn the_tick_at_the_end_of_a_rest_is_one() {
    let signal = r#""signals":[{"name":"queue","query":"queue"}]"#;
    let polled = r#""prometheus":{"cluster":"prometheus","authority":"p","interval":"1s","timeout":"500ms"}"#;
    for (endpoints, upstream, root) in [(4, "", ""), (500, r#""autoscale":{}"#, ""), (1000, signal, polled)] {
        let mut world = Wasm::new(7);
        let plugin = single(&mut world, &config(endpoints, upstream, root));
        let period = |world: &Wasm| {
            let (vm, root) = world.vm(plugin);
            vm.tick_period(root).expect("a timer")
        };
        picks(&mut world, plugin, 4);
        pass(&mut world, &[plugin], ms(4000));
        let request = begin(&mut world, plugin);
        assert_eq!(period(&world), ms(1), "{endpoints} endpoints");
        world.tick(plugin);
        let paused = period(&world);
        assert!(paused >= ms(5), "{endpoints} endpoints: {paused:?}");
        drop(request);
    }
}

/// A request passes one of a filter's configurations, so that its decision needs no mark for the others. One of another
/// filter it may pass, too.
#[test]
fn a_new_configuration_costs_requests_no_further_call() {
    let mut world = Wasm::new(3);
    let thread = world.thread();
    let json = config(3, "", "");
    let marks = |world: &mut Wasm, plugin: Plugin| begin(world, plugin).hostcalls("proxy_set_property");
    let first = load(&mut world, thread, &json);
    assert_eq!(marks(&mut world, first), 0);
    let second = load(&mut world, thread, &config(3, r#""slow_start":"1s""#, ""));
    assert_eq!([first, second].map(|plugin| marks(&mut world, plugin)), [0, 0]);
    load(&mut world, thread, &json.replace("web", "api"));
    assert_eq!(marks(&mut world, second), 1);
    let third = load(&mut world, thread, &json);
    assert_eq!(marks(&mut world, third), 1, "the other filter is still there");
    let mut world = Wasm::new(3);
    let thread = world.thread();
    let steers = load(&mut world, thread, &json);
    load(&mut world, thread, &config(3, "", r#""mode":"observe""#));
    assert_eq!(marks(&mut world, steers), 1, "one that observes may stand beside one that steers");
}

/// A configuration that is taken back while the one before it drains: Envoy uses that one's root again without a callback. It
/// stands beside another filter of the chain as before.
#[test]
fn a_configuration_that_is_in_force_again_marks_its_decisions_for_other_filters() {
    let mut world = Wasm::new(3);
    let thread = world.thread();
    let json = config(3, "", "");
    let first = load(&mut world, thread, &json);
    load(&mut world, thread, &json.replace("web", "api"));
    let second = load(&mut world, thread, &config(3, r#""slow_start":"1s""#, ""));
    let again = load(&mut world, thread, &json);
    assert_eq!(world.vm(first).1, world.vm(again).1);
    world.end(second);
    load(&mut world, thread, &config(3, r#""slow_start":"1s""#, "").replace("web", "api"));
    let mut request = begin(&mut world, again);
    assert_eq!(request.hostcalls("proxy_set_property"), 1);
    respond(&mut request, &Ending::good());
    request.finish();
}

/// The counts since its last tick are counted as well.
#[test]
fn a_worker_that_ends_has_published_everything() {
    let mut world = Wasm::new(1);
    let json = config(3, r#""policy":"round_robin""#, r#""status":{"path":"/_evenkeel"}"#);
    let plugin = single(&mut world, &json);
    picks(&mut world, plugin, 5);
    pass(&mut world, &[plugin], ms(1000));
    let thread = world.thread_of(plugin);
    let next = load(
        &mut world,
        thread,
        &config(2, r#""policy":"round_robin""#, r#""status":{"path":"/_evenkeel"}"#),
    );
    picks(&mut world, plugin, 7);
    let (vm, root) = world.vm(plugin);
    assert!(vm.stop_root(root));
    let names = world.process.metric_names().into_iter();
    let decisions = names.filter(|name| name.ends_with("fleet_decisions_total"));
    assert_eq!(decisions.filter_map(|name| world.counter(&name)).sum::<u64>(), 12, "among Envoy's stats");
    let mut page = world.stream(next, &[(":method", b"GET"), (":path", b"/_evenkeel/status.json")]);
    page.request_headers_of(true);
    let shown: Value = from_slice(&page.local_body()).expect("JSON");
    let counts = shown["upstreams"][0]["decisions"].as_object().expect("counts");
    assert_eq!(counts.values().filter_map(Value::as_u64).sum::<u64>(), 12, "and on the page: {shown}");
}

/// Envoy has the property also where the node's locality says nothing.
#[test]
fn an_empty_zone_of_the_node_is_none() {
    let mut world = Wasm::new(1);
    world.set_node_zone("");
    single(&mut world, &config(2, r#""zone":{"local":"node"}"#, ""));
    let said = world.logs().iter().any(|line| line.contains("node.locality has no zone"));
    assert!(said, "{:?}", world.logs());
}
