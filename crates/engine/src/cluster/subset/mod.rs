//! What is chosen among: the endpoints of one version, one priority and one side of the zone's border are a subset, with
//! a policy of its own.
//!
//! A request is drawn into a group before the policy is asked, so a policy compares like with like: a canary that
//! is slower, or a zone that is farther away, is compared with itself.

pub(crate) mod spillover;
pub(crate) mod split;
pub(crate) mod subset_health;
pub(crate) mod tiers;

use core::ops::Range;

use super::{Cluster, INITIAL_LATENCY_S};
use crate::cluster::subset::spillover::Spillover;
use crate::cluster::subset::split::{Split, unit};
use crate::cluster::subset::subset_health::RecentErrors;
use crate::endpoint::Endpoint;
use crate::estimate::BaselineErrors;
use crate::order;
use crate::policy::{self, Policy, Pool, Turns};
use crate::rng::{self, Rng};
use crate::time::Time;

/// Keeps the hash that divides keys over priorities and zones apart from that of the ring.
const TIER_SALT: u64 = 0xA24B_AED4_963E_E407;

/// An endpoint whose version the split does not name is in no group.
pub(super) const NO_SUBSET: u16 = u16::MAX;

/// What the endpoints of a group have in common; groups are kept in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Position of the version in the split; zero where there is none.
    pub version: usize,
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
        (self.version, self.priority, self.remote)
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
    /// What is usual here.
    pub latency: BaselineLatency,
    pub errors: SubsetErrors,
    /// Its part of the requests.
    pub division: Division,
}

/// The latency that is usual in a subset.
pub(super) struct BaselineLatency {
    /// The median, seconds.
    pub typical: f64,
    /// Whether that was measured here, not only assumed.
    pub measured: bool,
    /// For how long an endpoint may keep quiet until it is stalled, seconds.
    pub stall_timeout: f64,
}

/// The failures of a subset.
#[derive(Default)]
pub(super) struct SubsetErrors {
    /// The failure ratio of those in traffic.
    pub failing: f64,
    /// The least failure ratio of the other subsets, as far as one is known.
    pub elsewhere: Option<f64>,
    pub background: BaselineErrors,
    pub record: RecentErrors,
}

/// What part of the requests of its version a subset gets, and by what.
pub(super) struct Division {
    /// Σ weights of all that stay, and of those that are healthy.
    pub weight: f64,
    pub fit: f64,
    /// What part of its requests may be left to it, by how it fails beside other subsets.
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

/// What the endpoints of a cluster are divided into.
pub(super) struct Subsets {
    /// The versions and their shares.
    pub split: Split,
    /// By position in the split.
    pub versions: Vec<VersionSubset>,
    /// In the order of their keys.
    pub list: Vec<Subset>,
    pub tiers: Vec<PriorityTier>,
    /// Subsets in which an endpoint could be chosen at the last tick.
    pub serving: Vec<u32>,
}

impl Subsets {
    /// Without endpoints, divided as configured.
    pub fn new(split: &[(String, f64)]) -> Subsets {
        let split = Split::new(split);
        let version = || VersionSubset { subsets: 0..0, serves: false, pending_probes: Vec::new() };
        let mut versions = Vec::new();
        versions.resize_with(split.versions(), version);
        Subsets { split, versions, list: Vec::new(), tiers: Vec::new(), serving: Vec::new() }
    }

