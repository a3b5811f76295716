//! The report on the whole process that page, JSON and metrics are made of. Field names end in their units.

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
pub use cluster::{Changes, ClusterReport, Share};
use config::Config;
pub use discovery::{PolledSource, SignalFit};
pub use endpoint::{Line, Signal};
use engine::Balancer;
use engine::guard::Guard;
use engine::time::Time;
pub use reason::reason;
use rounding::short;

/// Time with traffic after which an upstream without requests is reported, seconds.
const UNMET_AFTER_S: f64 = 300.0;
/// The number of poll intervals after which the latest response is stale.
const STALE_AFTER: f64 = 3.0;
/// The lowest age at which the latest response is stale, seconds.
const MIN_STALE_S: f64 = 30.0;

/// The sources of a report.
pub struct Sources<'a> {
    /// The configuration in force.
    pub config: &'a Config,
    /// The engine of one worker, with the peers' reports merged in.
    pub engine: &'a Balancer,
    /// The latest signals from Prometheus.
    pub snapshot: &'a Snapshot,
    /// Clusters of requests that no upstream balances.
    pub unmatched: Vec<&'a str>,
    /// By upstream: its sources of endpoints, and the number of addresses that Envoy's cluster does not have.
    pub discovery: Vec<(Vec<(Origin, &'a Source)>, usize)>,
    /// By upstream: what its cluster's own policy does and steering bypasses.
    pub bypassed: Vec<Vec<&'static str>>,
    /// By upstream: its guard.
    pub guards: Vec<Option<&'a Guard>>,
    /// The counters of all workers.
    pub counts: Counts,
    /// The number of workers that carry traffic.
    pub workers: usize,
    /// When the first worker of the process began.
    pub founded: Time,
    /// The paths of the faults in a later configuration that was refused.
    pub refused: &'a [String],
    /// The time of the report.
    pub now: Time,
}

impl Sources<'_> {
    /// Whether the process has had traffic for minutes, to any cluster.
    fn has_long_had_traffic(&self) -> bool {
        let any = self.counts.upstreams.values().any(|counted| counted.totals.decisions() > 0);
        any && self.now.seconds_since(self.founded) >= UNMET_AFTER_S
    }
}

/// The report on the whole process.
#[derive(Clone, Debug, Serialize)]
pub struct Report<'a> {
    /// The filter's version.
    pub version: &'static str,
    /// `enforce` or `observe`.
    pub mode: &'static str,
    /// Seconds since the process first loaded the filter, across reloads.
    pub uptime_s: f64,
    /// Workers that carry traffic.
    pub workers: usize,
    /// The paths of the faults in a later configuration that was refused; absent if there is none.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub configuration_refused: &'a [String],
    /// The state of the polls of Prometheus.
    pub prometheus: Polls<'a>,
    /// Requests to clusters that no entry of the configuration names.
    pub unmatched: Unmatched<'a>,
    /// Every balanced cluster.
    pub upstreams: Vec<ClusterReport<'a>>,
}

/// Requests to clusters that no entry of the configuration names.
#[derive(Clone, Debug, Serialize)]
pub struct Unmatched<'a> {
    /// Their number since the process began.
    pub requests: u64,
    /// Some of the clusters.
    pub clusters: Vec<&'a str>,
}

/// The state of the polls of Prometheus.
#[derive(Clone, Debug, Serialize)]
pub struct Polls<'a> {
    /// Whether Prometheus is configured.
    pub configured: bool,
    /// Polls sent.
    pub polls: u64,
    /// Polls without a usable response.
    pub failures: u64,
    /// The age of the latest usable response, seconds; `None` before the first.
    pub last_success_age_s: Option<f64>,
    /// The last error; `None` if no poll ever failed.
    pub last_error: Option<&'a str>,
    /// The present poll interval, seconds: longer than configured while there is no traffic. `None` without Prometheus.
    pub pause_s: Option<f64>,
    /// Whether the latest usable response is older than three such intervals and than half a minute.
    pub stale: bool,
}

impl<'a> Report<'a> {
    /// The report from `sources`.
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
