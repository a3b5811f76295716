//! Everything one worker knows of one endpoint, dense and by value, so that a pick touches few cache lines. What only
//! some need stands beside it: what [others](crate::endpoint) tell, what one policy compares.

use crate::endpoint::AnnouncedHealth;
use crate::estimate::{Epochs, ErrorRatio, Held, InFlight, InFlightReport, Latency};
use crate::health::{GoodRun, Health, State};
use crate::settings::{self, RuleAction};
use crate::time::Time;

/// What happened to requests, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that ended, whatever their outcome.
    pub requests: u64,
    /// Of these, failures.
    pub failures: u64,
    /// Times the endpoint was chosen.
    pub picks: u64,
}

impl Counters {
    /// Takes off what is told elsewhere.
    pub fn take_off(&mut self, told: &Counters) {
        self.requests = self.requests.saturating_sub(told.requests);
        self.failures = self.failures.saturating_sub(told.failures);
        self.picks = self.picks.saturating_sub(told.picks);
    }

    /// Adds another worker's counts.
    pub fn merge(&mut self, other: &Counters) {
        self.requests = self.requests.saturating_add(other.requests);
        self.failures = self.failures.saturating_add(other.failures);
        self.picks = self.picks.saturating_add(other.picks);
    }
}

/// The same of one endpoint since it was last [carried over](Tally::carry): a worker that gives it a thousand requests
/// a second fills this in seven weeks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that ended, whatever their outcome.
    pub requests: u32,
    /// Of these, failures.
    pub failures: u32,
    /// Times the endpoint was chosen.
    pub picks: u32,
}

impl Tally {
    /// A request ended.
    pub fn request(&mut self) {
        self.requests = self.requests.saturating_add(1);
    }

    /// It was a failure.
    pub fn failure(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// The endpoint was chosen.
    pub fn pick(&mut self) {
        self.picks = self.picks.saturating_add(1);
    }

    /// Takes off what is told elsewhere.
    pub fn take_off(&mut self, told: &Tally) {
        self.requests = self.requests.saturating_sub(told.requests);
        self.failures = self.failures.saturating_sub(told.failures);
        self.picks = self.picks.saturating_sub(told.picks);
    }

    /// Begins anew if this is half full; what was counted so far is then to be kept elsewhere.
    pub fn carry(&mut self) -> Option<Counters> {
        let full = self.requests.max(self.failures).max(self.picks) > u32::MAX / 2;
        full.then(|| core::mem::take(self).into())
    }

    /// What was kept elsewhere, if that is less than half of what fits here.
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

/// Single requests to an endpoint that gets no others, in one byte: whether one is on its way, whether the last went
/// well, and how many before did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exploration(u8);

impl Exploration {
    const UNDER_WAY: u8 = 0x80;
    const LOOK_AGAIN: u8 = 0x40;
    const IN_VAIN: u8 = 0x3f;

    /// One is on its way.
    pub fn begin(&mut self) {
        self.0 = (self.0 | Exploration::UNDER_WAY) & !Exploration::LOOK_AGAIN;
    }

    /// An answer came; if one was on its way, it went `well` or not.
    pub fn answer(&mut self, well: bool) {
        if self.0 & Exploration::UNDER_WAY != 0 {
            let in_vain = self.0 & Exploration::IN_VAIN;
            self.0 = if well { Exploration::LOOK_AGAIN } else { (in_vain + 1).min(Exploration::IN_VAIN) };
        }
    }

    /// Whether the last went well, so that it is to be looked at again soon.
    pub fn looks_again(self) -> bool {
        self.0 & Exploration::LOOK_AGAIN != 0
    }

    /// It is not slow any more.
    pub fn settle(&mut self) {
        self.0 &= !Exploration::LOOK_AGAIN;
    }

    /// How many in a row found it still slow; 63 and more are one.
    pub fn in_vain(self) -> u8 {
        self.0 & Exploration::IN_VAIN
    }
}

/// What an endpoint says of itself, in one byte: that it is to be spared, and that it is to be left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word(u8);

impl Word {
    const DEGRADED: u8 = 1;
    const HELD: u8 = 2;

    /// Of both.
    pub fn of(degraded: bool, held: bool) -> Word {
        Word(if degraded { Word::DEGRADED } else { 0 } | if held { Word::HELD } else { 0 })
    }

    /// Whether it serves, but is to be spared.
    pub fn degraded(self) -> bool {
        self.0 & Word::DEGRADED != 0
    }

    /// Whether it asked to be left alone.
    pub fn held(self) -> bool {
        self.0 & Word::HELD != 0
    }
}

/// What is said of an endpoint, apart from what is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Constraints {
    /// How it stands with what announces it.
    pub announced: AnnouncedHealth,
    /// What it says of itself.
    pub word: Word,
    /// What the operator's rules demand.
    pub ruled: Option<RuleAction>,
}

/// When an endpoint's next turn comes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LastTurn {
    /// This worker's requests to all endpoints when it last chose this one; the sum may wrap.
    pub asked: u32,
    /// By what part its share is below that of its subset, per weight, 0..1: slow start, rules and signals.
    pub held: f32,
}

