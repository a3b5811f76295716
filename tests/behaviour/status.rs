//! The filter's own figures add up, whichever worker shows them, and whatever has happened to those that counted.

use std::collections::BTreeMap;

use testbed::serde_json::{Value, from_slice, json};

use crate::scene::{
    Ending, HEADER, address, begin, config, give, load, ms, pass, pass_with, picks, respond, single,
};
use crate::wasm::Wasm;
use crate::world::{Answer, Plugin, Stream, World};

const STATUS: &str = r#""status":{"path":"/_evenkeel"}"#;

/// Requests a path; returns status and body.
fn ask<W: World>(world: &mut W, plugin: Plugin, method: &str, path: &str) -> Option<(u32, Vec<u8>)> {
    let headers: [(&str, &[u8]); 4] = [
        (":method", method.as_bytes()),
        (":path", path.as_bytes()),
        (":authority", b"web"),
        (HEADER, b"1.2.3.4:5"),
    ];
    let mut stream = world.stream(plugin, &headers);
    let goes_on = stream.request_headers();
    assert!(stream.request_values(HEADER).iter().all(|value| value != b"1.2.3.4:5"), "taken off first");
    let answer = stream.local_response();
    assert_eq!(answer.is_none(), goes_on);
    let body = stream.local_body();
    stream.log();
    stream.done();
    answer.map(|(status, _)| (status, body))
}

fn status<W: World>(world: &mut W, plugin: Plugin) -> Value {
    let (status, body) = ask(world, plugin, "GET", "/_evenkeel/status.json").expect("answered here");
    assert_eq!(status, 200);
    from_slice(&body).expect("JSON")
}

fn counted(status: &Value, what: &str) -> BTreeMap<String, u64> {
    let endpoints = status["upstreams"][0]["endpoints"].as_array().expect("endpoints");
    let pair = |e: &Value| {
        (e["address"].as_str().unwrap_or_default().to_owned(), e[what].as_u64().unwrap_or_default())
    };
    endpoints.iter().map(pair).filter(|(_, count)| *count > 0).collect()
}

fn add(truth: &mut BTreeMap<String, u64>, more: BTreeMap<String, usize>) {
    more.into_iter().for_each(|(address, count)| *truth.entry(address).or_default() += count as u64);
}

fn what_is_asked_for_below_the_path_is_answered_here(mut world: impl World) {
    let plugin = single(&mut world, &config(2, "", STATUS));
    for (method, path, status) in [
        ("GET", "/_evenkeel", Some(200)),
        ("HEAD", "/_evenkeel/status.json?x=1", Some(200)),
        ("GET", "/_evenkeel/nothing", Some(404)),
        ("POST", "/_evenkeel/metrics", Some(405)),
        ("GET", "/_evenkeelx", None),
        ("GET", "/", None),
    ] {
        assert_eq!(
            ask(&mut world, plugin, method, path).map(|(status, _)| status),
            status,
            "{method} {path}"
        );
    }
    let silent = single(&mut world, &config(2, "", ""));
    assert_eq!(ask(&mut world, silent, "GET", "/_evenkeel"), None, "off unless configured");
}

