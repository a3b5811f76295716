//! The report of a cluster: load, decisions, and how its requests are divided.

use serde::Serialize;

use super::discovery::{Discovery, SignalFit};
use super::endpoint::Line;
use super::rounding::{fine, short};
use super::shown::Shown;
use super::{Sources, discovery, endpoint, names};
use crate::telemetry::status::guard::GuardReport;
use engine::endpoint::Endpoint;
use engine::{Cluster, DecisionTimes, RECENT_S, Reason, SubsetLoad, Totals};

/// The number of recent picks below which there is no traffic: the rest of a decaying count a minute after traffic
/// ended.
const MIN_RECENT: f32 = 0.5;

/// The report of a cluster.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterReport<'a> {
    /// The cluster's name.
    pub cluster: &'a str,
    /// The policy, as configured.
    pub policy: &'static str,
    /// Whether `cost` is in seconds.
    pub cost_in_seconds: bool,
    /// The load relative to the autoscaling target.
    pub pressure: Option<f64>,
    /// The desired number of endpoints for the load.
    pub desired_replicas: Option<u32>,
    /// The number of eligible endpoints.
    pub eligible: usize,
    /// Whether health is ignored because too few endpoints are healthy.
    pub panic: bool,
    /// Whether it has had no requests although the process has had traffic for minutes.
    pub unmet: bool,
    /// The median latency of its endpoints.
    pub typical_latency_ms: f64,
    /// Recent decisions per second.
    pub picks_per_s: f64,
    /// Requests in flight.
    pub in_flight: u64,
    /// Decisions by reason, since the process began.
    pub decisions: Decisions,
    /// The time that sampled decisions took; `None` before the first.
    pub decision_time: Option<DecisionTime>,
    /// Steered requests that another host answered than the named one, without a retry.
    pub not_followed: u64,
    /// Requests whose route was chosen after evenkeel had seen them.
    pub rerouted: u64,
    /// Load reports that could not be read.
    pub unusable_reports: u64,
    /// Out-of-band probes; absent without `health.probe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<Probes>,
    /// Number of ejections.
    pub ejections: u64,
    /// State changes by new state.
    pub state_changes: Changes,
    /// The comparison with Envoy's own decisions; only in observe mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// The guard's finding; absent without a guard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<GuardReport>,
    /// Its sources of endpoints, and what they name that cannot be used.
    pub discovery: Discovery<'a>,
    /// How the series of each signal match the endpoints.
    pub signals: Vec<SignalFit<'a>>,
    /// How requests are divided by version, priority and zone; one entry if they are not.
    pub parts: Vec<Share<'a>>,
    /// The number of endpoints, shown or not.
    pub endpoint_count: usize,
    /// The number of endpoints left out below.
    pub endpoints_left_out: usize,
    /// The endpoints, as many as one response may have.
    pub endpoints: Vec<Line<'a>>,
}

/// A subset of endpoints that share a part of the requests: those of one version, priority and side of the zone's
/// border.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Share<'a> {
    /// Version; empty without a split.
    pub version: &'a str,
    /// Priority; 0 is used first.
    pub priority: u32,
    /// Whether it is in the proxy's zone; `None` without zones.
    pub local: Option<bool>,
    /// Envoy's locality; empty if requests are not divided by locality weights.
    pub locality: &'a str,
    /// The number of endpoints.
    pub endpoints: usize,
    /// Its fraction of the upstream's requests, 0..=1.
    pub load: f64,
    /// How busy it is, where 1 is full; only with zones.
    pub pressure: Option<f64>,
    /// Whether health is ignored in it.
    pub panic: bool,
}

/// Decisions by reason.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Decisions {
    /// Chosen by the policy.
    pub policy: u64,
    /// A probe of an endpoint that gets no other traffic.
    pub probe: u64,
    /// An ejected endpoint, because the eligible ones could not carry the load.
    pub overflow: u64,
    /// No endpoint was eligible: left to Envoy's fallback policy.
    pub fallback: u64,
    /// Left to Envoy, as the part of hosts that cannot be steered to.
    pub unsteerable: u64,
    /// Held out for the guard's comparison: left to Envoy.
    pub held_out: u64,
    /// The guard has found harm: left to Envoy.
    pub guard_aside: u64,
    /// No endpoint was eligible: answered with 503.
    pub reject: u64,
    /// No endpoint was eligible: sent to the safe endpoint.
    pub safe_endpoint: u64,
}

impl Decisions {
    fn of(totals: &Totals) -> Decisions {
        Decisions {
            policy: totals.policy,
            probe: totals.probes,
            overflow: totals.overflow,
            fallback: totals.fallbacks,
            unsteerable: totals.unsteerable,
            held_out: totals.guard.held_out,
            guard_aside: totals.guard.aside,
            reject: totals.rejects,
            safe_endpoint: totals.safe_endpoint,
        }
    }

    /// The counts by reason, with the names used in labels.
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

/// The time that decisions take; one in 64 is timed.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DecisionTime {
    /// The number of timed decisions.
    pub timed: u64,
    /// Their mean, microseconds.
    pub mean_us: f64,
    /// Their median, microseconds, as far as the histogram's bounds tell.
    pub p50_us: Option<f64>,
    /// Their 99th percentile, microseconds.
    pub p99_us: Option<f64>,
    /// The histogram, for the metrics.
    #[serde(skip)]
    pub times: DecisionTimes,
}

/// Out-of-band probes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Probes {
    /// Probes sent.
    pub sent: u64,
    /// Probes that failed.
    pub failed: u64,
}

/// State changes by new state.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Changes {
    /// Recovered.
    pub healthy: u64,
    /// After a first failure.
    pub suspect: u64,
    /// After several failures.
    pub failed: u64,
    /// After a successful probe.
    pub recovering: u64,
}

/// The comparison with Envoy's own decisions in observe mode.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Observed {
    /// Decisions that could be compared.
    pub compared: u64,
    /// Compared decisions that named the endpoint that Envoy chose.
    pub agreed: u64,
    /// The mean expected latency saved by the named endpoint over Envoy's, milliseconds.
    pub gain_ms: Option<f64>,
}

/// The report of the upstream at `at`, with at most `room` endpoints.
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
    let line = |(index, endpoint): (u32, Endpoint<'a>)| {
        let (state, explained) = (upstream.endpoint(index)?, upstream.explain(index, sources.now)?);
        let counts = (of(endpoint.hash), recent);
        Some(endpoint::line(upstream, (endpoint, state, index), &explained, counts, sources.now))
    };
    let endpoints: Vec<Line<'a>> =
        upstream.fleet().iter().filter(|(index, _)| shown.has(*index)).filter_map(line).collect();
    let out_of_band = totals.out_of_band;
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
        decisions: Decisions::of(&totals),
        decision_time: decision_time(totals.times),
        not_followed: totals.astray.not_followed,
        rerouted: totals.astray.rerouted,
        unusable_reports: totals.unusable_reports,
        probes: config
            .health
            .probe
            .as_ref()
            .map(|_| Probes { sent: out_of_band.sent, failed: out_of_band.failed }),
        ejections: totals.ejections,
        state_changes: Changes { healthy, suspect, failed, recovering },
        guard: sources.guards.get(at).copied().flatten().map(|guard| GuardReport::of(guard, sources.now)),
        discovery: discovery::discovery(
            upstream,
            sources.discovery.get(at),
            sources.bypassed.get(at).cloned().unwrap_or_default(),
            sources.now,
        ),
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
