//! This worker's state of one endpoint, dense and by value, so that a pick touches few cache lines. What only some
//! endpoints or policies need is stored beside it: [peer reports](crate::endpoint) and latency peaks.

use crate::endpoint::AnnouncedHealth;
use crate::estimate::{Epochs, ErrorRatio, Held, InFlight, InFlightReport, Latency};
use crate::health::{GoodRun, Health, State};
use crate::settings::{self, RuleAction};
use crate::time::{LostTime, Time};

/// Lifetime counters of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that ended, whatever their outcome.
    pub requests: u64,
    /// Requests that failed.
    pub failures: u64,
    /// Times the endpoint was chosen.
    pub picks: u64,
}

impl Counters {
    /// Subtracts counts that are reported elsewhere.
    pub fn subtract(&mut self, published: &Counters) {
        self.requests = self.requests.saturating_sub(published.requests);
        self.failures = self.failures.saturating_sub(published.failures);
        self.picks = self.picks.saturating_sub(published.picks);
    }

    /// Adds another worker's counts.
    pub fn merge(&mut self, other: &Counters) {
        self.requests = self.requests.saturating_add(other.requests);
        self.failures = self.failures.saturating_add(other.failures);
        self.picks = self.picks.saturating_add(other.picks);
    }
}

/// Counters of an endpoint since they were last [carried over](Tally::carry), in 32 bits: at a thousand requests a
/// second from one worker they last for seven weeks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that ended, whatever their outcome.
    pub requests: u32,
    /// Requests that failed.
    pub failures: u32,
    /// Times the endpoint was chosen.
    pub picks: u32,
}

impl Tally {
    /// Counts a request that ended.
    pub fn request(&mut self) {
        self.requests = self.requests.saturating_add(1);
    }

    /// Counts a failure.
    pub fn failure(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// Counts a pick.
    pub fn pick(&mut self) {
        self.picks = self.picks.saturating_add(1);
    }

    /// Subtracts counts that are reported elsewhere.
    pub fn subtract(&mut self, published: &Tally) {
        self.requests = self.requests.saturating_sub(published.requests);
        self.failures = self.failures.saturating_sub(published.failures);
        self.picks = self.picks.saturating_sub(published.picks);
    }

    /// Takes the counts and starts from zero if any counter is half full; the caller has to keep them.
    pub fn carry(&mut self) -> Option<Counters> {
        let full = self.requests.max(self.failures).max(self.picks) > u32::MAX / 2;
        full.then(|| core::mem::take(self).into())
    }

    /// Continues from lifetime counters, unless one is more than half of what fits here.
    pub fn resume(Counters { requests, failures, picks }: Counters) -> Option<Tally> {
        let small = |count| u32::try_from(count).ok().filter(|count| *count <= u32::MAX / 2);
        Some(Tally { requests: small(requests)?, failures: small(failures)?, picks: small(picks)? })
    }
}

impl From<Tally> for Counters {
    fn from(Tally { requests, failures, picks }: Tally) -> Counters {
        Counters { requests: requests.into(), failures: failures.into(), picks: picks.into() }
    }
}

/// Explorations of an endpoint that gets no other requests, in one byte: whether one is in flight, whether another is to
/// follow, how many have followed each other, and how many before found it slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exploration(u8);

impl Exploration {
    const UNDER_WAY: u8 = 0x80;
    const LOOK_AGAIN: u8 = 0x40;
    const LOOKS: u8 = 0x30;
    const ONE_LOOK: u8 = 0x10;
    const IN_VAIN: u8 = 0x0f;

    /// An exploration is sent.
    pub fn begin(&mut self) {
        self.0 = (self.0 | Exploration::UNDER_WAY) & !Exploration::LOOK_AGAIN;
    }

    /// Records an answer; if an exploration was in flight, it found the endpoint fast if `well`, and not much slower
    /// than others if `near`: the first request after a rest may have met cold caches, so another one follows.
    #[inline]
    pub fn answer(&mut self, well: bool, near: impl FnOnce() -> bool) {
        if self.0 & Exploration::UNDER_WAY != 0 {
            self.conclude(well, near());
        }
    }

    #[inline(never)]
    fn conclude(&mut self, well: bool, near: bool) {
        let first = self.0 & Exploration::LOOKS == 0;
        let looks =
            (self.0 & Exploration::LOOKS).saturating_add(Exploration::ONE_LOOK).min(Exploration::LOOKS);
        let in_vain = self.0 & Exploration::IN_VAIN;
        self.0 = match (well, near && first) {
            (true, _) => Exploration::LOOK_AGAIN | looks,
            (false, true) => Exploration::LOOK_AGAIN | looks | in_vain,
            (false, false) => (in_vain + 1).min(Exploration::IN_VAIN),
        };
    }