fn the_json_is_the_contracts(mut world: impl World) {
    let upstream = r#""signals":[{"name":"queue","query":"q"}],"policy":"adaptive""#;
    let root = format!(
        r#"{STATUS},"prometheus":{{"cluster":"prometheus","headers":{{"authorization":"s3cr3t"}}}},"debug":{{"secret":"s3cr3t-s3cr3t"}}"#
    );
    world.add_cluster("prometheus");
    let plugin = single(&mut world, &config(3, upstream, &root));
    assert_eq!(status(&mut world, plugin)["prometheus"]["pause_s"], json!(5.0), "as configured");
    picks(&mut world, plugin, 9);
    let answer = format!(
        r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{"instance":"{}"}},"value":[1,"7"]}}]}}}}"#,
        address(1)
    );
    pass_with(&mut world, &[plugin], ms(1500), |world| {
        for call in world.calls() {
            world.answer(&call, &Answer::Http(200, answer.as_bytes()));
        }
    });
    let status = status(&mut world, plugin);
    let has = |value: &Value, names: &[&str]| {
        names.iter().for_each(|name| assert!(value.get(name).is_some(), "{name} is missing: {value}"));
    };
    has(&status, &["version", "mode", "uptime_s", "prometheus", "upstreams"]);
    has(&status["prometheus"], &["polls", "failures", "last_success_age_s", "last_error"]);
    let upstream = &status["upstreams"][0];
    has(upstream, &["cluster", "policy", "pressure", "desired_replicas", "endpoints"]);
    let names = [
        "address",
        "zone",
        "version",
        "weight",
        "state",
        "eligible",
        "in_flight",
        "latency_ms",
        "error_ratio",
        "requests",
        "failures",
        "picks",
        "share",
        "cost",
        "signals",
    ];
    has(&upstream["endpoints"][0], &names);
    assert_eq!(upstream["endpoints"][1]["signals"]["queue"]["value"], json!(7.0));
    assert_eq!(upstream["endpoints"][1]["signals"]["queue"]["used"], json!(true));
    assert_eq!(
        upstream["endpoints"][0]["signals"]["queue"],
        json!({ "value": null, "age_s": null, "used": false })
    );
    for path in ["", "/status.json", "/config.json", "/metrics"] {
        let (_, body) = ask(&mut world, plugin, "GET", &format!("/_evenkeel{path}")).expect("answered");
        assert!(!String::from_utf8_lossy(&body).contains("s3cr3t"), "{path}");
    }
}

