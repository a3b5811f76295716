//! A refused configuration if the VM's environment asks to stand aside: no request suffers from it.

use testbed::serde_json::{Value, from_slice};
use wasmhost::Request;

use crate::scene::{Ending, HEADER, address, begin, candidates, config, ms, pass, picks, serve};
use crate::wasm::Wasm;
use crate::world::{Plugin, Stream, Thread, World};

const FAULTY: &str = r#"{ "mode": "enforced", "status": { "path": "/_evenkeel" },
    "upstreams": [{ "cluster": "web", "endpoints": { "static": ["10.0.0.1:80"] }, "polcy": "random" }] }"#;
const STATUS: &str = r#""status":{"path":"/_evenkeel"}"#;
const METRIC: &str = "evenkeel.fleet_configuration_refused";

fn standing_aside() -> (Wasm, Thread) {
    let mut world = Wasm::new(1);
    world.process.set_environment("EVENKEEL_ON_REFUSED_CONFIGURATION", "stand_aside");
    let thread = world.thread();
    (world, thread)
}

fn loaded(world: &mut Wasm, thread: Thread, json: &str) -> Plugin {
    world.configure(thread, "evenkeel", json).expect("not refused")
}

/// A request that must not be steered.
fn pass_through(world: &mut Wasm, plugin: Plugin, path: &str) -> Request {
    let headers: [(&str, &[u8]); 4] = [
        (":method", b"GET"),
        (":path", path.as_bytes()),
        (HEADER, b"1.2.3.4:5"),
        ("x-envoy-original-dst-host", b"1.2.3.4:5"),
    ];
    let mut stream = world.stream(plugin, &headers);
    stream.property(&["xds", "cluster_name"], b"web".as_slice());
    stream.headers_phase();
    stream
}

fn refusals(world: &Wasm) -> usize {
    world.logs().iter().filter(|line| line.contains("configuration refused: $.")).count()
}

