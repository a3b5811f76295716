//! One balanced cluster: its fleet, what is known of it, and which endpoint is chosen.

pub(crate) mod decision_times;
mod ejection;
mod explain;
mod failings;
mod fleet_view;
mod handover;
mod left_to_envoy;
mod lifecycle;
mod membership;
mod open_requests;
mod out_of_band;
mod overflow;
mod pick;
mod pressure;
mod probes;
mod queues;
mod returning;
pub(crate) mod rules;
mod said;
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
mod unseen;

use core::time::Duration;

use super::Totals;
use crate::ablation::{Ablation, Part};
use crate::decision::Reason;
use crate::endpoint::{EndpointSet, EndpointView, Spec};
use crate::estimate::{Queueing, Reading};
use crate::rng;
use crate::settings;
use crate::time::Time;
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

/// Latency assumed as the fleet's until there is a first answer, seconds.
const INITIAL_LATENCY_S: f64 = 0.05;
/// An exploration that takes no more than this multiple of the typical latency went well.
const GOOD_MULTIPLE: f64 = 2.0;
pub use crate::cluster::probes::ProbeShard;
pub use crate::cluster::transitions::{Change, RECENT_S};
pub use explain::Explained;
pub use said::Said;

/// Endpoints of one version, priority and side of the zone's border, and what they get together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SubsetLoad<'a> {
    /// The version; empty without a split.
    pub version: &'a str,
    /// 0 is used first.
    pub priority: u32,
    /// Whether it is in the proxy's zone; always without zones.
    pub local: bool,
    /// Which of Envoy's localities it is; empty where requests are not divided by their weights.
    pub locality: &'a str,
    /// How many endpoints.
    pub endpoints: usize,
    /// The part of the upstream's requests that it is to get, 0..=1.
    pub load: f64,
    /// How busy it is, 1 is full; only with zones.
    pub pressure: Option<f64>,
    /// Health is ignored.
    pub panic: bool,
}

/// A balanced cluster: its parts, each with methods of its own, and what all of them need.
pub struct Cluster {
    config: settings::Upstream,
    ablation: Ablation,
    hash: u64,
    /// The endpoints, and all that is known of each.
    endpoints: EndpointTable,
    /// What the endpoints are divided into, and how the requests are.
    subsets: Subsets,
    /// What health comes to for the cluster.
    ejection: Ejection,
    signals: Signals,
    queueing: Queueing,
    /// How many requests an endpoint takes, and the replicas that follow from it.
    capacity: Capacity,
    rules: Rules,
    traffic: Traffic,
    stats: Stats,
    handover: Option<HandoverState>,
    /// What Envoy's own policy is to decide on.
    left_to_envoy: LeftToEnvoy,
    /// The median latency of all endpoints, seconds.
    typical: f64,
}

impl Cluster {
    /// An upstream with its static endpoints, nothing measured yet.
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
        // What merges the sources has the configuration; a list of ten thousand is not kept twice.
        cluster.config.endpoints.fixed = Vec::new();
        cluster
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.config.cluster
    }

    /// [`rng::hash`] of the cluster's name: its identity between workers.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The configuration it runs by; endpoints that it names are in the [`fleet`](Cluster::fleet).
    pub fn config(&self) -> &settings::Upstream {
        &self.config
    }

    /// Which endpoints there are.
    pub fn fleet(&self) -> &EndpointSet {
        &self.endpoints.set
    }

    /// What is known of the endpoint at `index`.
    pub fn member(&self, index: u32) -> Option<EndpointView<'_>> {
        self.endpoints.view(index)
    }

    /// What decided the latest [`pick`](Cluster::pick).
    pub fn reason(&self) -> Reason {
        self.stats.reason
    }

    /// Requests per second of all workers together, about.
    pub fn pace(&self) -> f64 {
        self.traffic.pace()
    }

    /// Whether no request of this worker's is on its way.
    pub fn rests(&self) -> bool {
        self.subsets.list.iter().all(|subset| subset.in_flight == 0)
    }

    /// What this worker did for the upstream.
    pub fn totals(&self) -> Totals {
        self.stats.totals
    }

    /// How the requests are divided over versions, priorities and zones; one part where they are not.
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

    /// The failure ratio of the latest answers of the endpoint at `index`, 0..=1, as far as anything depends on it;
    /// else what has not faded of it.
    pub fn error_ratio(&self, index: u32, now: Time) -> f64 {
        let faded = self.member(index).map_or(0.0, |member| member.error_ratio());
        self.endpoints.failings.ratio(index, now).unwrap_or(0.0).max(faded)
    }

    /// How much requests in flight delay the next.
    pub fn queueing(&self) -> &Queueing {
        &self.queueing
    }

    /// The fleet's median latency in seconds.
    pub fn typical(&self) -> f64 {
        self.typical
    }

    /// Whether there has been a request to it.
    pub fn has_been_used(&self) -> bool {
        self.traffic.requests > 0
    }

    /// The readings of the endpoint at `index`, in the order of the configured signals.
    pub fn readings(&self, index: u32) -> &[Reading] {
        self.endpoints.readings(index)
    }
}

/// The configuration without what `ablation` leaves out.
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
