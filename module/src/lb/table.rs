//! The hosts of a cluster by address and by weight, as of the last update. Indices are verified where they are used:
//! those of healthy hosts shift when the health of any host changes.

use std::collections::HashMap;

use engine::rng::{self, Rng};

use super::Choice;
use super::loads::OVERPROVISIONED;
use crate::abi::{Hosts, LbHandle, RequestContext};

/// Where a healthy host is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its priority.
    pub priority: u32,
    /// Its index among the healthy hosts of the priority.
    pub healthy: u32,
}

/// The healthy hosts of a priority.
#[derive(Default)]
struct Level {
    /// The index of each among all hosts of the priority.
    all: Vec<usize>,
    /// The sum of the weights up to and including each.
    weights: Vec<f64>,
}

/// The healthy hosts of a cluster.
#[derive(Default)]
pub struct Table {
    /// Places by the hash of the address; the lowest priority first where several have the same.
    places: HashMap<u64, Place>,
    levels: Vec<Level>,
}

impl Table {
    /// The present hosts; looks at each of them, so not for a request.
    pub fn of(lb: LbHandle) -> Table {
        let mut table = Table::default();
        for priority in 0..lb.priorities() {
            let level = table.level(lb, priority);
            table.levels.push(level);
        }
        table
    }

    fn level(&mut self, lb: LbHandle, priority: u32) -> Level {
        let hashes =
            |of, count| (0..count).map(move |at| lb.address(priority, of, at, rng::hash).unwrap_or(0));
        let hosts = hashes(Hosts::All, lb.count(priority, Hosts::All));
        let by_hash: HashMap<u64, usize> = hosts.zip(0..).collect();
        let mut level = Level::default();
        let mut weights = Vec::new();
        let mut here = HashMap::new();
        let healthy = hashes(Hosts::Healthy, lb.count(priority, Hosts::Healthy));
        for (healthy, hash) in (0u32..).zip(healthy) {
            level.all.push(by_hash.get(&hash).copied().unwrap_or(usize::MAX));
            weights.push(f64::from(lb.weight(priority, healthy as usize).max(1)));
            here.insert(hash, healthy as usize);
            self.places.entry(hash).or_insert(Place { priority, healthy });
        }
        if let Some(weighted) = by_locality(lb, priority, (&here, &level.all), &weights) {
            weights = weighted;
        }
        let mut sum = 0.0;
        let sums = weights.into_iter().map(|weight| {
            sum += weight;
            sum
        });
        level.weights = sums.collect();
        level
    }

    /// Where the host of this address is, if it is still there.
    pub fn find(&self, lb: LbHandle, address: &[u8]) -> Option<Place> {
        let place = self.places.get(&rng::hash(address)).copied()?;
        let is_it = lb.address(place.priority, Hosts::Healthy, place.healthy as usize, |at| at == address);
        is_it.unwrap_or(false).then_some(place)
    }

    /// Whether the retry policy wants another host than this one.
    pub fn is_excluded(&self, lb: LbHandle, context: RequestContext, (priority, healthy): Choice) -> bool {
        let level = self.levels.get(priority as usize);
        let Some(all) = level.and_then(|level| level.all.get(healthy as usize)).copied() else {
            return false;
        };
        let same = lb.address(priority, Hosts::Healthy, healthy as usize, |chosen| {
            lb.address(priority, Hosts::All, all, |asked| asked == chosen).unwrap_or(false)
        });
        same.unwrap_or(false) && context.excludes(lb, priority, all)
    }

    /// Draws a healthy host of this priority by weight; evenly, if their number is no longer that of the last update.
    pub fn draw(&self, lb: LbHandle, priority: u32, rng: &mut Rng) -> Option<Choice> {
        let count = lb.count(priority, Hosts::Healthy);
        let weights = self.levels.get(priority as usize).map_or(&[][..], |level| &level.weights);
        let index = match weights.last() {
            Some(sum) if weights.len() == count => {
                let at = rng.unit() * sum;
                weights.partition_point(|upto| *upto <= at).min(count - 1)
            }
            _ if count == 0 => return None,
            _ => rng.below(u32::try_from(count).unwrap_or(u32::MAX)) as usize,
        };
        Some((priority, u32::try_from(index).ok()?))
    }
}

/// The weights of healthy hosts where Envoy's localities have weights: each locality gets its weight, reduced by what of
/// it is not healthy, divided by the weights of its hosts. `None` where they have none.
fn by_locality(
    lb: LbHandle,
    priority: u32,
    (healthy, all): (&HashMap<u64, usize>, &[usize]),
    weights: &[f64],
) -> Option<Vec<f64>> {
    let localities = lb.localities(priority);
    if localities < 2 || (0..localities).all(|at| lb.locality_weight(priority, at) == 0) {
        return None;
    }
    let name = |host: usize| {
        lb.locality(priority, host, |parts| {
            rng::hash(&parts.map(|part| rng::hash(part).to_le_bytes()).concat())
        })
    };
    let mut sizes: HashMap<u64, f64> = HashMap::new();
    for name in (0..lb.count(priority, Hosts::All)).filter_map(name) {
        *sizes.entry(name).or_default() += 1.0;
    }
    let mut weighted = vec![0.0; weights.len()];
    for at in 0..localities {
        let hosts = (0..lb.count(priority, Hosts::Locality(at))).filter_map(|host| {
            let hash = lb.address(priority, Hosts::Locality(at), host, rng::hash)?;
            healthy.get(&hash).copied()
        });
        let hosts: Vec<usize> = hosts.collect();
        let sum: f64 = hosts.iter().filter_map(|host| weights.get(*host)).sum();
        let size = hosts.first().and_then(|host| sizes.get(&name(*all.get(*host)?)?)).copied();
        let provided = (OVERPROVISIONED * hosts.len()) as f64 / 100.0;
        let available = (provided / size.unwrap_or(1.0).max(1.0)).min(1.0);
        let part = f64::from(lb.locality_weight(priority, at)) * available / sum.max(f64::MIN_POSITIVE);
        for host in hosts {
            if let (Some(to), Some(weight)) = (weighted.get_mut(host), weights.get(host)) {
                *to = weight * part;
            }
        }
    }
    weighted.iter().any(|weight| *weight > 0.0).then_some(weighted)
}
