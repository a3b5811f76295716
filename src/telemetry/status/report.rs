//! The view of the whole process that page, JSON and metrics are made of. Units stand in the names.

use serde::Serialize;

use super::names;
use crate::discovery::source::{Origin, Source};
use crate::sharing::counts::{Counts, EndpointCounts};
use crate::sharing::snapshot::Snapshot;
use config::Config;
use engine::endpoint::EndpointState;
use engine::endpoint::EndpointView;
use engine::endpoint::{AnnouncedHealth, Endpoint};
use engine::health::State;
use engine::settings::RuleAction;
use engine::time::Time;
use engine::{Balancer, Cluster, DecisionTimes, Explained, RECENT_S, Reason, SubsetLoad, Totals};

/// Fewer recent picks than this are none: what is left of traffic that ended a minute ago.
const MIN_RECENT: f32 = 0.5;

/// An upstream without requests is worth a word after this long, seconds.
const UNMET_AFTER_S: f64 = 300.0;
/// The latest answer is stale after so many pauses between polls …
const STALE_AFTER: f64 = 3.0;
/// … and not before this, seconds.
const MIN_STALE_S: f64 = 30.0;

/// Where everything comes from.
pub struct Sources<'a> {
    /// The configuration in force.
    pub config: &'a Config,
    /// What one worker knows, the others' knowledge merged in.
    pub engine: &'a Balancer,
    /// What Prometheus said.
    pub snapshot: &'a Snapshot,
    /// Clusters that requests have met and no upstream balances.
    pub unmatched: Vec<&'a str>,
    /// By upstream: its sources of endpoints, and how many addresses Envoy's cluster does not have.
    pub discovery: Vec<(Vec<(Origin, &'a Source)>, usize)>,
    /// What all workers have counted.
    pub counts: Counts,
    /// How many workers carry traffic.
    pub workers: usize,
    /// When the first worker of the process began.
    pub founded: Time,
    /// Where a later configuration is wrong that was refused.
    pub refused: &'a [String],
    /// The moment of the view.
    pub now: Time,
}

impl Sources<'_> {
    /// Whether there have been requests for minutes, to whatever cluster.
    fn has_long_had_traffic(&self) -> bool {
        let any = self.counts.upstreams.values().any(|counted| counted.totals.decisions() > 0);
        any && self.now.seconds_since(self.founded) >= UNMET_AFTER_S
    }
}

/// The whole process.
#[derive(Clone, Debug, Serialize)]
pub struct Report<'a> {
    /// The filter's version.
    pub version: &'static str,
    /// `enforce` or `observe`.
    pub mode: &'static str,
    /// Since the process first loaded the filter, reloads included.
    pub uptime_s: f64,
    /// Workers that carry traffic.
    pub workers: usize,
    /// Where a later configuration is wrong that was refused; not there without one.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub configuration_refused: &'a [String],
    /// How the polls go.
    pub prometheus: Polls<'a>,
    /// Requests to clusters that no entry of the configuration names, and the first of these.
    pub unmatched: Unmatched<'a>,
    /// Every balanced cluster.
    pub upstreams: Vec<ClusterReport<'a>>,
}

/// Requests to clusters that no entry of the configuration names.
#[derive(Clone, Debug, Serialize)]
pub struct Unmatched<'a> {
    /// How many, ever.
    pub requests: u64,
    /// Some of the clusters.
    pub clusters: Vec<&'a str>,
}

