//! What is chosen among: the endpoints of one version, one priority and one side of the zone's border are a group,
//! with a policy of their own.
//!
//! A request is drawn into a group before the policy is asked, so a policy compares like with like: a canary that
//! is slower, or a zone that is farther away, is judged against itself.

pub(crate) mod spillover;
pub(crate) mod split;
pub(crate) mod subset_health;
pub(crate) mod tiers;

use core::ops::Range;

use super::{Cluster, INITIAL_LATENCY_S};
use crate::cluster::subset::spillover::Spillover;
use crate::cluster::subset::subset_health::RecentErrors;
use crate::endpoint::Endpoint;
use crate::estimate::BaselineErrors;
use crate::policy::{self, Policy, Pool, Turns};
use crate::rng;
use crate::time::Time;

/// An endpoint whose version the split does not name is in no group.
pub(super) const NO_SUBSET: u16 = u16::MAX;

/// What the endpoints of a group have in common; groups are kept in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Position of the version in the split; zero where there is none.
    pub lane: usize,
    /// 0 is used first.
    pub priority: u32,
    /// Whether it is in another zone than this proxy; never without zones.
    pub remote: bool,
    /// Which locality it is, where requests are divided by their weights; 0 where they are not.
    pub locality: u64,
}

impl Key {
    /// What the groups have in common that stand in for each other before others do.
    pub fn level(&self) -> (usize, u32, bool) {
        (self.lane, self.priority, self.remote)
    }
}

/// Endpoints to choose among, and what is known of them together.
pub(super) struct Subset {
    pub key: Key,
    /// The locality's name, and what it is to get beside the others of its level; empty where requests are not divided
    /// by localities.
    pub locality: (Box<str>, f64),
    /// Position of its priority and side among the upstream's tiers.
    pub tier: usize,
    /// Which endpoints belong to it, and which of them may be chosen.
    pub pool: Pool,
    pub policy: Box<dyn Policy>,
    /// Whether its answers teach how much requests in flight delay the next. Where the network is most of a latency
    /// they would teach that nothing does, so those of other zones do only if there is none near.
    pub teaches: bool,
    /// This worker's requests on their way to it.
    pub in_flight: u32,
    /// How often its endpoints' turns come.
    pub turns: Turns,
    /// Median latency in seconds.
    pub typical: f64,
    /// Whether that was measured here, not only assumed.
    pub measured: bool,
    /// For how long an endpoint may keep quiet until it is stalled, seconds.
    pub stall_timeout: f64,
    /// The failure ratio of those in traffic.
    pub failing: f64,
    /// The least failure ratio of the other groups, as far as one is known.
    pub elsewhere: Option<f64>,
    pub background: BaselineErrors,
    pub record: RecentErrors,
    /// Σ weights of all that stay, and of those that are well.
    pub weight: f64,
    pub fit: f64,
    /// What part of its requests may be left to it, by how it fails beside other groups.
    pub trust: f64,
    /// Its part of the requests of its version, 0..=1.
    pub load: f64,
    pub spill: Spillover,
}

/// The endpoints of one priority and one side of the zone's border, all versions together: panic is theirs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PriorityTier {
    /// How many endpoints it has, and how many of them may be chosen.
    pub endpoints: usize,
    pub eligible: usize,
    /// Σ weights of all, and of those that are well.
    pub weight: f64,
    pub fit: f64,
    /// Health is ignored.
    pub panic: bool,
}

/// The groups of one version.
#[derive(Debug)]
pub(super) struct VersionSubset {
    pub subsets: Range<usize>,
    /// Whether an endpoint could be chosen at the last tick.
    pub serves: bool,
    /// Endpoints that are due for a single request, and how many it has waited for; the last is the first.
    pub pending_probes: Vec<(u32, u32)>,
}

impl Cluster {
    /// The group that `endpoint` belongs to.
    fn key_of(&self, endpoint: Endpoint<'_>) -> Option<Key> {
        Some(Key {
            lane: self.split.lane_of(endpoint.version())?,
            priority: endpoint.priority(),
            remote: self.config.zone.as_ref().is_some_and(|zone| zone.local != endpoint.zone()),
            locality: match endpoint.locality() {
                name if name.is_empty() || self.config.zone.is_some() => 0,
                name => rng::hash(name.as_bytes()),
            },
        })
    }

