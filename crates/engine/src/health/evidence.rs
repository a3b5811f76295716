//! Evidence of an endpoint's health: failures and good answers, and how the evidence of several workers merges.
//!
//! Evidence is ordered by when a request *started*, not by when its outcome arrived: an old request that completes
//! after the crash does not clear the endpoint, and an old timeout that arrives after the recovery does not count
//! again. Only a broken connection is dated by the moment when it broke.

use crate::time::Time;

/// Time within which breaks of different connections count as one event, seconds: the connections of a process end
/// together with it. Two connections weigh twice as much as one.
const TOGETHER_S: f64 = 0.01;
/// Upper bound of the failures counted in a run.
const MAX_RUN: u32 = 1000;
/// Number of unseen failures in a row that count as one: an endpoint that sheds half of its requests has that many in a
/// row one time in sixteen, and the next good answer clears it.
const UNSEEN_PER_FAILURE: u16 = 4;

/// Evidence of one or several workers on an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Consecutive failures.
    pub failures: FailureRun,
    /// Consecutive good answers.
    pub good: GoodRun,
}

/// A run of consecutive failures. Kept apart from the good answers because most endpoints have none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FailureRun {
    /// Number of failures, weighted, without the unseen ones.
    pub count: u32,
    /// Number of attempts that failed for an unknown reason, because Envoy retried elsewhere and only the last
    /// attempt's answer is visible. The endpoint may have crashed, or have shed load with a 429 that the route retries.
    /// The answers in between tell the two apart: an endpoint that sheds half of its load answers the other half well.
    pub unseen: u16,
    /// Number of failed half-open probes in recent ejections.
    pub failed_probes: u32,
    /// Start of the request behind the first failure of the run; [`Time::ZERO`] without a run.
    pub since: Time,
    /// Start of the request behind the latest failure.
    pub latest_start: Time,
    /// When the latest failure was observed.
    pub latest_at: Time,
    /// When the latest connection of the run broke; [`Time::ZERO`] if none did.
    pub broke_at: Time,
    /// The connection that broke; 0 if unknown.
    pub broke_on: u64,
}

/// A run of consecutive good answers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GoodRun {
    /// Number since the last failure; saturates.
    pub count: u16,
    /// Start of the request behind the latest one.
    pub start: Time,
}

/// A failed request as health counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureEvent {
    /// Number of failures it counts for; 0 for an unseen one.
    pub weight: u32,
    /// The connection that broke, 0 if unknown; `None` if no connection broke.
    pub broke: Option<u64>,
}

impl Evidence {
    /// Records a good answer to a request started at `start`.
    pub(super) fn success(&mut self, start: Time) {
        let Evidence { failures, good } = self;
        good.start = good.start.max(start);
        (failures.count, failures.unseen) = failures.since_good(good.start);
        failures.since = if failures.is_empty() { Time::ZERO } else { failures.since.max(good.start) };
        if start > failures.latest_start {
            good.count = good.count.saturating_add(1);
        }
    }

    /// Records a failure at `now` of a request started at `start`.
    pub(super) fn failure(&mut self, start: Time, now: Time, FailureEvent { weight, broke }: FailureEvent) {
        let Evidence { failures, good } = self;
        // A broken connection is evidence from the moment when it broke, however old the request is.
        let start = if broke.is_some() { now } else { start };
        if start < good.start {
            return;
        }
        let known = broke.filter(|on| *on != 0 && failures.broke_on != 0);
        let again = known.filter(|_| failures.count > 0 && together(failures.broke_at, now));
        if again.is_some_and(|on| on == failures.broke_on) {
            // Another stream of the same connection: already counted.
            return;
        }
        if let Some(on) = broke {
            (failures.broke_at, failures.broke_on) = (now, on);
        } else if failures.count == 0 {
            failures.broke_at = Time::ZERO;
        }
        failures.since = if failures.is_empty() { start } else { failures.since.min(start) };
        failures.latest_start = failures.latest_start.max(start);
        failures.latest_at = failures.latest_at.max(now);
        failures.count =
            failures.count.saturating_add(weight).saturating_add(again.is_some().into()).min(MAX_RUN);
        failures.unseen = failures.unseen.saturating_add((weight == 0).into());
        good.count = 0;
    }

    /// Merges another worker's evidence.
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
    /// Number of failures that it counts for.
    pub fn total(&self) -> u32 {
        self.count.saturating_add((self.unseen / UNSEEN_PER_FAILURE).into())
    }

    /// Whether nothing has failed.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0 && self.unseen == 0
    }

    /// Caps timestamps at `now` after the clock stepped back.
    pub(super) fn not_after(&mut self, now: Time) {
        for time in [&mut self.since, &mut self.latest_start, &mut self.latest_at] {
            *time = (*time).min(now);
        }
        // Capped, it would look like the moment of another break.
        if self.broke_at > now {
            self.broke_at = Time::ZERO;
        }
    }

    /// Failures of the run since `good_start`, the start of the latest good request of any worker, and the unseen ones
    /// apart; in proportion if that lies within the run, where at least the latest one is left. Otherwise every worker
    /// would contribute failures from before it, and many workers would make a run out of isolated failures.
    fn since_good(&self, good_start: Time) -> (u32, u16) {
        if self.is_empty() || self.latest_start < good_start {
            return (0, 0);
        }
        let whole = self.latest_start.seconds_since(self.since);
        if self.since >= good_start || whole <= 0.0 {
            return (self.count, self.unseen);
        }
        let part = self.latest_start.seconds_since(good_start) / whole;
        match ((f64::from(self.count) * part) as u32, (f64::from(self.unseen) * part) as u16) {
            (0, 0) if self.unseen > 0 => (0, 1),
            (0, 0) => (1, 0),
            left => left,
        }
    }

    /// Merges two runs, without what precedes `good_start`.
    fn merged(&self, other: &FailureRun, good_start: Time) -> FailureRun {
        let (mine, theirs) = (self.since_good(good_start), other.since_good(good_start));
        let starts = [(self, mine), (other, theirs)].into_iter().filter(|(_, left)| *left != (0, 0));
        let since = starts.map(|(run, _)| run.since.max(good_start)).min();
        let both_broke = mine.0 > 0 && theirs.0 > 0 && together(self.broke_at, other.broke_at);
        // Workers in one thread share its connections: if both saw the same one break, it is one failure.
        let same = self.broke_on != 0 && self.broke_on == other.broke_on;
        let both = mine.0.saturating_add(theirs.0);
        FailureRun {
            count: match both_broke && same {
                true => both.saturating_sub(1),
                false => both.saturating_add(both_broke.into()),
            },
            unseen: mine.1.saturating_add(theirs.1),
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

/// Whether both times are set and close enough for one event.
fn together(one: Time, other: Time) -> bool {
    let apart = one.max(other).seconds_since(one.min(other));
    one.min(other) > Time::ZERO && apart <= TOGETHER_S
}