/// How the polls of Prometheus go.
#[derive(Clone, Debug, Serialize)]
pub struct Polls<'a> {
    /// Whether anybody is to be asked.
    pub configured: bool,
    /// Sent.
    pub polls: u64,
    /// Without a usable answer.
    pub failures: u64,
    /// None before the first success.
    pub last_success_age_s: Option<f64>,
    /// None if nothing ever failed.
    pub last_error: Option<&'a str>,
    /// The pause between polls at present: longer than configured while there is no traffic. None without Prometheus.
    pub pause_s: Option<f64>,
    /// Whether the latest usable answer is older than three such pauses, and half a minute.
    pub stale: bool,
}

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
    /// Times an endpoint was taken out of traffic.
    pub ejections: u64,
    /// Changes of state, by the new one.
    pub state_changes: Changes,
    /// What observing showed; in mode `observe` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// What its sources of endpoints say, and what of that cannot be used.
    pub discovery: Discovery<'a>,
    /// What the series of each signal have to do with the endpoints.
    pub signals: Vec<SignalFit<'a>>,
    /// How the requests are divided over versions, priorities and zones; one where they are not.
    pub parts: Vec<Share<'a>>,
    /// Every endpoint.
    pub endpoints: Vec<Line<'a>>,
}

/// What the sources of an upstream's endpoints say.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Discovery<'a> {
    /// Each source that is asked.
    pub sources: Vec<Asked<'a>>,
    /// Addresses that other sources name and Envoy's cluster does not have: they get no requests.
    pub unknown_to_envoy: usize,
    /// The part of the requests that is left to Envoy's own policy, because some hosts have no IP address; 0 to 1.
    pub left_to_envoy: f64,
}

/// A source of endpoints.
#[derive(Clone, Debug, Serialize)]
pub struct Asked<'a> {
    /// `prometheus` or `envoy_admin`.
    pub source: &'static str,
    /// Endpoints of its list.
    pub endpoints: usize,
    /// Of these, endpoints that its latest answers did not name.
    pub absent: usize,
    /// Entries of its latest answer that name no address.
    pub skipped: u32,
    /// What the first of those are called.
    pub examples: &'a str,
    /// Usable answers.
    pub answers: u64,
    /// Questions without one.
    pub failures: u64,
    /// None before the first usable answer.
    pub answered_age_s: Option<f64>,
    /// None if the latest question was answered.
    pub error: Option<&'a str>,
}

impl<'a> Asked<'a> {
    fn of(origin: Origin, source: &'a Source, now: Time) -> Asked<'a> {
        Asked {
            source: origin.name(),
            endpoints: source.found.len(),
            absent: source.absences.open.len(),
            skipped: source.skipped,
            examples: &source.examples,
            answers: source.answers,
            failures: source.failures,
            answered_age_s: source.known().map(|_| short(now.seconds_since(source.last_success))),
            error: Some(source.error.as_str()).filter(|error| !error.is_empty()),
        }
    }
}

/// What the latest answer for a signal had to do with the endpoints.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SignalFit<'a> {
    /// The signal's name.
    pub name: &'a str,
    /// How many series the answer had; none before the first.
    pub series: Option<u32>,
    /// How many of them name an endpoint.
    pub matched: Option<u32>,
    /// What is wrong; none while an endpoint is named.
    pub problem: Option<&'a str>,
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
    /// No endpoint was eligible: Envoy.
    pub fallback: u64,
    /// Some hosts can only be reached by Envoy's own policy: their part.
    pub unsteerable: u64,
    /// No endpoint was eligible: answered 503.
    pub reject: u64,
    /// No endpoint was eligible: the safe endpoint.
    pub safe_endpoint: u64,
}

