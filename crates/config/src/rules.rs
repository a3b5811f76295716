//! `upstreams[].rules`: thresholds set by the operator.

use core::time::Duration;

use super::kinds::Bounds;
use super::node::{Fields, Node, did_you_mean};
use crate::suggest::nearest;
use engine::settings::{Rule, RuleAction, RuleValue, Signal};

const FIELDS: &[&str] = &["when", "above", "for", "then"];
const MAX_RULES: usize = 32;
const MAX_FOR: Duration = Duration::from_secs(3600);

/// Values that evenkeel measures itself, allowed beside the names of signals.
pub(super) const MEASURED: &[(&str, RuleValue)] = &[
    ("error_percent", RuleValue::ErrorPercent),
    ("latency_ms", RuleValue::LatencyMs),
    ("in_flight", RuleValue::InFlight),
];

pub(super) const ACTIONS: &[(&str, RuleAction)] =
    &[("flag", RuleAction::Flag), ("down_weight", RuleAction::DownWeight), ("eject", RuleAction::Eject)];

#[inline(never)]
pub(super) fn read(parent: &Fields, signals: &[Signal]) -> Vec<Rule> {
    let Some(node) = parent.get("rules") else { return Vec::new() };
    node.items(MAX_RULES, "rules").iter().map(|item| rule(item, signals)).collect()
}

#[inline(never)]
fn rule(node: &Node, signals: &[Signal]) -> Rule {
    let fields = node.fields(FIELDS);
    let when =
        fields.require("when", "what is compared: error_percent, latency_ms, in_flight or a signal's name");
    let above = fields.require("above", "the threshold");
    let then = fields.require("then", "what follows: \"eject\", \"down_weight\" or \"flag\"");
    Rule {
        value: when.and_then(|node| value(&node, signals)).unwrap_or(RuleValue::InFlight),
        above: above.and_then(|node| node.number(Bounds::FromTo(0.0, 1e15))).unwrap_or(f64::INFINITY),
        lasting: fields.read("for", |node| node.duration(Duration::ZERO..=MAX_FOR)).unwrap_or_default(),
        action: then.and_then(|node| node.one_of(ACTIONS)).unwrap_or(RuleAction::Flag),
    }
}

#[inline(never)]
fn value(node: &Node, signals: &[Signal]) -> Option<RuleValue> {
    let names: Vec<&str> =
        MEASURED.iter().map(|(name, _)| *name).chain(signals.iter().map(|s| s.name.as_str())).collect();
    let allowed = names.join(", ");
    let text = node.text(&allowed, &|text| names.contains(&text))?;
    // A signal of the operator's own takes precedence over a measured value of the same name, as in
    // `autoscale.pressure`.
    if let Some(at) = signals.iter().position(|signal| signal.name == text) {
        return Some(RuleValue::Signal(at));
    }
    let found = MEASURED.iter().find(|(name, _)| *name == text);
    if found.is_none() {
        node.refuse(&allowed, nearest(text, &names).map(did_you_mean));
    }
    found.map(|(_, value)| *value)
}