    /// Whether another exploration follows soon.
    pub fn looks_again(self) -> bool {
        self.0 & Exploration::LOOK_AGAIN != 0
    }

    /// Whether three explorations have followed each other, or none is to follow.
    pub fn has_looked(self) -> bool {
        !self.looks_again() || self.0 & Exploration::LOOKS == Exploration::LOOKS
    }

    /// Ends the exploration: the endpoint is no longer slow.
    pub fn settle(&mut self) {
        self.0 &= !(Exploration::LOOK_AGAIN | Exploration::LOOKS);
    }

    /// Number of consecutive explorations that found it slow, at most 15.
    pub fn in_vain(self) -> u8 {
        self.0 & Exploration::IN_VAIN
    }
}

/// Statements of an endpoint about itself, in one byte: degraded, and asking for a pause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints(u8);

impl Hints {
    const DEGRADED: u8 = 1;
    const HELD: u8 = 2;

    /// Creates it from both statements.
    pub fn of(degraded: bool, held: bool) -> Hints {
        Hints(if degraded { Hints::DEGRADED } else { 0 } | if held { Hints::HELD } else { 0 })
    }

    /// Whether it says that it is degraded: serving, but to be avoided.
    pub fn degraded(self) -> bool {
        self.0 & Hints::DEGRADED != 0
    }

    /// Whether it has asked for a pause.
    pub fn held(self) -> bool {
        self.0 & Hints::HELD != 0
    }
}

/// Constraints on an endpoint other than measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Constraints {
    /// Announced health.
    pub announced: AnnouncedHealth,
    /// Its statements about itself.
    pub hints: Hints,
    /// The strictest action of the operator's rules.
    pub ruled: Option<RuleAction>,
}

/// State from which an endpoint's next turn is derived.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LastTurn {
    /// This worker's total number of requests when it last chose this endpoint; wraps.
    pub asked: u32,
    /// Fraction by which slow start, rules and signals lower its share per weight below that of its subset, 0..=1.
    pub held: f32,
}

/// This worker's state of one endpoint. Rarely used parts are boxed or stored elsewhere.
#[derive(Clone, Debug, Default)]
pub struct EndpointState {
    /// Whether the slot holds an endpoint.
    pub present: bool,
    /// Whether it may be chosen.
    pub eligible: bool,
    /// Index of its subset; out of range if it is in none.
    pub subset: u16,
    /// Relative capacity, > 0.
    pub weight: f32,
    /// Relative probability of being a candidate: weight × signals × slow start × rule.
    pub share: f32,
    /// State from which its next turn is derived.
    pub turn: LastTurn,
    /// The value that `least_signal` compares.
    pub signal: f32,
    /// Expected seconds to response headers when idle, plus the error penalty; the baseline as far as too little is
    /// known.
    pub expected: f32,
    /// This worker's requests in flight.
    pub in_flight: InFlight,
    /// This worker's latency estimate.
    pub latency: Latency,
    /// This worker's failure ratio.
    pub errors: ErrorRatio,
    /// Health, from the evidence of all workers.
    pub health: Health,
    /// This worker's counters since they were last carried over.
    pub counters: Tally,
    /// Constraints other than measurements.
    pub constraints: Constraints,
    /// Explorations while it gets no other requests.
    pub exploration: Exploration,
}

impl EndpointState {
    /// Whether it is degraded, by its own statement or as announced.
    pub fn degraded(&self) -> bool {
        self.constraints.hints.degraded() || self.constraints.announced == AnnouncedHealth::Degraded
    }

    /// Caps timestamps at `now` after the clock stepped back.
    pub fn not_after(&mut self, now: Time) {
        self.in_flight.not_after(now);
        self.latency.not_after(now);
        self.health.not_after(now);
    }

    /// In a lost time the endpoint was neither silent nor asked.
    pub fn lose_time(&mut self, lost: LostTime) {
        self.in_flight.lose_time(lost);
        self.latency.lose_time(lost);
        self.health.lose_time(lost);
    }

    /// Takes over the state from a worker of an older configuration. `quiet_since` is when the endpoint last answered
    /// any worker.
    pub fn take_over(&mut self, known: &mut EndpointState, quiet_since: Time) {
        *self = EndpointState {
            weight: self.weight,
            subset: self.subset,
            constraints: Constraints { announced: self.constraints.announced, ..Constraints::default() },
            // One that any worker explored a moment ago is not to be explored by every worker again.
            in_flight: InFlight::none_since(quiet_since),
            counters: Tally::default(),
            ..known.clone()
        };
        self.health.note_response();
        self.health.held = Held::default();
        // The workers that reported it will report it again.
        self.health.forget_others();
        // The old worker lives on with its requests and reports what it knows: nothing may count twice.
        known.health.forget_own();
    }

