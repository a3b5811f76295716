//! One cluster: its endpoints, what is known of them, and the choice among them.
//!
//! [`Cluster::pick`] decides on a request (`pick`), and `lifecycle` records what becomes of it. [`Cluster::tick`] updates
//! what decisions rest on, in the order written in `tick`: baselines and ejections (`ejection`), shares (`shares`), the
//! division of requests (`subset`), and probes (`probes`). All state per endpoint is in `table`.

pub(crate) mod decision_times;
mod ejection;
mod explain;
mod failings;
mod fleet_view;
mod handover;
mod header_hints;
mod left_to_envoy;
mod lifecycle;
mod lost_time;
mod membership;
mod open_requests;
mod out_of_band;
mod overflow;
mod pick;
mod pressure;
mod probes;
mod queues;
mod quickness;
mod returning;
pub(crate) mod rules;
mod shares;
mod signals;
mod stalled;
mod stats;
mod subset;
mod table;
mod tick;
pub(crate) mod totals;
mod traffic;
mod transitions;

use core::time::Duration;

use super::Totals;
use crate::ablation::{Ablation, Part};
use crate::decision::Reason;
use crate::endpoint::{EndpointSet, EndpointView, Spec};
use crate::estimate::{Queueing, Reading};
use crate::policy::Home;
use crate::time::Time;
use crate::{rng, settings};
use ejection::Ejection;
use failings::Failings;
use handover::HandoverState;
use left_to_envoy::LeftToEnvoy;
use pressure::Capacity;
use rules::Rules;
use signals::Signals;
use stats::Stats;
use subset::Subsets;
use table::EndpointTable;
use traffic::Traffic;

/// Typical latency assumed before the first answer, seconds.
const INITIAL_LATENCY_S: f64 = 0.05;
/// Multiple of the typical latency up to which an answer counts as fast.
const GOOD_MULTIPLE: f64 = 2.0;
pub use crate::cluster::probes::ProbeShard;
pub use crate::cluster::transitions::{Change, RECENT_S};
pub use explain::Explained;
pub use header_hints::HeaderHints;

/// Load of one subset: endpoints of one version, priority, locality and side of the zone boundary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SubsetLoad<'a> {
    /// The version; empty without a split.
    pub version: &'a str,
    /// The priority; 0 is used first.
    pub priority: u32,
    /// Whether it is in the proxy's zone; always true without zones.
    pub local: bool,
    /// Envoy's name of the locality; empty where requests are not divided by locality weights.
    pub locality: &'a str,
    /// Number of endpoints.
    pub endpoints: usize,
    /// Its part of the cluster's requests, 0..=1.
    pub load: f64,
    /// Utilization, where 1 is full; only with zones.
    pub pressure: Option<f64>,
    /// Whether it is in panic: health is ignored.
    pub panic: bool,
}

/// State of one cluster. Each part has its own methods; this type holds what they share.
pub struct Cluster {
    config: settings::Upstream,
    ablation: Ablation,
    hash: u64,
    /// The endpoints and what is known of each.
    endpoints: EndpointTable,
    /// How endpoints are grouped, and requests divided.
    subsets: Subsets,
    /// Health of the cluster as a whole: ejections, panic, overflow, out-of-band probes.
    ejection: Ejection,
    signals: Signals,
    queueing: Queueing,
    /// How many requests an endpoint works on at a time, and the replicas that follow from it.
    capacity: Capacity,
    rules: Rules,
    traffic: Traffic,
    stats: Stats,
    handover: Option<HandoverState>,
    /// Requests on which Envoy's own policy decides.
    left_to_envoy: LeftToEnvoy,
    /// Median latency of all endpoints, seconds.
    typical: f64,
}

impl Cluster {
    /// Creates a cluster with its configured endpoints and no measurements.
    pub fn new(
        config: &settings::Upstream,
        poll_interval: Option<Duration>,
        ablation: Ablation,
        now: Time,
    ) -> Cluster {
        let config = reduced(config, &ablation);
        let peaks = config.policy == settings::Policy::PeakEwma;
        let mut cluster = Cluster {
            hash: rng::hash(config.cluster.as_bytes()),
            endpoints: EndpointTable::new(Failings::new(&config), config.signals.len(), peaks),
            subsets: Subsets::new(&config.split),
            ejection: Ejection::new(&config.health),
            signals: Signals::new(&config, poll_interval),
            queueing: Queueing::default(),
            capacity: Capacity::default(),
            rules: Rules::new(&config.rules),
            traffic: Traffic::since(now),
            stats: Stats::default(),
            handover: None,
            left_to_envoy: LeftToEnvoy::new(config.guard),
            typical: INITIAL_LATENCY_S,
            ablation,
            config,
        };
        let specs: Vec<Spec> = cluster.config.endpoints.fixed.iter().map(Spec::from).collect();
        cluster.set_fleet(&specs, now);
        // The caller keeps the configuration to merge discovery sources; ten thousand endpoints are not stored twice.
        cluster.config.endpoints.fixed = Vec::new();
        cluster
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.config.cluster
    }