/// A worker without requests carries no traffic, and a new configuration is no new process.
fn workers_and_uptime_are_the_processs(mut world: impl World) {
    let threads = [world.thread(), world.thread(), world.thread()];
    let json = config(3, "", STATUS);
    let crew: Vec<Plugin> = threads.iter().map(|thread| load(&mut world, *thread, &json)).collect();
    pass(&mut world, &crew, ms(500));
    assert_eq!(status(&mut world, crew[0])["workers"], json!(0));
    for busy in [1, 2] {
        picks(&mut world, crew[busy], 3);
        pass(&mut world, &crew, ms(1000));
        assert_eq!(status(&mut world, crew[0])["workers"], json!(busy));
    }
    pass(&mut world, &crew, ms(60_000));
    let json = config(3, r#""slow_start":"11s""#, STATUS);
    let crew: Vec<Plugin> = threads.iter().map(|thread| load(&mut world, *thread, &json)).collect();
    pass(&mut world, &crew, ms(500));
    let uptime = status(&mut world, crew[1])["uptime_s"].as_f64().expect("seconds");
    assert!((61.0..=65.0).contains(&uptime), "{uptime}");
}

/// The response is bounded for any number of endpoints; what is left out is counted, and unhealthy endpoints come
/// first.
fn a_large_fleet_is_shown_in_part(mut world: impl World) {
    const FLEET: usize = 10_000;
    let plugin =
        single(&mut world, &config(FLEET, r#""policy":"round_robin","health":{"fail_after":1}"#, STATUS));
    for _ in 0..3 {
        crate::scene::serve(&mut world, plugin, |_| Ending::status("500"));
    }
    pass(&mut world, &[plugin], ms(500));
    let (_, body) = ask(&mut world, plugin, "GET", "/_evenkeel/status.json").expect("answered here");
    assert!(body.len() < 1_500_000, "{} bytes of JSON", body.len());
    let status: Value = from_slice(&body).expect("JSON");
    let upstream = &status["upstreams"][0];
    let shown = upstream["endpoints"].as_array().expect("endpoints");
    assert_eq!((shown.len(), &upstream["endpoint_count"]), (1000, &json!(FLEET)));
    assert_eq!(upstream["endpoints_left_out"], json!(FLEET - 1000));
    assert_eq!(upstream["eligible"], json!(FLEET - 3));
    assert_eq!(
        shown.iter().filter(|e| e["state"] == "failed").count(),
        3,
        "whatever their place in the list"
    );
    let (_, metrics) = ask(&mut world, plugin, "GET", "/_evenkeel/metrics").expect("answered here");
    assert!(metrics.len() < 3_000_000, "{} bytes of metrics", metrics.len());
    let metrics = String::from_utf8(metrics).expect("text");
    for line in [
        "evenkeel_upstream_endpoints{upstream=\"web\"} 10000\n",
        "evenkeel_upstream_endpoints_left_out{upstream=\"web\"} 9000\n",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    assert_eq!(metrics.matches("\nevenkeel_endpoint_picks_total{").count(), 1000);
}

fn every_worker_reports_for_all(mut world: impl World) {
    let mut truth = BTreeMap::new();
    let crew: Vec<Plugin> = (0..3)
        .map(|_| {
            let thread = world.thread();
            load(&mut world, thread, &config(4, "", STATUS))
        })
        .collect();
    for (at, plugin) in crew.iter().enumerate() {
        add(&mut truth, picks(&mut world, *plugin, 10 * (at + 1)));
    }
    pass(&mut world, &crew, ms(1000));
    for plugin in &crew {
        let status = status(&mut world, *plugin);
        assert_eq!((counted(&status, "picks"), counted(&status, "requests")), (truth.clone(), truth.clone()));
        assert_eq!(status["workers"], json!(3));
    }
}

fn parts_show_versions_priorities_and_zones(mut world: impl World) {
    let endpoint = |at: usize, version: &str, zone: &str, priority: u32| {
        format!(
            r#"{{"address":"{}","version":"{version}","zone":"{zone}","priority":{priority}}}"#,
            address(at)
        )
    };
    let list = [
        endpoint(0, "v1", "a", 0),
        endpoint(1, "v1", "b", 0),
        endpoint(2, "v1", "a", 1),
        endpoint(3, "v2", "a", 0),
    ];
    let json = format!(
        r#"{{{STATUS},"upstreams":[{{"cluster":"web","endpoints":{{"static":[{}]}},"split":{{"v1":90,"v2":10}},"zone":{{"local":"a"}}}}]}}"#,
        list.join(",")
    );
    let plugin = single(&mut world, &json);
    picks(&mut world, plugin, 20);
    pass(&mut world, &[plugin], ms(500));
    let parts = status(&mut world, plugin)["upstreams"][0]["parts"].clone();
    let parts = parts.as_array().expect("parts");
    assert_eq!(parts.len(), 4, "{parts:?}");
    let of = |version: &str| {
        let loads = parts.iter().filter(|part| part["version"] == json!(version));
        loads.filter_map(|part| part["load"].as_f64()).sum::<f64>()
    };
    assert!((of("v1") - 0.9).abs() < 1e-5 && (of("v2") - 0.1).abs() < 1e-5, "{parts:?}");
    assert_eq!(
        (&parts[0]["local"], &parts[0]["load"], &parts[1]["local"]),
        (&json!(true), &json!(0.9), &json!(false))
    );
    let (_, text) = ask(&mut world, plugin, "GET", "/_evenkeel/metrics").expect("answered");
    let text = String::from_utf8(text).expect("text");
    let line = r#"evenkeel_upstream_part_load{upstream="web",version="v2",priority="0",zone="local"} 0.1"#;
    assert!(text.contains(line), "{text}");
    let whole = single(&mut world, &config(3, "", STATUS));
    assert_eq!(status(&mut world, whole)["upstreams"][0]["parts"].as_array().map(Vec::len), Some(1));
    let (_, text) = ask(&mut world, whole, "GET", "/_evenkeel/metrics").expect("answered");
    assert!(!String::from_utf8_lossy(&text).contains("_part_"));
}

fn what_is_only_shown_is_compared_with_envoys_own_choice(mut world: impl World) {
    let root = format!(r#"{STATUS},"mode":"observe""#);
    let plugin = single(&mut world, &config(2, r#""policy":"round_robin""#, &root));
    for _ in 0..10 {
        let mut stream = begin(&mut world, plugin);
        world.advance(ms(20));
        respond(&mut stream, &Ending { served_by: Some(address(0)), ..Ending::good() });
        stream.log();
        stream.done();
    }
    let observed = &status(&mut world, plugin)["upstreams"][0]["observed"];
    assert_eq!((&observed["compared"], &observed["agreed"]), (&json!(10), &json!(5)), "{observed}");
}

fn ejection_and_recovery_are_logged(mut world: impl World) {
    let upstream = r#""policy":"round_robin","health":{"fail_after":2}"#;
    let plugin = single(&mut world, &config(4, upstream, ""));
    picks(&mut world, plugin, 8);
    let logged = |world: &_, what: &str| {
        let logs: Vec<String> = World::logs(world);
        logs.iter().filter(|line| line.contains(&address(1)) && line.contains(what)).count()
    };
    give(&mut world, plugin, &address(1), &Ending::local("504", "response_timeout"));
    pass(&mut world, &[plugin], ms(500));
    assert_eq!(
        (logged(&world, "ejected: consecutive failures"), logged(&world, "recovered, back in traffic")),
        (1, 0)
    );
    for _ in 0..60 {
        pass(&mut world, &[plugin], ms(500));
        picks(&mut world, plugin, 4);
    }
    assert_eq!(
        (logged(&world, "ejected: consecutive failures"), logged(&world, "recovered, back in traffic")),
        (1, 1)
    );
}

both!(
    parts_show_versions_priorities_and_zones,
    what_is_only_shown_is_compared_with_envoys_own_choice,
    ejection_and_recovery_are_logged,
    what_is_asked_for_below_the_path_is_answered_here,
    the_json_is_the_contracts,
    workers_and_uptime_are_the_processs,
    every_worker_reports_for_all,
    a_large_fleet_is_shown_in_part,
);

/// Reloads in a row, as Envoy does them: the new root first, then the old one's end, with requests on both.
#[test]
fn counts_outlive_configurations() {
    let mut world = Wasm::new(3);
    let threads = [world.thread(), world.thread()];
    let mut truth = BTreeMap::new();
    let mut crew: Vec<Plugin> =
        threads.iter().map(|thread| load(&mut world, *thread, &config(3, "", STATUS))).collect();
    let mut keys = Vec::new();
    for round in 0..120 {
        for plugin in &crew {
            add(&mut truth, picks(&mut world, *plugin, 5));
        }
        pass(&mut world, &crew, ms(300));
        let json = config(3, &format!(r#""slow_start":"{}s""#, 1 + round % 50), STATUS);
        let next: Vec<Plugin> = threads.iter().map(|thread| load(&mut world, *thread, &json)).collect();
        for plugin in &crew {
            // The last requests of the old configuration, which has no tick left to publish them.
            add(&mut truth, picks(&mut world, *plugin, 3));
            let (vm, root) = world.vm(*plugin);
            vm.stop_root(root);
        }
        crew = next;
        keys.push(world.shared_keys().len());
        if round % 10 == 0 {
            assert_eq!(counted(&status(&mut world, crew[0]), "picks"), truth, "after {round} reloads");
        }
    }
    pass(&mut world, &crew, ms(600));
    assert_eq!(counted(&status(&mut world, crew[1]), "requests"), truth);
    let left = world.shared_keys().into_iter().filter(|key| !world.shared(key).is_empty()).count();
    assert!(left <= 10, "{left} values are left in shared data");
    assert!(
        keys[119] == keys[5],
        "a number is used again, or keys pile up: nothing can be deleted: {keys:?}"
    );
}

/// A VM that crashed publishes nothing more: its last counts are kept, exactly once.
#[test]
fn counts_outlive_a_vm_that_crashed() {
    let mut world = Wasm::new(5);
    let threads = [world.thread(), world.thread(), world.thread()];
    let crew: Vec<Plugin> =
        threads.iter().map(|thread| load(&mut world, *thread, &config(3, "", STATUS))).collect();
    let mut truth = BTreeMap::new();
    for plugin in &crew {
        add(&mut truth, picks(&mut world, *plugin, 20));
    }
    pass(&mut world, &crew, ms(1000));
    // The first worker is silent for ever. All others go on for minutes.
    for _ in 0..30 {
        pass(&mut world, &crew[1..], ms(8000));
        add(&mut truth, picks(&mut world, crew[1], 2));
        pass(&mut world, &crew[1..], ms(300));
        let status = status(&mut world, crew[2]);
        assert_eq!(counted(&status, "picks"), truth);
    }
    let slots = world.shared_keys().into_iter().filter(|key| key.contains("/counts/"));
    assert_eq!(slots.filter(|key| !world.shared(key).is_empty()).count(), 2, "retired");
    // And if it was only suspended, nothing counts twice.
    add(&mut truth, picks(&mut world, crew[0], 4));
    pass(&mut world, &crew, ms(1500));
    assert_eq!(counted(&status(&mut world, crew[1]), "picks"), truth);
}
