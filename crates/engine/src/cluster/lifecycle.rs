//! Events of a request after its decision: sent, uploaded, answered, reassigned, finished. Each updates the estimates
//! and the health of its endpoint.

use super::probes::NEAR_MULTIPLE;
use super::{Cluster, GOOD_MULTIPLE};
use crate::decision::RequestHandle;
use crate::endpoint::{EndpointRef, EndpointState, NOISE_S};
use crate::health::{SURPRISE, State};
use crate::outcome::{Failure, Outcome, Quickness, RetryHint, Unsettled};
use crate::settings::RuleAction;
use crate::time::Time;

/// A deadline that expired within this multiple of the typical latency is no evidence: some calls have deadlines that
/// no endpoint could meet.
const SILENT_MULTIPLE: f64 = 4.0;

/// Whether an answer after so many seconds is not much slower than a typical one.
#[inline(never)]
fn is_near(seconds: f64, typical: f64) -> bool {
    seconds <= NEAR_MULTIPLE * typical + NOISE_S
}

impl Cluster {
    /// Records that a request was sent to the endpoint at `index`.
    ///
    /// Returns the endpoint, and how many unanswered requests it had already, scaled to an endpoint of mean weight.
    pub fn started(&mut self, index: u32, now: Time) -> Option<(EndpointRef, u32)> {
        let endpoint = self.endpoints.set.reference(index)?;
        let state = self.endpoints.states.get_mut(index as usize)?;
        let view = self.endpoints.peers.of(index, state);
        let pending = view.own_pending() as f32 + view.others_awaiting_now(self.queueing.sojourn_s, now);
        let unit = self.subsets.list.get(state.subset as usize).map_or(1.0, |g| g.turns.unit);
        let depth = (pending * unit / state.weight).round() as u32;
        state.send(now);
        self.count_in_flight(index, 1);
        Some((endpoint, depth))
    }

    /// The request body is still being sent, so no answer is due yet.
    pub fn uploading(&mut self, endpoint: EndpointRef, started: Time) {
        let epochs = self.traffic.epochs;
        if let Some(state) = self.endpoints.current(endpoint) {
            state.postpone(started, epochs);
        }
    }

    /// The request is complete: an answer is due from `since` on.
    pub fn uploaded(&mut self, endpoint: EndpointRef, since: Time) {
        if let Some(state) = self.endpoints.current(endpoint) {
            state.await_answer(since);
        }
    }

    /// The client began a request at `started` and has not ended it: an open request.
    pub fn opened(&mut self, endpoint: EndpointRef, started: Time) {
        if self.endpoints.current(endpoint).is_some() {
            self.endpoints.open_requests.open(endpoint.index, started);
        }
    }

    /// An open request that last moved at `moved` makes progress.
    pub fn moves(&mut self, endpoint: EndpointRef, moved: Time, now: Time) {
        if self.endpoints.current(endpoint).is_some() {
            self.endpoints.open_requests.moves(endpoint.index, moved, now);
        }
    }

    /// An open request is complete, answered or over.
    pub fn closed(&mut self, endpoint: EndpointRef, moved: Time, now: Time) {
        let stalled = match self.endpoints.current(endpoint) {
            Some(state) => state.health.state() == State::Stalled,
            None => return,
        };
        self.endpoints.open_requests.close(endpoint.index, moved, now, stalled);
    }

    fn count_in_flight(&mut self, index: u32, by: i32) {
        if let Some(subset) = self.subset_of_mut(index) {
            subset.in_flight = subset.in_flight.saturating_add_signed(by);
        }
    }

    /// The request turned out to be served by the endpoint at `to`: a retry, or Envoy's fallback. Returns the same as
    /// [`started`](Cluster::started).
    pub fn reassigned(&mut self, from: EndpointRef, to: u32, started: Time) -> Option<(EndpointRef, u32)> {
        let epochs = self.traffic.epochs;
        if let Some(endpoint) = self.endpoints.current(from) {
            endpoint.stop_awaiting(started, epochs);
            endpoint.in_flight.finish();
            self.count_in_flight(from.index, -1);
        }
        self.started(to, started)
    }

