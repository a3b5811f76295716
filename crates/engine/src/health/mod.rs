//! Healthy → suspect → failed → recovering → healthy: a state machine over the evidence of all workers.
//!
//! **Invariant.** Evidence is ordered by when a request *started*, not by when its outcome arrived: an old
//! request that completes after the crash does not clear the endpoint, and an old time-out that arrives after
//! the recovery does not condemn it again. Only a connection that breaks is news of the moment when it broke.
//!
//! **Mechanics.** A run of failures makes an endpoint suspect; it gets no traffic but single verifying
//! requests, one a second. Enough failures in a row make it failed; then it is probed half-open by single
//! requests whose spacing grows, and `recover_after` good answers in a row bring it back. A run only counts
//! as far as it is *surprising* given how the rest of the fleet fails: under a fleet-wide fault of ratio p, a run
//! of n has probability pⁿ, and none is ruled out for what all do.

use crate::estimate::Unanswered;
use crate::settings;
use crate::time::Time;

/// Spacing of verifying requests to a suspect, seconds: long enough not to cost much, short enough that a
/// single failure costs an endpoint no more than a second of traffic.
const VERIFY_S: f64 = 1.0;
/// The first half-open probe comes after this share of the longest wait (5 s of 30 s): a restart takes seconds.
const FIRST_WAIT: f64 = 1.0 / 6.0;
/// Each failed probe lengthens the wait by this factor, so an endpoint that heals is found within half of the
/// time it was away, and one that stays away for T costs about log(T) requests.
const WAIT_GROWTH: f64 = 1.5;
/// After this long without being out, an endpoint's next ejection is like its first, seconds.
const PROVEN_AFTER_S: f64 = 60.0;
/// A run counts from this improbability on (one in a thousand) for suspicion, and from its square for ejection.
const SURPRISE: f64 = 1e-3;

/// Different connections that break within this time of one another broke by the same event, seconds: what a process
/// had open ends with it, at once. That is twice what one broken connection says.
const TOGETHER_S: f64 = 0.01;

/// Where an endpoint stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Gets traffic.
    #[default]
    Healthy,
    /// Failed at least once; gets single verifying requests.
    Suspect,
    /// Owes answers for longer than can be; gets a single request now and then.
    Stalled,
    /// Ejected; gets half-open probes.
    Failed,
    /// A probe succeeded; gets single requests until enough have.
    Recovering,
}

/// What one worker has seen of an endpoint's health.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Weighted failures in a row.
    pub consecutive_failures: u32,
    /// Good answers since the last failure.
    pub good: u32,
    /// Half-open probes that failed, over the last ejections.
    pub failed_probes: u32,
    /// When the request behind the first failure of the run started; [`Time::ZERO`] without a run.
    pub consecutive_since: Time,
    /// When the request behind the latest failure started.
    pub failed_start: Time,
    /// When the latest failure was seen.
    pub failed_at: Time,
    /// When the latest connection of the run broke; [`Time::ZERO`] if none did.
    pub broke_at: Time,
    /// Which one that was; 0 if that is unknown.
    pub broke_on: u64,
    /// When the latest successful request started.
    pub good_start: Time,
}

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureEvent {
    /// So many failures in a row.
    pub weight: u32,
    /// A connection that was open broke: which one, 0 if that is unknown.
    pub broke: Option<u64>,
}

impl Evidence {
    /// A request started at `start` was answered well.
    fn success(&mut self, start: Time) {
        self.good_start = self.good_start.max(start);
        self.consecutive_failures = self.run_since(self.good_start);
        self.consecutive_since = if self.consecutive_failures > 0 {
            self.consecutive_since.max(self.good_start)
        } else {
            Time::ZERO
        };
        if start > self.failed_start {
            self.good = self.good.saturating_add(1);
        }
    }

