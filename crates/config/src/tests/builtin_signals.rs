//! Built-in signals: those that evenkeel has a query for.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::malformed::check;
use super::malformed_upstream::with_prometheus;
use crate::*;

#[test]
fn a_builtin_signal_needs_no_query() {
    let json = r#"{"prometheus":{"cluster":"prometheus"},"upstreams":[{"cluster":"web",
        "endpoints":{"static":["10.0.0.1:80"]},
        "signals":[{"name":"others","builtin":"fleet_latency"},{"name":"depth","query":"depth"}]}]}"#;
    let config = parse(json.as_bytes()).unwrap();
    let signal = &config.upstreams[0].signals[0];
    assert_eq!(signal.builtin, Some(engine::settings::Builtin::FleetLatency));
    assert_eq!(
        (signal.query.as_str(), signal.address_label.as_str(), signal.smoothing),
        ("", "endpoint", 1.0)
    );
    let again = serde_json::to_string(&effective(&config)).unwrap();
    assert_eq!(parse(again.as_bytes()).unwrap(), config);
    // With a query of the operator's own, for a recording rule for instance.
    let own = json.replace(r#""builtin""#, r#""query":"recorded","address_label":"pod","builtin""#);
    let config = parse(own.as_bytes()).unwrap();
    let signal = &config.upstreams[0].signals[0];
    assert_eq!((signal.query.as_str(), signal.address_label.as_str()), ("recorded", "pod"));
    let again = serde_json::to_string(&effective(&config)).unwrap();
    assert_eq!(parse(again.as_bytes()).unwrap(), config);
}

#[test]
fn fields_beside_a_builtin_are_refused() {
    check(&[
        with_prometheus(
            r#""signals":[{"name":"a","builtin":"fleet_latence"}]"#,
            "signals[0].builtin",
            "did you mean \"fleet_latency\"?",
        ),
        with_prometheus(
            r#""signals":[{"name":"a","builtin":"fleet_latency","max":1}]"#,
            "signals[0].max",
            "no \"max\" beside $.upstreams[0].signals[0].builtin",
        ),
        with_prometheus(
            r#""signals":[{"name":"a","builtin":"fleet_latency","learn":true}]"#,
            "signals[0].learn",
            "no \"learn\" beside",
        ),
        with_prometheus(
            r#""signals":[{"name":"a","builtin":"fleet_latency"},{"name":"b","builtin":"fleet_latency"}]"#,
            "signals[1].builtin",
            "each builtin once; it is also at $.upstreams[0].signals[0]",
        ),
    ]);
}
