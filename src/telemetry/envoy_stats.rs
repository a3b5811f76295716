//! evenkeel's metrics among Envoy's own stats.
//!
//! Stats belong to the process, not to a worker. Counters only take increments, so each worker adds what it has counted
//! itself; of a gauge only the latest value stays, so the leader writes it for all. Nothing here runs on the request
//! path.
//!
//! Stats have no labels: these are part of the name, as in `upstream=.=web;.;`, and `stats_tags` turn them into labels.
//! Istio's own stats are spelt that way.

use crate::host::{Host, MetricKind};
use crate::sharing::snapshot::PollStats;
use config::search::split_once;
use config::{Config, Mode};
use engine::time::Time;
use engine::{Balancer, Cluster, Reason, Totals};

/// One decision in this many is timed: reading the clock costs a quarter of a microsecond.
const TIMED_ONE_OF: u32 = 64;
/// The highest number of times kept between two ticks; only beyond 16,000 requests per second and worker are there
/// more.
const MAX_TIMES: usize = 64;

/// This worker's values in Envoy's stats.
#[derive(Debug)]
pub(crate) struct EnvoyStats {
    wanted: bool,
    observes: bool,
    decisions: u32,
    times: Vec<(usize, u64)>,
    polls: Published<[u64; 2]>,
    upstreams: Vec<Published<Totals>>,
}

/// Values that have been published, and their metrics unless the host has refused them.
#[derive(Debug, Default)]
struct Published<T> {
    so_far: T,
    metrics: Option<Metrics>,
}

/// Metric numbers, in the order of the lists below.
#[derive(Debug, Default)]
struct Metrics {
    counters: Vec<Option<u32>>,
    gauges: Vec<Shown>,
    signals: Vec<Shown>,
    times: Option<u32>,
}

/// A gauge, defined with its first value: Envoy would show a zero before.
#[derive(Debug)]
struct Shown {
    name: String,
    metric: Option<Option<u32>>,
}

impl Shown {
    fn named(labels: &[(&str, &str)], name: &str) -> Shown {
        Shown { name: name_of(labels, name), metric: None }
    }

    #[inline(never)]
    fn show(&mut self, host: &dyn Host, value: u64) {
        let metric = *self.metric.get_or_insert_with(|| host.metric(MetricKind::Gauge, &self.name));
        metric.into_iter().for_each(|metric| host.record(metric, value));
    }
}

