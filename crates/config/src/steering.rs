//! `steering`: how decisions are passed to Envoy.

use super::kinds::forbidden_to_set;
use super::node::{Fields, Node};
use super::{Steering, Via};

pub(super) const VIA: &[(&str, Via)] = &[
    ("override_host", Via::OverrideHost),
    ("stateful_session", Via::StatefulSession),
    ("original_dst", Via::OriginalDst),
    ("cluster_header", Via::ClusterHeader),
];

const FIELDS: &[&str] = &["via", "header", "candidates"];

/// Whether `steering.header` is given.
pub(super) fn names_header(parent: &Fields) -> bool {
    parent.section("steering", FIELDS).get("header").is_some()
}

#[inline(never)]
pub(super) fn read(parent: &Fields) -> Steering {
    let fields = parent.section("steering", FIELDS);
    let via_given = fields.get("via");
    let via_read = via_given.as_ref().and_then(|node| node.one_of(VIA));
    let via = via_read.unwrap_or(Via::OverrideHost);
    let via_known = via_given.is_none() || via_read.is_some();

    let candidates = fields.get("candidates");
    let count = candidates.as_ref().and_then(|node| node.whole(1..=8));
    if let (Some(node), Some(2..), true) = (&candidates, count, via_known && via != Via::OverrideHost) {
        node.refuse(&format!("1, or {} \"override_host\"", fields.path_of("via")), None);
    }
    Steering {
        via,
        header: fields.read("header", header).unwrap_or_else(|| default_header(via).into()),
        candidates: count.map_or(default_candidates(via), |count| count as usize),
    }
}

/// Envoy itself reads `x-envoy-original-dst-host` unless `use_http_header` names another header.
fn default_header(via: Via) -> &'static str {
    if via == Via::OriginalDst { "x-envoy-original-dst-host" } else { "x-evenkeel-endpoint" }
}

fn default_candidates(via: Via) -> usize {
    if via == Via::OverrideHost { 2 } else { 1 }
}

fn header(node: &Node) -> Option<String> {
    let name = node.header_name()?;
    if forbidden_to_set(&name) {
        let why = "the steering header is removed from every incoming request";
        node.refuse("a header that nothing else needs, such as \"x-evenkeel-endpoint\"", Some(why.into()));
    }
    Some(name)
}
