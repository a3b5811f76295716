//! Recent health of a subset as a whole: a zone that is lost fails as one, and its endpoints excuse each other.
//!
//! Health judges an endpoint against the others, so that a common fault ejects no endpoint. While everything goes to
//! one zone, its loss would look like a common fault. So requests leave a subset that fails much more than another one
//! does or might: a subset without answers is assumed to be healthy until its own answers show otherwise. If it fails
//! as well, the fault is common and requests return.
//!
//! Failures are forgotten, so a subset that was left for them gets some requests again. A silence is not: what waits may
//! wait for hours, such as a stream or a request on a connection that is lost. So a subset that was left for its silence
//! gets a request now and then, after twice as long each time: one that hangs for T costs about log(T) requests.

use crate::cluster::subset::Subset;
use crate::endpoint::{EndpointState, PeerTable};
use crate::time::Time;

/// Weight of the newest answer: six failures in a row make a ratio of one half.
const STEP: f64 = 0.125;
/// Time constant with which failures are forgotten while there are no answers, seconds.
const MEMORY_S: f64 = 5.0;
/// Minimum number of answers before a subset's failure ratio is known.
const KNOWN_AFTER: f64 = 8.0;
/// Time after its last answer for which the ratio remains known, seconds.
const KNOWN_FOR_S: f64 = 10.0;
/// Difference in failure ratios up to which nothing follows: chance alone makes half of it where half of all requests
/// fail.
const TOLERATED: f64 = 0.25;
/// Difference in failure ratios from which on the worse subset keeps nothing.
const UNBEARABLE: f64 = 0.75;

/// Silence after which requests begin to leave a subset with several unanswered requests, in multiples of its typical
/// latency.
const SILENT: f64 = 5.0;
/// Silence after which no requests go to such a subset, in multiples of its typical latency.
const DEAD_SILENT: f64 = 20.0;
/// Minimum of both silences, seconds, where latencies are short: threads pause, packets are retransmitted.
const MIN_SILENT_S: [f64; 2] = [0.1, 0.5];
/// Minimum number of unanswered requests: one may be heavy, and two by chance.
const SEVERAL: u32 = 3;
/// Minimum liveness of a subset that others are compared with.
const ALIVE: f64 = 0.05;

/// Part of its requests that a silent subset gets until one of them is sent: few more than one come before the next tick.
const LOOK_PART: f64 = 0.25;
/// Maximum number of times that the pause between two such requests doubles.
const MAX_DOUBLINGS: u8 = 6;

/// When a subset that is silent as a whole gets a request to see whether it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Silence {
    /// Whether it is silent.
    silent: bool,
    /// Since when, or since the latest look.
    since: Time,
    /// Number of looks without an answer.
    looks: u8,
    /// This worker's request count when the next look was allowed.
    allowed: Option<u32>,
}

impl Silence {
    /// Whether the next request may be a look.
    pub fn is_looked_at(&self) -> bool {
        self.allowed.is_some()
    }

    /// Whether the next request may be a look; `dead_s` is the silence after which no requests go to the subset, and
    /// `sent` says whether one has been sent since this worker had so many requests, of which there are `requests`.
    fn looks(
        &mut self,
        silent: bool,
        dead_s: f64,
        (requests, sent): (u32, impl Fn(u32) -> bool),
        now: Time,
    ) -> bool {
        if silent != self.silent {
            *self = Silence { silent, since: now, allowed: None, ..*self };
        }
        self.since = self.since.min(now);
        if silent && self.allowed.is_some_and(sent) {
            let looks = (self.looks + 1).min(MAX_DOUBLINGS);
            *self = Silence { since: now, looks, allowed: None, ..*self };
        }
        if now.seconds_since(self.since) < dead_s * f64::from(1u32 << self.looks) {
            return self.allowed.is_some();
        }
        if silent {
            self.allowed = self.allowed.or(Some(requests));
        } else {
            // It has answered for as long as it was waited for.
            self.looks = 0;
        }
        silent
    }
}

/// A subset's recent answers, as one worker saw them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct RecentErrors {
    failing: f64,
    answers: f64,
    at: Time,
}

impl RecentErrors {
    /// Records an answer.
    pub fn observe(&mut self, failed: bool, now: Time) {
        if now.seconds_since(self.at) > KNOWN_FOR_S {
            (self.failing, self.answers) = (0.0, 0.0);
        }
        self.failing += STEP * (f64::from(u8::from(failed)) - self.failing);
        self.answers = (self.answers + 1.0).min(KNOWN_AFTER);
        self.at = self.at.max(now);
    }

    /// Caps timestamps at `now` after the clock stepped back.
    pub fn not_after(&mut self, now: Time) {
        self.at = self.at.min(now);
    }

    /// Failure ratio of about the last eight answers, decayed by the time since the last one, 0..=1.
    pub fn failing(&self, now: Time) -> f64 {
        self.failing * (-now.seconds_since(self.at) / MEMORY_S).exp()
    }

    /// The failure ratio, if there have been enough answers recently.
    pub fn known(&self, now: Time) -> Option<f64> {
        let known = self.answers >= KNOWN_AFTER && now.seconds_since(self.at) <= KNOWN_FOR_S;
        known.then_some(self.failing)
    }
}