/// A counter: name, label with its value, and the count.
type Counter = (&'static str, Option<(&'static str, &'static str)>, fn(&Totals) -> u64);
/// A gauge: name and value; `None` if the value is unknown.
type Gauge = (&'static str, fn(&Cluster) -> Option<u64>);

/// The gauge that is 1 while the latest configuration is refused.
pub(crate) const REFUSED: &str = "configuration_refused";

const COUNTERS: [Counter; 21] = [
    ("decisions_total", Some(("reason", Reason::Policy.name())), |t| t.policy),
    ("decisions_total", Some(("reason", Reason::Probe.name())), |t| t.probes),
    ("decisions_total", Some(("reason", Reason::Overflow.name())), |t| t.overflow),
    ("decisions_total", Some(("reason", Reason::Fallback.name())), |t| t.fallbacks),
    ("decisions_total", Some(("reason", Reason::Unsteerable.name())), |t| t.unsteerable),
    ("decisions_total", Some(("reason", Reason::HeldOut.name())), |t| t.guard.held_out),
    ("decisions_total", Some(("reason", Reason::GuardAside.name())), |t| t.guard.aside),
    ("decisions_total", Some(("reason", Reason::Reject.name())), |t| t.rejects),
    ("decisions_total", Some(("reason", Reason::SafeEndpoint.name())), |t| t.safe_endpoint),
    ("ejections_total", None, |t| t.ejections),
    ("state_changes_total", Some(("state", "healthy")), |t| change(t, 0)),
    ("state_changes_total", Some(("state", "suspect")), |t| change(t, 1)),
    ("state_changes_total", Some(("state", "failed")), |t| change(t, 2)),
    ("state_changes_total", Some(("state", "recovering")), |t| change(t, 3)),
    ("not_followed_total", None, |t| t.astray.not_followed),
    ("rerouted_total", None, |t| t.astray.rerouted),
    ("unusable_reports_total", None, |t| t.unusable_reports),
    ("probes_total", None, |t| t.out_of_band.sent),
    ("probe_failures_total", None, |t| t.out_of_band.failed),
    ("observed_decisions_total", None, |t| t.observed.compared),
    ("observed_agreements_total", None, |t| t.observed.agreed),
];
/// The prefix of counters that exist only in observe mode.
const OBSERVED: &str = "observed_";
/// The prefix of counters that exist only with out-of-band probes.
const PROBES: &str = "probe";
const POLLS: [&str; 2] = ["polls_total", "poll_failures_total"];
const POLL_AGE: &str = "last_poll_success_age_seconds";
const SIGNAL_AGE: &str = "signal_age_seconds";
const GAUGES: [Gauge; 8] = [
    ("endpoints", |u| Some(u.fleet().len() as u64)),
    ("eligible_endpoints", |u| Some(u.eligible() as u64)),
    ("panic", |u| Some(u64::from(u.panics()))),
    // Without a guard, too: one that a new configuration took away may have left a 1.
    ("guard_aside", |u| Some(u64::from(u.is_aside()))),
    ("typical_latency_microseconds", |u| Some((u.typical() * 1e6) as u64)),
    ("pressure_percent", |u| u.pressure().map(|pressure| (pressure * 100.0).round() as u64)),
    ("pressure_known", |u| Some(u64::from(u.pressure().is_some()))),
    ("desired_replicas", |u| u.desired_replicas().map(u64::from)),
];
const DECISION_TIME: &str = "decision_nanoseconds";

/// A metric with its labels, for hosts that need the definitions before there are values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// Counter, gauge or histogram.
    pub kind: MetricKind,
    /// Its name, after `evenkeel.`, the labels and `fleet_`.
    pub name: &'static str,
    /// The names of its labels, in order.
    pub labels: &'static [&'static str],
}

/// Every metric that a worker may define.
pub fn templates() -> Vec<Template> {
    let counters = COUNTERS.iter().map(|(name, label, _)| {
        let labels: &'static [&'static str] = match label.map(|(label, _)| label) {
            Some("reason") => &["upstream", "reason"],
            Some(_) => &["upstream", "state"],
            None => &["upstream"],
        };
        (MetricKind::Counter, *name, labels)
    });
    let gauges = GAUGES.iter().map(|(name, _)| (MetricKind::Gauge, *name, &["upstream"] as &[_]));
    let mut all: Vec<Template> = counters
        .chain(gauges)
        .chain(POLLS.map(|name| (MetricKind::Counter, name, &[] as &[_])))
        .chain([
            (MetricKind::Gauge, POLL_AGE, &[] as &[_]),
            (MetricKind::Gauge, SIGNAL_AGE, &["upstream", "signal"]),
            (MetricKind::Histogram, DECISION_TIME, &["upstream"]),
            (MetricKind::Gauge, REFUSED, &[]),
        ])
        .map(|(kind, name, labels)| Template { kind, name, labels })
        .collect();
    all.dedup();
    all
}

/// Splits a full metric name into name and labels with their values.
pub fn parts_of(name: &str) -> Option<(&str, Vec<(&str, &str)>)> {
    let mut rest = name.strip_prefix("evenkeel.")?;
    let mut labels = Vec::new();
    while let Some((label, more)) = split_once(rest, ";.;") {
        labels.push(split_once(label, "=.=")?);
        rest = more;
    }
    Some((rest.strip_prefix("fleet_")?, labels))
}

fn change(totals: &Totals, state: usize) -> u64 {
    totals.changes.get(state).copied().unwrap_or(0)
}

