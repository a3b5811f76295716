//! Division of a version's requests over its priorities and zones.
//!
//! This is Envoy's rule for priorities, with the local zone before the others at each: a subset carries 1.4 times its
//! healthy fraction of the requests, at most all of them, and what it cannot carry goes to the next
//! (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/priority>). If all
//! together carry too little, requests are divided by what each carries; if no endpoint is healthy, by size.

use crate::autoscale::Tally;
use crate::cluster::Cluster;
use crate::cluster::subset::spillover::{Pressure, of_slow_down};
use crate::cluster::subset::{PriorityTier, Subset, subset_health};
use crate::settings::{PressureTerm, PressureValue};
use crate::time::Time;

/// Envoy's default overprovisioning factor: 71 % of the endpoints are enough for all requests.
const OVERPROVISIONING: f64 = 1.4;

/// Fraction of all requests that `fit` of `weight` can carry.
pub(crate) fn capacity(fit: f64, weight: f64) -> f64 {
    if weight > 0.0 { (OVERPROVISIONING * fit / weight).clamp(0.0, 1.0) } else { 0.0 }
}

/// Divides the requests over `subsets`, in their order; `kept` is the fraction of its capacity that each may keep.
///
/// Where localities have weights, the subsets of a level together carry what their healthy fraction allows, and divide
/// it by these weights, each as far as it can carry its own: as Envoy does with locality weights.
#[inline(never)]
pub(crate) fn divide(subsets: &mut [Subset], kept: impl Fn(&Subset) -> f64) {
    if let [only] = subsets {
        only.division.load = 1.0;
        return;
    }
    let mut left = 1.0;
    for level in subsets.chunk_by_mut(|one, other| one.key.level() == other.key.level()) {
        if let [only] = level {
            only.division.load =
                (capacity(only.division.fit, only.division.weight) * kept(only)).clamp(0.0, left);
            left -= only.division.load;
            continue;
        }
        let (fit, weight) = level
            .iter()
            .fold((0.0, 0.0), |(fit, weight), g| (fit + g.division.fit, weight + g.division.weight));
        let carries = |g: &Subset| g.locality.1 * capacity(g.division.fit, g.division.weight);
        let able: f64 = level.iter().map(carries).sum();
        let keeping: f64 = level.iter().map(|g| carries(g) * kept(g)).sum();
        let part = if able > 0.0 { keeping / able } else { 0.0 };
        let carried = (capacity(fit, weight) * part).clamp(0.0, left);
        left -= carried;
        for subset in level {
            subset.division.load =
                if keeping > 0.0 { carried * carries(subset) * kept(subset) / keeping } else { 0.0 };
        }
    }
    let carried = 1.0 - left;
    if carried > 0.0 {
        subsets.iter_mut().for_each(|g| g.division.load /= carried);
        return;
    }
    let size: f64 = subsets.iter().map(|g| g.division.weight).sum();
    for level in subsets.chunk_by_mut(|one, other| one.key.level() == other.key.level()) {
        let weight: f64 = level.iter().map(|g| g.division.weight).sum();
        let localities: f64 = level.iter().map(|g| g.locality.1).sum();
        for subset in level {
            let size_here = if localities > 0.0 {
                weight * subset.locality.1 / localities
            } else {
                subset.division.weight
            };
            subset.division.load = if size > 0.0 { size_here / size } else { 0.0 };
        }
    }
}

/// Lowers what a busy local zone keeps by what leaves it for the other zones of its priority, as far as these can carry
/// it beside what is theirs: priorities follow health, not load. A request that looks whether the zone answers is no load.
#[inline(never)]
fn leave_busy(subsets: &mut [Subset]) {
    let carries = |g: &Subset| capacity(g.division.fit, g.division.weight) * g.division.kept;
    let mut left: f64 = 1.0;
    for at in 0..subsets.len() {
        let (Some(here), there) = (subsets.get(at), subsets.get(at + 1)) else { continue };
        let own = carries(here);
        let mut stays = 1.0;
        if let Some(there) = there.filter(|there| stand_in(here, there) && own > 0.0)
            && !here.errors.silence.is_looked_at()
        {
            let room = carries(there);
            let least = (left.min(own + room) - room) / own;
            stays = here.division.spill.local_fraction.max(least);
        }
        left = (left - own * stays).max(0.0);
        if let Some(here) = subsets.get_mut(at) {
            here.division.kept *= stays;
        }
    }
}