    /// A request started at `start` failed at `now`.
    fn failure(&mut self, start: Time, now: Time, FailureEvent { weight, broke }: FailureEvent) {
        // A connection that breaks tells of the moment when it broke, however old the request is.
        let start = if broke.is_some() { now } else { start };
        if start < self.good_start {
            return;
        }
        let known = broke.filter(|on| *on != 0 && self.broke_on != 0);
        let again = known.filter(|_| self.consecutive_failures > 0 && together(self.broke_at, now));
        if again.is_some_and(|on| on == self.broke_on) {
            // Another stream of the same connection.
            return;
        }
        if let Some(on) = broke {
            (self.broke_at, self.broke_on) = (now, on);
        } else if self.consecutive_failures == 0 {
            self.broke_at = Time::ZERO;
        }
        self.consecutive_since =
            if self.consecutive_failures == 0 { start } else { self.consecutive_since.min(start) };
        self.failed_start = self.failed_start.max(start);
        self.failed_at = self.failed_at.max(now);
        self.consecutive_failures =
            self.consecutive_failures.saturating_add(weight).saturating_add(again.is_some().into()).min(1000);
        self.good = 0;
    }

    /// The clock stepped back to `now`.
    fn not_after(&mut self, now: Time) {
        let Evidence { consecutive_since, failed_start, failed_at, broke_at, good_start, .. } = self;
        for time in [consecutive_since, failed_start, failed_at, good_start] {
            *time = (*time).min(now);
        }
        // Moved, it would seem to be the moment of another one.
        if *broke_at > now {
            *broke_at = Time::ZERO;
        }
    }

    /// The failures of the run since `good_start`, when some worker's request was sent that went well: in proportion
    /// where it lies within the run. Or every worker would bring in failures from before, and many workers
    /// would make a row out of what is none.
    fn run_since(&self, good_start: Time) -> u32 {
        if self.consecutive_failures == 0 || self.failed_start < good_start {
            return 0;
        }
        let whole = self.failed_start.seconds_since(self.consecutive_since);
        if self.consecutive_since >= good_start || whole <= 0.0 {
            return self.consecutive_failures;
        }
        let since = self.failed_start.seconds_since(good_start);
        ((f64::from(self.consecutive_failures) * since / whole) as u32).max(1)
    }

    /// Adds what another worker has seen.
    pub fn merge(&mut self, other: &Evidence) {
        let good_start = self.good_start.max(other.good_start);
        let failed_start = self.failed_start.max(other.failed_start);
        let (mine, theirs) = (self.run_since(good_start), other.run_since(good_start));
        let start = |e: &Evidence, consecutive_failures| {
            if consecutive_failures > 0 { e.consecutive_since.max(good_start) } else { Time(u64::MAX) }
        };
        let consecutive_since = start(self, mine).min(start(other, theirs));
        let good = |e: &Evidence| if e.good_start > failed_start { e.good } else { 0 };
        let both_broke = mine > 0 && theirs > 0 && together(self.broke_at, other.broke_at);
        // Workers of one thread share its connections: what both saw break may be one, and then it is one failure.
        let same = self.broke_on != 0 && self.broke_on == other.broke_on;
        let both = mine.saturating_add(theirs);
        let broke_on = match (self.broke_at, other.broke_at) {
            (Time::ZERO, _) => other.broke_on,
            (_, Time::ZERO) => self.broke_on,
            _ if same => self.broke_on,
            _ => 0,
        };
        *self = Evidence {
            consecutive_failures: if both_broke && same {
                both.saturating_sub(1)
            } else {
                both.saturating_add(both_broke.into())
            },
            consecutive_since: if consecutive_since == Time(u64::MAX) {
                Time::ZERO
            } else {
                consecutive_since
            },
            good: good(self).saturating_add(good(other)),
            failed_probes: self.failed_probes.saturating_add(other.failed_probes),
            failed_start,
            failed_at: self.failed_at.max(other.failed_at),
            broke_at: self.broke_at.max(other.broke_at),
            broke_on,
            good_start,
        };
    }
}

/// Whether connections broke at both moments, and by the same event.
fn together(one: Time, other: Time) -> bool {
    let apart = one.max(other).seconds_since(one.min(other));
    one.min(other) > Time::ZERO && apart <= TOGETHER_S
}

/// So long after the last of it, what an endpoint went through changes nothing any more, seconds: no slow start and no
/// ejection takes longer than an hour.
const PAST_AFTER_S: f64 = 2.0 * 3600.0;

/// Failures in a row, part of an [`Evidence`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Failures {
    consecutive_failures: u32,
    failed_probes: u32,
    consecutive_since: Time,
    failed_start: Time,
    failed_at: Time,
    broke_at: Time,
    broke_on: u64,
}