    /// One of the subsets in `range`, in proportion to their loads. A key always falls at the same place, so that what
    /// moves from one subset to another moves no key that could stay.
    pub fn draw(&self, range: Range<usize>, key: Option<u64>, rng: &mut Rng) -> Option<usize> {
        let (start, subsets) = (range.start, self.list.get(range)?);
        let whole = subsets.iter().position(|g| g.division.load >= 1.0);
        if let Some(at) = whole {
            return Some(start + at);
        }
        let mut left = key.map_or_else(|| rng.unit(), |key| unit(rng::mix(key ^ TIER_SALT)));
        let mut last = None;
        for (at, subset) in subsets.iter().enumerate().filter(|(_, g)| g.division.load > 0.0) {
            last = Some(start + at);
            if left < subset.division.load {
                break;
            }
            left -= subset.division.load;
        }
        last
    }
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
    #[inline(never)]
    fn key_of(&self, endpoint: Endpoint<'_>) -> Option<Key> {
        Some(Key {
            version: self.subsets.split.version_of(endpoint.version())?,
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
        let mut before = core::mem::take(&mut self.subsets.list).into_iter().peekable();
        let key = |(index, endpoint): (u32, Endpoint<'_>)| Some((self.key_of(endpoint)?, index));
        let mut places: Vec<(Key, u32)> = self.endpoints.set.iter().filter_map(key).collect();
        order::sort(&mut places);
        self.endpoints.states.iter_mut().for_each(|m| m.subset = NO_SUBSET);
        let mut subsets: Vec<Subset> = Vec::new();
        for places in places.chunk_by(|one, other| one.0 == other.0) {
            let Some((key, _)) = places.first().copied() else { continue };
            while before.next_if(|g| g.key < key).is_some() {}
            let mut subset = before.next_if(|g| g.key == key).unwrap_or_else(|| self.found(key));
            subset.pool.assign(places.iter().map(|(_, index)| *index));
            let first = places.first().and_then(|(_, index)| self.endpoints.set.get(*index));
            let divided = first.filter(|_| key.locality != 0);
            subset.locality =
                divided.map_or_else(Default::default, |of| (of.locality().into(), of.locality_weight()));
            // Versions and priorities are too few for more groups.
            let at = u16::try_from(subsets.len()).unwrap_or(NO_SUBSET);
            for (_, index) in places {
                if let Some(member) = self.endpoints.states.get_mut(*index as usize) {
                    member.subset = at;
                }
            }
            subsets.push(subset);
        }
        let mut nearest = None;
        for subset in &mut subsets {
            let level = (subset.key.version, subset.key.priority);
            subset.teaches = !subset.key.remote || nearest != Some(level);
            nearest = Some(level);
            let Subset { errors, pool, .. } = subset;
            errors.background.retain(|index| pool.all().binary_search(&index).is_ok());
        }
        self.subsets.list = subsets;
        self.list_tiers();
        for (at, version) in self.subsets.versions.iter_mut().enumerate() {
            let start = self.subsets.list.partition_point(|g| g.key.version < at);
            version.subsets = start..self.subsets.list.partition_point(|g| g.key.version <= at);
        }
    }

    #[inline(never)]
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
            latency: BaselineLatency {
                typical: if self.typical > 0.0 { self.typical } else { INITIAL_LATENCY_S },
                measured: false,
                stall_timeout: f64::INFINITY,
            },
            errors: SubsetErrors::default(),
            division: Division { weight: 0.0, fit: 0.0, trust: 1.0, load: 0.0, spill: Spillover::default() },
        }
    }

    #[inline(never)]
    fn list_tiers(&mut self) {
        let mut tiers: Vec<(u32, bool)> =
            self.subsets.list.iter().map(|g| (g.key.priority, g.key.remote)).collect();
        order::sort(&mut tiers);
        tiers.dedup();
        for subset in &mut self.subsets.list {
            subset.tier = tiers.partition_point(|t| *t < (subset.key.priority, subset.key.remote));
        }
        self.subsets.tiers = vec![PriorityTier::default(); tiers.len()];
    }

    /// The group of the endpoint at `index`.
    pub(super) fn subset_of(&self, index: u32) -> Option<&Subset> {
        self.subsets.list.get(self.endpoints.states.get(index as usize)?.subset as usize)
    }

    /// The group of the endpoint at `index`, to be told something.
    pub(super) fn subset_of_mut(&mut self, index: u32) -> Option<&mut Subset> {
        self.subsets.list.get_mut(self.endpoints.states.get(index as usize)?.subset as usize)
    }

    /// The typical latency beside the endpoint at `index`, seconds.
    pub(super) fn typical_beside(&self, index: u32) -> f64 {
        self.subset_of(index).map_or(self.typical, |g| g.latency.typical)
    }

    /// Takes over what the groups of an older configuration have learnt.
    pub(super) fn take_over_subsets(&mut self, old: &Cluster, now: Time) {
        for subset in &mut self.subsets.list {
            let version =
                |of: &Cluster, version| of.config.split.get(version).map(|(v, _): &(String, f64)| v.clone());
            let version_here =
                self.config.split.get(subset.key.version).map(|(v, _): &(String, f64)| v.clone());
            let same = |g: &&Subset| {
                let at = |key: &Key| (key.priority, key.remote, key.locality);
                at(&g.key) == at(&subset.key) && version(old, g.key.version) == version_here
            };
            let Some(known) = old.subsets.list.iter().find(same) else { continue };
            (subset.latency.typical, subset.latency.measured) =
                (known.latency.typical, known.latency.measured);
            subset.errors.record = known.errors.record;
            subset.errors.record.not_after(now);
            subset.division.spill = known.division.spill;
            // An endpoint that fails as all others do is excused after a reload as before.
            let (fleet, indices) = (&self.endpoints.set, subset.pool.all());
            subset.errors.background = known.errors.background.moved(|index| {
                let index = fleet.index_of_hash(old.endpoints.set.get(index)?.hash)?;
                indices.binary_search(&index).is_ok().then_some(index)
            });
        }
    }
}
