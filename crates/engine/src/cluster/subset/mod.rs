//! Who is chosen among: the endpoints of one version, one priority and one side of the zone's border are a group,
//! with a policy of their own.
//!
//! A request is drawn into a group before the policy is asked, so a policy compares like with like: a canary that
//! is slower, or a zone that is farther away, is judged against itself.

pub(crate) mod spillover;
pub(crate) mod split;
pub(crate) mod subset_health;
pub(crate) mod tiers;

use core::ops::Range;

use super::{TYPICAL_AT_FIRST_S, Upstream};
use crate::cluster::subset::spillover::Spill;
use crate::cluster::subset::subset_health::Record;
use crate::endpoint::Endpoint;
use crate::estimate::Background;
use crate::policy::{self, Policy, Pool, Turns};
use crate::rng;
use crate::time::Time;

/// An endpoint whose version the split does not name is in no group.
pub(super) const NO_GROUP: u16 = u16::MAX;

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
pub(super) struct Group {
    pub key: Key,
    /// The locality's name, and what it is to get beside the others of its level; empty where requests are not divided
    /// by localities.
    pub locality: (Box<str>, f64),
    /// Position of its priority and side among the upstream's tiers.
    pub tier: usize,
    /// Who belongs to it, and who of them may be chosen.
    pub pool: Pool,
    pub policy: Box<dyn Policy>,
    /// Whether its answers teach how much requests in flight delay the next. Where the network is most of a latency
    /// they would teach that nothing does, so those of other zones do only if there is nobody near.
    pub teaches: bool,
    /// This worker's requests on their way to it.
    pub in_flight: u32,
    /// How often its endpoints' turns come.
    pub turns: Turns,
    /// Median latency in seconds.
    pub typical: f64,
    /// Whether that was measured here, not only assumed.
    pub measured: bool,
    /// For how long an endpoint may keep quiet until it is hung, seconds.
    pub patience: f64,
    /// The failure ratio of those in traffic.
    pub failing: f64,
    /// The least failure ratio of the other groups, as far as one is known.
    pub elsewhere: Option<f64>,
    pub background: Background,
    pub record: Record,
    /// Σ weights of all who stay, and of those who are well.
    pub weight: f64,
    pub fit: f64,
    /// What part of its requests may be left to it, by how it fails beside other groups.
    pub trust: f64,
    /// Its part of the requests of its version, 0..=1.
    pub load: f64,
    pub spill: Spill,
}

/// The endpoints of one priority and one side of the zone's border, all versions together: panic is theirs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tier {
    /// How many endpoints it has, and how many of them may be chosen.
    pub endpoints: usize,
    pub eligible: usize,
    /// Σ weights of all, and of those who are well.
    pub weight: f64,
    pub fit: f64,
    /// Health is ignored.
    pub panic: bool,
}

/// The groups of one version.
#[derive(Debug)]
pub(super) struct Lane {
    pub groups: Range<usize>,
    /// Whether anybody could be chosen at the last tick.
    pub serves: bool,
    /// Who is due for a single request, and how many it has waited for; the last is the first.
    pub due: Vec<(u32, u32)>,
}

impl Upstream {
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