/// Whether `there` are the other zones at the priority of the local zone `here`.
fn stand_in(here: &Subset, there: &Subset) -> bool {
    let same = (here.key.version, here.key.priority) == (there.key.version, there.key.priority);
    same && !here.key.remote && there.key.remote
}

/// Whether the healthy endpoints of all tiers together can carry everything, so that health need not be ignored. A
/// cluster with a single tier has no others.
pub(crate) fn others_can_absorb(tiers: &[PriorityTier]) -> bool {
    tiers.len() > 1 && tiers.iter().map(|t| capacity(t.fit, t.weight)).sum::<f64>() >= 1.0
}

impl Cluster {
    /// Divides the requests of each version over its subsets, `seconds` after the last call.
    #[inline(never)]
    pub(crate) fn divide(&mut self, seconds: f64, now: Time) {
        self.spill_over(seconds, now);
        for version in &self.subsets.versions {
            let Some(subsets) = self.subsets.list.get_mut(version.subsets.clone()) else { continue };
            if subsets.len() > 1 {
                let (states, peers) = (&self.endpoints.states, &self.endpoints.peers);
                subset_health::compare(subsets, states, peers, self.traffic.requests, now);
                leave_busy(subsets);
            }
            divide(subsets, |g| g.division.kept);
        }
    }

    /// Moves traffic between the local zone and the others at the same priority, by their pressure.
    fn spill_over(&mut self, seconds: f64, now: Time) {
        let Some(zone) = &self.config.zone else { return };
        let target = zone.spill_over_percent / 100.0;
        for remote in 1..self.subsets.list.len() {
            let local = remote - 1;
            let sides = (self.subsets.list.get(local), self.subsets.list.get(remote));
            let (Some(here), Some(there)) = sides else { continue };
            if !stand_in(here, there) {
                continue;
            }
            // A request on its way to a more distant zone occupies no slot there.
            let at_work = (here.latency.typical / there.latency.typical).min(1.0);
            let (busy_here, busy_there) =
                (self.pressure_of(here, 1.0, now), self.pressure_of(there, at_work, now));
            let poll_s = self.signals.poll_s;
            if let Some(there) = self.subsets.list.get_mut(remote) {
                there.division.spill.observe(busy_there, seconds);
            }
            let there = self.subsets.list.get(remote).map_or(0.0, |g| g.division.spill.pressure());
            if let Some(here) = self.subsets.list.get_mut(local) {
                here.division.spill.observe(busy_here, seconds);
                here.division.spill.settle(target.max(there), poll_s, seconds);
            }
        }
    }

    /// Pressure on a subset's eligible endpoints; `at_work` is the fraction of its requests that are not in transit.
    fn pressure_of(&self, subset: &Subset, at_work: f64, now: Time) -> Pressure {
        let learnt = self.slots();
        let slots = learnt.filter(|s| s.found).map_or(f64::INFINITY, |s| f64::from(s.count));
        let (mut weight, mut busy, mut speed) = (0.0, 0.0, 0.0);
        let mut tally = Tally::new(&self.config.pressure);
        let endpoints = subset.pool.all().iter().filter_map(|i| Some((*i, self.endpoint(*i)?)));
        for (index, endpoint) in endpoints.filter(|(_, m)| m.eligible) {
            let own = f64::from(endpoint.weight);
            weight += own;
            let crowd = at_work * f64::from(endpoint.pending()) * f64::from(subset.turns.unit) / own;
            busy += own * (crowd / slots).min(1.0);
            let queue = f64::from(self.queueing.delay((crowd - 1.0).max(0.0) as u32));
            let silence = f64::from(endpoint.silent(&self.queueing, now)) / subset.latency.typical.max(1e-6);
            speed += own / queue.max(silence).max(1.0);
            tally.add(|value| self.pressing(index, endpoint, value, learnt, now));
        }
        if weight <= 0.0 {
            return Pressure::default();
        }
        let is_signal = |term: &PressureTerm| matches!(term.value, PressureValue::Signal(_));
        let signals = self.config.pressure.iter().any(is_signal);
        let slow_down = of_slow_down(weight / speed.max(f64::MIN_POSITIVE));
        Pressure {
            measured: (busy / weight).max(slow_down),
            signalled: tally.pressure().filter(|_| signals).map_or(0.0, |pressure| pressure.value),
        }
    }
}

#[cfg(test)]
mod tests;