/// The full name of a metric. Labels come first, so that the plain name is left when they are removed.
fn name_of(labels: &[(&str, &str)], name: &str) -> String {
    let mut out = String::from("evenkeel.");
    for (label, value) in labels {
        out.push_str(label);
        out.push_str("=.=");
        // The only character that could end a label early.
        out.extend(value.chars().map(|c| if c == ';' { '_' } else { c }));
        out.push_str(";.;");
    }
    out.push_str("fleet_");
    out.push_str(name);
    out
}

/// The full name of a metric of the whole process.
pub(crate) fn process_metric(name: &str) -> String {
    name_of(&[], name)
}

impl Metrics {
    #[inline(never)]
    fn of(host: &dyn Host, upstream: &Cluster, observes: bool) -> Metrics {
        let cluster = ("upstream", upstream.cluster());
        let counter = |(name, label, _): &Counter| {
            let probes = upstream.config().health.probe.is_some();
            if name.starts_with(OBSERVED) && !observes || name.starts_with(PROBES) && !probes {
                return None;
            }
            let labels: Vec<_> = [cluster].into_iter().chain(*label).collect();
            host.metric(MetricKind::Counter, &name_of(&labels, name))
        };
        let signals = upstream.config().signals.iter();
        Metrics {
            counters: COUNTERS.iter().map(counter).collect(),
            gauges: GAUGES.iter().map(|(name, _)| Shown::named(&[cluster], name)).collect(),
            signals: signals.map(|s| Shown::named(&[cluster, ("signal", &s.name)], SIGNAL_AGE)).collect(),
            times: host.metric(MetricKind::Histogram, &name_of(&[cluster], DECISION_TIME)),
        }
    }

    #[inline(never)]
    fn of_polls(host: &dyn Host) -> Metrics {
        Metrics {
            counters: POLLS
                .iter()
                .map(|name| host.metric(MetricKind::Counter, &name_of(&[], name)))
                .collect(),
            gauges: vec![Shown::named(&[], POLL_AGE)],
            ..Metrics::default()
        }
    }
}

/// Adds the difference to the values so far to each counter.
fn add(host: &dyn Host, metrics: &[Option<u32>], now: impl Iterator<Item = (u64, u64)>) {
    for (metric, (now, so_far)) in metrics.iter().zip(now) {
        if let Some(metric) = metric
            && now > so_far
        {
            host.count(*metric, now - so_far);
        }
    }
}

impl EnvoyStats {
    pub(crate) fn new(config: &Config) -> EnvoyStats {
        EnvoyStats {
            wanted: config.envoy_stats,
            observes: config.mode == Mode::Observe,
            decisions: 0,
            times: Vec::new(),
            polls: Published::default(),
            upstreams: config.upstreams.iter().map(|_| Published::default()).collect(),
        }
    }

    /// Adds the next upstream.
    pub(crate) fn add(&mut self) {
        self.upstreams.push(Published::default());
    }

    /// Whether to time this decision.
    pub(crate) fn times_this_one(&mut self) -> bool {
        self.decisions = self.decisions.wrapping_add(1);
        self.decisions.is_multiple_of(TIMED_ONE_OF)
    }

    /// Records the time of a decision, nanoseconds.
    pub(crate) fn timed(&mut self, upstream: usize, ns: u64) {
        if self.wanted && self.times.len() < MAX_TIMES {
            self.times.push((upstream, ns));
        }
    }

    /// These polls have been counted, by another worker.
    pub(crate) fn counted_polls(&mut self, polls: &PollStats) {
        self.polls.so_far = [polls.polls, polls.failures];
    }

    /// Publishes what has changed since the last call; as the leader also the gauges and the poll counters.
    #[inline(never)]
    pub(crate) fn publish(
        &mut self,
        host: &dyn Host,
        engine: &Balancer,
        polls: &PollStats,
        is_leader: bool,
        now: Time,
    ) {
        if !self.wanted {
            return;
        }
        for (published, upstream) in self.upstreams.iter_mut().zip(engine.upstreams()) {
            let metrics = published.metrics.get_or_insert_with(|| Metrics::of(host, upstream, self.observes));
            let totals = upstream.totals();
            let so_far = core::mem::replace(&mut published.so_far, totals);
            add(host, &metrics.counters, COUNTERS.iter().map(|(_, _, of)| (of(&totals), of(&so_far))));
            if is_leader {
                show(host, metrics, upstream, now);
            }
        }
        for (upstream, ns) in self.times.drain(..) {
            let metrics = self.upstreams.get(upstream).and_then(|published| published.metrics.as_ref());
            if let Some(metric) = metrics.and_then(|metrics| metrics.times) {
                host.record(metric, ns);
            }
        }
        self.publish_polls(host, polls, is_leader, now);
    }