impl Failures {
    fn of(evidence: &Evidence) -> Failures {
        let Evidence {
            consecutive_failures,
            failed_probes,
            consecutive_since,
            failed_start,
            failed_at,
            broke_at,
            broke_on,
            ..
        } = *evidence;
        Failures {
            consecutive_failures,
            failed_probes,
            consecutive_since,
            failed_start,
            failed_at,
            broke_at,
            broke_on,
        }
    }

    fn with(self, Good { count, start: good_start }: Good) -> Evidence {
        let Failures {
            consecutive_failures,
            failed_probes,
            consecutive_since,
            failed_start,
            failed_at,
            broke_at,
            broke_on,
        } = self;
        Evidence {
            consecutive_failures,
            good: count.into(),
            failed_probes,
            consecutive_since,
            failed_start,
            failed_at,
            broke_at,
            broke_on,
            good_start,
        }
    }
}

/// What an endpoint went through. Of most there is nothing to tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct FailureHistory {
    own: Failures,
    others: Failures,
    ejected: Time,
    returned: Time,
    joined: Time,
}

impl FailureHistory {
    /// Whether none of it changes anything any more.
    fn is_over(&self, now: Time) -> bool {
        let FailureHistory { own, others, ejected, returned, joined } = self;
        let moments = [own.failed_start, own.failed_at, others.failed_start, others.failed_at];
        let last = moments.into_iter().chain([*ejected, *returned, *joined]).fold(Time::ZERO, Time::max);
        let open = own.consecutive_failures > 0
            || own.failed_probes > 0
            || others.consecutive_failures > 0
            || others.failed_probes > 0;
        !open && (last == Time::ZERO || now.seconds_since(last) > PAST_AFTER_S)
    }
}

/// Good answers, part of an [`Evidence`]. Those that others have had are kept beside an endpoint's health, because
/// where there are no others they need no place.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Good {
    /// Since the last failure; more than any configuration asks for are not counted.
    pub count: u16,
    /// When the request behind the latest started.
    pub start: Time,
}

impl Good {
    fn of(evidence: &Evidence) -> Good {
        Good { count: evidence.good.min(u16::MAX.into()) as u16, start: evidence.good_start }
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
}

impl Health {
    /// Takes a good answer to a request started at `start`.
    pub fn success(&mut self, start: Time) {
        let Some(past) = self.past.as_deref().copied() else {
            // As below, where nothing ever failed.
            self.good = self.good.saturating_add(u16::from(start > Time::ZERO));
            self.good_start = self.good_start.max(start);
            return;
        };
        let mut own = self.local();
        // What went well before another endpoint saw it fail does not speed up the return.
        if past.others.failed_start > own.good_start {
            own.good = 0;
        }
        own.success(start);
        if self.state == State::Healthy && start.seconds_since(past.returned) > PROVEN_AFTER_S {
            own.failed_probes = 0;
        }
        self.set_local(&own);
    }

    /// Takes a failure of a request started at `start`.
    pub fn failure(&mut self, start: Time, now: Time, blow: FailureEvent) {
        let mut own = self.local();
        if self.out() && self.past.as_ref().is_none_or(|past| start > past.ejected) {
            own.failed_probes = own.failed_probes.saturating_add(1);
        }
        own.failure(start, now, blow);
        self.set_local(&own);
    }

    /// When the endpoint last returned to traffic, the beginning of its slow start; [`Time::ZERO`] if that is long ago.
    pub fn returned(&self) -> Time {
        self.past.as_ref().map_or(Time::ZERO, |past| past.returned)
    }

    /// It returns to traffic.
    pub fn returns(&mut self, now: Time) {
        self.past_mut().returned = now;
    }

    /// When it joined the fleet; [`Time::ZERO`] if it was there from the start, or for long.
    pub fn joined(&self) -> Time {
        self.past.as_ref().map_or(Time::ZERO, |past| past.joined)
    }

    /// It joins the fleet; at [`Time::ZERO`] it was there from the start.
    pub fn joins(&mut self, now: Time) {
        if now != self.joined() {
            self.past_mut().joined = now;
        }
    }

    fn past_mut(&mut self) -> &mut FailureHistory {
        self.past.get_or_insert_default()
    }

    fn set_local(&mut self, own: &Evidence) {
        Good { count: self.good, start: self.good_start } = Good::of(own);
        let failures = Failures::of(own);
        if self.past.is_some() || failures != Failures::default() {
            self.past_mut().own = failures;
        }
    }

