//! Hints are good advice: what a fault suggests is accepted in its place.

use serde_json::{Value, json};

use super::places::places;
use super::*;

/// The value that a hint suggests.
fn suggested(fault: &Fault) -> Option<Value> {
    let text = fault.hint.as_deref()?.strip_prefix("did you mean ")?.strip_suffix('?')?;
    Some(serde_json::from_str(text).unwrap())
}

/// The hint for this value at a place of the complete configuration, if there is a fault with one.
fn hint(whole: &Value, place: &str, value: Value) -> Option<Value> {
    let mut changed = whole.clone();
    *changed.pointer_mut(place).unwrap() = value;
    let faults = parse(changed.to_string().as_bytes()).err()?;
    let (fault, meant) = faults.iter().find_map(|fault| Some((fault, suggested(fault)?)))?;
    *changed.pointer_mut(place).unwrap() = meant.clone();
    let left = parse(changed.to_string().as_bytes()).err().unwrap_or_default();
    // What two fields allow together is another matter.
    let remains = left.iter().any(|left| left.path == fault.path && !left.allowed.contains("$."));
    assert!(!remains, "{fault}: {}", lines(&left).join("\n"));
    Some(meant)
}

#[test]
fn what_a_hint_suggests_is_accepted() {
    let whole: Value = serde_json::from_str(COMPLETE).unwrap();
    let values =
        [json!(0), json!(1), json!(2), json!(-1), json!(1.5), json!(200), json!(5000), json!(9_000_000)];
    let texts = ["0", "1", "5000", "2 S", "9000000"].map(|text| json!(text));
    let mut hints = 0;
    let mut everywhere = Vec::new();
    places(&whole, "", &mut everywhere);
    for place in everywhere {
        for value in values.iter().chain(&texts) {
            hints += usize::from(hint(&whole, &place, value.clone()).is_some());
        }
    }
    assert!(hints > 100, "{hints}");
    for (place, value, meant) in [
        ("/prometheus/interval", json!(5000), Some(json!("5000ms"))),
        ("/prometheus/interval", json!(5), Some(json!("5s"))),
        ("/prometheus/interval", json!(9_000_000), None),
        ("/prometheus/interval", json!("5 S"), Some(json!("5s"))),
        ("/prometheus/interval", json!("1m30s"), Some(json!("90s"))),
        ("/prometheus/interval", json!("1h30m"), None),
        ("/prometheus/interval", json!("1m30"), None),
        ("/upstreams/0/slow_start", json!(""), None),
        ("/mode", json!(1), None),
        ("/status/path", json!(1), None),
        ("/upstreams/0/cluster", json!(1), Some(json!("1"))),
    ] {
        assert_eq!(hint(&whole, place, value.clone()), meant, "{place}: {value}");
    }
}
