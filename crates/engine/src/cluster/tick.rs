//! The periodic update of a cluster, every few milliseconds, and the order of its steps.

use super::{Cluster, HandoverState, ProbeShard};
use crate::ablation::Part;
use crate::endpoint::PeerReport;
use crate::health::Evidence;
use crate::time::Time;

impl Cluster {
    /// Updates the cluster, schedules this worker's probes and records state changes.
    pub fn tick(&mut self, shard: ProbeShard, now: Time) {
        self.restore(now);
        (self.traffic.workers, self.traffic.rank) = (shard.workers.max(1), shard.rank);
        self.refresh(now);
        self.schedule(shard, now);
        self.record_transitions(shard);
    }

    /// Updates everything that follows from the measurements: baselines, ejections, shares, and the division of
    /// requests.
    pub(super) fn refresh(&mut self, now: Time) {
        let seconds = self.traffic.refresh(now);
        let typical = self.measure(seconds);
        self.compare_subsets(typical, now);
        self.look_at_open_requests(now);
        self.assess_all(now);
        self.rule(now);
        self.heed(now);
        self.eject();
        self.share(now);
        self.queueing.noise.refresh(self.typical);
        self.turn_epoch(now);
        self.queueing.refresh();
        let backlogs =
            self.endpoints.views().filter(|(_, view)| view.pending() > 0).map(|(_, view)| view.backlog(now));
        let (pending, waited) = backlogs.fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        self.traffic.in_flight = pending;
        self.traffic.waited_s = if pending > 0.0 { waited / pending } else { 0.0 };
        self.queueing.sojourn_s = self.sojourn_s();
        self.refresh_subsets(now);
        self.divide(seconds, now);
        self.settle_overflow(seconds);
    }

    /// Mean time until an answer, waiting included, seconds: requests in flight over their rate (Little's law), but at
    /// least the typical latency, because of few requests there is often none in flight.
    fn sojourn_s(&self) -> f32 {
        self.typical.max(self.traffic.in_flight / self.traffic.rate_of_all()) as f32
    }

    /// Clears the peers' reports before they are merged anew, as of `reported`.
    pub fn forget_others(&mut self, reported: Time) {
        self.traffic.forget_peers();
        self.endpoints.peers.forget(reported);
        self.endpoints.states.iter_mut().for_each(|endpoint| endpoint.health.forget_others());
    }

    /// Merges a peer's request rate, per second; `before` says whether it comes before this worker in their common order,
    /// `busy` whether it has had requests lately.
    pub fn merge_peer(&mut self, rate: f32, before: bool, busy: bool) {
        self.traffic.merge_peer(rate, before, busy);
    }

    /// This worker's part of the work on this cluster, where `shard` is its part among all of `peers` peers.
    pub fn divided(&self, shard: ProbeShard, peers: u32) -> ProbeShard {
        self.traffic.divided(shard, peers)
    }

    /// Merges a peer's report on the endpoint with identity `hash`.
    pub fn merge_other(&mut self, hash: u64, other: &PeerReport, evidence: &Evidence) {
        if !self.ablation.has(Part::Sharing) {
            return;
        }
        let Some(index) = self.endpoints.set.index_of_hash(hash) else { return };
        if let Some(endpoint) = self.endpoints.states.get_mut(index as usize) {
            self.endpoints.peers.merge((index, endpoint), self.endpoints.set.places(), other, evidence);
        }
    }

    /// Caps timestamps at `now` after the clock stepped back.
    pub fn not_after(&mut self, now: Time) {
        self.endpoints.not_after(now);
        self.subsets.list.iter_mut().for_each(|subset| subset.errors.record.not_after(now));
        self.traffic.not_after(now);
        self.signals.not_after(now);
        self.rules.not_after(now);
        self.capacity.scaler.not_after(now);
        self.ejection.probing.iter_mut().for_each(|probing| probing.not_after(now));
    }

    /// Takes over what the cluster of an older configuration has learnt.
    pub fn take_over(&mut self, old: &mut Cluster, now: Time) {
        self.typical = old.typical;
        self.traffic.first = old.traffic.first;
        self.endpoints.peers.forget(now);
        self.queueing = old.queueing.clone();
        self.capacity.scaler = old.capacity.scaler.clone();
        self.endpoints.returning = core::mem::take(&mut old.endpoints.returning);
        let mut inherited = HandoverState::new(now);
        for (index, identity) in self.endpoints.set.present() {
            let Some(endpoint) = self.endpoints.states.get_mut(index as usize) else { continue };
            let at = old.endpoints.set.index_of_hash(identity).unwrap_or(u32::MAX);
            let Some(known) = old.endpoints.states.get_mut(at as usize).filter(|m| m.present) else {
                if !old.endpoints.set.is_empty() {
                    endpoint.health.joins(now);
                }
                continue;
            };
            let all = old.endpoints.peers.of(at, known);
            inherited.add(identity, all);
            let quiet_since = all.quiet_since();
            endpoint.take_over(known, quiet_since);
            // Keep the number of requests since its last one.
            endpoint.turn.asked =
                self.traffic.requests.wrapping_sub(old.traffic.requests.wrapping_sub(known.turn.asked));
            if let (Some(peak), Some(known)) =
                (self.endpoints.peaks.get_mut(index as usize), old.endpoints.peaks.get(at as usize))
            {
                *peak = *known;
            }
        }
        self.take_over_rules(old);
        self.handover = Some(inherited);
        self.take_over_subsets(old, now);
        self.not_after(now);
        self.restore(now);
        self.refresh(now);
        self.take_over_transitions();
    }
}
