//! Series per upstream, and per subset of one.

use super::super::report::{Changes, ClusterReport, PolledSource, Share};
use super::scaling::scaling;
use super::text::{OfUpstream, Text, escaped};
use crate::discovery::source::Origin;
use engine::BOUNDS_NS;

/// Name, kind and help of what each upstream has one number of, and the number.
const NUMBERS: &[(&str, &str, &str, OfUpstream)] = &[
    ("unmet", "gauge", "1 while there is traffic, but none to this cluster.", |u| Some(f64::from(u.unmet))),
    ("endpoints", "gauge", "Endpoints known.", |u| Some(u.endpoint_count as f64)),
    ("endpoints_left_out", "gauge", "Endpoints left out of this response, which has a limit.", |u| {
        Some(u.endpoints_left_out as f64)
    }),
    ("eligible_endpoints", "gauge", "Endpoints that may be chosen.", |u| Some(u.eligible as f64)),
    ("panic", "gauge", "1 while health is ignored because too few endpoints are healthy.", |u| {
        Some(f64::from(u.panic))
    }),
    ("ejections_total", "counter", "Ejections: times an endpoint was taken out of traffic.", |u| {
        Some(u.ejections as f64)
    }),
    (
        "not_followed_total",
        "counter",
        "Steered requests answered by another host than the chosen one, not counting retries.",
        |u| Some(u.not_followed as f64),
    ),
    ("rerouted_total", "counter", "Requests not steered because their route changed after evenkeel.", |u| {
        Some(u.rerouted as f64)
    }),
    (
        "unusable_reports_total",
        "counter",
        "Load reports that were not a number, negative or without the configured value.",
        |u| Some(u.unusable_reports as f64),
    ),
    ("probes_total", "counter", "Probes out of band (health.probe).", |u| Some(u.probes?.sent as f64)),
    ("probe_failures_total", "counter", "Probes out of band that failed.", |u| Some(u.probes?.failed as f64)),
];
/// The same of observe mode.
const OBSERVED: &[(&str, &str, &str, OfUpstream)] = &[
    (
        "observed_decisions_total",
        "counter",
        "Observe mode: decisions that could be compared with Envoy's own.",
        |u| Some(u.observed?.compared as f64),
    ),
    (
        "observed_agreements_total",
        "counter",
        "Observe mode: decisions that named the endpoint that Envoy chose.",
        |u| Some(u.observed?.agreed as f64),
    ),
    (
        "observed_gain_seconds",
        "gauge",
        "Observe mode: expected latency saved by following the decisions, mean since the start.",
        |u| Some(u.observed?.gain_ms? / 1e3),
    ),
];

