//! Subsets: the endpoints of one version, priority, locality and side of the zone boundary, with a policy of their own.
//!
//! A request is drawn into a subset before the policy is asked, so a policy compares like with like: a slower canary or
//! a more distant zone is compared with itself.

pub(crate) mod spillover;
pub(crate) mod split;
pub(crate) mod subset_health;
pub(crate) mod tiers;

use core::ops::Range;

use super::{Cluster, INITIAL_LATENCY_S};
use crate::cluster::subset::spillover::Spillover;
use crate::cluster::subset::split::{Split, unit};
use crate::cluster::subset::subset_health::{RecentErrors, Silence};
use crate::endpoint::Endpoint;
use crate::estimate::BaselineErrors;
use crate::order;
use crate::policy::{self, Policy, Pool, Turns};
use crate::rng::{self, Rng};
use crate::time::Time;

/// Salt that keeps the division of keys over priorities and zones independent of the ring.
const TIER_SALT: u64 = 0xA24B_AED4_963E_E407;

/// Subset index of an endpoint whose version is not part of the split.
pub(super) const NO_SUBSET: u16 = u16::MAX;

/// What the endpoints of a subset have in common; subsets are ordered by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Position of the version in the split; zero without a split.
    pub version: usize,
    /// The priority; 0 is used first.
    pub priority: u32,
    /// Whether it is in another zone than this proxy; always false without zones.
    pub remote: bool,
    /// Hash of the locality's name where requests are divided by locality weights, else 0.
    pub locality: u64,
}

impl Key {
    /// What subsets have in common that stand in for each other first.
    pub fn level(&self) -> (usize, u32, bool) {
        (self.version, self.priority, self.remote)
    }

    /// The same for a subset in every worker, whatever others its version has.
    fn hash(&self) -> u64 {
        rng::mix(self.locality ^ (u64::from(self.priority) << 1 | u64::from(self.remote)))
    }
}

/// A set of endpoints among which a policy chooses, and what is known of them together.
pub(super) struct Subset {
    pub key: Key,
    /// The locality's name and weight; empty where requests are not divided by localities.
    pub locality: (Box<str>, f64),
    /// Index of its tier.
    pub tier: usize,
    /// Its endpoints, and which of them are eligible.
    pub pool: Pool,
    pub policy: Box<dyn Policy>,
    /// Whether its answers teach how requests in flight delay each other. Where the network makes up most of the
    /// latency, they would teach that there is no delay, so remote subsets do only if there is no local one.
    pub teaches: bool,
    /// This worker's requests in flight to it.
    pub in_flight: u32,
    /// Length of a turn of its endpoints.
    pub turns: Turns,
    /// Latency baseline.
    pub latency: BaselineLatency,
    pub errors: SubsetErrors,
    /// Its part of the requests.
    pub division: Division,
}

/// Latency baseline of a subset.
pub(super) struct BaselineLatency {
    /// Median latency, seconds.
    pub typical: f64,
    /// Whether it has been measured here, not only assumed.
    pub measured: bool,
    /// Silence after which an endpoint is stalled, seconds.
    pub stall_timeout: f64,
    /// Mean latency of the answers that did what was asked, seconds; 0 before the first.
    pub served: f64,
}

/// Weight of an answer in [`BaselineLatency::served`].
const SERVED_STEP: f64 = 1.0 / 32.0;
/// An answer that took more than this multiple of the mean counts as that long.
const SERVED_CLIP: f64 = 4.0;

impl BaselineLatency {
    /// What is usual where most endpoints are slow and get no requests: the mean of the answers, if that is shorter, seconds.
    pub fn usual(&self) -> f64 {
        if self.served > 0.0 { self.typical.min(self.served) } else { self.typical }
    }

    /// Records an answer that did what was asked and took `seconds`.
    pub fn serve(&mut self, seconds: f64) {
        if self.served > 0.0 {
            self.served += SERVED_STEP * (seconds.min(SERVED_CLIP * self.served) - self.served);
        } else if seconds > 0.0 {
            self.served = seconds;
        }
    }
}

