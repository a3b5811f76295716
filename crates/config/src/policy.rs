//! `upstreams[].policy`: a name, or an object with the name and the fields of that policy.

use super::kinds::Bounds;
use super::node::{Fields, Node, did_you_mean};
use super::tree::Tree;
use crate::suggest::nearest;
use engine::settings::{LoadBound, Policy, Signal, WeightedScore};

#[derive(Clone, Copy, PartialEq)]
enum Name {
    Adaptive,
    PeakEwma,
    LeastRequest,
    WeightedScore,
    LeastSignal,
    WeightedRoundRobin,
    RoundRobin,
    Random,
    IpHash,
    ConsistentHash,
}

const NAMES: &[(&str, Name)] = &[
    ("adaptive", Name::Adaptive),
    ("peak_ewma", Name::PeakEwma),
    ("least_request", Name::LeastRequest),
    ("weighted_score", Name::WeightedScore),
    ("least_signal", Name::LeastSignal),
    ("weighted_round_robin", Name::WeightedRoundRobin),
    ("round_robin", Name::RoundRobin),
    ("random", Name::Random),
    ("ip_hash", Name::IpHash),
    ("consistent_hash", Name::ConsistentHash),
];

const FIELDS: &[&str] = &[
    "name",
    "signal",
    "in_flight_weight",
    "in_flight_max",
    "latency_weight",
    "latency_max_ms",
    "bounded",
    "load_factor",
    "load_floor",
];

fn owner(field: &str) -> Option<(&'static str, Name)> {
    match field {
        "name" => None,
        "signal" => Some(("least_signal", Name::LeastSignal)),
        "bounded" | "load_factor" | "load_floor" => Some(("consistent_hash", Name::ConsistentHash)),
        _ => Some(("weighted_score", Name::WeightedScore)),
    }
}

#[inline(never)]
pub(super) fn read(parent: &Fields, signals: &[Signal]) -> Policy {
    let Some(node) = parent.get("policy") else { return Policy::Adaptive };
    let fields = match node.tree() {
        Tree::Text(_) => None,
        Tree::Object(_) => Some(node.fields(FIELDS)),
        _ => {
            node.mistyped("a policy's name, or an object with \"name\"", None);
            return Policy::Adaptive;
        }
    };
    let name = match fields.as_ref().map(|fields| fields.get("name")) {
        None => node.one_of(NAMES),
        Some(Some(name)) => name.one_of(NAMES),
        Some(None) => Some(Name::Adaptive),
    };
    // Fields of an unknown policy are not worth a second fault.
    let Some(name) = name else { return Policy::Adaptive };
    if let Some(fields) = &fields {
        report_strangers(fields, name);
    }
    match name {
        Name::Adaptive => Policy::Adaptive,
        Name::PeakEwma => Policy::PeakEwma,
        Name::LeastRequest => Policy::LeastRequest,
        Name::WeightedScore => Policy::WeightedScore(weighted_score(fields.as_ref())),
        Name::LeastSignal => least_signal(&node, fields.as_ref(), signals, &parent.path_of("signals")),
        Name::WeightedRoundRobin => Policy::WeightedRoundRobin,
        Name::RoundRobin => Policy::RoundRobin,
        Name::Random => Policy::Random,
        Name::IpHash => Policy::IpHash,
        Name::ConsistentHash => Policy::ConsistentHash(load_bound(fields.as_ref())),
    }
}

fn report_strangers(fields: &Fields, name: Name) {
    for field in FIELDS {
        if let (Some((owner, owner_name)), Some(node)) = (owner(field), fields.get(field))
            && owner_name != name
        {
            node.refuse(&format!("beside {} \"{owner}\" only", fields.path_of("name")), None);
        }
    }
}

#[inline(never)]
fn weighted_score(fields: Option<&Fields>) -> WeightedScore {
    let number = |name: &str, bounds, default| {
        fields.and_then(|fields| fields.read(name, |node| node.number(bounds))).unwrap_or(default)
    };
    let weight = Bounds::FromTo(0.0, 1000.0);
    let score = WeightedScore {
        in_flight_weight: number("in_flight_weight", weight, 0.6),
        in_flight_max: number("in_flight_max", Bounds::AboveUpTo(0.0, 1e9), 1000.0),
        latency_weight: number("latency_weight", weight, 0.4),
        latency_max_ms: number("latency_max_ms", Bounds::AboveUpTo(0.0, 1e9), 500.0),
    };
    if let (Some(fields), true) = (fields, score.in_flight_weight + score.latency_weight == 0.0)
        && let Some(node) = fields.get("in_flight_weight")
    {
        node.refuse(&format!("above 0 where {} is 0", fields.path_of("latency_weight")), None);
    }
    score
}

fn load_bound(fields: Option<&Fields>) -> LoadBound {
    let default = LoadBound::default();
    let Some(fields) = fields else { return default };
    LoadBound {
        bounded: fields.read("bounded", Node::boolean).unwrap_or(default.bounded),
        factor: fields
            .read("load_factor", |node| node.number(Bounds::FromTo(1.0, 100.0)))
            .unwrap_or(default.factor),
        floor: fields.read("load_floor", |node| node.whole(0..=100_000)).unwrap_or(default.floor),
    }
}

#[inline(never)]
fn least_signal(node: &Node, fields: Option<&Fields>, signals: &[Signal], signals_at: &str) -> Policy {
    let names: Vec<&str> = signals.iter().map(|signal| signal.name.as_str()).collect();
    let given = fields.and_then(|fields| fields.get("signal"));
    let named =
        given.as_ref().map(|node| (node, node.text("the name of a signal", &|text| names.contains(&text))));
    let signal = match (named, names.as_slice()) {
        (_, []) => {
            node.refuse(&format!("\"least_signal\" only with at least one signal in {signals_at}"), None);
            None
        }
        (Some((node, Some(name))), names) => {
            // An empty name stands for one that has a fault itself.
            if !names.contains(&name) && !names.contains(&"") {
                let hint = nearest(name, names).map(did_you_mean);
                node.refuse(&format!("a name from {signals_at}"), hint);
            }
            Some(name.to_owned())
        }
        (Some((_, None)), _) => None,
        (None, [only]) => Some((*only).to_owned()),
        (None, _) => {
            node.refuse(&format!("a \"signal\" with it, as {signals_at} has several"), None);
            None
        }
    };
    Policy::LeastSignal { signal: signal.unwrap_or_default() }
}