    /// Records the first sign of a request's outcome. `shows` says what an answer's time may show; what is left open is
    /// unsettled until [`settle`](Cluster::settle).
    pub fn record_response(
        &mut self,
        handle: &RequestHandle,
        outcome: Outcome,
        shows: Quickness,
        now: Time,
    ) -> Unsettled {
        let RequestHandle { endpoint, started, .. } = *handle;
        let outcome = match outcome {
            Outcome::Failed(Failure::Deadline) if self.was_silent(endpoint.index, started, now) => {
                Outcome::Failed(Failure::Timeout)
            }
            Outcome::Failed(Failure::Deadline) => Outcome::Cancelled,
            outcome => outcome,
        };
        // The slot may hold another endpoint by now.
        if !self.endpoints.set.is_current(endpoint) {
            return Unsettled::Nothing;
        }
        let typical = self.typical_beside(endpoint.index);
        let times @ (raw, seconds) = self.times(handle, now);
        let unsettled = if outcome.is_good() {
            self.answered_in(handle, times, shows, now)
        } else {
            self.ended_in(handle, outcome, raw, now);
            Unsettled::Nothing
        };
        let (epochs, ablation) = (self.traffic.epochs, self.ablation);
        let Some(state) = self.endpoints.states.get_mut(endpoint.index as usize) else { return unsettled };
        match outcome {
            Outcome::Good | Outcome::Undecided => state.answer(started, epochs, now),
            Outcome::Failed(failure) if failure.is_response() => state.answer(started, epochs, now),
            Outcome::Failed(Failure::Timeout) => {
                state.stop_awaiting(started, epochs);
                state.latency.observe_at_least(seconds, started, now, &ablation);
            }
            Outcome::Cancelled => {
                let subset = self.subsets.list.get(state.subset as usize);
                state.give_up(started, epochs, subset.is_some_and(|g| raw > g.latency.stall_timeout));
                state.latency.observe_at_least(seconds, started, now, &ablation);
            }
            Outcome::Failed(_) | Outcome::Unrelated => state.stop_awaiting(started, epochs),
        }
        if outcome.is_good() {
            let well = seconds <= GOOD_MULTIPLE * typical + NOISE_S;
            state.exploration.answer(well, || is_near(seconds, typical));
            if well && let Some(probing) = &mut self.ejection.probing {
                probing.is_well(endpoint.index);
            }
        }
        if outcome.is_good() || matches!(outcome, Outcome::Failed(failure) if failure.is_response()) {
            self.endpoints.open_requests.answered(endpoint.index, now);
        }
        match outcome {
            Outcome::Good => self.record_outcome(endpoint, started, None, now),
            Outcome::Failed(failure) => self.record_outcome(endpoint, started, Some(failure), now),
            _ => self.assess_now(endpoint.index, now),
        }
        unsettled
    }

    /// Whether the endpoint at `index` answered nothing between `started` and `now`, and that is much longer than is
    /// typical. Without both, an expired deadline is no evidence against it.
    #[inline(never)]
    fn was_silent(&self, index: u32, started: Time, now: Time) -> bool {
        let Some(known) = self.endpoint(index) else { return false };
        let long = self.elapsed_s(started, now) > SILENT_MULTIPLE * self.typical_beside(index) + NOISE_S;
        // With other requests sent meanwhile it counts as busy; its answers to them show that it is alive. Streams make
        // an idle endpoint busy as they begin, so for these only the last answer counts.
        let quiet_since = self.endpoints.open_requests.last_answer(index);
        let quiet_since = quiet_since.unwrap_or(known.in_flight.quiet_since());
        long && quiet_since <= started && known.good().start <= started
    }

