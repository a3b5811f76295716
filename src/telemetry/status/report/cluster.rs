//! A balanced cluster: its load, what decided, and how its requests are divided.

use serde::Serialize;

use super::discovery::{Discovery, SignalFit};
use super::endpoint::Line;
use super::rounding::{fine, short};
use super::shown::Shown;
use super::{Sources, discovery, endpoint, names};
use crate::telemetry::status::guard::GuardReport;
use engine::{Cluster, DecisionTimes, RECENT_S, Reason, SubsetLoad, Totals};

/// Fewer recent picks than this are none: what is left of traffic that ended a minute ago.
const MIN_RECENT: f32 = 0.5;

/// A balanced cluster.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterReport<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// The policy, as configured.
    pub policy: &'static str,
    /// Whether `cost` is in seconds.
    pub cost_in_seconds: bool,
    /// How loaded the fleet is, against what it is to be.
    pub pressure: Option<f64>,
    /// How many endpoints there should be.
    pub desired_replicas: Option<u32>,
    /// How many endpoints may be chosen.
    pub eligible: usize,
    /// Whether so few are well that health is ignored.
    pub panic: bool,
    /// Whether no request has met it, though others have been sent for minutes.
    pub unmet: bool,
    /// The fleet's median latency.
    pub typical_latency_ms: f64,
    /// Decisions a second, lately.
    pub picks_per_s: f64,
    /// Requests in flight.
    pub in_flight: u64,
    /// What decided, ever.
    pub decisions: Decisions,
    /// How long a sample of the decisions took; none before the first.
    pub decision_time: Option<DecisionTime>,
    /// Steered requests that another host answered than the one that was named, retries apart.
    pub not_followed: u64,
    /// Requests whose route was chosen after evenkeel had looked at them.
    pub rerouted: u64,
    /// Load reports of endpoints that could not be used.
    pub unusable_reports: u64,
    /// Probes out of band; not there without `health.probe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<Probes>,
    /// Times an endpoint was taken out of traffic.
    pub ejections: u64,
    /// Changes of state, by the new one.
    pub state_changes: Changes,
    /// What observing showed; in mode `observe` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// What the guard has found; not there without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<GuardReport>,
    /// What its sources of endpoints say, and what of that cannot be used.
    pub discovery: Discovery<'a>,
    /// What the series of each signal have to do with the endpoints.
    pub signals: Vec<SignalFit<'a>>,
    /// How the requests are divided over versions, priorities and zones; one where they are not.
    pub parts: Vec<Share<'a>>,
    /// How many endpoints there are, shown or not.
    pub endpoint_count: usize,
    /// How many of them are left out below.
    pub endpoints_left_out: usize,
    /// Every endpoint, or as many as one answer has room for.
    pub endpoints: Vec<Line<'a>>,
}

/// Endpoints that get a part of the requests together: those of one version, priority and side of the zone's border.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Share<'a> {
    /// Empty without a split.
    pub version: &'a str,
    /// 0 is used first.
    pub priority: u32,
    /// Whether it is in the proxy's zone; none without zones.
    pub local: Option<bool>,
    /// Which of Envoy's localities; empty where requests are not divided by their weights.
    pub locality: &'a str,
    /// How many endpoints.
    pub endpoints: usize,
    /// The part of the upstream's requests that it is to get, 0 to 1.
    pub load: f64,
    /// How busy it is, 1 is full; only with zones.
    pub pressure: Option<f64>,
    /// Whether health is ignored here.
    pub panic: bool,
}

/// Requests by what decided where they go.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Decisions {
    /// The policy.
    pub policy: u64,
    /// The need to look after an endpoint that gets no traffic.
    pub probe: u64,
    /// More than the eligible endpoints can carry: an ejected one.
    pub overflow: u64,
    /// No endpoint was eligible: Envoy.
    pub fallback: u64,
    /// Some hosts can only be reached by Envoy's own policy: their part.
    pub unsteerable: u64,
    /// Left to Envoy's own policy, to compare it.
    pub held_out: u64,
    /// The guard has found harm: Envoy.
    pub guard_aside: u64,
    /// No endpoint was eligible: answered 503.
    pub reject: u64,
    /// No endpoint was eligible: the safe endpoint.
    pub safe_endpoint: u64,
}

impl Decisions {
    /// Reasons with their counts, as they stand in labels.
    #[inline(never)]
    pub fn by_reason(&self) -> [(&'static str, u64); 9] {
        [
            (Reason::Policy.name(), self.policy),
            (Reason::Probe.name(), self.probe),
            (Reason::Overflow.name(), self.overflow),
            (Reason::Fallback.name(), self.fallback),
            (Reason::Unsteerable.name(), self.unsteerable),
            (Reason::HeldOut.name(), self.held_out),
            (Reason::GuardAside.name(), self.guard_aside),
            (Reason::Reject.name(), self.reject),
            (Reason::SafeEndpoint.name(), self.safe_endpoint),
        ]
    }
}

/// How long decisions take, of which one in 64 is timed.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DecisionTime {
    /// How many have been timed.
    pub timed: u64,
    /// Their mean.
    pub mean_us: f64,
    /// Half of them took no longer, as far as the histogram's bounds tell.
    pub p50_us: Option<f64>,
    /// The same of 99 in 100.
    pub p99_us: Option<f64>,
    /// The histogram, for the metrics.
    #[serde(skip)]
    pub times: DecisionTimes,
}

