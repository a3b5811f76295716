//! How a group fares as a whole, lately: a zone that is gone fails as one, and single endpoints excuse each other.
//!
//! Health judges an endpoint against the rest, so that a fault that all share condemns nobody. While everything goes
//! to one zone, that zone is "all": its loss would look like a fault of everybody's. So requests leave a group that
//! fails much more than another one does, or might do: an unknown group is believed to be well until its own answers
//! tell. If it fails alike, the fault is everybody's and requests come back.

use super::group::Group;
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

/// A group's latest answers, as one worker saw them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Record {
    failing: f64,
    answers: f64,
    at: Time,
}

impl Record {
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
pub(super) fn trust(failing: f64, least: f64) -> f64 {
    1.0 - ((failing - least - TOLERATED) / (UNBEARABLE - TOLERATED)).clamp(0.0, 1.0)
}

/// The least failure ratio among `groups` but the one at `but`, where the unknown are believed to be well; none if
/// nobody else is there.
pub(super) fn least_failing(groups: &[Group], but: usize, now: Time) -> Option<f64> {
    let others = groups.iter().enumerate().filter(|(at, g)| *at != but && g.fit > 0.0);
    others.map(|(_, g)| g.record.known(now).unwrap_or(0.0)).min_by(f64::total_cmp)
}
