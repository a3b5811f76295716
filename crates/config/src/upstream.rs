//! `upstreams[]`: one balanced cluster, and the checks across its sections.

use core::time::Duration;

use super::kinds::Bounds;
use super::node::{Fields, Node};
use super::probe::Probed;
use super::{
    Steering, affinity, autoscale, endpoints, failover, guard, health, load_reports, policy, rules, signals,
    split,
};
use engine::settings::{Affinity, Autoscale, Guard, Policy, Upstream, Zone};

const FIELDS: &[&str] = &[
    "cluster",
    "endpoints",
    "policy",
    "signals",
    "load_reports",
    "rules",
    "health",
    "slow_start",
    "failover",
    "zone",
    "affinity",
    "split",
    "autoscale",
    "guard",
];

pub(super) const DEFAULT_SLOW_START: Duration = Duration::from_secs(30);
const MAX_SLOW_START: Duration = Duration::from_secs(3600);

/// Settings outside of an upstream that it depends on.
pub(super) struct Around<'a> {
    pub steering: &'a Steering,
    /// Whether there is a `prometheus` block.
    pub prometheus: bool,
    /// The guard of upstreams without one of their own.
    pub guard: Option<Guard>,
}

impl Around<'_> {
    /// Reports `node`, which needs Prometheus, if there is no `prometheus` block.
    pub fn check_prometheus(&self, node: &Node) {
        if !self.prometheus {
            node.refuse("only with a $.prometheus block", None);
        }
    }
}

#[inline(never)]
pub(super) fn read(node: &Node, around: &Around) -> Upstream {
    let fields = node.fields(FIELDS);
    let cluster = fields.require("cluster", "the name of the route's Envoy cluster, or \"*\"");
    let endpoints = endpoints::read(&fields, around);
    let mut signals = signals::read(&fields, around);
    load_reports::read(&fields, &mut signals);
    let policy = policy::read(&fields, &signals);
    let affinity = fields.read("affinity", |node| affinity::read(node, around.steering));
    check_affinity(&fields, &policy, affinity.as_ref());
    let cluster = cluster.and_then(|node| node.name()).unwrap_or_default();
    let expands = endpoints.envoy_admin.is_some();
    let probed = Probed { cluster: &cluster, via: around.steering.via, expands };
    Upstream {
        health: health::read(&fields, &policy, probed),
        cluster,
        policy,
        rules: rules::read(&fields, &signals),
        pressure: autoscale::pressure(&fields, &signals),
        signals,
        slow_start: fields.read("slow_start", slow_start).unwrap_or(DEFAULT_SLOW_START),
        failover: failover::read(&fields),
        zone: fields.read("zone", zone),
        affinity,
        split: fields.get("split").map(|node| split::read(&node, &endpoints)).unwrap_or_default(),
        guard: fields.get("guard").map(|node| guard::read(&node, around.steering.via)).or(around.guard),
        autoscale: fields.get("autoscale").map(|node| -> Autoscale { autoscale::read(&node) }),
        endpoints,
    }
}

fn slow_start(node: &Node) -> Option<Duration> {
    node.duration(Duration::ZERO..=MAX_SLOW_START)
}

#[inline(never)]
fn zone(node: &Node) -> Option<Zone> {
    let fields = node.fields(&["local", "spill_over_percent"]);
    let local = fields.require("local", "the zone of this proxy");
    Some(Zone {
        local: local.and_then(|node| node.name()).unwrap_or_default(),
        spill_over_percent: fields
            .read("spill_over_percent", |node| node.number(Bounds::PERCENT))
            .unwrap_or(70.0),
    })
}

fn check_affinity(fields: &Fields, policy: &Policy, affinity: Option<&Affinity>) {
    let policy_at = fields.path_of("policy");
    match (policy, fields.get("affinity"), affinity) {
        (Policy::ConsistentHash(_), None, _) => {
            fields.report_missing(
                "affinity",
                &format!("a key to hash, as {policy_at} \"consistent_hash\" needs one"),
            );
        }
        (
            Policy::IpHash,
            Some(node),
            Some(Affinity::Header(_) | Affinity::Cookie(_) | Affinity::Query(_)),
        ) => {
            node.refuse(
                &format!("\"source_ip\" only, as {policy_at} is \"ip_hash\""),
                Some("\"consistent_hash\" hashes other keys".into()),
            );
        }
        _ => {}
    }
}
