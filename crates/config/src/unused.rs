//! Settings without effect: accepted, because they may have one in another version or mode, and logged at load, so that
//! they are not relied on.

use super::upstream::DEFAULT_SLOW_START;
use super::{Config, Mode};
use engine::settings::{
    Affinity, Cookie, Endpoints, Guard, Policy, PressureValue, RuleAction, RuleValue, Upstream,
};

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
        paths.extend(in_upstream(upstream).into_iter().map(|field| format!("$.upstreams[{at}].{field}")));
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

fn in_upstream(upstream: &Upstream) -> Vec<String> {
    let mut fields = Vec::new();
    if upstream.affinity.is_some() && !hashes(&upstream.policy) && upstream.split.is_empty() {
        fields.push("affinity".to_owned());
    }
    let is_dropped = |affinity: &Affinity| matches!(affinity, Affinity::Cookie(cookie) if cookie.set && is_dropped(cookie));
    if upstream.affinity.as_ref().is_some_and(is_dropped) {
        fields.push("affinity.cookie.set".to_owned());
    }
    if upstream.zone.as_ref().is_some_and(|zone| is_nowhere(&zone.local, &upstream.endpoints)) {
        fields.push("zone".to_owned());
    }
    let ejects_none = upstream.health.max_ejected_percent <= 0.0;
    for (at, rule) in upstream.rules.iter().enumerate() {
        let idle = match rule.action {
            RuleAction::Eject => ejects_none,
            RuleAction::DownWeight => hashes(&upstream.policy),
            RuleAction::Flag => false,
        };
        fields.extend(idle.then(|| format!("rules[{at}]")));
    }
    if hashes(&upstream.policy) {
        fields.extend(idle_signals(upstream));
        let warms_up = upstream.slow_start != DEFAULT_SLOW_START && !upstream.slow_start.is_zero();
        fields.extend(warms_up.then(|| "slow_start".to_owned()));
    }
    fields
}

/// Whether browsers drop the cookie for its name (RFC 6265bis, 4.1.3).
fn is_dropped(cookie: &Cookie) -> bool {
    let name = cookie.name.to_ascii_lowercase();
    let of_host = name.starts_with("__host-");
    (of_host || name.starts_with("__secure-")) && !cookie.secure || of_host && cookie.path != "/"
}

/// Whether no endpoint is in this zone, as far as that is known before any is found.
fn is_nowhere(local: &str, endpoints: &Endpoints) -> bool {
    let all_known = endpoints.prometheus.is_none() && endpoints.envoy_admin.is_none();
    all_known && local != "node" && endpoints.fixed.iter().all(|endpoint| endpoint.zone != local)
}

/// Signals and load reports that nothing reads: a key goes to its endpoint whatever that one's share.
fn idle_signals(upstream: &Upstream) -> Vec<String> {
    let with_pressure = upstream.autoscale.is_some() || upstream.zone.is_some();
    let is_read = |at: usize| {
        let ruled = |value: &RuleValue| *value == RuleValue::Signal(at);
        upstream.rules.iter().any(|rule| rule.action != RuleAction::DownWeight && ruled(&rule.value))
            || (with_pressure && upstream.pressure.iter().any(|term| term.value == PressureValue::Signal(at)))
    };
    // Load reports follow the polled signals.
    let polled = upstream.signals.iter().take_while(|signal| signal.report.is_none()).count();
    let idle =
        upstream.signals.iter().enumerate().filter(|(at, signal)| signal.weight > 0.0 && !is_read(*at));
    idle.map(|(at, _)| match at.checked_sub(polled) {
        Some(at) => format!("load_reports[{at}].weight"),
        None => format!("signals[{at}].weight"),
    })
    .collect()
}