    fn set_others(&mut self, others: &Evidence) {
        let failures = Failures::of(others);
        if self.past.is_some() || failures != Failures::default() {
            self.past_mut().others = failures;
        }
    }

    fn out(&self) -> bool {
        matches!(self.state, State::Failed | State::Recovering)
    }

    /// Whether no endpoint has seen a failure since the last good answer.
    pub fn spotless(&self) -> bool {
        self.past
            .as_ref()
            .is_none_or(|past| past.own.consecutive_failures == 0 && past.others.consecutive_failures == 0)
    }

    /// What this worker has seen.
    pub fn local(&self) -> Evidence {
        let good = Good { count: self.good, start: self.good_start };
        self.past.as_ref().map_or_else(Failures::default, |past| past.own).with(good)
    }

    /// Forgets what this worker has seen.
    pub fn forget_own(&mut self) {
        self.set_local(&Evidence::default());
    }

    /// What the other workers have seen, `good` being what went well.
    pub fn others(&self, good: Good) -> Evidence {
        self.past.as_ref().map_or_else(Failures::default, |past| past.others).with(good)
    }

    /// Forgets the failures that the other workers have seen, to be told anew.
    pub fn forget_others(&mut self) {
        if let Some(past) = &mut self.past {
            past.others = Failures::default();
        }
    }

    /// Adds what another worker has seen, `good` being what went well so far; what has gone well then.
    #[must_use]
    pub fn merge_other(&mut self, good: Good, other: &Evidence) -> Good {
        let mut others = self.others(good);
        others.merge(other);
        self.set_others(&others);
        Good::of(&others)
    }

    /// The clock stepped back to `now`: evidence from the future would outweigh all that comes.
    pub fn not_after(&mut self, now: Time) {
        let (mut own, mut others) = (self.local(), self.others(Good::default()));
        own.not_after(now);
        others.not_after(now);
        self.set_local(&own);
        self.set_others(&others);
        if let Some(past) = &mut self.past {
            for moment in [&mut past.ejected, &mut past.returned, &mut past.joined] {
                *moment = (*moment).min(now);
            }
        }
    }

    /// The state as last assessed.
    pub fn state(&self) -> State {
        self.state
    }

    /// A request was sent to it at `now`.
    pub fn sent(&mut self, now: Time) {
        self.unanswered.sent(self.state == State::Stalled, now);
    }

    /// It answered.
    pub fn note_response(&mut self) {
        self.unanswered.clear();
    }

    /// A request that was sent since its last answer ended without one.
    pub fn lost(&mut self) {
        self.unanswered.lost();
    }

    /// What it owes to this worker.
    pub fn unanswered(&self) -> Unanswered {
        self.unanswered
    }

    /// Whether it owes answers for longer than can be.
    pub fn set_stalled(&mut self, stalled: bool) {
        self.stalled = stalled;
    }

    /// Whether nothing has failed that still matters and it does not hang, so that there is no conclusion to draw.
    pub fn untroubled(&self) -> bool {
        self.past.is_none() && self.state == State::Healthy && !self.stalled
    }

    /// Draws the conclusion from the evidence; `good` is what went well with others, `background` the failure ratio of
    /// the rest of the fleet.
    pub fn assess(&mut self, good: Good, now: Time, limits: &settings::Health, background: f64) -> State {
        if self.untroubled() {
            return State::Healthy;
        }
        let mut all = self.local();
        all.merge(&self.others(good));
        // No run at all is no surprise either, but then there is nothing to be void.
        let chance = background.clamp(0.0, 1.0).powi(all.consecutive_failures.min(1000) as i32);
        let surprising = |limit: f64| all.consecutive_failures == 0 || chance <= limit;
        let failed = all.consecutive_failures >= limits.fail_after && surprising(SURPRISE * SURPRISE);
        let suspect = all.consecutive_failures >= limits.suspect_after && surprising(SURPRISE);
        let well = if self.stalled { State::Stalled } else { State::Healthy };
        let next = match self.state {
            _ if failed => State::Failed,
            // It may have been ruled out before the others' failures were known.
            _ if !surprising(SURPRISE) => well,
            State::Failed | State::Recovering if all.consecutive_failures > 0 => State::Failed,
            State::Failed | State::Recovering if all.good < limits.recover_after => State::Recovering,
            _ if suspect => State::Suspect,
            _ => well,
        };
        if next == State::Healthy && self.out() && all.consecutive_failures == 0 {
            self.returns(now);
        }
        if next == State::Failed && !self.out() {
            self.past_mut().ejected = now;
        }
        self.state = next;
        if next == State::Healthy && self.past.as_ref().is_some_and(|past| past.is_over(now)) {
            self.past = None;
        }
        next
    }