impl Decisions {
    /// Reasons with their counts, as they stand in labels.
    pub fn by_reason(&self) -> [(&'static str, u64); 6] {
        [
            (Reason::Policy.name(), self.policy),
            (Reason::Probe.name(), self.probe),
            (Reason::Fallback.name(), self.fallback),
            (Reason::Unsteerable.name(), self.unsteerable),
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

/// One endpoint.
#[derive(Clone, Debug, Serialize)]
pub struct Line<'a> {
    /// `ip:port`.
    pub address: &'a str,
    /// Empty if unknown.
    pub zone: &'a str,
    /// Empty if unknown.
    pub version: &'a str,
    /// Relative capacity.
    pub weight: f64,
    /// 0 is used first.
    pub priority: u32,
    /// `healthy`, `suspect`, `failed` or `draining`.
    pub state: &'static str,
    /// Whether it may be chosen.
    pub eligible: bool,
    /// Why it is not, or why it is all the same; empty if there is nothing to say.
    pub reason: &'static str,
    /// Requests on their way.
    pub in_flight: u32,
    /// To response headers; none before the first answer.
    pub latency_ms: Option<f64>,
    /// Failures among the latest answers, 0 to 1.
    pub error_ratio: f64,
    /// How loaded it is, by the same terms as the upstream.
    pub pressure: Option<f64>,
    /// Requests that ended.
    pub requests: u64,
    /// Of these, failures.
    pub failures: u64,
    /// Times it was chosen.
    pub picks: u64,
    /// Of the upstream's picks of about the last ten seconds, 0 to 1.
    pub share: f64,
    /// What the policy compares; none for policies without costs.
    pub cost: Option<f64>,
    /// What the cost and the share are made of.
    pub terms: CostBreakdown,
    /// By name.
    #[serde(serialize_with = "as_map")]
    pub signals: Vec<(&'a str, Signal)>,
}

/// What the cost and the share of an endpoint are made of.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CostBreakdown {
    /// Expected latency when idle, as far as it is known to differ from the fleet's.
    pub expected_ms: f64,
    /// Latency that requests without an answer prove.
    pub floor_ms: f64,
    /// What its requests in flight multiply the latency by.
    pub queueing: f64,
    /// What failures add.
    pub error_surcharge_ms: f64,
    /// What signals multiply its share by.
    pub signals: f64,
    /// What its slow start leaves of its share.
    pub slow_start: f64,
    /// The part of its version's requests that its priority and its side of the zone's border get, 0 to 1.
    pub load: f64,
    /// What a rule does to it, if one holds.
    pub rule: Option<&'static str>,
    /// Until its next single request, where it gets no other.
    pub next_probe_s: Option<f64>,
}

/// One signal of one endpoint.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Signal {
    /// Smoothed; none if unknown.
    pub value: Option<f64>,
    /// How old it is.
    pub age_s: Option<f64>,
    /// Whether it still counts.
    pub used: bool,
}

fn as_map<S: serde::Serializer>(signals: &[(&str, Signal)], out: S) -> Result<S::Ok, S::Error> {
    out.collect_map(signals.iter().map(|(name, signal)| (name, signal)))
}

/// Three digits behind the point: enough for eyes, and a third of the bytes.
fn short(value: f64) -> f64 {
    if value.is_finite() { (value * 1e3).round() / 1e3 } else { 0.0 }
}

/// Six digits behind the point, for ratios and seconds.
fn fine(value: f64) -> f64 {
    if value.is_finite() { (value * 1e6).round() / 1e6 } else { 0.0 }
}

/// The number as some endpoint would write it: not 0.10000000149 for a tenth.
fn as_written(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

impl<'a> Report<'a> {
    /// The view that `sources` give.
    pub fn of(sources: &Sources<'a>) -> Report<'a> {
        let stats = &sources.snapshot.stats;
        let success =
            (stats.last_success != Time::ZERO).then(|| short(sources.now.seconds_since(stats.last_success)));
        let configured = sources.config.prometheus.as_ref().map(|of| of.interval.as_secs_f64());
        let pause_s = configured.map(|interval_s| interval_s.max(f64::from(stats.pause_s)));
        Report {
            version: env!("CARGO_PKG_VERSION"),
            mode: names::mode(sources.config.mode),
            uptime_s: short(sources.now.seconds_since(sources.founded)),
            workers: sources.workers,
            configuration_refused: sources.refused,
            prometheus: Polls {
                configured: sources.config.prometheus.is_some(),
                polls: stats.polls,
                failures: stats.failures,
                last_success_age_s: success,
                last_error: Some(stats.last_error.as_str()).filter(|error| !error.is_empty()),
                pause_s: pause_s.map(short),
                stale: success
                    .zip(pause_s)
                    .is_some_and(|(age_s, pause_s)| age_s > MIN_STALE_S.max(STALE_AFTER * pause_s)),
            },
            unmatched: Unmatched {
                requests: sources.counts.unmatched(),
                clusters: sources.unmatched.clone(),
            },
            upstreams: (0..)
                .zip(sources.engine.upstreams())
                .map(|(at, u)| cluster((at, u), sources))
                .collect(),
        }
    }
}

fn cluster<'a>((at, upstream): (usize, &'a Cluster), sources: &Sources<'a>) -> ClusterReport<'a> {
    let config = upstream.config();
    let counted = sources.counts.upstream(upstream.hash());
    let of = |identity: u64| counted.and_then(|c| c.endpoints.get(&identity)).copied().unwrap_or_default();
    let recent: f32 = upstream.fleet().iter().map(|(_, endpoint)| of(endpoint.hash).recent).sum();
    let recent = if recent < MIN_RECENT { 0.0 } else { recent };
    let totals = counted.map(|c| c.totals).unwrap_or_default();
    let lines = upstream.fleet().iter().filter_map(|(index, endpoint)| {
        let member = upstream.member(index)?;
        let explained = upstream.explain(index, sources.now)?;
        Some(line(upstream, (endpoint, member, index), &explained, (of(endpoint.hash), recent), sources.now))
    });
    let endpoints: Vec<Line<'a>> = lines.collect();
    let [healthy, suspect, failed, recovering] = totals.changes;
    ClusterReport {
        cluster: upstream.cluster(),
        policy: names::policy(&config.policy),
        cost_in_seconds: names::costs_seconds(&config.policy),
        pressure: upstream.pressure().map(fine),
        desired_replicas: upstream.desired_replicas(),
        eligible: endpoints.iter().filter(|e| e.eligible).count(),
        panic: upstream.panics(),
        unmet: totals.decisions() == 0 && sources.has_long_had_traffic(),
        typical_latency_ms: short(upstream.typical() * 1e3),
        picks_per_s: short(f64::from(recent) / RECENT_S),
        in_flight: endpoints.iter().map(|e| u64::from(e.in_flight)).sum(),
        decisions: Decisions {
            policy: totals.policy,
            probe: totals.probes,
            fallback: totals.fallbacks,
            unsteerable: totals.unsteerable,
            reject: totals.rejects,
            safe_endpoint: totals.safe_endpoint,
        },
        decision_time: decision_time(totals.times),
        not_followed: totals.not_followed,
        rerouted: totals.rerouted,
        unusable_reports: totals.unusable_reports,
        ejections: totals.ejections,
        state_changes: Changes { healthy, suspect, failed, recovering },
        discovery: discovery(upstream, sources.discovery.get(at), sources.now),
        signals: config.signals.iter().map(|signal| signal_fit(signal, upstream, sources.snapshot)).collect(),
        parts: upstream.parts().map(|part| share_of(&part, config.zone.is_some())).collect(),
        observed: (sources.config.mode == config::Mode::Observe).then(|| observed(&totals)),
        endpoints,
    }
}

fn discovery<'a>(
    upstream: &Cluster,
    sources: Option<&(Vec<(Origin, &'a Source)>, usize)>,
    now: Time,
) -> Discovery<'a> {
    let left_to_envoy = fine(upstream.left_to_envoy());
    let Some((sources, unknown_to_envoy)) = sources else {
        return Discovery { left_to_envoy, ..Discovery::default() };
    };
    let sources = sources.iter().map(|(origin, source)| Asked::of(*origin, source, now)).collect();
    Discovery { sources, unknown_to_envoy: *unknown_to_envoy, left_to_envoy }
}

fn signal_fit<'a>(
    signal: &'a engine::settings::Signal,
    upstream: &Cluster,
    snapshot: &'a Snapshot,
) -> SignalFit<'a> {
    let fit = snapshot.get(upstream.hash(), &signal.name).map(|samples| &samples.fit);
    SignalFit {
        name: &signal.name,
        series: fit.map(|fit| fit.series),
        matched: fit.map(|fit| fit.matched),
        problem: fit.map(|fit| fit.problem.as_str()).filter(|problem| !problem.is_empty()),
    }
}

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

fn observed(totals: &Totals) -> Observed {
    let gain_us = totals.observed.gained_us as f64 - totals.observed.lost_us as f64;
    let gain_ms =
        (totals.observed.compared > 0).then(|| short(gain_us / 1e3 / totals.observed.compared as f64));
    Observed { compared: totals.observed.compared, agreed: totals.observed.agreed, gain_ms }
}

fn line<'a>(
    upstream: &'a Cluster,
    (endpoint, member, index): (Endpoint<'a>, EndpointView<'_>, u32),
    explained: &Explained,
    (counted, all_recent): (EndpointCounts, f32),
    now: Time,
) -> Line<'a> {
    let share = if all_recent > 0.0 { f64::from(counted.recent / all_recent) } else { 0.0 };
    let readings = upstream.config().signals.iter().zip(upstream.readings(index));
    Line {
        address: endpoint.text,
        zone: endpoint.zone(),
        version: endpoint.version(),
        weight: as_written(endpoint.weight),
        priority: endpoint.priority(),
        state: match member.condition {
            AnnouncedHealth::Draining => "draining",
            _ => names::state(member.health.state()),
        },
        eligible: member.eligible,
        reason: reason(upstream, &member, explained),
        in_flight: member.total_in_flight(),
        latency_ms: member.centre().map(|(centre, _)| short(centre.exp() * 1e3)),
        error_ratio: fine(upstream.error_ratio(index, now)),
        pressure: upstream.endpoint_pressure(index, now).map(fine),
        requests: counted.counters.requests,
        failures: counted.counters.failures,
        picks: counted.counters.picks,
        share: fine(share),
        cost: explained.cost.map(|cost| fine(f64::from(cost))),
        terms: CostBreakdown {
            expected_ms: short(explained.expected_s * 1e3),
            floor_ms: short(explained.min_latency_s * 1e3),
            queueing: short(explained.queueing),
            error_surcharge_ms: short(explained.error_penalty_s * 1e3),
            signals: short(explained.signals),
            slow_start: short(explained.slow_start),
            load: short(explained.load),
            rule: member.ruled.map(names::action),
            next_probe_s: explained.next_probe_s.map(short),
        },
        signals: readings
            .map(|(signal, reading)| {
                let (value, age_s) = reading.get(now).unzip();
                let used = signal.weight > 0.0 && reading.trust(now, upstream.fresh_s()) > 0.0;
                (signal.name.as_str(), Signal { value: value.map(fine), age_s: age_s.map(short), used })
            })
            .collect(),
    }
}

