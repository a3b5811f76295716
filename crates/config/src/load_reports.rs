//! `upstreams[].load_reports`: load that endpoints report in their responses. Each report is a signal that is not
//! polled.

use super::kinds::Bounds;
use super::node::{Fields, Node};
use engine::settings::{LoadReport, Signal};

const FIELDS: &[&str] = &["name", "header", "metric", "weight", "max", "smoothing"];
const MAX_REPORTS: usize = 8;
/// The prefixes of keys in the maps of a report.
const MAPS: [&str; 3] = ["named_metrics.", "utilization.", "request_cost."];
const SCALARS: [&str; 5] =
    ["application_utilization", "cpu_utilization", "mem_utilization", "rps_fractional", "eps"];
const MAX_METRIC: usize = 128;

/// Reads load reports and appends them to the polled signals, whose names they must not share.
#[inline(never)]
pub(super) fn read(parent: &Fields, signals: &mut Vec<Signal>) {
    let Some(node) = parent.get("load_reports") else { return };
    for item in node.items(MAX_REPORTS, "load reports") {
        let report = report(&item);
        let taken = signals.iter().any(|other| other.name == report.name && !report.name.is_empty());
        if let (true, Some(name)) = (taken, item.child("name")) {
            name.refuse("a name that no signal and no other load report has", None);
        }
        signals.push(report);
    }
}

#[inline(never)]
fn report(node: &Node) -> Signal {
    let fields = node.fields(FIELDS);
    let name = fields.require("name", "the signal's name");
    let header = fields.require("header", "the response header or trailer that holds the report");
    Signal {
        name: name.and_then(|node| node.signal_name()).unwrap_or_default(),
        query: String::new(),
        builtin: None,
        report: Some(LoadReport {
            header: header.and_then(|node| node.header_name()).unwrap_or_default(),
            metric: fields.read("metric", metric).unwrap_or_default(),
        }),
        weight: fields.read("weight", |node| node.number(Bounds::FromTo(0.0, 100.0))).unwrap_or(1.0),
        learn: false,
        max: fields.read("max", |node| node.number(Bounds::Above(0.0))),
        smoothing: fields.read("smoothing", |node| node.number(Bounds::AboveUpTo(0.0, 1.0))).unwrap_or(0.3),
        address_label: String::new(),
        port: None,
        timestamp_query: None,
    }
}

fn metric(node: &Node) -> Option<String> {
    let allowed = format!(
        "a value of an ORCA load report: {}, or a key behind {}, at most {MAX_METRIC} bytes",
        SCALARS.map(|name| format!("{name:?}")).join(", "),
        MAPS.map(|name| format!("{name:?}")).join(", "),
    );
    node.text_that(&allowed, |text| {
        let keyed = |map: &&str| text.strip_prefix(*map).is_some_and(|key| !key.is_empty());
        text.len() <= MAX_METRIC && (SCALARS.contains(&text) || MAPS.iter().any(keyed))
    })
}
