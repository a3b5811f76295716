//! What the time of an answer shows of its endpoint. An endpoint that turns everything down at once, because it lost its
//! data or its access to something, would look like the best of all: such an answer can show that the endpoint is slow,
//! and not that it is quicker than the answers that do what was asked. Calls whose status comes after the headers show
//! their quickness once that status is known, or once the answer has flowed for a while. An endpoint that begins its
//! answers at once and takes long to end them is not quick either: while it has many more than its fair part of the
//! answers that flow, the time to the headers of the next one is no merit.

use super::Cluster;
use crate::ablation::Part;
use crate::decision::RequestHandle;
use crate::outcome::{Failure, Outcome, Quickness, Unsettled};
use crate::time::Time;

/// The multiple of an endpoint's fair part of the requests in flight, and the number beyond it, up to which answers that
/// flow are usual. Fair parts scatter, and with two endpoints the whole is twice a part.
const CROWDED: f32 = 1.5;
const USUAL: f32 = 2.0;
/// Time within which it has to be known what an answer shows, seconds: as long as estimates remember. What a stream of
/// hours showed at its beginning would undo what the endpoint has shown since.
const SETTLES_S: f64 = 5.0;

impl Cluster {
    /// The time of an answer at `now`, and the same with the queueing delay divided out, as of an idle endpoint; seconds.
    pub(super) fn times(&self, handle: &RequestHandle, now: Time) -> (f64, f64) {
        let raw = self.elapsed_s(handle.started, now);
        (raw, raw / self.delay_at(handle.depth))
    }

    fn delay_at(&self, depth: u32) -> f64 {
        let divided = self.ablation.has(Part::Queueing) && self.ablation.has(Part::IdleLatency);
        if divided { f64::from(self.queueing.delay(depth)) } else { 1.0 }
    }

    /// Mean time of the answers beside the endpoint at `index` that did what was asked, seconds; 0 before the first.
    fn served_beside(&self, index: u32) -> f64 {
        self.subset_of(index).map_or(0.0, |subset| subset.latency.served)
    }

    /// Records the [`times`](Cluster::times) of a good answer, as far as they show something.
    pub(super) fn answered_in(
        &mut self,
        handle: &RequestHandle,
        times: (f64, f64),
        shows: Quickness,
        now: Time,
    ) -> Unsettled {
        let (index, (_, seconds)) = (handle.endpoint.index, times);
        let crowded = shows != Quickness::Denied && self.is_crowded(index);
        let shows = if crowded { Quickness::Denied } else { shows };
        if shows == Quickness::Shown {
            self.served_in(index, seconds);
            self.learn(handle, times, 0.0, now);
            return Unsettled::Nothing;
        }
        let mut served = self.served_beside(index);
        if crowded {
            // The mean may have been learnt from its own headers.
            served = served.max(self.typical_beside(index));
        }
        let quick = seconds < served;
        // An endpoint without any measurement gets more requests to measure it: the mean stands in.
        let unknown = || self.endpoint(index).is_some_and(|known| known.latency.estimate().is_none());
        if !quick || shows == Quickness::Denied || unknown() {
            self.learn(handle, times, served, now);
        }
        match shows {
            Quickness::Shown | Quickness::Denied => Unsettled::Nothing,
            Quickness::Open if quick => Unsettled::Sample,
            Quickness::Open => Unsettled::Mean,
        }
    }

    /// Whether the endpoint at `index` has many more than its fair part of the requests in flight in answers that have
    /// begun and not ended.
    fn is_crowded(&self, index: u32) -> bool {
        let Some(state) = self.endpoints.states.get(index as usize) else { return false };
        let flowing = state.in_flight.total().saturating_sub(state.in_flight.awaiting()) as f32;
        if flowing <= USUAL {
            return false;
        }
        self.subset_of(index).is_some_and(|subset| {
            let weights = subset.turns.unit * subset.pool.len().max(1) as f32;
            let fair = subset.in_flight as f32 * state.weight / weights;
            flowing > CROWDED * fair + USUAL
        })
    }