/// Failures of a subset, and its silence.
#[derive(Default)]
pub(super) struct SubsetErrors {
    /// Common failure ratio of the endpoints in traffic, 0..=1.
    pub failing: f64,
    /// Least failure ratio of any other subset, if one is known.
    pub elsewhere: Option<f64>,
    pub background: BaselineErrors,
    pub record: RecentErrors,
    pub silence: Silence,
}

/// The part of its version's requests that a subset gets, and what it depends on.
pub(super) struct Division {
    /// Sum of the weights of its endpoints, except draining ones.
    pub weight: f64,
    /// Sum of the weights of its healthy endpoints.
    pub fit: f64,
    /// Fraction of its requests that it may keep, by how it fails compared with other subsets, 0..=1.
    pub kept: f64,
    /// Its part of the requests of its version, 0..=1.
    pub load: f64,
    pub spill: Spillover,
}

/// The endpoints of one priority and side of the zone boundary, over all versions; panic applies to a tier.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PriorityTier {
    /// The priority, and whether it is on the other side of the zone boundary; tiers are ordered by it.
    pub key: (u32, bool),
    /// Number of endpoints, except draining ones.
    pub endpoints: usize,
    /// Number of eligible endpoints.
    pub eligible: usize,
    /// Sum of the weights of its endpoints, except draining ones.
    pub weight: f64,
    /// Sum of the weights of its healthy endpoints.
    pub fit: f64,
    /// Whether it is in panic: health is ignored.
    pub panic: bool,
    /// Until when no endpoint gets a pause that it asks for, because most of them asked.
    pub all_ask: Time,
}

/// How the endpoints of a cluster are divided.
pub(super) struct Subsets {
    /// The versions and their shares.
    pub split: Split,
    /// Versions, in the order of the split.
    pub versions: Vec<VersionSubset>,
    /// Subsets, in the order of their keys.
    pub list: Vec<Subset>,
    pub tiers: Vec<PriorityTier>,
    /// Indices of the subsets that had an eligible endpoint at the last tick.
    pub serving: Vec<u32>,
}

impl Subsets {
    /// Creates the divisions of `split`, without endpoints.
    pub fn new(split: &[(String, f64)]) -> Subsets {
        let split = Split::new(split);
        let version = || VersionSubset { subsets: 0..0, serves: false, pending_probes: Vec::new() };
        let mut versions = Vec::new();
        versions.resize_with(split.versions(), version);
        Subsets { split, versions, list: Vec::new(), tiers: Vec::new(), serving: Vec::new() }
    }