    /// Records the outcome of a request: good, or a failure of the endpoint.
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
        // A request sent before the clock stepped back would outweigh all others until the clock catches up.
        let started = started.min(now);
        if let Some(subset) = self.subset_of_mut(endpoint.index) {
            subset.errors.background.observe(endpoint.index, failure.is_some());
            subset.errors.record.observe(failure.is_some(), now);
        }
        if self.endpoints.failings.any() {
            self.record_failing(endpoint.index, failure.is_some(), now);
        }
        let Some(state) = self.endpoints.current(endpoint) else { return };
        state.errors.observe(failure.is_some());
        match failure {
            None => state.health.success(started),
            Some(failure) => {
                state.counters.failure();
                if let Some(failure_event) = failure.failure_event() {
                    state.health.failure(started, now, failure_event);
                }
            }
        }
        self.assess_now(endpoint.index, now);
    }

    /// Records an answer for thresholds.
    #[cold]
    #[inline(never)]
    fn record_failing(&mut self, index: u32, failed: bool, now: Time) {
        let ruled_out = |m: &EndpointState| !m.eligible && m.constraints.ruled == Some(RuleAction::Eject);
        let out = self.endpoints.states.get(index as usize).is_some_and(ruled_out);
        self.endpoints.failings.observe(index, failed, out, now);
    }

    /// Records an attempt that failed at the endpoint of `handle` before the request was reassigned and answered
    /// elsewhere. The reason is not known; the last answer gives a `hint`, and so does the time: where hardly any
    /// answer takes as long as both attempts together, the endpoint kept the first one waiting. Without either it adds to
    /// the error penalty, and counts for health only as one of several in a row; where the route retries answers such
    /// as 429, it adds to the penalty alone.
    pub fn record_failed_attempt(&mut self, handle: &RequestHandle, hint: RetryHint, now: Time) {
        let RequestHandle { endpoint, started, depth, .. } = *handle;
        let seconds = self.elapsed_s(started, now);
        let timed_out = self.queueing.noise.survival.is_beyond(seconds, SURPRISE);
        let delay = f64::from(self.queueing.delay(depth));
        let ablation = self.ablation;
        let Some(state) = self.endpoints.current(endpoint) else { return };
        state.counters.request();
        if timed_out {
            state.latency.observe_at_least(seconds / delay, started, now, &ablation);
        }
        self.record_unseen(endpoint, started, (hint, timed_out), now);
    }

    /// Records an answer that was not seen, and rather a failure: for an attempt that failed, or one in whose place the
    /// client got another.
    pub fn record_unseen(
        &mut self,
        endpoint: EndpointRef,
        started: Time,
        (hint, timed_out): (RetryHint, bool),
        now: Time,
    ) {
        let Some(state) = self.endpoints.current(endpoint) else { return };
        // A request to an endpoint in one of these states is a probe, sent to see whether it fails.
        let looked_at = matches!(state.health.state(), State::Failed | State::Recovering | State::Stalled);
        let failure = match hint {
            RetryHint::Shed => Failure::TooMany,
            _ if timed_out => Failure::Timeout,
            RetryHint::Unseen if !looked_at => Failure::Unseen,
            RetryHint::Failed | RetryHint::Unseen => Failure::Reset,
        };
        let health = &self.config.health;
        let blamed = failure.counted(&health.failures).filter(|_| health.blame_retried);
        self.record_outcome(endpoint, started, Some(blamed.unwrap_or(Failure::TooMany)), now);
    }

    /// Records the end of a request.
    pub fn finished(&mut self, endpoint: EndpointRef, _now: Time) {
        if let Some(state) = self.endpoints.current(endpoint) {
            state.in_flight.finish();
            state.counters.request();
            self.count_in_flight(endpoint.index, -1);
        }
    }

    /// Counts a request that was answered by a host other than the steered one, without a retry.
    pub fn not_followed(&mut self) {
        self.stats.totals.astray.not_followed += 1;
    }

    /// Counts a request whose route was changed after the decision.
    pub fn rerouted(&mut self) {
        self.stats.totals.astray.rerouted += 1;
    }

    /// Records a decision time; returns whether it was plausible and counted.
    pub fn decided_within(&mut self, ns: u64) -> bool {
        self.stats.totals.times.observe(ns)
    }
}