/// Everything known of one endpoint. What most endpoints have nothing of stands apart.
#[derive(Clone, Debug, Default)]
pub struct EndpointState {
    /// Whether the place is taken by an endpoint at all.
    pub present: bool,
    /// Whether it may be chosen.
    pub eligible: bool,
    /// Which of the upstream's groups it is chosen in; beyond all of them if in none.
    pub subset: u16,
    /// Relative capacity, > 0.
    pub weight: f32,
    /// Probability of being considered, relative to the others: weight × signals × slow start.
    pub share: f32,
    /// When its next turn comes.
    pub turn: LastTurn,
    /// Value that `least_signal` compares; infinite if unknown.
    pub signal: f32,
    /// Expected seconds to response headers when idle, as far as it is known to differ from the fleet's.
    pub expected: f32,
    /// This worker's requests.
    pub in_flight: InFlight,
    /// This worker's latency estimate.
    pub latency: Latency,
    /// This worker's failure ratio.
    pub errors: ErrorRatio,
    /// Its health.
    pub health: Health,
    /// This worker's counts, lately.
    pub counters: Tally,
    /// What others and itself say of it.
    pub constraints: Constraints,
    /// How it is explored while it gets no other requests.
    pub exploration: Exploration,
}

impl EndpointState {
    /// Whether it is degraded, as it says itself or as it is announced.
    pub fn degraded(&self) -> bool {
        self.constraints.word.degraded() || self.constraints.announced == AnnouncedHealth::Degraded
    }

    /// The clock stepped back to `now`: nothing that is known may be younger.
    pub fn not_after(&mut self, now: Time) {
        self.in_flight.not_after(now);
        self.latency.not_after(now);
        self.health.not_after(now);
    }

    /// Takes over what the worker of an older configuration has learnt of an endpoint that last showed life, to any
    /// endpoint, at `quiet_since`.
    pub fn take_over(&mut self, known: &mut EndpointState, quiet_since: Time) {
        *self = EndpointState {
            weight: self.weight,
            subset: self.subset,
            constraints: Constraints { announced: self.constraints.announced, ..Constraints::default() },
            // An endpoint that any worker looked at a moment ago is not to be explored by every worker anew.
            in_flight: InFlight::none_since(quiet_since),
            counters: Tally::default(),
            ..known.clone()
        };
        self.health.note_response();
        self.health.held = Held::default();
        // The workers that have reported it report it again.
        self.health.forget_others();
        // The old worker lives on while its requests do, and tells what it knows: nothing may count twice.
        known.health.forget_own();
    }

    /// What announces it says how it stands. An endpoint that is let back into traffic starts slowly.
    pub fn stand(&mut self, announced: AnnouncedHealth, now: Time) {
        let was = core::mem::replace(&mut self.constraints.announced, announced);
        if was.is_unavailable() && !announced.is_unavailable() {
            if self.health.joined() != Time::ZERO && self.counters.picks == 0 {
                self.health.joins(now);
            }
            self.health.returns(now);
        }
    }

    /// This worker's requests that it is taken to work on: those that await an answer and are not
    /// [held](crate::estimate::Held).
    pub fn pending(&self) -> u32 {
        self.in_flight.awaiting().saturating_sub(self.health.held.count())
    }

    /// What the other workers are told of its requests at `now`.
    pub fn report(&self, now: Time) -> InFlightReport {
        self.in_flight.report(self.health.held.count(), now)
    }

    /// The epoch that began at `began` is over.
    pub fn turn_epoch(&mut self, began: Time) {
        let awaiting = self.in_flight.awaiting();
        if awaiting > 0 || self.health.held != Held::default() {
            self.health.held.turn(awaiting, self.in_flight.quiet_since() >= began);
        }
    }

    /// A request is sent at `now`.
    pub fn send(&mut self, now: Time) {
        self.in_flight.start(now);
        self.health.sent(now);
    }

    /// From `now` on an answer is due.
    pub fn await_answer(&mut self, now: Time) {
        self.in_flight.start_awaiting(now);
        self.health.complete(now);
    }

    /// The endpoint itself answers the request started at `started`.
    pub fn answer(&mut self, started: Time, epochs: Epochs, now: Time) {
        self.in_flight.answer(started, now);
        self.health.held.ends(started, epochs);
        self.health.note_response();
    }

    /// The request started at `started` gets no answer.
    pub fn stop_awaiting(&mut self, started: Time, epochs: Epochs) {
        if started >= self.in_flight.quiet_since() {
            self.health.lost();
        }
        self.in_flight.stop_awaiting(started);
        self.health.held.ends(started, epochs);
    }

    /// Draws the conclusion on its health, `good` being what went well with others; an endpoint that returns to traffic
    /// is forgiven.
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