    /// Records the time of a request without a good answer.
    #[inline(never)]
    pub(super) fn ended_in(&mut self, handle: &RequestHandle, outcome: Outcome, raw: f64, now: Time) {
        let index = handle.endpoint.index;
        let Some(peak) = self.endpoints.peaks.get_mut(index as usize) else { return };
        match outcome {
            Outcome::Failed(Failure::Timeout) | Outcome::Cancelled => peak.observe_at_least(raw, now),
            // A failure that does not eject, such as 429, would make an endpoint the quickest of all.
            Outcome::Failed(failure) if failure.is_response() => {
                let mean = self.served_beside(index) * self.delay_at(handle.depth);
                self.observe_peak(index, raw.max(mean), now);
            }
            Outcome::Failed(_) | Outcome::Unrelated | Outcome::Good | Outcome::Undecided => {}
        }
    }

    /// Records what an answer at `answered` left unsettled, now that it is known whether it did what was asked.
    pub fn settle(&mut self, handle: &RequestHandle, unsettled: Unsettled, declined: bool, answered: Time) {
        if unsettled == Unsettled::Nothing || !self.endpoints.set.is_current(handle.endpoint) {
            return;
        }
        let times = self.times(handle, answered);
        let index = handle.endpoint.index;
        if !declined {
            self.served_in(index, times.1);
        }
        // Either way, because the clock may have stepped back.
        let ticked = self.traffic.refreshed;
        let recent = ticked.seconds_since(answered).max(answered.seconds_since(ticked)) <= SETTLES_S;
        if unsettled == Unsettled::Sample && recent {
            let served = if declined { self.served_beside(index) } else { 0.0 };
            // Later answers may have been recorded meanwhile.
            let newest = self.endpoint(index).map_or(answered, |known| known.latency.updated());
            self.learn(handle, times, served, answered.max(newest));
        }
    }

    fn served_in(&mut self, index: u32, seconds: f64) {
        if let Some(subset) = self.subset_of_mut(index) {
            subset.latency.serve(seconds);
        }
    }

    /// Updates all that rests on the times of answers; `served` stands in for a time that is shorter.
    fn learn(&mut self, handle: &RequestHandle, (raw, seconds): (f64, f64), served: f64, now: Time) {
        let RequestHandle { endpoint, started, depth, .. } = *handle;
        let ablation = self.ablation;
        let queue = self.delay_at(depth);
        let tells = seconds >= served;
        let (raw, seconds) = if tells { (raw, seconds) } else { (served * queue, served) };
        let teaches = self.subset_of(endpoint.index).is_none_or(|g| g.teaches);
        if ablation.has(Part::Queueing) && teaches && tells {
            let known = self.endpoint(endpoint.index).map(|m| m.latency);
            self.queueing.noise.survival.observe(raw);
            if let Some((latency, deviation)) = known.and_then(|known| Some((known, known.deviation(raw)?))) {
                if !latency.falling() {
                    self.queueing.observe(depth, deviation);
                }
                if latency.settled() {
                    let weight = self.queueing.sample_weight(depth);
                    self.queueing.noise.observe(deviation - (queue as f32).ln(), weight);
                }
            }
        }
        if tells {
            self.ejection.overflow.observe(raw, self.ejection.out);
        }
        let (weight, rows) = (self.queueing.sample_weight(depth), self.queueing.noise.rows());
        self.observe_peak(endpoint.index, raw, now);
        if let Some(state) = self.endpoints.states.get_mut(endpoint.index as usize) {
            state.latency.observe_weighed((seconds, weight), started, now, rows, &ablation);
        }
    }

    /// Updates the endpoint's latency peak where the policy uses peaks.
    #[inline(never)]
    fn observe_peak(&mut self, index: u32, seconds: f64, now: Time) {
        if let Some(peak) = self.endpoints.peaks.get_mut(index as usize) {
            peak.observe(seconds, now);
        }
    }
}