/// Fraction of its requests that a subset may keep that fails `failing` where the best other one fails `least`.
fn kept(failing: f64, least: f64) -> f64 {
    1.0 - ((failing - least - TOLERATED) / (UNBEARABLE - TOLERATED)).clamp(0.0, 1.0)
}

/// Least failure ratio among `subsets` except the one at `but`, where subsets without answers count as healthy; `None`
/// if no other has a healthy endpoint.
fn least_failing(subsets: &[Subset], but: usize, now: Time) -> Option<f64> {
    let others = subsets.iter().enumerate().filter(|(at, g)| *at != but && g.division.fit > 0.0);
    others.map(|(_, g)| g.errors.record.known(now).unwrap_or(0.0)).min_by(f64::total_cmp)
}

/// Fraction of its requests that `subset` may keep, by how long all of it has been silent.
fn alive(subset: &Subset, endpoints: &[EndpointState], peers: &PeerTable, now: Time) -> f64 {
    let (mut awaiting, mut heard) = (0u32, Time::ZERO);
    for index in subset.pool.all() {
        let Some(endpoint) = endpoints.get(*index as usize).filter(|m| m.eligible) else { continue };
        let endpoint = peers.of(*index, endpoint);
        awaiting = awaiting.saturating_add(endpoint.pending());
        heard = heard.max(endpoint.quiet_since());
    }
    if awaiting < SEVERAL {
        return 1.0;
    }
    let [begins, _] = MIN_SILENT_S;
    let begins = begins.max(SILENT * subset.latency.typical);
    1.0 - ((now.seconds_since(heard) - begins) / (dead_s(subset) - begins)).clamp(0.0, 1.0)
}

/// Silence after which no requests go to `subset`, seconds.
fn dead_s(subset: &Subset) -> f64 {
    let [_, ends] = MIN_SILENT_S;
    ends.max(DEAD_SILENT * subset.latency.typical)
}

/// The fraction that `subset` keeps, which is 0 where `alive` is, unless it is looked at; `requests` is this worker's
/// request count.
fn looked_at(subset: &mut Subset, alive: f64, endpoints: &[EndpointState], requests: u32, now: Time) -> f64 {
    let (dead_s, Subset { errors, pool, .. }) = (dead_s(subset), subset);
    let sent = |allowed: u32| {
        let asked = |index: &u32| endpoints.get(*index as usize).map(|endpoint| endpoint.turn.asked);
        let since = requests.wrapping_sub(allowed);
        pool.all().iter().filter_map(asked).any(|asked| requests.wrapping_sub(asked) < since)
    };
    let looks = errors.silence.looks(alive <= 0.0, dead_s, (requests, sent), now);
    if looks { LOOK_PART } else { alive }
}

/// Updates the fraction of its requests that each of `subsets` may keep, compared with the others; `requests` is this
/// worker's request count.
#[inline(never)]
pub(crate) fn compare(
    subsets: &mut [Subset],
    endpoints: &[EndpointState],
    peers: &PeerTable,
    requests: u32,
    now: Time,
) {
    subsets.iter_mut().for_each(|g| g.division.kept = alive(g, endpoints, peers, now));
    let liveliest =
        subsets.iter().filter(|g| g.division.fit > 0.0).map(|g| g.division.kept).fold(0.0, f64::max);
    for at in 0..subsets.len() {
        let least = least_failing(subsets, at, now);
        let Some(subset) = subsets.get_mut(at) else { continue };
        // Where all are equally silent, nothing is gained by leaving.
        let alive = if liveliest < ALIVE { 1.0 } else { (subset.division.kept / liveliest).min(1.0) };
        let alive = looked_at(subset, alive, endpoints, requests, now);
        let failing = subset.errors.record.failing(now);
        subset.division.kept = alive * least.map_or(1.0, |least| kept(failing, least));
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn s(seconds: f64) -> Time {
        Time::from_secs_f64(1000.0 + seconds)
    }

    #[test]
    fn a_row_of_failures_costs_more_and_more_of_the_traffic() {
        let mut record = RecentErrors::default();
        let fractions: Vec<f64> = (0..12)
            .map(|n| {
                record.observe(true, s(f64::from(n) * 0.01));
                kept(record.failing(s(f64::from(n) * 0.01)), 0.0)
            })
            .collect();
        assert!(fractions[0] == 1.0 && fractions[1] == 1.0, "two failures are nothing: {fractions:?}");
        assert!(
            fractions[2] < 1.0 && (0.3..0.5).contains(&fractions[5]) && fractions[10] == 0.0,
            "{fractions:?}"
        );
        assert_eq!(kept(0.9, 0.9), 1.0, "others fail alike");
    }

    #[test]
    fn little_or_old_evidence_is_not_enough() {
        let mut record = RecentErrors::default();
        (0..7).for_each(|_| record.observe(true, s(0.0)));
        assert_eq!(record.known(s(0.0)), None);
        record.observe(true, s(1.0));
        assert!(record.known(s(10.0)).is_some_and(|failing| failing > 0.6), "as it was, not as it fades");
        assert!(record.failing(s(10.0)) < 0.15);
        assert_eq!(record.known(s(12.0)), None);
        record.observe(false, s(60.0));
        assert_eq!(record.failing(s(60.0)), 0.0, "the past does not count");
    }
}
