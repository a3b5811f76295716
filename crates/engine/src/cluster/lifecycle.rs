//! A request after its decision: sent, uploaded, answered, tried elsewhere, over. Each event teaches the estimates and the
//! health of the endpoint that it was at.

use super::{Cluster, GOOD_MULTIPLE};
use crate::ablation::Part;
use crate::decision::RequestHandle;
use crate::endpoint::{EndpointRef, NOISE_S};
use crate::estimate::latency::CLIP;
use crate::health::State;
use crate::outcome::{Failure, Outcome, RetryHint};
use crate::time::Time;

/// An answer within this multiple of the typical latency was not late: calls may have deadlines that no endpoint could
/// keep.
const SILENT_MULTIPLE: f64 = 4.0;

impl Cluster {
    /// A request is sent to the endpoint at `index`.
    ///
    /// Returns which endpoint that is, and how many others it found that it works on: as many as there would be at an
    /// endpoint of mean weight.
    pub fn started(&mut self, index: u32, now: Time) -> Option<(EndpointRef, u32)> {
        let endpoint = self.endpoints.set.reference(index)?;
        let member = self.endpoints.states.get_mut(index as usize)?;
        let pending = self.endpoints.peers.of(index, member).pending() as f32;
        let unit = self.subsets.list.get(member.subset as usize).map_or(1.0, |g| g.turns.unit);
        let depth = (pending * unit / member.weight).round() as u32;
        member.send(now);
        self.count_in_flight(index, 1);
        Some((endpoint, depth))
    }

    /// What is still being sent cannot be answered yet.
    pub fn uploading(&mut self, endpoint: EndpointRef, started: Time) {
        let epochs = self.traffic.epochs;
        if let Some(member) = self.endpoints.current(endpoint) {
            member.stop_awaiting(started, epochs);
        }
    }

    /// An answer is due from `since` on.
    pub fn uploaded(&mut self, endpoint: EndpointRef, since: Time) {
        if let Some(member) = self.endpoints.current(endpoint) {
            member.await_answer(since);
        }
    }

    /// The client has begun a request at `started` that it has not ended.
    pub fn opened(&mut self, endpoint: EndpointRef, started: Time) {
        if self.endpoints.current(endpoint).is_some() {
            self.endpoints.open_requests.open(endpoint.index, started);
        }
    }

    /// Such a request moves on that last moved at `moved`.
    pub fn moves(&mut self, endpoint: EndpointRef, moved: Time, now: Time) {
        if self.endpoints.current(endpoint).is_some() {
            self.endpoints.open_requests.moves(endpoint.index, moved, now);
        }
    }

    /// Such a request is complete, answered, or over.
    pub fn closed(&mut self, endpoint: EndpointRef, moved: Time, now: Time) {
        let stalled = match self.endpoints.current(endpoint) {
            Some(member) => member.health.state() == State::Stalled,
            None => return,
        };
        self.endpoints.open_requests.close(endpoint.index, moved, now, stalled);
    }

    fn count_in_flight(&mut self, index: u32, by: i32) {
        if let Some(subset) = self.subset_of_mut(index) {
            subset.in_flight = subset.in_flight.saturating_add_signed(by);
        }
    }

    /// The request turned out to be served by the endpoint at `to`: a retry, or Envoy's fallback. Which endpoint
    /// that is, and how many others are in flight there.
    pub fn reassigned(&mut self, from: EndpointRef, to: u32, started: Time) -> Option<(EndpointRef, u32)> {
        let epochs = self.traffic.epochs;
        if let Some(member) = self.endpoints.current(from) {
            member.stop_awaiting(started, epochs);
            member.in_flight.finish();
            self.count_in_flight(from.index, -1);
        }
        self.started(to, started)
    }

