//! The view of the whole process that page, JSON and metrics are made of. Units stand in the names.

mod cluster;
mod discovery;
mod endpoint;
mod reason;
mod rounding;
mod shown;

use serde::Serialize;

use super::names;
use crate::discovery::source::{Origin, Source};
use crate::sharing::counts::Counts;
use crate::sharing::snapshot::Snapshot;
pub use cluster::{ClusterReport, Observed, Share};
use config::Config;
pub use discovery::{Asked, SignalFit};
pub use endpoint::{Line, Signal};
use engine::Balancer;
use engine::guard::Guard;
use engine::time::Time;
pub use reason::reason;
use rounding::short;

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
    /// By upstream: what its guard has found.
    pub guards: Vec<Option<&'a Guard>>,
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
    /// Whether there is a Prometheus to poll.
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

impl<'a> Report<'a> {
    /// The view that `sources` give.
    #[inline(never)]
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
                .zip(shown::rooms(sources.engine))
                .map(|(upstream, room)| cluster::cluster(upstream, room, sources))
                .collect(),
        }
    }
}
