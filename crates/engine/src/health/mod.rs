//! Health of an endpoint: healthy → suspect → failed → recovering → healthy, a state machine over the evidence of all
//! workers.
//!
//! A run of failures makes an endpoint suspect: it gets only single verifying requests, one a second. With more
//! failures in a row it is failed: it is probed half-open by single requests at growing intervals, and `recover_after`
//! good answers in a row bring it back. A run counts only if it is *surprising* given how the rest of the subset fails:
//! under a common fault with failure ratio p, a run of n has probability pⁿ, and no endpoint is ejected for what all of
//! them do.
//!
//! [`Evidence`] is the input of the state machine and merges over workers; `probes` schedules the probes, `serving`
//! estimates what a failing endpoint still serves.

mod evidence;
mod probes;
mod serving;

pub use evidence::{Evidence, FailureEvent, FailureRun, GoodRun};

use probes::{Looks, Overdue};
use serving::Serving;

use crate::estimate::{Held, Unanswered};
use crate::settings;
use crate::time::{LostTime, Time};

/// Time in traffic after which an endpoint's next ejection is treated as its first, seconds.
const PROVEN_AFTER_S: f64 = 60.0;
/// Probability below which a run makes an endpoint suspect, one in a thousand; for ejection, its square.
pub const SURPRISE: f64 = 1e-3;

/// Health state of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// In traffic.
    #[default]
    Healthy,
    /// Failed at least once; gets single verifying requests.
    Suspect,
    /// Has left requests unanswered for too long; gets a single request now and then.
    Stalled,
    /// Ejected; gets half-open probes.
    Failed,
    /// A probe succeeded; gets single requests until enough have succeeded.
    Recovering,
}

/// Time after the last event from which the history has no effect and is dropped, seconds: slow starts and ejections
/// take at most an hour.
const PAST_AFTER_S: f64 = 2.0 * 3600.0;

/// Failures and lifecycle events of an endpoint; most endpoints have none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct FailureHistory {
    own: FailureRun,
    others: FailureRun,
    ejected: Time,
    returned: Time,
    joined: Time,
    serving: Serving,
    looks: Looks,
    overdue: Overdue,
}

impl FailureHistory {
    /// Whether the history no longer has any effect.
    fn is_over(&self, now: Time) -> bool {
        let runs = [&self.own, &self.others];
        let last = runs.into_iter().flat_map(|run| [run.latest_start, run.latest_at]);
        let events = [self.ejected, self.returned, self.joined, self.looks.since, self.overdue.since];
        let last = last.chain(events).fold(Time::ZERO, Time::max);
        let open = runs.into_iter().any(|run| !run.is_empty() || run.failed_probes > 0);
        !open && (last == Time::ZERO || now.seconds_since(last) > PAST_AFTER_S)
    }
}

/// The health of one endpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    good_start: Time,
    past: Option<Box<FailureHistory>>,
    good: u16,
    state: State,
    stalled: bool,
    unanswered: Unanswered,
    /// Requests that the endpoint holds while it answers others.
    pub held: Held,
}

impl Health {
    /// Records a good answer to a request started at `start`.
    pub fn success(&mut self, start: Time) {
        if self.past.is_some() {
            return self.success_after_failures(start);
        }
        // Same as `Evidence::success` without failures.
        self.good = self.good.saturating_add(u16::from(start > Time::ZERO));
        self.good_start = self.good_start.max(start);
    }

    #[inline(never)]
    fn success_after_failures(&mut self, start: Time) {
        let Some(past) = self.past.as_deref_mut() else { return };
        past.serving.observe(false);
        past.looks.answered(start);
        let past = *past;
        let mut own = self.local();
        // Good answers from before another worker saw a failure do not count towards recovery.
        if past.others.latest_start > own.good.start {
            own.good.count = 0;
        }
        own.success(start);
        if self.state == State::Healthy && start.seconds_since(past.returned) > PROVEN_AFTER_S {
            own.failures.failed_probes = 0;
        }
        self.set_local(&own);
    }

