//! What is known of an endpoint's failures and good answers, and how the knowledge of several workers adds up.
//!
//! Evidence is ordered by when a request *started*, not by when its outcome arrived: an old request that completes after
//! the crash does not clear the endpoint, and an old time-out that arrives after the recovery does not count again. Only
//! a connection that breaks is news of the moment when it broke.

use crate::time::Time;

/// Different connections that break within this time of one another broke by the same event, seconds: what a process
/// had open ends with it, at once. That is twice what one broken connection says.
const TOGETHER_S: f64 = 0.01;
/// No run counts for more failures than this.
const MAX_RUN: u32 = 1000;

/// What one worker has seen of an endpoint's health, or several together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    /// What failed.
    pub failures: FailureRun,
    /// What went well.
    pub good: GoodRun,
}

/// Failures in a row. They are stored apart from the good answers: of most endpoints there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FailureRun {
    /// How many, by weight.
    pub count: u32,
    /// Half-open probes that failed, over the last ejections.
    pub failed_probes: u32,
    /// When the request behind the first failure of the run started; [`Time::ZERO`] without a run.
    pub since: Time,
    /// When the request behind the latest failure started.
    pub latest_start: Time,
    /// When the latest failure was seen.
    pub latest_at: Time,
    /// When the latest connection of the run broke; [`Time::ZERO`] if none did.
    pub broke_at: Time,
    /// Which one that was; 0 if that is unknown.
    pub broke_on: u64,
}

/// Good answers in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GoodRun {
    /// Since the last failure; more than any configuration asks for are not counted.
    pub count: u16,
    /// When the request behind the latest started.
    pub start: Time,
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
    pub(super) fn success(&mut self, start: Time) {
        let Evidence { failures, good } = self;
        good.start = good.start.max(start);
        failures.count = failures.since_good(good.start);
        failures.since = if failures.count > 0 { failures.since.max(good.start) } else { Time::ZERO };
        if start > failures.latest_start {
            good.count = good.count.saturating_add(1);
        }
    }

    /// A request started at `start` failed at `now`.
    pub(super) fn failure(&mut self, start: Time, now: Time, FailureEvent { weight, broke }: FailureEvent) {
        let Evidence { failures, good } = self;
        // A connection that breaks tells of the moment when it broke, however old the request is.
        let start = if broke.is_some() { now } else { start };
        if start < good.start {
            return;
        }
        let known = broke.filter(|on| *on != 0 && failures.broke_on != 0);
        let again = known.filter(|_| failures.count > 0 && together(failures.broke_at, now));
        if again.is_some_and(|on| on == failures.broke_on) {
            // Another stream of the same connection.
            return;
        }
        if let Some(on) = broke {
            (failures.broke_at, failures.broke_on) = (now, on);
        } else if failures.count == 0 {
            failures.broke_at = Time::ZERO;
        }
        failures.since = if failures.count == 0 { start } else { failures.since.min(start) };
        failures.latest_start = failures.latest_start.max(start);
        failures.latest_at = failures.latest_at.max(now);
        failures.count =
            failures.count.saturating_add(weight).saturating_add(again.is_some().into()).min(MAX_RUN);
        good.count = 0;
    }

    /// Adds what another worker has seen.
    pub fn merge(&mut self, other: &Evidence) {
        let (mine, theirs) = (&self.failures, &other.failures);
        let good_start = self.good.start.max(other.good.start);
        let latest_start = mine.latest_start.max(theirs.latest_start);
        let good = |good: GoodRun| if good.start > latest_start { good.count } else { 0 };
        self.good = GoodRun { count: good(self.good).saturating_add(good(other.good)), start: good_start };
        self.failures = mine.merged(theirs, good_start);
    }
}

impl FailureRun {
    /// The clock stepped back to `now`.
    pub(super) fn not_after(&mut self, now: Time) {
        for time in [&mut self.since, &mut self.latest_start, &mut self.latest_at] {
            *time = (*time).min(now);
        }
        // Moved, it would seem to be the moment of another one.
        if self.broke_at > now {
            self.broke_at = Time::ZERO;
        }
    }

    /// The failures of the run since `good_start`, when some worker's request was sent that went well: in proportion
    /// where it lies within the run. Or every worker would bring in failures from before, and many workers
    /// would make a row out of what is none.
    fn since_good(&self, good_start: Time) -> u32 {
        if self.count == 0 || self.latest_start < good_start {
            return 0;
        }
        let whole = self.latest_start.seconds_since(self.since);
        if self.since >= good_start || whole <= 0.0 {
            return self.count;
        }
        let since = self.latest_start.seconds_since(good_start);
        ((f64::from(self.count) * since / whole) as u32).max(1)
    }

    /// Both runs as one, with what went before `good_start` left out.
    fn merged(&self, other: &FailureRun, good_start: Time) -> FailureRun {
        let (mine, theirs) = (self.since_good(good_start), other.since_good(good_start));
        let starts = [(self, mine), (other, theirs)].into_iter().filter(|(_, count)| *count > 0);
        let since = starts.map(|(run, _)| run.since.max(good_start)).min();
        let both_broke = mine > 0 && theirs > 0 && together(self.broke_at, other.broke_at);
        // Workers of one thread share its connections: what both saw break may be one, and then it is one failure.
        let same = self.broke_on != 0 && self.broke_on == other.broke_on;
        let both = mine.saturating_add(theirs);
        FailureRun {
            count: match both_broke && same {
                true => both.saturating_sub(1),
                false => both.saturating_add(both_broke.into()),
            },
            failed_probes: self.failed_probes.saturating_add(other.failed_probes),
            since: since.unwrap_or_default(),
            latest_start: self.latest_start.max(other.latest_start),
            latest_at: self.latest_at.max(other.latest_at),
            broke_at: self.broke_at.max(other.broke_at),
            broke_on: match (self.broke_at, other.broke_at) {
                (Time::ZERO, _) => other.broke_on,
                (_, Time::ZERO) => self.broke_on,
                _ if same => self.broke_on,
                _ => 0,
            },
        }
    }
}

/// Whether connections broke at both moments, and by the same event.
fn together(one: Time, other: Time) -> bool {
    let apart = one.max(other).seconds_since(one.min(other));
    one.min(other) > Time::ZERO && apart <= TOGETHER_S
}