#[inline(never)]
pub(super) fn upstreams(text: &mut Text, of: &[ClusterReport<'_>]) {
    numbers(text, of, NUMBERS);
    scaling(text, of);
    decisions(text, of);
    state_changes(text, of);
    discovery(text, of);
    parts(text, of);
    decision_times(text, of);
    numbers(text, of, OBSERVED);
}

#[inline(never)]
fn numbers(text: &mut Text, of: &[ClusterReport<'_>], all: &[(&str, &str, &str, OfUpstream)]) {
    for (name, kind, help, value) in all {
        text.upstream((name, kind, help), of, value);
    }
}

#[inline(never)]
fn decisions(text: &mut Text, of: &[ClusterReport<'_>]) {
    let name = "evenkeel_upstream_decisions_total";
    text.head(name, "counter", "Requests by the reason of their decision.");
    for (at, upstream) in of.iter().enumerate() {
        for (reason, count) in upstream.decisions.by_reason() {
            let labels = format!("{},reason=\"{reason}\"", text.upstream_labels(at));
            text.sample(name, &labels, count as f64);
        }
    }
}

#[inline(never)]
fn state_changes(text: &mut Text, of: &[ClusterReport<'_>]) {
    let name = "evenkeel_upstream_state_changes_total";
    text.head(name, "counter", "Changes of an endpoint's health state, by the new state.");
    for (at, upstream) in of.iter().enumerate() {
        let Changes { healthy, suspect, failed, recovering } = upstream.state_changes;
        let counts =
            [("healthy", healthy), ("suspect", suspect), ("failed", failed), ("recovering", recovering)];
        for (state, count) in counts {
            let labels = format!("{},state=\"{state}\"", text.upstream_labels(at));
            text.sample(name, &labels, count as f64);
        }
    }
}

/// The sources of endpoints, if any is polled.
#[inline(never)]
fn discovery(text: &mut Text, of: &[ClusterReport<'_>]) {
    type Value = fn(&PolledSource<'_>) -> Option<f64>;
    let all: [(&str, &str, &str, Value); 5] = [
        ("endpoints", "gauge", "Endpoints of the source's list.", |s| Some(s.endpoints as f64)),
        ("absent_endpoints", "gauge", "Endpoints that the source's latest answers did not name.", |s| {
            Some(s.absent as f64)
        }),
        ("skipped", "gauge", "Entries of the source's latest answer without an address.", |s| {
            Some(f64::from(s.skipped))
        }),
        ("failures_total", "counter", "Polls of the source without a usable answer.", |s| {
            Some(s.failures as f64)
        }),
        ("answer_age_seconds", "gauge", "Age of the source's latest usable answer.", |s| s.answered_age_s),
    ];
    for (what, kind, help, value) in all {
        let mut headed = false;
        let name = format!("evenkeel_upstream_discovery_{what}");
        for (at, upstream) in of.iter().enumerate() {
            for source in &upstream.discovery.sources {
                let Some(value) = value(source) else { continue };
                if !core::mem::replace(&mut headed, true) {
                    text.head(&name, kind, help);
                }
                let labels = format!("{},source=\"{}\"", text.upstream_labels(at), source.source);
                text.sample(&name, &labels, value);
            }
        }
    }
    let help = "Addresses from other sources that Envoy's cluster does not have; they get no requests.";
    text.upstream(("unknown_to_envoy", "gauge", help), of, &|u| {
        let asks_envoy = u.discovery.sources.iter().any(|s| s.source == Origin::Envoy.name());
        asks_envoy.then_some(u.discovery.unknown_to_envoy as f64)
    });
}

/// Shares by version, priority and zone, if requests are divided at all.
#[inline(never)]
fn parts(text: &mut Text, of: &[ClusterReport<'_>]) {
    type Value = fn(&Share<'_>) -> Option<f64>;
    let divided = |u: &&ClusterReport<'_>| u.parts.len() > 1;
    let both: [(&str, &str, Value); 2] = [
        ("load", "Target share of the upstream's requests, 0 to 1.", |p| Some(p.load)),
        ("pressure", "Load of these endpoints in comparison with other zones; 1 is full.", |p| p.pressure),
    ];
    for (what, help, value) in both {
        if !of.iter().filter(divided).flat_map(|u| &u.parts).any(|part| value(part).is_some()) {
            continue;
        }
        let name = format!("evenkeel_upstream_part_{what}");
        text.head(&name, "gauge", help);
        for (at, upstream) in of.iter().enumerate().filter(|(_, u)| divided(u)) {
            for part in &upstream.parts {
                let zone = part.local.map_or("", |local| if local { "local" } else { "other" });
                let (version, priority) = (escaped(part.version), part.priority);
                let locality = match part.locality {
                    "" => String::new(),
                    name => format!(",locality=\"{}\"", escaped(name)),
                };
                let labels = format!(
                    "{},version=\"{version}\",priority=\"{priority}\",zone=\"{zone}\"{locality}",
                    text.upstream_labels(at)
                );
                value(part).into_iter().for_each(|value| text.sample(&name, &labels, value));
            }
        }
    }
}

/// The times of sampled decisions, as a histogram.
#[inline(never)]
fn decision_times(text: &mut Text, of: &[ClusterReport<'_>]) {
    let timed = |u: &ClusterReport<'_>| u.decision_time.map(|time| time.times);
    if of.iter().all(|u| timed(u).is_none()) {
        return;
    }
    let name = "evenkeel_upstream_decision_seconds";
    text.head(name, "histogram", "Time that a decision took, of one in 64.");
    for (at, times) in of.iter().enumerate().filter_map(|(at, u)| Some((at, timed(u)?))) {
        let upstream = text.upstream_labels(at).to_owned();
        let bounds = BOUNDS_NS.iter().map(|ns| format!("{}", *ns as f64 / 1e9)).chain(["+Inf".to_owned()]);
        let mut below = 0;
        for (bound, bucket) in bounds.zip(times.buckets) {
            below += bucket;
            text.sample(&format!("{name}_bucket"), &format!("{upstream},le=\"{bound}\""), below as f64);
        }
        text.sample(&format!("{name}_sum"), &upstream, times.sum_ns as f64 / 1e9);
        text.sample(&format!("{name}_count"), &upstream, below as f64);
    }
}
