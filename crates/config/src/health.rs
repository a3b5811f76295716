//! `upstreams[].health`: when an endpoint is ejected, and how it returns.

use core::time::Duration;

use super::failures;
use super::kinds::Bounds;
use super::node::{Fields, Node};
use super::probe::{self, Probed};
use engine::settings::{Health, Policy};

const FIELDS: &[&str] = &[
    "suspect_after",
    "fail_after",
    "recover_after",
    "ejection",
    "max_ejected_percent",
    "failures",
    "blame_retried",
    "heed_headers",
    "probe",
];
/// The default number of failures in a row that eject an endpoint.
const FAIL_AFTER: u32 = 3;

const MIN_EJECTION: Duration = Duration::from_millis(100);
const MAX_EJECTION: Duration = Duration::from_secs(3600);

/// The default of `suspect_after`: 1, but `fail_after` for hashing policies, where one bad response is no reason to
/// move all keys of an endpoint away and back again.
fn suspect_after(policy: &Policy, fail_after: Option<u32>) -> u32 {
    match policy {
        Policy::IpHash | Policy::ConsistentHash(_) => fail_after.unwrap_or(FAIL_AFTER),
        _ => 1,
    }
}

#[inline(never)]
pub(super) fn read(parent: &Fields, policy: &Policy, probed: Probed) -> Health {
    let fields = parent.section("health", FIELDS);
    let times = |name| fields.read(name, |node| node.whole(1..=1000));
    let suspect = times("suspect_after");
    let fail_after = times("fail_after");
    if let (Some(suspect), Some(fail)) = (suspect, fail_after)
        && let (Some(node), true) = (fields.get("fail_after"), fail < suspect)
    {
        node.refuse(&format!("not below {} ({suspect})", fields.path_of("suspect_after")), None);
    }
    let suspect_after = suspect.unwrap_or_else(|| suspect_after(policy, fail_after));
    Health {
        suspect_after,
        fail_after: fail_after.unwrap_or(suspect_after.max(FAIL_AFTER)),
        recover_after: times("recover_after").unwrap_or(3),
        ejection: fields
            .read("ejection", |node| node.duration(MIN_EJECTION..=MAX_EJECTION))
            .unwrap_or(Duration::from_secs(30)),
        max_ejected_percent: fields
            .read("max_ejected_percent", |node| node.number(Bounds::PERCENT))
            .unwrap_or(50.0),
        failures: fields.read("failures", failures::read).unwrap_or_default(),
        blame_retried: fields.read("blame_retried", Node::boolean).unwrap_or(true),
        heed_headers: fields.read("heed_headers", Node::boolean).unwrap_or(true),
        probe: fields.get("probe").and_then(|node| probe::read(&node, probed)),
    }
}