/// Why it gets no traffic, or gets it all the same.
pub fn reason(upstream: &Cluster, member: &EndpointState, explained: &Explained) -> &'static str {
    let well = member.health.state() == State::Healthy;
    let sound = well
        && !member.word.held()
        && !member.condition.is_unavailable()
        && member.ruled != Some(RuleAction::Eject);
    match (member.eligible, sound) {
        (true, true) if explained.load == 0.0 => {
            "in reserve: its priority or zone gets nothing at the moment"
        }
        (true, true) => "",
        (true, false) if upstream.panics() => "panic: too few are well, so health is ignored",
        (true, false) => "kept in traffic: as many as max_ejected_percent allows are out already",
        (false, _) if member.condition == AnnouncedHealth::Draining => "draining: on its way out",
        (false, _) if member.condition == AnnouncedHealth::Unhealthy => "Envoy's health checks took it out",
        (false, _) if member.health.state() == State::Stalled => {
            "several requests wait for an answer, and none comes"
        }
        (false, _) if member.health.state() == State::Suspect => "one failure: single requests verify it",
        (false, _) if member.health.state() == State::Failed => "failures in a row: half-open probes",
        (false, _) if member.health.state() == State::Recovering => "recovering: good probes are counted",
        (false, _) if member.ruled == Some(RuleAction::Eject) => "a rule took it out",
        (false, _) if member.word.held() => "it asked to be left alone: Retry-After",
        (false, _) if member.word.degraded() => "it says that it is degraded: others are enough",
        (false, _) if explained.load == 0.0 => "its version gets no part of the split",
        (false, _) => "degraded: others are enough",
    }
}