    /// The first sign of a request's outcome.
    pub fn record_response(&mut self, ticket: &RequestHandle, outcome: Outcome, now: Time) {
        let RequestHandle { endpoint, started, .. } = *ticket;
        let outcome = match outcome {
            Outcome::Failed(Failure::Deadline) if self.was_silent(endpoint.index, started, now) => {
                Outcome::Failed(Failure::Timeout)
            }
            Outcome::Failed(Failure::Deadline) => Outcome::Cancelled,
            outcome => outcome,
        };
        // Another may stand in its place by now, with which its answer has nothing to do.
        if !self.endpoints.set.is_current(endpoint) {
            return;
        }
        let typical = self.typical_beside(endpoint.index);
        // What it would have taken an idle endpoint.
        let ablation = self.ablation;
        let raw = now.seconds_since(started);
        let queue = if ablation.has(Part::Queueing) && ablation.has(Part::IdleLatency) {
            self.queueing.delay(ticket.depth)
        } else {
            1.0
        };
        let seconds = raw / f64::from(queue);
        let teaches = self.subset_of(endpoint.index).is_none_or(|g| g.teaches);
        if ablation.has(Part::Queueing)
            && teaches
            && (outcome == Outcome::Good || outcome == Outcome::Undecided)
        {
            let known = self.member(endpoint.index).map(|m| m.latency);
            self.queueing.noise.survival.observe(raw);
            if let Some((latency, deviation)) = known.and_then(|known| Some((known, known.deviation(raw)?))) {
                if !latency.falling() {
                    self.queueing.observe(ticket.depth, deviation);
                }
                if latency.settled() {
                    let weight = self.queueing.sample_weight(ticket.depth);
                    self.queueing.noise.observe(deviation - queue.ln(), weight, CLIP);
                }
            }
        }
        if outcome == Outcome::Good {
            self.ejection.overflow.observe(raw, self.ejection.out);
        }
        let (weight, rows) = (self.queueing.sample_weight(ticket.depth), self.queueing.noise.rows());
        self.observe_peak(endpoint.index, outcome, raw, now);
        let epochs = self.traffic.epochs;
        let Some(member) = self.endpoints.states.get_mut(endpoint.index as usize) else { return };
        match outcome {
            Outcome::Good | Outcome::Undecided => {
                member.answer(started, epochs, now);
                member.latency.observe_weighed((seconds, weight), started, now, rows, &ablation);
            }
            Outcome::Failed(failure) if failure.is_response() => member.answer(started, epochs, now),
            Outcome::Failed(Failure::Timeout) | Outcome::Cancelled => {
                member.stop_awaiting(started, epochs);
                member.latency.observe_at_least(seconds, started, now, &ablation);
            }
            Outcome::Failed(_) | Outcome::Unrelated => member.stop_awaiting(started, epochs),
        }
        if outcome == Outcome::Good || outcome == Outcome::Undecided {
            let well = seconds <= GOOD_MULTIPLE * typical + NOISE_S;
            member.exploration.answer(well);
            if well && let Some(probing) = &mut self.ejection.probing {
                probing.is_well(endpoint.index);
            }
        }
        if matches!(outcome, Outcome::Good | Outcome::Undecided)
            || matches!(outcome, Outcome::Failed(failure) if failure.is_response())
        {
            self.endpoints.open_requests.answered(endpoint.index, now);
        }
        match outcome {
            Outcome::Good => self.record_outcome(endpoint, started, None, now),
            Outcome::Failed(failure) => self.record_outcome(endpoint, started, Some(failure), now),
            _ => self.assess_now(endpoint.index, now),
        }
    }

    /// Whether the endpoint at `index` kept quiet from `started` to `now`, and for much longer than is typical: a
    /// deadline that passes says no more than that.
    #[inline(never)]
    fn was_silent(&self, index: u32, started: Time, now: Time) -> bool {
        let Some(known) = self.member(index) else { return false };
        let long = now.seconds_since(started) > SILENT_MULTIPLE * self.typical_beside(index) + NOISE_S;
        // What others sent meanwhile makes it busy with them; what they were answered shows that it lives.
        // Each stream that begins makes an idle one busy: of these only the last answer tells.
        let quiet_since = self.endpoints.open_requests.last_answer(index);
        let quiet_since = quiet_since.unwrap_or(known.in_flight.quiet_since());
        long && quiet_since <= started && known.good().start <= started
    }