    /// Records a failure of a request started at `start`.
    #[inline(never)]
    pub fn failure(&mut self, start: Time, now: Time, event: FailureEvent) {
        let mut own = self.local();
        if self.out() && self.past.as_ref().is_none_or(|past| start > past.ejected) {
            own.failures.failed_probes = own.failures.failed_probes.saturating_add(1);
        }
        own.failure(start, now, event);
        self.set_local(&own);
        let past = self.past_mut();
        past.serving.observe(true);
        past.looks.answered(start);
    }

    /// Failure ratio of an endpoint that serves some of its requests; `None` if it is not known to serve any. `others` is
    /// what the other workers saw: with many of them, each has seen but one or two failures of a run.
    pub fn fails_at_times(&self, others: &Evidence) -> Option<f64> {
        let past = self.past.as_deref().filter(|_| self.state != State::Stalled)?;
        let mut all = self.local();
        all.merge(others);
        past.serving.fails(all.failures.total())
    }

    /// Start of the slow start after the last return to traffic; [`Time::ZERO`] if that is long ago.
    pub fn returned(&self) -> Time {
        self.past.as_ref().map_or(Time::ZERO, |past| past.returned)
    }

    /// Records a return to traffic at `now`.
    pub fn returns(&mut self, now: Time) {
        self.past_mut().returned = now;
    }

    /// When it joined the endpoint set; [`Time::ZERO`] if it was there from the start, or joined long ago.
    pub fn joined(&self) -> Time {
        self.past.as_ref().map_or(Time::ZERO, |past| past.joined)
    }

    /// Records that it joined at `now`; [`Time::ZERO`] means that it was there from the start.
    pub fn joins(&mut self, now: Time) {
        if now != self.joined() {
            self.past_mut().joined = now;
        }
    }

    fn past_mut(&mut self) -> &mut FailureHistory {
        self.past.get_or_insert_default()
    }

    fn set_local(&mut self, own: &Evidence) {
        GoodRun { count: self.good, start: self.good_start } = own.good;
        if self.past.is_some() || own.failures != FailureRun::default() {
            self.past_mut().own = own.failures;
        }
    }

    fn out(&self) -> bool {
        matches!(self.state, State::Failed | State::Recovering)
    }

    /// When it last failed or stalled; [`Time::ZERO`] if that is long ago.
    pub fn ejected(&self) -> Time {
        self.past.as_ref().map_or(Time::ZERO, |past| past.ejected)
    }

    /// Whether no worker has had a failure since the last good answer.
    pub fn spotless(&self) -> bool {
        self.past.as_ref().is_none_or(|past| past.own.is_empty() && past.others.is_empty())
    }

    /// This worker's evidence.
    pub fn local(&self) -> Evidence {
        let failures = self.past.as_ref().map_or_else(FailureRun::default, |past| past.own);
        Evidence { failures, good: GoodRun { count: self.good, start: self.good_start } }
    }

    /// Clears this worker's evidence.
    pub fn forget_own(&mut self) {
        self.set_local(&Evidence::default());
    }

    /// The peers' evidence, with `good` as their good answers.
    pub fn others(&self, good: GoodRun) -> Evidence {
        let failures = self.past.as_ref().map_or_else(FailureRun::default, |past| past.others);
        Evidence { failures, good }
    }

    /// Clears the peers' failures, which are reported anew.
    pub fn forget_others(&mut self) {
        if let Some(past) = &mut self.past {
            past.others = FailureRun::default();
        }
    }

    /// Merges a peer's evidence into the others', whose good answers so far are `good`; returns the merged good
    /// answers.
    #[must_use]
    pub fn merge_other(&mut self, good: GoodRun, other: &Evidence) -> GoodRun {
        let mut others = self.others(good);
        others.merge(other);
        if self.past.is_some() || others.failures != FailureRun::default() {
            self.past_mut().others = others.failures;
        }
        others.good
    }

    /// Caps timestamps at `now` after the clock stepped back: evidence from the future would outweigh all that follows.
    pub fn not_after(&mut self, now: Time) {
        self.unanswered.not_after(now);
        self.good_start = self.good_start.min(now);
        if let Some(past) = &mut self.past {
            past.own.not_after(now);
            past.others.not_after(now);
            let probes = [&mut past.looks.since, &mut past.overdue.since];
            let events = [&mut past.ejected, &mut past.returned, &mut past.joined];
            for moment in events.into_iter().chain(probes) {
                *moment = (*moment).min(now);
            }
        }
    }