    /// Puts everybody of the fleet into a group; groups that stay keep what they know.
    pub(super) fn regroup(&mut self) {
        let mut before = core::mem::take(&mut self.groups).into_iter().peekable();
        let key = |(index, endpoint): (u32, Endpoint<'_>)| Some((self.key_of(endpoint)?, index));
        let mut places: Vec<(Key, u32)> = self.fleet.iter().filter_map(key).collect();
        places.sort_unstable();
        self.members.iter_mut().for_each(|m| m.group = NO_GROUP);
        let mut groups: Vec<Group> = Vec::new();
        for places in places.chunk_by(|one, other| one.0 == other.0) {
            let Some((key, _)) = places.first().copied() else { continue };
            while before.next_if(|g| g.key < key).is_some() {}
            let mut group = before.next_if(|g| g.key == key).unwrap_or_else(|| self.found(key));
            group.pool.assign(places.iter().map(|(_, index)| *index));
            let first = places.first().and_then(|(_, index)| self.fleet.get(*index));
            let divided = first.filter(|_| key.locality != 0);
            group.locality =
                divided.map_or_else(Default::default, |of| (of.locality().into(), of.locality_weight()));
            // Versions and priorities are too few for more groups.
            let at = u16::try_from(groups.len()).unwrap_or(NO_GROUP);
            for (_, index) in places {
                if let Some(member) = self.members.get_mut(*index as usize) {
                    member.group = at;
                }
            }
            groups.push(group);
        }
        let mut nearest = None;
        for group in &mut groups {
            let level = (group.key.lane, group.key.priority);
            group.teaches = !group.key.remote || nearest != Some(level);
            nearest = Some(level);
            let Group { background, pool, .. } = group;
            background.retain(|index| pool.everybody().binary_search(&index).is_ok());
        }
        self.groups = groups;
        self.list_tiers();
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            let start = self.groups.partition_point(|g| g.key.lane < at);
            lane.groups = start..self.groups.partition_point(|g| g.key.lane <= at);
        }
    }

    fn found(&self, key: Key) -> Group {
        Group {
            key,
            locality: Default::default(),
            tier: 0,
            pool: Pool::default(),
            policy: policy::build(&self.config.policy, self.terms),
            teaches: true,
            in_flight: 0,
            turns: Turns::default(),
            typical: if self.typical > 0.0 { self.typical } else { TYPICAL_AT_FIRST_S },
            measured: false,
            patience: f64::INFINITY,
            failing: 0.0,
            elsewhere: None,
            background: Background::default(),
            record: Record::default(),
            weight: 0.0,
            fit: 0.0,
            trust: 1.0,
            load: 0.0,
            spill: Spill::default(),
        }
    }

    fn list_tiers(&mut self) {
        let mut tiers: Vec<(u32, bool)> =
            self.groups.iter().map(|g| (g.key.priority, g.key.remote)).collect();
        tiers.sort_unstable();
        tiers.dedup();
        for group in &mut self.groups {
            group.tier = tiers.partition_point(|t| *t < (group.key.priority, group.key.remote));
        }
        self.tiers = vec![Tier::default(); tiers.len()];
    }

    /// The group of the endpoint at `index`.
    pub(super) fn group_of(&self, index: u32) -> Option<&Group> {
        self.groups.get(self.members.get(index as usize)?.group as usize)
    }

    /// The group of the endpoint at `index`, to be told something.
    pub(super) fn group_of_mut(&mut self, index: u32) -> Option<&mut Group> {
        self.groups.get_mut(self.members.get(index as usize)?.group as usize)
    }

    /// The typical latency beside the endpoint at `index`, seconds.
    pub(super) fn typical_beside(&self, index: u32) -> f64 {
        self.group_of(index).map_or(self.typical, |g| g.typical)
    }

    /// Takes over what the groups of an older configuration have learnt.
    pub(super) fn adopt_groups(&mut self, old: &Upstream, now: Time) {
        for group in &mut self.groups {
            let version =
                |of: &Upstream, lane| of.config.split.get(lane).map(|(v, _): &(String, f64)| v.clone());
            let version_here = self.config.split.get(group.key.lane).map(|(v, _): &(String, f64)| v.clone());
            let same = |g: &&Group| {
                let at = |key: &Key| (key.priority, key.remote, key.locality);
                at(&g.key) == at(&group.key) && version(old, g.key.lane) == version_here
            };
            let Some(known) = old.groups.iter().find(same) else { continue };
            (group.typical, group.measured) = (known.typical, known.measured);
            group.record = known.record;
            group.record.not_after(now);
            group.spill = known.spill;
            // Who fails as all others do is excused after a reload as before.
            let (fleet, indices) = (&self.fleet, group.pool.everybody());
            group.background = known.background.moved(|index| {
                let index = fleet.index_of_hash(old.fleet.get(index)?.hash)?;
                indices.binary_search(&index).is_ok().then_some(index)
            });
        }
    }
}