    /// Where the policy compares peaks of latency, takes one that was so long.
    #[inline(never)]
    fn observe_peak(&mut self, index: u32, outcome: Outcome, seconds: f64, now: Time) {
        let Some(peak) = self.endpoints.peaks.get_mut(index as usize) else { return };
        match outcome {
            Outcome::Good | Outcome::Undecided => peak.observe(seconds, now),
            Outcome::Failed(Failure::Timeout) | Outcome::Cancelled => peak.observe_at_least(seconds, now),
            Outcome::Failed(_) | Outcome::Unrelated => {}
        }
    }

    /// The outcome of a request: good, or a failure of the endpoint's.
    pub fn record_outcome(
        &mut self,
        endpoint: EndpointRef,
        started: Time,
        failure: Option<Failure>,
        now: Time,
    ) {
        if !self.endpoints.set.is_current(endpoint) {
            return;
        }
        if failure == Some(Failure::Deadline) && !self.was_silent(endpoint.index, started, now) {
            return;
        }
        // Sent before the clock stepped back, it would outweigh all that comes until the clock is there again.
        let started = started.min(now);
        if let Some(subset) = self.subset_of_mut(endpoint.index) {
            subset.errors.background.observe(endpoint.index, failure.is_some());
            subset.errors.record.observe(failure.is_some(), now);
        }
        let Some(member) = self.endpoints.current(endpoint) else { return };
        member.errors.observe(failure.is_some());
        self.endpoints.failings.observe(endpoint.index, failure.is_some(), now);
        if failure.is_none() {
            self.endpoints.unseen.forget(endpoint.index);
        }
        let Some(member) = self.endpoints.current(endpoint) else { return };
        match failure {
            None => member.health.success(started),
            Some(failure) => {
                member.counters.failure();
                if let Some(failure_event) = failure.failure_event() {
                    member.health.failure(started, now, failure_event);
                }
            }
        }
        self.assess_now(endpoint.index, now);
    }

    /// The request failed here and was answered by another endpoint, to which it has been reassigned.
    /// Why is not seen: the last answer gives a `hint`. Where there is none, it is priced, and counts only with
    /// others in a row; where routes try again because of answers such as 429, it is priced and no more.
    pub fn record_failed_attempt(
        &mut self,
        endpoint: EndpointRef,
        started: Time,
        hint: RetryHint,
        now: Time,
    ) {
        let Some(member) = self.endpoints.current(endpoint) else { return };
        member.counters.request();
        // An endpoint that is probed by single requests is probed to see whether they fail.
        let looked_at = matches!(member.health.state(), State::Failed | State::Recovering | State::Stalled);
        let counts = match hint {
            RetryHint::Shed => false,
            RetryHint::Failed => true,
            RetryHint::Unseen => looked_at || self.endpoints.unseen.another(endpoint.index),
        };
        let health = &self.config.health;
        let blamed = Failure::Reset.counted(&health.failures).filter(|_| health.blame_retried && counts);
        self.record_outcome(endpoint, started, Some(blamed.unwrap_or(Failure::TooMany)), now);
    }

    /// The request is over.
    pub fn finished(&mut self, endpoint: EndpointRef, _now: Time) {
        if let Some(member) = self.endpoints.current(endpoint) {
            member.in_flight.finish();
            member.counters.request();
            self.count_in_flight(endpoint.index, -1);
        }
    }

    /// A request was answered by another host than the steered one, without a retry.
    pub fn not_followed(&mut self) {
        self.stats.totals.astray.not_followed += 1;
    }

    /// A request came by a route that was chosen after the decision.
    pub fn rerouted(&mut self) {
        self.stats.totals.astray.rerouted += 1;
    }

    /// A decision took so long. Whether that is believed.
    pub fn decided_within(&mut self, ns: u64) -> bool {
        self.stats.totals.times.observe(ns)
    }
}
