//! `upstreams[].signals`: PromQL queries that yield one number per endpoint.

use super::kinds::Bounds;
use super::node::{Fields, Node};
use super::upstream::Around;
use engine::settings::{Builtin, Signal};

const FIELDS: &[&str] = &[
    "name",
    "query",
    "builtin",
    "weight",
    "learn",
    "max",
    "smoothing",
    "address_label",
    "port",
    "timestamp_query",
];
/// Signals that evenkeel has a query for.
pub(super) const BUILTINS: &[(&str, Builtin)] = &[("fleet_latency", Builtin::FleetLatency)];
/// The label that names the endpoint in evenkeel's own series.
const OWN_LABEL: &str = "endpoint";
const MAX_SIGNALS: usize = 32;

#[inline(never)]
pub(super) fn read(parent: &Fields, around: &Around) -> Vec<Signal> {
    let Some(node) = parent.get("signals") else { return Vec::new() };
    let items = node.items(MAX_SIGNALS, "signals");
    if !items.is_empty() {
        around.check_prometheus(&node);
    }
    let mut signals: Vec<Signal> = Vec::new();
    for item in items {
        let signal = signal(&item);
        let first = signals.iter().position(|other| other.name == signal.name && !signal.name.is_empty());
        if let (Some(first), Some(name)) = (first, item.child("name")) {
            name.refuse(&format!("each name once; it is also at {}[{first}].name", node.path()), None);
        }
        let first =
            signals.iter().position(|other| other.builtin.is_some() && other.builtin == signal.builtin);
        if let (Some(first), Some(builtin)) = (first, item.child("builtin")) {
            builtin.refuse(&format!("each builtin once; it is also at {}[{first}]", node.path()), None);
        }
        signals.push(signal);
    }
    signals
}

#[inline(never)]
fn signal(node: &Node) -> Signal {
    let fields = node.fields(FIELDS);
    let name = fields.require("name", "the signal's name");
    let builtin = fields.get("builtin");
    let query = fields.get("query");
    if query.is_none() && builtin.is_none() {
        fields.report_missing("query", "PromQL whose answer has one sample an endpoint, or a \"builtin\"");
    }
    for name in ["learn", "max"].iter().filter(|_| builtin.is_some()) {
        let own =
            |node: Node| node.refuse(&format!("no {name:?} beside {}", fields.path_of("builtin")), None);
        fields.get(name).into_iter().for_each(own);
    }
    // It is an average already, and changes only with each scrape.
    let (smoothing, label) = if builtin.is_some() { (1.0, OWN_LABEL) } else { (0.3, "instance") };
    Signal {
        name: name.and_then(|node| node.signal_name()).unwrap_or_default(),
        query: query.and_then(|node| node.promql()).unwrap_or_default(),
        builtin: builtin.and_then(|node| node.one_of(BUILTINS)),
        report: None,
        weight: fields.read("weight", |node| node.number(Bounds::FromTo(0.0, 100.0))).unwrap_or(1.0),
        learn: fields.read("learn", Node::boolean).unwrap_or(false),
        max: fields.read("max", |node| node.number(Bounds::Above(0.0))),
        smoothing: fields
            .read("smoothing", |node| node.number(Bounds::AboveUpTo(0.0, 1.0)))
            .unwrap_or(smoothing),
        address_label: fields.read("address_label", Node::label).unwrap_or_else(|| label.into()),
        port: fields.read("port", Node::port),
        timestamp_query: fields.read("timestamp_query", Node::promql),
    }
}