    /// Updates the announced health. An endpoint that becomes available again starts slowly.
    pub fn stand(&mut self, announced: AnnouncedHealth, now: Time) {
        let was = core::mem::replace(&mut self.constraints.announced, announced);
        if was.is_unavailable() && !announced.is_unavailable() {
            if self.health.joined() != Time::ZERO && self.counters.picks == 0 {
                self.health.joins(now);
            }
            self.health.returns(now);
        }
    }

    /// Number of this worker's requests that the endpoint is assumed to work on: unanswered and not
    /// [held](crate::estimate::Held).
    pub fn pending(&self) -> u32 {
        self.in_flight.awaiting().saturating_sub(self.health.held.count())
    }

    /// What this worker reports to its peers about the requests in flight.
    pub fn report(&self, now: Time) -> InFlightReport {
        self.in_flight.report(self.health.held.count(), now)
    }

    /// Ends the epoch that began at `began`.
    pub fn turn_epoch(&mut self, began: Time) {
        let awaiting = self.in_flight.awaiting();
        if awaiting > 0 || self.health.held != Held::default() {
            self.health.held.turn(awaiting, self.in_flight.quiet_since() >= began);
        }
    }

    /// Records a request sent at `now`.
    pub fn send(&mut self, now: Time) {
        self.in_flight.start(now);
        self.health.sent(now);
    }

    /// An answer is due from `now` on.
    pub fn await_answer(&mut self, now: Time) {
        self.in_flight.start_awaiting(now);
        self.health.complete(now);
    }

    /// Records an answer of the endpoint itself to the request started at `started`.
    pub fn answer(&mut self, started: Time, epochs: Epochs, now: Time) {
        self.in_flight.answer(started, now);
        self.health.held.ends(started, epochs);
        self.health.note_response();
    }

    /// The request started at `started` will not be answered. A stalled endpoint still owes the answer: otherwise it
    /// would be back as soon as the waiting clients have given up.
    pub fn stop_awaiting(&mut self, started: Time, epochs: Epochs) {
        if self.health.state() == State::Stalled {
            self.end_wait(started, epochs);
        } else {
            self.postpone(started, epochs);
        }
    }

    /// The client has given up the request started at `started`. If that was `long` after, the endpoint owes the answer like
    /// a stalled one: where each request is alone, none of them would ever wait beside others.
    pub fn give_up(&mut self, started: Time, epochs: Epochs, long: bool) {
        if long {
            self.end_wait(started, epochs);
        } else {
            self.stop_awaiting(started, epochs);
        }
    }

    /// No answer is due to the request started at `started` until it [is](EndpointState::await_answer).
    pub fn postpone(&mut self, started: Time, epochs: Epochs) {
        if started >= self.in_flight.quiet_since() {
            self.health.lost();
        }
        self.end_wait(started, epochs);
    }

    fn end_wait(&mut self, started: Time, epochs: Epochs) {
        self.in_flight.stop_awaiting(started);
        self.health.held.ends(started, epochs);
    }

    /// Updates the health from this worker's evidence and the peers' good answers `good`. An endpoint that returns to
    /// traffic starts with a clean failure ratio.
    pub fn assess(&mut self, good: GoodRun, now: Time, limits: &settings::Health, background: f64) -> State {
        let before = self.health.state();
        let state = self.health.assess(good, now, limits, background);
        if state == State::Healthy && !matches!(before, State::Healthy | State::Stalled) {
            self.errors.forgive();
        }
        state
    }
}

#[cfg(test)]
impl EndpointState {
    /// The endpoint holds a request sent at `since`, and last answered another one at `answered`.
    pub fn hold(&mut self, since: Time, answered: Time) {
        self.send(since);
        self.turn_epoch(since);
        self.send(answered);
        self.answer(answered, Epochs { current: since, before: since }, answered);
        self.in_flight.finish();
        self.turn_epoch(since);
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn is_small() {
        assert!(size_of::<EndpointState>() <= 136, "{} bytes", size_of::<EndpointState>());
    }

    #[test]
    fn counts_are_carried_over_before_they_are_full() {
        let mut tally = Tally { picks: u32::MAX / 2, ..Tally::default() };
        assert_eq!(tally.carry(), None);
        assert_eq!(Tally::resume(tally.into()), Some(tally));
        tally.pick();
        let full = Counters::from(tally);
        assert_eq!((tally.carry(), tally), (Some(full), Tally::default()));
        assert_eq!(Tally::resume(full), None);
    }
}
