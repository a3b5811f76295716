//! Which configurations are accepted and refused, and what the log says.

use crate::scene::{begin, candidates, config};
use crate::world::World;

/// A configuration with many faults.
const FAULTY: &str = r#"{
    "mode": "enforced",
    "steering": { "candidates": 9, "hdr": "x" },
    "upstreams": [
        { "cluster": "web", "endpoints": { "static": ["10.0.0.1:99999"] }, "slow_start": 3 },
        { "endpoints": {}, "health": { "fail_after": "3" } }
    ]
}"#;
const PATHS: [&str; 8] = [
    "$.mode",
    "$.steering.candidates",
    "$.steering.hdr",
    "$.upstreams[0].endpoints.static[0]",
    "$.upstreams[0].slow_start",
    "$.upstreams[1].cluster",
    "$.upstreams[1].endpoints",
    "$.upstreams[1].health.fail_after",
];

fn every_fault_is_logged_with_its_path(mut world: impl World) {
    let thread = world.thread();
    let lines = world.configure(thread, "evenkeel", FAULTY).expect_err("a refusal");
    for path in PATHS {
        let about = |line: &&String| line.starts_with(&format!("configuration refused: {path}:"));
        assert_eq!(lines.iter().filter(about).count(), 1, "{path} in\n{}", lines.join("\n"));
    }
    assert_eq!(lines.len(), PATHS.len(), "{}", lines.join("\n"));
}

fn what_is_no_json_is_refused(mut world: impl World) {
    let thread = world.thread();
    for json in ["", "{", "null", "[]", "{\"upstreams\":[]}", "\u{0}", "{\"upstreams\":[{}]}x"] {
        let lines = world.configure(thread, "evenkeel", json).expect_err(json);
        assert!(!lines.is_empty() && lines.iter().all(|line| line.contains('$')), "{json}: {lines:?}");
    }
}

fn a_refusal_leaves_the_running_configuration_alone(mut world: impl World) {
    let thread = world.thread();
    let old = world.configure(thread, "evenkeel", &config(4, "", "")).expect("accepted");
    world.configure(thread, "evenkeel", FAULTY).expect_err("a refusal");
    assert_eq!(candidates(&begin(&mut world, old)).len(), 2);
    world.tick(old);
    assert_eq!(candidates(&begin(&mut world, old)).len(), 2);
}

fn configuring_touches_nothing_that_is_shared(mut world: impl World) {
    world.add_cluster("prometheus");
    let signals = r#""signals":[{"name":"q","query":"q"}]"#;
    let json = config(4, signals, r#""prometheus":{"cluster":"prometheus"}"#);
    let thread = world.thread();
    world.configure(thread, "evenkeel", &json).expect("accepted");
    assert!(world.shared_keys().is_empty(), "Envoy tries a configuration in a throwaway VM first");
    assert!(world.calls().is_empty());
}

both!(
    every_fault_is_logged_with_its_path,
    what_is_no_json_is_refused,
    a_refusal_leaves_the_running_configuration_alone,
    configuring_touches_nothing_that_is_shared,
);
