//! Valid and invalid `health.probe`.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::malformed::{check, whole};
use super::*;

#[test]
fn probes_wait_no_longer_than_they_are_apart() {
    let probe = |more: &str| {
        let json = upstream_with(&format!(r#""health":{{"probe":{{"path":"/ready"{more}}}}}"#));
        let probe = accepted(&json).upstreams.remove(0).health.probe.unwrap();
        (probe.path, probe.authority, probe.interval.as_millis(), probe.timeout.as_millis())
    };
    assert_eq!(probe(""), ("/ready".into(), None, 5000, 1000));
    assert_eq!(probe(r#","interval":"200ms""#), ("/ready".into(), None, 200, 200));
    let given = probe(r#","interval":"1m","timeout":"10s","authority":"[::1]:80""#);
    assert_eq!(given, ("/ready".into(), Some("[::1]:80".into()), 60_000, 10_000));
    let pattern = r#"{"upstreams":[{"cluster":"web-*","endpoints":{"envoy_admin":{"cluster":"admin"}},
        "health":{"probe":{"path":"/"}}}]}"#;
    accepted(pattern);
    let observing = r#"{"mode":"observe","upstreams":[{"cluster":"a","endpoints":{"static":["10.0.0.1:80"]},
        "health":{"probe":{"path":"/"}}}]}"#;
    assert_eq!(crate::without_effect(&accepted(observing)), ["$.upstreams[0].health.probe"]);
}

#[test]
fn probes_out_of_band() {
    let probe = |json: &str, path: &str, part| {
        let json = upstream_with(&format!(r#""health":{{"probe":{json}}}"#));
        whole(&json, &format!("$.upstreams[0].health.probe{path}"), part)
    };
    let steered = |via: &str, cluster: &str, part: &'static str| {
        let json = format!(
            r#"{{"steering":{{"via":"{via}"}},"upstreams":[{{"cluster":"{cluster}","endpoints":{{"static":["10.0.0.1:80"]}},
            "health":{{"probe":{{"path":"/"}}}}}}]}}"#
        );
        whole(&json, "$.upstreams[0].health.probe", part)
    };
    check(&[
        probe("{}", ".path", "missing"),
        probe("true", "", "found true"),
        probe(r#"{"path":"healthz"}"#, ".path", "from \"/\" on"),
        probe(r#"{"path":"/a b"}"#, ".path", "visible ASCII"),
        probe(r#"{"path":"/","interval":"50ms"}"#, ".interval", "from 100ms to 1h"),
        probe(
            r#"{"path":"/","interval":"1s","timeout":"2s"}"#,
            ".timeout",
            "at most $.upstreams[0].health.probe.interval (1s)",
        ),
        probe(r#"{"path":"/","authority":"a/b"}"#, ".authority", "host or host:port"),
        probe(r#"{"path":"/","intervall":"1s"}"#, ".intervall", "did you mean"),
        steered("stateful_session", "web", "no probe with $.steering.via"),
        steered("override_host", "*", "a pattern of clusters"),
        steered("override_host", "web-*", "a pattern of clusters"),
    ]);
}