    /// Draws one of the subsets in `range`, in proportion to their loads.
    pub fn draw(&self, range: Range<usize>, key: Option<u64>, rng: &mut Rng) -> Option<usize> {
        let (start, subsets) = (range.start, self.list.get(range)?);
        let whole = subsets.iter().position(|g| g.division.load >= 1.0);
        if let Some(at) = whole {
            return Some(start + at);
        }
        if let Some(key) = key {
            return Some(start + race(subsets, key)?);
        }
        let (mut left, mut last) = (rng.unit(), None);
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

/// Position of the subset that wins the race for `key`, as [versions](split) do: where one loses requests to the others in
/// proportion to what these have, as localities do, no key of these moves.
#[inline(never)]
fn race(subsets: &[Subset], key: u64) -> Option<usize> {
    let key = rng::mix(key ^ TIER_SALT);
    let mut first: Option<(f64, usize)> = None;
    for (at, subset) in subsets.iter().enumerate().filter(|(_, g)| g.division.load > 0.0) {
        // In (0, 1], so that the logarithm is finite.
        let time = -(1.0 - unit(rng::mix(key ^ subset.key.hash()))).ln() / subset.division.load;
        if first.is_none_or(|(before, _)| time < before) {
            first = Some((time, at));
        }
    }
    first.map(|(_, at)| at)
}

/// The subsets of one version.
#[derive(Debug)]
pub(super) struct VersionSubset {
    pub subsets: Range<usize>,
    /// Whether it had an eligible endpoint at the last tick.
    pub serves: bool,
    /// Endpoints due for a probe and the number of requests each has waited; the last is probed first.
    pub pending_probes: Vec<(u32, u32)>,
}

impl Cluster {
    /// The key of the subset that `endpoint` belongs to; `None` if the split does not name its version.
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

    /// Assigns every endpoint to a subset; subsets that remain keep what they have learnt.
    pub(super) fn assign_subsets(&mut self) {
        let mut before = core::mem::take(&mut self.subsets.list).into_iter().peekable();
        let key = |(index, endpoint): (u32, Endpoint<'_>)| Some((self.key_of(endpoint)?, index));
        let mut places: Vec<(Key, u32)> = self.endpoints.set.iter().filter_map(key).collect();
        order::sort(&mut places);
        let identities = self.endpoints.set.identities();
        let identity = |index: u32| identities.get(index as usize).copied().unwrap_or_default();
        self.endpoints.states.iter_mut().for_each(|m| m.subset = NO_SUBSET);
        let mut subsets: Vec<Subset> = Vec::new();
        for places in places.chunk_by(|one, other| one.0 == other.0) {
            let Some((key, _)) = places.first().copied() else { continue };
            while before.next_if(|g| g.key < key).is_some() {}
            let mut subset = before.next_if(|g| g.key == key).unwrap_or_else(|| self.found(key));
            subset.pool.assign(places.iter().map(|(_, index)| *index), identity);
            let first = places.first().and_then(|(_, index)| self.endpoints.set.get(*index));
            let divided = first.filter(|_| key.locality != 0);
            subset.locality =
                divided.map_or_else(Default::default, |of| (of.locality().into(), of.locality_weight()));
            // Versions and priorities are too few to exceed 16 bits.
            let at = u16::try_from(subsets.len()).unwrap_or(NO_SUBSET);
            for (_, index) in places {
                if let Some(state) = self.endpoints.states.get_mut(*index as usize) {
                    state.subset = at;
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
                served: 0.0,
            },
            errors: SubsetErrors::default(),
            division: Division { weight: 0.0, fit: 0.0, kept: 1.0, load: 0.0, spill: Spillover::default() },
        }
    }

    /// Lists the tiers. How many of their endpoints are eligible and which pauses are refused stays until the next
    /// refresh, which judges pauses before it ejects endpoints.
    #[inline(never)]
    fn list_tiers(&mut self) {
        let mut tiers: Vec<(u32, bool)> =
            self.subsets.list.iter().map(|g| (g.key.priority, g.key.remote)).collect();
        order::sort(&mut tiers);
        tiers.dedup();
        for subset in &mut self.subsets.list {
            subset.tier = tiers.partition_point(|t| *t < (subset.key.priority, subset.key.remote));
        }
        let known = |key| self.subsets.tiers.iter().find(|tier| tier.key == key);
        let tier = |key| PriorityTier {
            key,
            all_ask: known(key).map_or(Time::ZERO, |tier| tier.all_ask),
            ..PriorityTier::default()
        };
        self.subsets.tiers = tiers.into_iter().map(tier).collect();
        let eligible = self.count_eligible(|_| true);
        for (tier, eligible) in self.subsets.tiers.iter_mut().zip(eligible) {
            tier.eligible = eligible;
        }
    }

    /// The subset of the endpoint at `index`.
    pub(super) fn subset_of(&self, index: u32) -> Option<&Subset> {
        self.subsets.list.get(self.endpoints.states.get(index as usize)?.subset as usize)
    }

    /// The subset of the endpoint at `index`, for updates.
    pub(super) fn subset_of_mut(&mut self, index: u32) -> Option<&mut Subset> {
        self.subsets.list.get_mut(self.endpoints.states.get(index as usize)?.subset as usize)
    }

    /// Typical latency of the subset of the endpoint at `index`, seconds.
    pub(super) fn typical_beside(&self, index: u32) -> f64 {
        self.subset_of(index).map_or(self.typical, |g| g.latency.typical)
    }

    /// Takes over what the subsets of an older configuration have learnt.
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
            // Endpoints that fail as all others do remain excused after a reload.
            let (fleet, indices) = (&self.endpoints.set, subset.pool.all());
            subset.errors.background = known.errors.background.moved(|index| {
                let index = fleet.index_of_hash(old.endpoints.set.get(index)?.hash)?;
                indices.binary_search(&index).is_ok().then_some(index)
            });
        }
    }
}
