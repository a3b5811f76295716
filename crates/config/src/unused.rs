//! What the contract has and this version does not act on yet: accepted, so that one configuration serves both,
//! and named at load, so that it is not counted on.

use super::Config;
use engine::settings::{Policy, Upstream};

/// The paths of settings that have no effect in this version.
pub fn without_effect(config: &Config) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, upstream) in config.upstreams.iter().enumerate() {
        paths.extend(in_upstream(upstream).map(|field| format!("$.upstreams[{at}].{field}")));
    }
    paths
}

fn in_upstream(upstream: &Upstream) -> impl Iterator<Item = &'static str> {
    let hashes = matches!(upstream.policy, Policy::IpHash | Policy::ConsistentHash(_));
    let settings = [(upstream.affinity.is_some() && !hashes && upstream.split.is_empty(), "affinity")];
    settings.into_iter().filter(|(given, _)| *given).map(|(_, field)| field)
}