    /// Polls are counted for the whole process, so the leader alone publishes them.
    #[inline(never)]
    fn publish_polls(&mut self, host: &dyn Host, polls: &PollStats, is_leader: bool, now: Time) {
        let counted = [polls.polls, polls.failures];
        let so_far = core::mem::replace(&mut self.polls.so_far, counted);
        if !is_leader || counted == [0, 0] {
            return;
        }
        let metrics = self.polls.metrics.get_or_insert_with(|| Metrics::of_polls(host));
        add(host, &metrics.counters, counted.into_iter().zip(so_far));
        if polls.last_success != Time::ZERO {
            let age_s = now.seconds_since(polls.last_success) as u64;
            metrics.gauges.iter_mut().for_each(|age| age.show(host, age_s));
        }
    }
}

#[inline(never)]
fn show(host: &dyn Host, metrics: &mut Metrics, upstream: &Cluster, now: Time) {
    for (gauge, (_, value)) in metrics.gauges.iter_mut().zip(GAUGES) {
        value(upstream).into_iter().for_each(|value| gauge.show(host, value));
    }
    let signals = upstream.config().signals.iter().enumerate().zip(&mut metrics.signals);
    for ((signal, _), gauge) in signals.filter(|((_, signal), _)| signal.report.is_none()) {
        let age_s = upstream.signal_age_s(signal, now);
        age_s.into_iter().for_each(|age_s| gauge.show(host, age_s as u64));
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn every_metric_has_its_template() {
        let templates = templates();
        let label = |label: &Option<(&'static str, &'static str)>| label.map(|(label, _)| label);
        for (name, of, _) in &COUNTERS {
            let labels: Vec<_> = ["upstream"].into_iter().chain(label(of)).collect();
            let found = templates.iter().filter(|t| t.name == *name && t.labels == labels);
            assert_eq!(found.count(), 1, "{name}");
        }
        for (at, template) in templates.iter().enumerate() {
            assert!(!templates[at + 1..].contains(template), "{template:?} is there twice");
        }
    }

    #[test]
    fn times_are_kept_within_bounds_and_only_where_they_are_wanted() {
        let stats = |more: &str| {
            let json = format!(
                r#"{{{more}"upstreams":[{{"cluster":"web","endpoints":{{"static":["10.0.0.1:80"]}}}}]}}"#
            );
            let mut stats = EnvoyStats::new(&config::parse(json.as_bytes()).unwrap());
            (0..10 * MAX_TIMES).for_each(|_| stats.timed(0, 1000));
            stats.times.len()
        };
        assert_eq!((stats(""), stats(r#""envoy_stats":false,"#)), (MAX_TIMES, 0));
    }

    #[test]
    fn a_name_comes_apart_as_it_was_put_together() {
        let name = name_of(&[("upstream", "a.b=.=c"), ("reason", "policy")], "decisions_total");
        let labels = vec![("upstream", "a.b=.=c"), ("reason", "policy")];
        assert_eq!(parts_of(&name), Some(("decisions_total", labels)));
        assert_eq!(parts_of(&name_of(&[], "polls_total")), Some(("polls_total", vec![])));
        assert_eq!(parts_of("evenkeel.upstream;.;fleet_x"), None);
    }

    #[test]
    fn a_label_ends_where_it_ends() {
        assert_eq!(
            name_of(&[("upstream", "a;.;b"), ("reason", "policy")], "decisions_total"),
            "evenkeel.upstream=.=a_._b;.;reason=.=policy;.;fleet_decisions_total"
        );
        assert_eq!(name_of(&[], "polls_total"), "evenkeel.fleet_polls_total");
    }
}
