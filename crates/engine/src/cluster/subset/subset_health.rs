//! How a group fares as a whole, lately: a zone that is gone fails as one, and single endpoints excuse each other.
//!
//! Health judges an endpoint against the rest, so that a fault that all share rules out no endpoint. While everything
//! goes to one zone, that zone is "all": its loss would look like a common fault. So requests leave a group that fails
//! much more than another one does, or might do: an unknown group is believed to be well until its own answers tell. If
//! it fails alike, the fault is common and requests come back.

use crate::cluster::subset::Subset;
use crate::endpoint::EndpointState;
use crate::endpoint::PeerTable;
use crate::time::Time;

/// Weight of the newest answer: six failures in a row make a half.
const STEP: f64 = 0.125;
/// Time constant with which failures are forgotten that no answer has followed, seconds.
const MEMORY_S: f64 = 5.0;
/// So many answers make a group known …
const KNOWN_AFTER: f64 = 8.0;
/// … for so long after the last, seconds.
const KNOWN_FOR_S: f64 = 10.0;
/// Up to this difference in failures nothing follows: chance alone makes half of it where half of all fails …
const TOLERATED: f64 = 0.25;
/// … and from this on nothing is left to the worse.
const UNBEARABLE: f64 = 0.75;

/// A group that owes answers to several requests and has given none for this many times its typical latency begins
/// to be left …
const SILENT: f64 = 5.0;
/// … and nothing goes there after so many.
const DEAD_SILENT: f64 = 20.0;
/// The same, seconds, where latencies are short: threads pause, packets are sent again.
const MIN_SILENT_S: [f64; 2] = [0.1, 0.5];
/// A single request may be heavy, and two by chance.
const SEVERAL: u32 = 3;
/// A subset that is at least this much alive is worth leaving others for.
const ALIVE: f64 = 0.05;

/// A group's latest answers, as one worker saw them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct RecentErrors {
    failing: f64,
    answers: f64,
    at: Time,
}

impl RecentErrors {
    /// Takes an answer into account.
    pub fn observe(&mut self, failed: bool, now: Time) {
        if now.seconds_since(self.at) > KNOWN_FOR_S {
            (self.failing, self.answers) = (0.0, 0.0);
        }
        self.failing += STEP * (f64::from(u8::from(failed)) - self.failing);
        self.answers = (self.answers + 1.0).min(KNOWN_AFTER);
        self.at = self.at.max(now);
    }

    /// The clock stepped back to `now`.
    pub fn not_after(&mut self, now: Time) {
        self.at = self.at.min(now);
    }

    /// The failure ratio of about the last eight answers, as far as it still counts against the group.
    pub fn failing(&self, now: Time) -> f64 {
        self.failing * (-now.seconds_since(self.at) / MEMORY_S).exp()
    }

    /// What the answers told, if there have been enough lately.
    pub fn known(&self, now: Time) -> Option<f64> {
        let known = self.answers >= KNOWN_AFTER && now.seconds_since(self.at) <= KNOWN_FOR_S;
        known.then_some(self.failing)
    }
}

/// What part of its requests may be left to a group that fails `failing` where others fail `least` at best.
fn trust(failing: f64, least: f64) -> f64 {
    1.0 - ((failing - least - TOLERATED) / (UNBEARABLE - TOLERATED)).clamp(0.0, 1.0)
}

/// The least failure ratio among `subsets` but the one at `but`, where the unknown are believed to be well; none if
/// no other endpoint is there.
fn least_failing(subsets: &[Subset], but: usize, now: Time) -> Option<f64> {
    let others = subsets.iter().enumerate().filter(|(at, g)| *at != but && g.division.fit > 0.0);
    others.map(|(_, g)| g.errors.record.known(now).unwrap_or(0.0)).min_by(f64::total_cmp)
}

/// What part of its requests may be left to `subset` by how long all of it has been silent.
fn alive(subset: &Subset, members: &[EndpointState], told: &PeerTable, now: Time) -> f64 {
    let (mut awaiting, mut heard) = (0u32, Time::ZERO);
    for index in subset.pool.all() {
        let Some(member) = members.get(*index as usize).filter(|m| m.eligible) else { continue };
        let member = told.of(*index, member);
        awaiting = awaiting.saturating_add(member.pending());
        heard = heard.max(member.quiet_since());
    }
    if awaiting < SEVERAL {
        return 1.0;
    }
    let [begins, ends] = MIN_SILENT_S;
    let begins = begins.max(SILENT * subset.latency.typical);
    let ends = ends.max(DEAD_SILENT * subset.latency.typical);
    1.0 - ((now.seconds_since(heard) - begins) / (ends - begins)).clamp(0.0, 1.0)
}

/// What part of its requests may be left to each of `subsets`, by how it fares beside the others.
pub(crate) fn compare(subsets: &mut [Subset], members: &[EndpointState], told: &PeerTable, now: Time) {
    if subsets.len() < 2 {
        return;
    }
    subsets.iter_mut().for_each(|g| g.division.trust = alive(g, members, told, now));
    let liveliest =
        subsets.iter().filter(|g| g.division.fit > 0.0).map(|g| g.division.trust).fold(0.0, f64::max);
    for at in 0..subsets.len() {
        let least = least_failing(subsets, at, now);
        let Some(subset) = subsets.get_mut(at) else { continue };
        // Where all are silent alike, nothing is gained by leaving.
        let alive = if liveliest < ALIVE { 1.0 } else { (subset.division.trust / liveliest).min(1.0) };
        let failing = subset.errors.record.failing(now);
        subset.division.trust = alive * least.map_or(1.0, |least| trust(failing, least));
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
        let trusted: Vec<f64> = (0..12)
            .map(|n| {
                record.observe(true, s(f64::from(n) * 0.01));
                trust(record.failing(s(f64::from(n) * 0.01)), 0.0)
            })
            .collect();
        assert!(trusted[0] == 1.0 && trusted[1] == 1.0, "two failures are nothing: {trusted:?}");
        assert!(trusted[2] < 1.0 && (0.3..0.5).contains(&trusted[5]) && trusted[10] == 0.0, "{trusted:?}");
        assert_eq!(trust(0.9, 0.9), 1.0, "others fail alike");
    }

    #[test]
    fn little_or_old_evidence_makes_nobody_known() {
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