#[test]
fn without_a_configuration_before_it_every_request_passes() {
    let (mut world, thread) = standing_aside();
    let plugin = loaded(&mut world, thread, FAULTY);
    assert_eq!(refusals(&world), 2, "{:?}", world.logs());
    assert!(world.logs().iter().any(|line| line.contains("stands aside, requests pass unbalanced")));
    assert_eq!(world.gauge(METRIC), Some(1));
    for _ in 0..20 {
        let mut stream = pass_through(&mut world, plugin, "/");
        assert_eq!(stream.local_response(), None);
        assert!(stream.request_values(HEADER).is_empty());
        assert!(stream.request_values("x-envoy-original-dst-host").is_empty());
        stream.response_headers(&[(":status", "200")], true);
        stream.finish();
    }
    let page = pass_through(&mut world, plugin, "/_evenkeel");
    let (status, _) = Stream::local_response(&page).expect("a page");
    let body = String::from_utf8(page.local_body()).expect("text");
    assert!(status == 503 && body.contains("$.mode") && body.contains("$.upstreams[0].polcy"), "{body}");
    let json = pass_through(&mut world, plugin, "/_evenkeel/status.json");
    let json: Value = from_slice(&json.local_body()).expect("JSON");
    assert_eq!(json["configuration_refused"][0], "$.mode");
    // If the way of steering can be read, its header is known.
    let via = FAULTY.replace(r#""mode": "enforced""#, r#""mode": 1, "steering": { "via": "original_dst" }"#);
    let plugin = loaded(&mut world, thread, &via);
    let stream = pass_through(&mut world, plugin, "/");
    assert_eq!(stream.request_values(HEADER).len(), 1, "another's by that configuration");
    assert!(stream.request_values("x-envoy-original-dst-host").is_empty());
    for json in ["", "{", "\n\u{2}", "[]"] {
        let plugin = loaded(&mut world, thread, json);
        assert!(pass_through(&mut world, plugin, "/").request_values(HEADER).is_empty(), "{json:?}");
    }
}

#[test]
fn faults_are_logged_again_by_one_worker() {
    let (mut world, thread) = standing_aside();
    let second = world.thread();
    let plugins = [loaded(&mut world, thread, FAULTY), loaded(&mut world, second, FAULTY)];
    assert_eq!(refusals(&world), 4);
    pass(&mut world, &plugins, ms(55_000));
    assert_eq!(refusals(&world), 4);
    pass(&mut world, &plugins, ms(10_000));
    assert_eq!(refusals(&world), 6);
    pass(&mut world, &plugins, ms(300_000));
    assert_eq!(refusals(&world), 16);
}

#[test]
fn a_running_configuration_stays_in_force() {
    let (mut world, thread) = standing_aside();
    let good = config(4, r#""policy":"round_robin""#, STATUS);
    let old = loaded(&mut world, thread, &good);
    assert_eq!(world.gauge(METRIC), Some(0));
    let open = begin(&mut world, old);
    assert_eq!(picks(&mut world, old, 40).len(), 4);
    let refused = loaded(&mut world, thread, FAULTY);
    assert!(world.logs().iter().any(|line| line.contains("the configuration before it stays in force")));
    assert_eq!((world.gauge(METRIC), candidates(&begin(&mut world, refused)).len()), (Some(1), 2));
    // Envoy removes the old configuration once its last request has ended.
    pass(&mut world, &[old, refused], ms(1000));
    drop(open);
    assert_eq!(picks(&mut world, refused, 40).len(), 4);
    pass(&mut world, &[refused], ms(1000));
    let json = |world: &mut Wasm, plugin| {
        let json = pass_through(world, plugin, "/_evenkeel/status.json");
        from_slice::<Value>(&json.local_body()).expect("JSON")
    };
    let shown = json(&mut world, refused);
    assert_eq!(shown["configuration_refused"][1], "$.upstreams[0].polcy", "{shown}");
    // A second refused configuration changes nothing, and the next good one comes into force.
    let again = loaded(&mut world, thread, "{");
    assert_eq!(candidates(&begin(&mut world, again)).len(), 2);
    let next = config(4, r#""policy":"round_robin","slow_start":"1s""#, STATUS);
    let new = loaded(&mut world, thread, &next);
    assert_eq!((world.gauge(METRIC), candidates(&begin(&mut world, new)).len()), (Some(0), 2));
    let shown = json(&mut world, new);
    assert_eq!(shown["configuration_refused"], Value::Null);
    assert!(picks(&mut world, new, 40).contains_key(&address(3)));
}

/// The worker that is kept ends with the last configuration that has it, not with its own.
#[test]
fn the_old_configuration_ends_and_its_worker_goes_on() {
    let (mut world, thread) = standing_aside();
    let old = loaded(&mut world, thread, &config(4, "", STATUS));
    picks(&mut world, old, 10);
    pass(&mut world, &[old], ms(1000));
    let refused = loaded(&mut world, thread, FAULTY);
    let registry = world.shared_keys().into_iter().find(|key| key.ends_with("/workers")).expect("a registry");
    let registered = world.shared(&registry);
    let (vm, root) = world.vm(old);
    world.process.advance(ms(1000));
    vm.tick(root);
    assert!(vm.last_cost().hostcalls.is_empty(), "the ticks are the other's: {:?}", vm.last_cost());
    assert!(vm.stop_root(root));
    assert_eq!(world.shared(&registry), registered, "it has not ended");
    picks(&mut world, refused, 10);
    pass(&mut world, &[refused], ms(1000));
    let mut page = pass_through(&mut world, refused, "/_evenkeel/status.json");
    let json: Value = from_slice(&page.local_body()).expect("JSON");
    page.finish();
    let decisions = &json["upstreams"][0]["decisions"];
    let decided = decisions["policy"].as_u64().unwrap_or(0) + decisions["probe"].as_u64().unwrap_or(0);
    assert_eq!((decided, &json["workers"]), (20, &Value::from(1)), "{json}");
    let (vm, root) = world.vm(refused);
    assert!(vm.stop_root(root));
}

/// A request on a connection of the listener that drains ends the rest of the worker that both have.
#[test]
fn a_root_whose_worker_another_ticks_does_not_tick_a_thousand_times_a_second() {
    let (mut world, thread) = standing_aside();
    let old = loaded(&mut world, thread, &config(4, "", STATUS));
    picks(&mut world, old, 10);
    let refused = loaded(&mut world, thread, FAULTY);
    pass(&mut world, &[old, refused], ms(20_000));
    let period = |world: &Wasm, plugin| {
        let (vm, root) = world.vm(plugin);
        vm.tick_period(root).expect("a timer")
    };
    let request = begin(&mut world, old);
    assert_eq!(period(&world, old), ms(1));
    world.tick(old);
    assert_eq!(period(&world, old), ms(1000));
    drop(request);
    // The other one is taken back.
    let (vm, root) = world.vm(refused);
    assert!(vm.stop_root(root));
    picks(&mut world, old, 1);
    pass(&mut world, &[old], ms(50));
    assert!(period(&world, old) < ms(1000));
}

/// Envoy cancels the calls of a root that goes, without a word; the worker that both have goes on.
#[test]
fn probes_that_end_with_a_configuration_leave_their_place_to_others() {
    let (mut world, thread) = standing_aside();
    world.add_cluster("web");
    let probe = r#""slow_start":"0s","health":{"probe":{"path":"/healthz","interval":"1s"}}"#;
    let old = loaded(&mut world, thread, &config(100, probe, ""));
    let live = |world: &mut Wasm, seconds: usize| {
        for _ in 0..seconds {
            serve(world, old, |_| Ending::good());
            pass(world, &[old], ms(1000));
        }
        world.calls().len()
    };
    assert_eq!(live(&mut world, 20), 32, "no answer comes to them");
    let refused = loaded(&mut world, thread, FAULTY);
    assert_eq!(live(&mut world, 5), 32);
    let (vm, root) = world.vm(refused);
    assert!(vm.stop_root(root));
    assert!(live(&mut world, 5) > 32);
}

/// Envoy uses the root of the configuration before it again, without another event, if that one still drains.
#[test]
fn a_refused_configuration_that_is_taken_back_leaves_the_one_before_it_at_work() {
    let (mut world, thread) = standing_aside();
    let old = loaded(&mut world, thread, &config(4, "", STATUS));
    picks(&mut world, old, 10);
    pass(&mut world, &[old], ms(1000));
    let refused = [FAULTY, "{"].map(|json| loaded(&mut world, thread, json));
    pass(&mut world, &[old, refused[0], refused[1]], ms(1000));
    for (refused, left) in refused.into_iter().zip([1, 0]) {
        let (vm, root) = world.vm(refused);
        assert!(vm.stop_root(root));
        assert_eq!(world.gauge(METRIC), Some(left), "the latest is refused until it goes, too");
    }
    let (vm, root) = world.vm(old);
    world.process.advance(ms(1000));
    vm.tick(root);
    assert!(!vm.last_cost().hostcalls.is_empty(), "the ticks are its own again");
    picks(&mut world, old, 10);
    pass(&mut world, &[old], ms(1000));
    let mut page = pass_through(&mut world, old, "/_evenkeel/status.json");
    let json: Value = from_slice(&page.local_body()).expect("JSON");
    page.finish();
    assert_eq!(json["configuration_refused"], Value::Null);
    let decisions = &json["upstreams"][0]["decisions"];
    let decided = decisions["policy"].as_u64().unwrap_or(0) + decisions["probe"].as_u64().unwrap_or(0);
    assert_eq!((decided, &json["workers"]), (20, &Value::from(1)), "it has not ended: {json}");
    let (vm, root) = world.vm(old);
    assert!(vm.stop_root(root));
    assert!(world.logs().iter().all(|line| !line.contains("panicked")), "{:?}", world.logs());
}

/// Envoy drains a listener for minutes.
#[test]
fn once_a_later_configuration_is_in_force_the_refused_one_is_silent() {
    for before in [None, Some(config(4, r#""policy":"random""#, ""))] {
        let (mut world, thread) = standing_aside();
        before.iter().for_each(|before| _ = loaded(&mut world, thread, before));
        let refused = loaded(&mut world, thread, FAULTY);
        // Another plugin is not in its place.
        let other = world.configure(thread, "other", &config(4, "", "")).expect("not refused");
        pass(&mut world, &[refused, other], ms(65_000));
        assert_eq!((refusals(&world), world.gauge(METRIC)), (4, Some(1)));
        let new = loaded(&mut world, thread, &config(4, "", ""));
        assert_eq!(world.gauge(METRIC), Some(0));
        pass(&mut world, &[refused, other, new], ms(130_000));
        assert_eq!((refusals(&world), world.gauge(METRIC)), (4, Some(0)), "{before:?}");
        let (vm, root) = world.vm(refused);
        assert!(vm.stop_root(root));
        assert_eq!(world.gauge(METRIC), Some(0), "{before:?}");
    }
}

/// Envoy may hand a root another configuration.
#[test]
fn a_root_that_is_configured_again_stands_aside_no_longer() {
    let (mut world, thread) = standing_aside();
    let plugin = loaded(&mut world, thread, FAULTY);
    assert_eq!((refusals(&world), world.gauge(METRIC)), (2, Some(1)));
    let (vm, root) = world.vm(plugin);
    assert!(vm.configure_again(root, &config(4, "", "")));
    pass(&mut world, &[plugin], ms(130_000));
    assert_eq!((refusals(&world), world.gauge(METRIC)), (2, Some(0)), "{:?}", world.logs());
    assert_eq!(candidates(&begin(&mut world, plugin)).len(), 2);
}

#[test]
fn among_upstream_filters_it_follows_nothing() {
    let (mut world, thread) = standing_aside();
    let plugin = loaded(&mut world, thread, &config(4, "", ""));
    let upstream = loaded(&mut world, thread, r#"{"role":"upstream","more":1}"#);
    for _ in 0..10 {
        let mut request = begin(&mut world, plugin);
        let mut attempt = world.attempt(upstream, &request, &address(0));
        assert!(attempt.request_headers_of(true));
        attempt.response_headers(&[(":status", "200")], true);
        Stream::done(&mut attempt);
        request.response_headers(&[(":status", "200")], true);
        request.finish();
    }
}

#[test]
fn unknown_value_is_logged_and_refuses() {
    let mut world = Wasm::new(1);
    world.process.set_environment("EVENKEEL_ON_REFUSED_CONFIGURATION", "stand-aside");
    let thread = world.thread();
    let lines = world.configure(thread, "evenkeel", FAULTY).expect_err("refused");
    assert!(lines.iter().any(|line| line.contains("neither \"refuse\" nor \"stand_aside\"")), "{lines:?}");
}