    /// After how many seconds of silence a stalled endpoint is due for its next look: a first half-open probe's wait,
    /// again and again.
    pub fn look_after_s(&self, limits: &settings::Health) -> f64 {
        limits.ejection.as_secs_f64() * FIRST_WAIT * (1.0 + f64::from(self.unanswered.looks()))
    }

    /// How much longer than at first the next single request is waited for, after probes in vain: in requests as in
    /// time, so that who stays away costs no more where requests are rare.
    pub fn caution(&self) -> f64 {
        let failed_probes = self
            .past
            .as_ref()
            .map_or(0, |past| past.own.failed_probes.saturating_add(past.others.failed_probes));
        WAIT_GROWTH.powi(failed_probes.min(64) as i32).min(1.0 / FIRST_WAIT)
    }

    /// When an endpoint out of traffic is due for its next single request.
    pub fn next_probe(&self, limits: &settings::Health) -> Time {
        let FailureHistory { own, others, .. } = self.past.as_deref().copied().unwrap_or_default();
        match self.state {
            State::Healthy | State::Stalled | State::Recovering => Time::ZERO,
            State::Suspect => {
                let failed_at = own.failed_at.max(others.failed_at);
                failed_at.after_secs(VERIFY_S.min(limits.ejection.as_secs_f64()))
            }
            State::Failed => {
                let wait = limits.ejection.as_secs_f64() * FIRST_WAIT * self.caution();
                // From when the probe was sent: a time-out must not add its own length to the wait.
                let failed_start = own.failed_start.max(others.failed_start);
                failed_start.after_secs(wait)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::rng;
    use core::time::Duration;

    const LIMITS: settings::Health = settings::Health {
        suspect_after: 1,
        fail_after: 3,
        recover_after: 3,
        ejection: Duration::from_secs(30),
        max_ejected_percent: 50.0,
        failures: settings::Failures::NONE,
        blame_retried: true,
        heed_headers: true,
    };

    const BAD_ANSWER: FailureEvent = FailureEvent { weight: 1, broke: None };

    fn broken(connection: u64) -> FailureEvent {
        FailureEvent { weight: 1, broke: Some(connection) }
    }

    fn ms(ms: u64) -> Time {
        Time(1_000_000_000_000 + ms * 1_000_000)
    }

    fn fail(health: &mut Health, start: u64) -> State {
        health.failure(ms(start), ms(start + 1), BAD_ANSWER);
        health.assess(Good::default(), ms(start + 1), &LIMITS, 0.0)
    }

    fn tell(health: &mut Health, others: &Evidence) -> Good {
        health.forget_others();
        health.merge_other(Good::default(), others)
    }

    fn succeed(health: &mut Health, start: u64) -> State {
        health.success(ms(start));
        health.assess(Good::default(), ms(start + 20), &LIMITS, 0.0)
    }

    #[test]
    fn one_failure_is_verified_three_eject_three_good_ones_return() {
        let mut health = Health::default();
        assert_eq!(fail(&mut health, 0), State::Suspect);
        assert_eq!(health.next_probe(&LIMITS), ms(1001));
        assert_eq!(succeed(&mut health, 1001), State::Healthy);
        assert_eq!(fail(&mut health, 2000), State::Suspect);
        assert_eq!(fail(&mut health, 2010), State::Suspect);
        assert_eq!(fail(&mut health, 2020), State::Failed);
        assert_eq!(health.next_probe(&LIMITS), ms(7020));
        assert_eq!(succeed(&mut health, 7100), State::Recovering);
        assert_eq!(health.next_probe(&LIMITS), Time::ZERO);
        assert_eq!(succeed(&mut health, 7200), State::Recovering);
        assert_eq!(succeed(&mut health, 7300), State::Healthy);
        assert_eq!(health.returned(), ms(7320));
    }

    #[test]
    fn failed_probes_space_out_up_to_the_longest_wait() {
        let mut health = Health::default();
        let mut start = 0;
        (0..3).for_each(|i| _ = fail(&mut health, i));
        let mut waits = Vec::new();
        for _ in 0..8 {
            let due = health.next_probe(&LIMITS);
            waits.push(due.seconds_since(ms(start)).round() as u64);
            start = (due.0 - ms(0).0) / 1_000_000;
            fail(&mut health, start);
        }
        assert_eq!(waits, [5, 8, 11, 17, 25, 30, 30, 30]);
    }

    #[test]
    fn a_relapse_while_recovering_is_a_failure() {
        let mut health = Health::default();
        (0..3).for_each(|i| _ = fail(&mut health, i));
        assert_eq!(succeed(&mut health, 6000), State::Recovering);
        assert_eq!(fail(&mut health, 6100), State::Failed);
    }

    #[test]
    fn late_news_of_old_requests_changes_nothing() {
        let mut health = Health::default();
        fail(&mut health, 100);
        assert_eq!(succeed(&mut health, 50), State::Suspect, "started before the failure");
        assert_eq!(succeed(&mut health, 200), State::Healthy);
        health.failure(ms(150), ms(3150), FailureEvent { weight: 2, ..BAD_ANSWER });
        assert_eq!(
            health.assess(Good::default(), ms(3150), &LIMITS, 0.0),
            State::Healthy,
            "a later request was fine"
        );
    }

    #[test]
    fn nobody_is_condemned_for_what_everybody_does() {
        let mut health = Health::default();
        for i in 0..12 {
            health.failure(ms(i), ms(i + 1), BAD_ANSWER);
            assert_eq!(
                health.assess(Good::default(), ms(i + 1), &LIMITS, 0.5),
                if i < 9 { State::Healthy } else { State::Suspect }
            );
        }
        assert_eq!(health.assess(Good::default(), ms(20), &LIMITS, 1.0), State::Healthy);
    }

    #[test]
    fn a_clock_that_steps_back_condemns_nobody_for_ever() {
        let mut health = Health::default();
        (0..3).for_each(|i| _ = fail(&mut health, 3_600_000 + i));
        health.not_after(ms(0));
        assert!(health.next_probe(&LIMITS) <= ms(30_000));
        (0..3).for_each(|i| _ = succeed(&mut health, 6000 + i));
        assert_eq!(health.state(), State::Healthy);
    }

    #[test]
    fn what_is_over_takes_no_memory() {
        let mut health = Health::default();
        (0..3).for_each(|i| _ = fail(&mut health, i));
        (0..3).for_each(|i| _ = succeed(&mut health, 6000 + i));
        assert_eq!(health.state(), State::Healthy);
        succeed(&mut health, 100_000);
        assert!(health.past.is_some(), "its slow start may last an hour");
        succeed(&mut health, 10_000_000);
        assert!(health.past.is_none());
        assert_eq!(fail(&mut health, 10_000_100), State::Suspect);
        health.joins(ms(10_000_100));
        assert_eq!(health.joined(), ms(10_000_100));
    }

    #[test]
    fn workers_add_up_what_they_see() {
        let mut here = Health::default();
        here.failure(ms(10), ms(11), BAD_ANSWER);
        let mut there = Evidence::default();
        there.failure(ms(9), ms(10), BAD_ANSWER);
        let good = tell(&mut here, &there);
        assert_eq!(here.assess(good, ms(20), &LIMITS, 0.0), State::Suspect);
        there.failure(ms(12), ms(13), BAD_ANSWER);
        let good = tell(&mut here, &there);
        assert_eq!(here.assess(good, ms(20), &LIMITS, 0.0), State::Failed);
        (0..3).for_each(|i| there.success(ms(6000 + i)));
        let good = tell(&mut here, &there);
        assert_eq!(here.assess(good, ms(6020), &LIMITS, 0.0), State::Healthy);
    }

    #[test]
    fn connections_that_break_together_are_a_crash_and_one_after_another_are_not() {
        for (apart, state) in
            [(0, State::Failed), (9, State::Failed), (11, State::Suspect), (500, State::Suspect)]
        {
            let mut alone = Health::default();
            alone.failure(ms(10), ms(1000), broken(1));
            alone.failure(ms(11), ms(1000 + apart), broken(2));
            assert_eq!(alone.assess(Good::default(), ms(2000), &LIMITS, 0.0), state, "{apart} ms apart");

            let mut here = Health::default();
            here.failure(ms(10), ms(1000), broken(3));
            let mut there = Evidence::default();
            there.failure(ms(11), ms(1000 + apart), broken(4));
            let good = tell(&mut here, &there);
            assert_eq!(
                here.assess(good, ms(2000), &LIMITS, 0.0),
                state,
                "{apart} ms apart, seen by two workers"
            );
        }
        // Two plugins in one thread, or two configurations of one: the same connection.
        let mut here = Health::default();
        here.failure(ms(10), ms(1000), broken(3));
        let mut there = Evidence::default();
        there.failure(ms(11), ms(1000), broken(3));
        let mut third = Evidence::default();
        third.failure(ms(12), ms(1001), broken(3));
        there.merge(&third);
        let good = tell(&mut here, &there);
        assert_eq!(
            here.assess(good, ms(2000), &LIMITS, 0.0),
            State::Suspect,
            "one connection, seen by three workers"
        );
        let mut answered = Health::default();
        (0..2).for_each(|_| answered.failure(ms(10), ms(1000), BAD_ANSWER));
        assert_eq!(
            answered.assess(Good::default(), ms(2000), &LIMITS, 0.0),
            State::Suspect,
            "two bad answers are only that"
        );
        let mut streams = Health::default();
        (0..5).for_each(|_| streams.failure(ms(10), ms(1000), broken(7)));
        assert_eq!(
            streams.assess(Good::default(), ms(2000), &LIMITS, 0.0),
            State::Suspect,
            "streams of one connection"
        );
        let mut parted = Health::default();
        parted.failure(ms(10), ms(1000), broken(5));
        parted.success(ms(1001));
        parted.failure(ms(1002), ms(1003), broken(6));
        assert_eq!(
            parted.assess(Good::default(), ms(2000), &LIMITS, 0.0),
            State::Suspect,
            "a good answer lies between"
        );
    }

    #[test]
    fn failures_before_another_workers_good_answer_are_not_in_a_row_with_those_after_it() {
        let mut here = Evidence::default();
        (1..=5).for_each(|i| here.failure(ms(10 * i), ms(10 * i + 1), BAD_ANSWER));
        for (good, left) in [(5, 5), (29, 2), (45, 1), (51, 0)] {
            let mut there = Evidence::default();
            there.success(ms(good));
            let mut both = [here, there];
            both[0].merge(&there);
            both[1].merge(&here);
            assert_eq!(
                [both[0].consecutive_failures, both[1].consecutive_failures],
                [left, left],
                "a good answer to what was sent at {good}"
            );
        }
    }

    #[test]
    fn many_workers_do_not_make_a_row_of_what_is_none() {
        let mut workers = [Evidence::default(); 8];
        for request in 0..4000u64 {
            let worker = &mut workers[(request % 8) as usize];
            // Two of three fail, in a pattern that no worker sees as regular.
            match rng::mix(request) % 3 {
                0 => worker.success(ms(request)),
                _ => worker.failure(ms(request), ms(request), BAD_ANSWER),
            }
            let mut all = Evidence::default();
            workers.iter().for_each(|w| all.merge(w));
            let truth = (0..=request).rev().take_while(|r| !rng::mix(*r).is_multiple_of(3)).count();
            assert!(
                f64::from(all.consecutive_failures) <= 2.0 * truth as f64 + 1.0,
                "{request}: {} of {truth}",
                all.consecutive_failures
            );
        }
    }

    #[test]
    fn good_answers_of_before_the_failure_do_not_speed_up_the_return() {
        let mut here = Health::default();
        (0..50).for_each(|i| here.success(ms(i)));
        let mut there = Evidence::default();
        (60..63).for_each(|i| there.failure(ms(i), ms(i + 1), BAD_ANSWER));
        let good = tell(&mut here, &there);
        assert_eq!(here.assess(good, ms(70), &LIMITS, 0.0), State::Failed);
        here.success(ms(6000));
        assert_eq!(here.assess(good, ms(6020), &LIMITS, 0.0), State::Recovering);
    }
}