    /// The state as of the last assessment.
    pub fn state(&self) -> State {
        self.state
    }

    /// Records that a request was sent at `now`.
    pub fn sent(&mut self, now: Time) {
        self.unanswered.sent(self.state == State::Stalled, now);
    }

    /// Records that a request is completely sent at `now`, so that an answer is due. If it was a probe of a stalled
    /// endpoint, that was counted when it began.
    pub fn complete(&mut self, now: Time) {
        self.unanswered.sent(false, now);
    }

    /// Records an answer.
    pub fn note_response(&mut self) {
        self.unanswered.clear();
    }

    /// Records that a request sent since its last answer ended without one.
    pub fn lost(&mut self) {
        self.unanswered.lost();
    }

    /// A lost time was not waited for.
    pub fn lose_time(&mut self, lost: LostTime) {
        self.unanswered.lose_time(lost);
        if let Some(past) = &mut self.past {
            past.looks.since = lost.shift(past.looks.since);
            past.overdue.since = lost.shift(past.overdue.since);
        }
    }

    /// This worker's unanswered requests.
    pub fn unanswered(&self) -> Unanswered {
        self.unanswered
    }

    /// Sets whether the endpoint has left requests unanswered for too long.
    pub fn set_stalled(&mut self, stalled: bool) {
        self.stalled = stalled;
    }

    /// Whether there is nothing to assess: healthy, not stalled, and without a history.
    pub fn untroubled(&self) -> bool {
        self.past.is_none() && self.state == State::Healthy && !self.stalled
    }

    /// Updates the state from the evidence; `good` are the peers' good answers, `background` is the failure ratio of
    /// the rest of the subset.
    pub fn assess(&mut self, good: GoodRun, now: Time, limits: &settings::Health, background: f64) -> State {
        if self.untroubled() { State::Healthy } else { self.assess_anew(good, now, limits, background) }
    }

    #[inline(never)]
    fn assess_anew(&mut self, good: GoodRun, now: Time, limits: &settings::Health, background: f64) -> State {
        let mut all = self.local();
        all.merge(&self.others(good));
        let (failures, good) = (all.failures.total(), u32::from(all.good.count));
        // An empty run has probability 1, but there is nothing to excuse.
        let chance = background.clamp(0.0, 1.0).powi(failures.min(1000) as i32);
        let surprising = |limit: f64| failures == 0 || chance <= limit;
        let failed = failures >= limits.fail_after && surprising(SURPRISE * SURPRISE);
        let suspect = failures >= limits.suspect_after && surprising(SURPRISE);
        let well = if self.stalled { State::Stalled } else { State::Healthy };
        let next = match self.state {
            _ if failed => State::Failed,
            // It may have been ejected before the failures of the others were known.
            _ if !surprising(SURPRISE) => well,
            State::Failed | State::Recovering if failures > 0 => State::Failed,
            State::Failed | State::Recovering if good < limits.recover_after => State::Recovering,
            _ if suspect => State::Suspect,
            _ => well,
        };
        if next == State::Healthy && self.out() && failures == 0 {
            self.returns(now);
        }
        let stalls = next == State::Stalled && self.state != State::Stalled;
        if (next == State::Failed && !self.out()) || stalls {
            self.past_mut().ejected = now;
        }
        if next == State::Healthy
            && self.state != State::Healthy
            && let Some(past) = &mut self.past
        {
            past.looks = Looks::default();
        }
        self.state = next;
        if next == State::Healthy
            && let Some(past) = &mut self.past
            && all.good.start.seconds_since(past.returned.max(past.ejected)) > PROVEN_AFTER_S
        {
            // Whichever worker found it well: this one may have no request to it any more.
            past.own.failed_probes = 0;
        }
        if next == State::Healthy && self.past.as_ref().is_some_and(|past| past.is_over(now)) {
            self.past = None;
        }
        next
    }
}

#[cfg(test)]
mod tests;