    /// Puts every endpoint of the fleet into a group; groups that stay keep what they know.
    pub(super) fn assign_subsets(&mut self) {
        let mut before = core::mem::take(&mut self.subsets).into_iter().peekable();
        let key = |(index, endpoint): (u32, Endpoint<'_>)| Some((self.key_of(endpoint)?, index));
        let mut places: Vec<(Key, u32)> = self.fleet.iter().filter_map(key).collect();
        places.sort_unstable();
        self.members.iter_mut().for_each(|m| m.subset = NO_SUBSET);
        let mut subsets: Vec<Subset> = Vec::new();
        for places in places.chunk_by(|one, other| one.0 == other.0) {
            let Some((key, _)) = places.first().copied() else { continue };
            while before.next_if(|g| g.key < key).is_some() {}
            let mut subset = before.next_if(|g| g.key == key).unwrap_or_else(|| self.found(key));
            subset.pool.assign(places.iter().map(|(_, index)| *index));
            let first = places.first().and_then(|(_, index)| self.fleet.get(*index));
            let divided = first.filter(|_| key.locality != 0);
            subset.locality =
                divided.map_or_else(Default::default, |of| (of.locality().into(), of.locality_weight()));
            // Versions and priorities are too few for more groups.
            let at = u16::try_from(subsets.len()).unwrap_or(NO_SUBSET);
            for (_, index) in places {
                if let Some(member) = self.members.get_mut(*index as usize) {
                    member.subset = at;
                }
            }
            subsets.push(subset);
        }
        let mut nearest = None;
        for subset in &mut subsets {
            let level = (subset.key.lane, subset.key.priority);
            subset.teaches = !subset.key.remote || nearest != Some(level);
            nearest = Some(level);
            let Subset { background, pool, .. } = subset;
            background.retain(|index| pool.all().binary_search(&index).is_ok());
        }
        self.subsets = subsets;
        self.list_tiers();
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            let start = self.subsets.partition_point(|g| g.key.lane < at);
            lane.subsets = start..self.subsets.partition_point(|g| g.key.lane <= at);
        }
    }

    fn found(&self, key: Key) -> Subset {
        Subset {
            key,
            locality: Default::default(),
            tier: 0,
            pool: Pool::default(),
            policy: policy::build(&self.config.policy, self.ablation),
            teaches: true,
            in_flight: 0,
            turns: Turns::default(),
            typical: if self.typical > 0.0 { self.typical } else { INITIAL_LATENCY_S },
            measured: false,
            stall_timeout: f64::INFINITY,
            failing: 0.0,
            elsewhere: None,
            background: BaselineErrors::default(),
            record: RecentErrors::default(),
            weight: 0.0,
            fit: 0.0,
            trust: 1.0,
            load: 0.0,
            spill: Spillover::default(),
        }
    }

    fn list_tiers(&mut self) {
        let mut tiers: Vec<(u32, bool)> =
            self.subsets.iter().map(|g| (g.key.priority, g.key.remote)).collect();
        tiers.sort_unstable();
        tiers.dedup();
        for subset in &mut self.subsets {
            subset.tier = tiers.partition_point(|t| *t < (subset.key.priority, subset.key.remote));
        }
        self.tiers = vec![PriorityTier::default(); tiers.len()];
    }

    /// The group of the endpoint at `index`.
    pub(super) fn subset_of(&self, index: u32) -> Option<&Subset> {
        self.subsets.get(self.members.get(index as usize)?.subset as usize)
    }

    /// The group of the endpoint at `index`, to be told something.
    pub(super) fn subset_of_mut(&mut self, index: u32) -> Option<&mut Subset> {
        self.subsets.get_mut(self.members.get(index as usize)?.subset as usize)
    }

    /// The typical latency beside the endpoint at `index`, seconds.
    pub(super) fn typical_beside(&self, index: u32) -> f64 {
        self.subset_of(index).map_or(self.typical, |g| g.typical)
    }

    /// Takes over what the groups of an older configuration have learnt.
    pub(super) fn take_over_subsets(&mut self, old: &Cluster, now: Time) {
        for subset in &mut self.subsets {
            let version =
                |of: &Cluster, lane| of.config.split.get(lane).map(|(v, _): &(String, f64)| v.clone());
            let version_here = self.config.split.get(subset.key.lane).map(|(v, _): &(String, f64)| v.clone());
            let same = |g: &&Subset| {
                let at = |key: &Key| (key.priority, key.remote, key.locality);
                at(&g.key) == at(&subset.key) && version(old, g.key.lane) == version_here
            };
            let Some(known) = old.subsets.iter().find(same) else { continue };
            (subset.typical, subset.measured) = (known.typical, known.measured);
            subset.record = known.record;
            subset.record.not_after(now);
            subset.spill = known.spill;
            // An endpoint that fails as all others do is excused after a reload as before.
            let (fleet, indices) = (&self.fleet, subset.pool.all());
            subset.background = known.background.moved(|index| {
                let index = fleet.index_of_hash(old.fleet.get(index)?.hash)?;
                indices.binary_search(&index).is_ok().then_some(index)
            });
        }
    }
}