/// Probes out of band.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Probes {
    /// All that were sent.
    pub sent: u64,
    /// Of these, those that failed.
    pub failed: u64,
}

/// Changes of state, by the new one.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Changes {
    /// Back to health.
    pub healthy: u64,
    /// A first failure.
    pub suspect: u64,
    /// Failed.
    pub failed: u64,
    /// A probe went well.
    pub recovering: u64,
}

/// What would have happened.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Observed {
    /// Decisions that could be compared with Envoy's own.
    pub compared: u64,
    /// Of these, the same endpoint.
    pub agreed: u64,
    /// Expected latency of Envoy's endpoint less that of the one that would have been chosen, on the mean.
    pub gain_ms: Option<f64>,
}

/// The report on the upstream at this place, with at most `room` endpoints in it.
#[inline(never)]
pub(super) fn cluster<'a>(
    (at, upstream): (usize, &'a Cluster),
    room: usize,
    sources: &Sources<'a>,
) -> ClusterReport<'a> {
    let config = upstream.config();
    let counted = sources.counts.upstream(upstream.hash());
    let of = |identity: u64| counted.and_then(|c| c.endpoints.get(&identity)).copied().unwrap_or_default();
    let recent: f32 = upstream.fleet().iter().map(|(_, endpoint)| of(endpoint.hash).recent).sum();
    let recent = if recent < MIN_RECENT { 0.0 } else { recent };
    let totals = counted.map(|c| c.totals).unwrap_or_default();
    let shown = Shown::of(upstream, room);
    let lines =
        upstream.fleet().iter().filter(|(index, _)| shown.has(*index)).filter_map(|(index, endpoint)| {
            let member = upstream.member(index)?;
            let explained = upstream.explain(index, sources.now)?;
            Some(endpoint::line(
                upstream,
                (endpoint, member, index),
                &explained,
                (of(endpoint.hash), recent),
                sources.now,
            ))
        });
    let endpoints: Vec<Line<'a>> = lines.collect();
    let [healthy, suspect, failed, recovering] = totals.changes;
    ClusterReport {
        cluster: upstream.cluster(),
        policy: names::policy(&config.policy),
        cost_in_seconds: names::costs_seconds(&config.policy),
        pressure: upstream.pressure().map(fine),
        desired_replicas: upstream.desired_replicas(),
        eligible: shown.eligible,
        panic: upstream.panics(),
        unmet: totals.decisions() == 0 && sources.has_long_had_traffic(),
        typical_latency_ms: short(upstream.typical() * 1e3),
        picks_per_s: short(f64::from(recent) / RECENT_S),
        in_flight: shown.in_flight,
        decisions: Decisions {
            policy: totals.policy,
            probe: totals.probes,
            overflow: totals.overflow,
            fallback: totals.fallbacks,
            unsteerable: totals.unsteerable,
            held_out: totals.guard.held_out,
            guard_aside: totals.guard.aside,
            reject: totals.rejects,
            safe_endpoint: totals.safe_endpoint,
        },
        decision_time: decision_time(totals.times),
        not_followed: totals.astray.not_followed,
        rerouted: totals.astray.rerouted,
        unusable_reports: totals.unusable_reports,
        probes: config
            .health
            .probe
            .as_ref()
            .map(|_| Probes { sent: totals.out_of_band.sent, failed: totals.out_of_band.failed }),
        ejections: totals.ejections,
        state_changes: Changes { healthy, suspect, failed, recovering },
        guard: sources.guards.get(at).copied().flatten().map(|guard| GuardReport::of(guard, sources.now)),
        discovery: discovery::discovery(upstream, sources.discovery.get(at), sources.now),
        signals: config
            .signals
            .iter()
            .enumerate()
            .map(|signal| discovery::signal_fit(signal, upstream, sources.snapshot))
            .collect(),
        parts: upstream.parts().map(|part| share_of(&part, config.zone.is_some())).collect(),
        observed: (sources.config.mode == config::Mode::Observe).then(|| observed(&totals)),
        endpoint_count: shown.count,
        endpoints_left_out: shown.count - endpoints.len(),
        endpoints,
    }
}

#[inline(never)]
fn share_of<'a>(part: &SubsetLoad<'a>, zones: bool) -> Share<'a> {
    Share {
        version: part.version,
        priority: part.priority,
        local: zones.then_some(part.local),
        locality: part.locality,
        endpoints: part.endpoints,
        load: fine(part.load),
        pressure: part.pressure.map(fine),
        panic: part.panic,
    }
}

#[inline(never)]
fn decision_time(times: DecisionTimes) -> Option<DecisionTime> {
    let us = |part| times.quantile_s(part).map(|s| short(s * 1e6));
    (times.count() > 0).then(|| DecisionTime {
        timed: times.count(),
        mean_us: short(times.sum_ns as f64 / 1e3 / times.count() as f64),
        p50_us: us(0.5),
        p99_us: us(0.99),
        times,
    })
}

#[inline(never)]
fn observed(totals: &Totals) -> Observed {
    let of = totals.observed;
    let gain_us = of.gained_us as f64 - of.lost_us as f64;
    let gain_ms = (of.compared > 0).then(|| short(gain_us / 1e3 / of.compared as f64));
    Observed { compared: of.compared, agreed: of.agreed, gain_ms }
}