    /// [`rng::hash`] of the cluster's name, its identity among workers.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The effective configuration, without its static endpoints: these are in the [`fleet`](Cluster::fleet).
    pub fn config(&self) -> &settings::Upstream {
        &self.config
    }

    /// The endpoint set.
    pub fn fleet(&self) -> &EndpointSet {
        &self.endpoints.set
    }

    /// The view of the endpoint at `index`.
    pub fn endpoint(&self, index: u32) -> Option<EndpointView<'_>> {
        self.endpoints.view(index)
    }

    /// The reason for the latest [`pick`](Cluster::pick).
    pub fn reason(&self) -> Reason {
        self.stats.reason
    }

    /// This worker's requests per second.
    pub fn own_rate(&self) -> f64 {
        self.traffic.own_rate()
    }

    /// The part of each subset that this worker tries first.
    pub fn home(&self) -> Home {
        self.traffic.home()
    }

    /// Estimated requests per second of all workers together.
    pub fn pace(&self) -> f64 {
        self.traffic.pace()
    }

    /// Requests of all workers that awaited an answer at the latest tick, as far as their reports say.
    pub fn in_flight(&self) -> f64 {
        self.traffic.in_flight
    }

    /// Whether this worker has no requests in flight.
    pub fn rests(&self) -> bool {
        self.subsets.list.iter().all(|subset| subset.in_flight == 0)
    }

    /// This worker's counters.
    pub fn totals(&self) -> Totals {
        self.stats.totals
    }

    /// Loads of all subsets; a single one if requests are not divided.
    pub fn parts(&self) -> impl Iterator<Item = SubsetLoad<'_>> {
        self.subsets.list.iter().map(|subset| SubsetLoad {
            version: self.config.split.get(subset.key.version).map_or("", |(version, _)| version.as_str()),
            priority: subset.key.priority,
            local: !subset.key.remote,
            locality: &subset.locality.0,
            endpoints: subset.pool.all().len(),
            load: subset.division.load * self.subsets.split.share(subset.key.version),
            pressure: self.config.zone.as_ref().map(|_| subset.division.spill.pressure()),
            panic: self.subsets.tiers.get(subset.tier).is_some_and(|t| t.panic),
        })
    }

    /// Recent failure ratio of the endpoint at `index`, 0..=1: the exact one if a threshold needs it, or the decaying
    /// estimate if that is higher.
    pub fn error_ratio(&self, index: u32, now: Time) -> f64 {
        let faded = self.endpoint(index).map_or(0.0, |endpoint| endpoint.error_ratio());
        self.endpoints.failings.ratio(index, now).unwrap_or(0.0).max(faded)
    }

    /// The learnt effect of requests in flight on latency.
    pub fn queueing(&self) -> &Queueing {
        &self.queueing
    }

    /// Median latency of all endpoints, seconds.
    pub fn typical(&self) -> f64 {
        self.typical
    }

    /// Whether this worker has had a request for the cluster.
    pub fn has_been_used(&self) -> bool {
        self.traffic.requests > 0
    }

    /// The readings of the endpoint at `index`, in the order of the configured signals.
    pub fn readings(&self, index: u32) -> &[Reading] {
        self.endpoints.readings(index)
    }
}

/// The configuration with the parts that `ablation` removes switched off.
fn reduced(config: &settings::Upstream, ablation: &Ablation) -> settings::Upstream {
    let mut config = config.clone();
    if !ablation.has(Part::Eject) {
        config.health.fail_after = u32::MAX;
    }
    if !ablation.has(Part::Verify) {
        config.health.suspect_after = u32::MAX;
    }
    if !ablation.has(Part::SlowStart) {
        config.slow_start = Duration::ZERO;
    }
    if !ablation.has(Part::Signals) {
        config.signals.clear();
    }
    config
}

#[cfg(test)]
mod tests;
