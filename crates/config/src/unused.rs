//! Settings without effect: accepted, because they may have one in another version or mode, and logged at load, so that
//! they are not relied on.

use super::{Config, Mode};
use engine::settings::{Affinity, Guard, Policy, Upstream};

/// The paths of settings that have no effect.
pub fn without_effect(config: &Config) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, upstream) in config.upstreams.iter().enumerate() {
        let probes_for_nothing = config.mode == Mode::Observe && upstream.health.probe.is_some();
        paths.extend(probes_for_nothing.then(|| format!("$.upstreams[{at}].health.probe")));
        let draws_none =
            |guard: Guard| config.mode == Mode::Observe || (!guard.include_keyed && all_have_a_key(upstream));
        let unguarded = upstream.guard.is_some_and(draws_none);
        paths.extend(unguarded.then(|| format!("$.upstreams[{at}].guard")));
        paths.extend(in_upstream(upstream).map(|field| format!("$.upstreams[{at}].{field}")));
    }
    paths
}

/// Whether every request has a key, so that a guard without `include_keyed` draws none.
fn all_have_a_key(upstream: &Upstream) -> bool {
    match (&upstream.policy, &upstream.affinity) {
        (Policy::IpHash, _) => true,
        (policy, Some(Affinity::SourceIp)) => hashes(policy) || !upstream.split.is_empty(),
        (policy, Some(Affinity::Cookie(cookie))) => {
            cookie.set && (hashes(policy) || !upstream.split.is_empty())
        }
        _ => false,
    }
}

fn hashes(policy: &Policy) -> bool {
    matches!(policy, Policy::IpHash | Policy::ConsistentHash(_))
}

fn in_upstream(upstream: &Upstream) -> impl Iterator<Item = &'static str> {
    let unread = upstream.affinity.is_some() && !hashes(&upstream.policy) && upstream.split.is_empty();
    let settings = [(unread, "affinity")];
    settings.into_iter().filter(|(given, _)| *given).map(|(_, field)| field)
}
