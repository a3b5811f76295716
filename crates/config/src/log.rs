//! `log` and `attributes`: the log's format, and what is logged and set as attributes for single requests.

use super::kinds::Bounds;
use super::node::{Fields, Node};
use super::{Attribute, Log, LogFormat};

pub(super) const FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
pub(super) const ATTRIBUTES: &[(&str, Attribute)] = &[
    ("endpoint", Attribute::Endpoint),
    ("reason", Attribute::Reason),
    ("cost", Attribute::Cost),
    ("decision", Attribute::Decision),
];

#[inline(never)]
pub(super) fn read(parent: &Fields) -> Log {
    let fields = parent.section("log", &["format", "failures", "sample_percent"]);
    let percent = fields.read("sample_percent", |node| node.number(Bounds::PERCENT));
    Log {
        format: fields.read("format", |node| node.one_of(FORMATS)).unwrap_or(LogFormat::Text),
        failures: fields.read("failures", Node::boolean).unwrap_or(false),
        sample_percent: percent.unwrap_or(0.0),
    }
}

pub(super) fn attributes(node: &Node) -> Option<Vec<Attribute>> {
    let mut read = Vec::new();
    for item in node.items(ATTRIBUTES.len(), "attributes") {
        match item.one_of(ATTRIBUTES) {
            Some(attribute) if read.contains(&attribute) => item.refuse("each attribute once", None),
            attribute => read.extend(attribute),
        }
    }
    Some(read)
}
