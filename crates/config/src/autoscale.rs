//! `upstreams[].autoscale`: the terms of pressure, and how it becomes a desired number of replicas.

use core::time::Duration;

use super::kinds::Bounds;
use super::node::{Fields, Node, did_you_mean};
use crate::suggest::nearest;
use engine::settings::{Autoscale, PressureTerm, PressureValue, Signal};

const FIELDS: &[&str] = &[
    "target_pressure",
    "min",
    "max",
    "for",
    "period",
    "cool_down",
    "tolerance_percent",
    "look_ahead",
    "pressure",
];

const MAX_REPLICAS: u32 = 10_000;
const DEFAULT_MIN: u32 = 2;
const DEFAULT_MAX: u32 = 20;

const MIN_PERIOD: Duration = Duration::from_secs(1);
const MAX_PERIOD: Duration = Duration::from_secs(3600);
const DEFAULT_PERIOD: Duration = Duration::from_secs(30);
/// The default of Kubernetes' HorizontalPodAutoscaler for scaling in.
const DEFAULT_COOL_DOWN: Duration = Duration::from_secs(300);
const MAX_COOL_DOWN: Duration = Duration::from_secs(24 * 3600);
/// The default of Kubernetes' HorizontalPodAutoscaler, percent.
const DEFAULT_TOLERANCE_PERCENT: f64 = 10.0;
const MAX_LOOK_AHEAD: Duration = Duration::from_secs(3600);

const MAX_TERMS: usize = 32;
/// The default cap of a term: a value beyond twice the full one says no more.
const DEFAULT_MOST: f64 = 2.0;

/// Values that evenkeel measures itself, allowed beside the names of signals.
pub(super) const MEASURED: &[(&str, PressureValue)] = &[
    ("occupancy", PressureValue::Occupancy),
    ("in_flight", PressureValue::InFlight),
    ("latency_ms", PressureValue::LatencyMs),
    ("error_percent", PressureValue::ErrorPercent),
];

#[inline(never)]
pub(super) fn read(node: &Node) -> Autoscale {
    let fields = node.fields(FIELDS);
    let replicas = |name| fields.read(name, |node| node.whole(1..=MAX_REPLICAS));
    let (min, max) = (replicas("min"), replicas("max"));
    if let (Some(min), Some(max)) = (min, max)
        && let (Some(node), true) = (fields.get("min"), min > max)
    {
        node.refuse(&format!("not above {} ({max})", fields.path_of("max")), None);
    }
    let duration = |name, range| fields.read(name, |node| node.duration(range));
    let period = duration("period", MIN_PERIOD..=MAX_PERIOD).unwrap_or(DEFAULT_PERIOD);
    Autoscale {
        target_pressure: fields
            .read("target_pressure", |node| node.number(Bounds::AboveUpTo(0.0, 1.0)))
            .unwrap_or(0.8),
        // A default gives way to a bound that is given.
        min: min.unwrap_or(DEFAULT_MIN.min(max.unwrap_or(DEFAULT_MAX))),
        max: max.unwrap_or(DEFAULT_MAX.max(min.unwrap_or(DEFAULT_MIN))),
        periods: fields.read("for", |node| node.whole(1..=1000)).unwrap_or(2),
        period,
        cool_down: duration("cool_down", Duration::ZERO..=MAX_COOL_DOWN).unwrap_or(DEFAULT_COOL_DOWN),
        tolerance_percent: fields
            .read("tolerance_percent", |node| node.number(Bounds::FromTo(0.0, 50.0)))
            .unwrap_or(DEFAULT_TOLERANCE_PERCENT),
        look_ahead: duration("look_ahead", Duration::ZERO..=MAX_LOOK_AHEAD).unwrap_or(period),
    }
}

/// The terms of pressure: those of `autoscale.pressure`, otherwise the signals with a maximum, otherwise occupancy.
#[inline(never)]
pub(super) fn pressure(parent: &Fields, signals: &[Signal]) -> Vec<PressureTerm> {
    let autoscale = parent.get("autoscale");
    let given = autoscale.as_ref().and_then(|node| node.child("pressure"));
    if let Some(node) = given {
        let items = node.items(MAX_TERMS, "terms");
        if items.is_empty() && node.is_array() {
            node.refuse("an array of at least one term", None);
        }
        return items.iter().map(|item| term(item, signals)).collect();
    }
    let with_max = signals.iter().enumerate().filter(|(_, signal)| signal.weight > 0.0);
    let terms: Vec<PressureTerm> = with_max
        .filter_map(|(at, signal)| {
            let value = PressureValue::Signal(at);
            Some(PressureTerm { value, weight: signal.weight, full: signal.max?, most: DEFAULT_MOST })
        })
        .collect();
    if !terms.is_empty() {
        return terms;
    }
    vec![PressureTerm { value: PressureValue::Occupancy, weight: 1.0, full: 1.0, most: DEFAULT_MOST }]
}

#[inline(never)]
fn term(node: &Node, signals: &[Signal]) -> PressureTerm {
    let fields = node.fields(&["signal", "weight", "at", "most"]);
    let signal =
        fields.require("signal", "a signal's name, occupancy, in_flight, latency_ms or error_percent");
    let value = signal.and_then(|node| value(&node, signals));
    let named = match value {
        Some(PressureValue::Signal(at)) => signals.get(at),
        _ => None,
    };
    let usual = match value {
        Some(PressureValue::Occupancy) => Some(1.0),
        _ => named.and_then(|signal| signal.max),
    };
    let full = fields.read("at", |node| node.number(Bounds::Above(0.0)));
    if value.is_some() && fields.get("at").is_none() && usual.is_none() {
        fields.report_missing("at", "the value that counts as 1, as there is no \"max\" to take it from");
    }
    PressureTerm {
        value: value.unwrap_or(PressureValue::Occupancy),
        weight: fields.read("weight", |node| node.number(Bounds::AboveUpTo(0.0, 100.0))).unwrap_or(1.0),
        full: full.or(usual).unwrap_or(1.0),
        most: fields.read("most", |node| node.number(Bounds::AboveUpTo(0.0, 100.0))).unwrap_or(DEFAULT_MOST),
    }
}

#[inline(never)]
fn value(node: &Node, signals: &[Signal]) -> Option<PressureValue> {
    let measured = MEASURED.iter().map(|(name, _)| *name);
    let names: Vec<&str> = measured.chain(signals.iter().map(|s| s.name.as_str())).collect();
    let allowed = names.join(", ");
    let text = node.text(&allowed, &|text| names.contains(&text))?;
    // A signal of the operator's own takes precedence over a measured value of the same name.
    if let Some(at) = signals.iter().position(|signal| signal.name == text) {
        return Some(PressureValue::Signal(at));
    }
    let found = MEASURED.iter().find(|(name, _)| *name == text);
    if found.is_none() {
        node.refuse(&allowed, nearest(text, &names).map(did_you_mean));
    }
    found.map(|(_, value)| *value)
}
