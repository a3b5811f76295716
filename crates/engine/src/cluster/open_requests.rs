//! Open requests: those that the client has not ended, such as long uploads and bidirectional streams.
//!
//! No answer is due to them, and a client may take its time. But where the endpoint hangs, an upload stops when the
//! buffers are full, and a stream's client waits for a message. An endpoint is therefore stalled if several of its open
//! requests have not moved, and it has answered nothing, for much longer than requests of this cluster usually pause.

use crate::cluster::Cluster;
use crate::endpoint::EndpointView;
use crate::time::Time;

/// Minimum number of open requests: one slow client proves nothing, and two may pause by chance.
const SEVERAL: u32 = 3;
/// Minimum time without progress, seconds, however short the usual pauses are: lost connections are noticed and
/// replaced within that time.
const MIN_STALL_S: f64 = 5.0;
/// Multiple of the usual pause after which an open request has stalled. With exponential pauses that is eight times
/// their mean, which three in a row reach once in 10¹⁰.
const STALLED_MULTIPLE: f64 = 4.0;
/// Fraction of stalled endpoints above which the fault is common, or requests wait by nature, and no endpoint counts as
/// stalled.
const MAX_STALLED_SHARE: f64 = 0.5;
/// Fraction at or below which endpoints count as stalled again.
const RESUME_STALLED_SHARE: f64 = 0.25;
/// Window over which pauses are remembered, seconds of paused time: older ones fade as new ones are added.
const REMEMBERED_S: f64 = 3600.0;

/// The open requests of a cluster.
#[derive(Debug, Default)]
pub(super) struct OpenRequests {
    /// Whether there has ever been an open request, so that slots are needed.
    met: bool,
    /// Whether too many endpoints are stalled for it to be their own fault.
    common: bool,
    of: Vec<Still>,
    /// Sums of the length and the squared length of pauses; their ratio is the mean length of the pause in progress at
    /// a random moment.
    paused_s: f64,
    squared: f64,
    /// Pauses count from here on: the clock stepped back, or time was lost.
    restarted: Time,
}

/// An endpoint's open requests that have moved since its last answer.
#[derive(Clone, Copy, Debug, Default)]
struct Still {
    requests: u32,
    /// Sum of the times of their last progress, microseconds.
    moved_us: u64,
    /// Time of the endpoint's last answer to any request.
    answered: Time,
}

impl Still {
    fn add(&mut self, moved: Time) {
        self.requests = self.requests.saturating_add(1);
        self.moved_us = self.moved_us.wrapping_add(moved.0 / 1000);
    }

    fn take(&mut self, moved: Time) {
        if moved >= self.answered && self.requests > 0 {
            self.requests -= 1;
            self.moved_us = if self.requests == 0 { 0 } else { self.moved_us.wrapping_sub(moved.0 / 1000) };
        }
    }

    /// Mean time since their last progress, seconds.
    fn age_s(&self, now: Time) -> f64 {
        let ages_us = u64::from(self.requests).wrapping_mul(now.0 / 1000).wrapping_sub(self.moved_us);
        let ages_us = i64::try_from(ages_us).unwrap_or(0); // negative if the clock stepped back
        ages_us as f64 * 1e-6 / f64::from(self.requests.max(1))
    }
}

impl OpenRequests {
    /// Adds a request to the endpoint at `index` that begins at `now`.
    pub fn open(&mut self, index: u32, now: Time) {
        self.met = true;
        if let Some(still) = self.of.get_mut(index as usize) {
            still.add(now);
        }
    }

    /// Records progress of a request that last moved at `moved`.
    pub fn moves(&mut self, index: u32, moved: Time, now: Time) {
        self.paused(moved, now);
        if let Some(still) = self.of.get_mut(index as usize) {
            still.take(moved);
            still.add(now);
        }
    }

    /// Removes a request that is complete, answered or over. At a `stalled` endpoint it stays: otherwise the endpoint
    /// would be healthy again as soon as the waiting clients have given up.
    pub fn close(&mut self, index: u32, moved: Time, now: Time, stalled: bool) {
        if stalled {
            return;
        }
        self.paused(moved, now);
        if let Some(still) = self.of.get_mut(index as usize) {
            still.take(moved);
        }
    }

    fn paused(&mut self, from: Time, to: Time) {
        let seconds = to.seconds_since(from.max(self.restarted)).max(0.0);
        let keep = REMEMBERED_S / (REMEMBERED_S + seconds);
        self.paused_s = self.paused_s * keep + seconds;
        self.squared = self.squared * keep + seconds * seconds;
        if self.paused_s > REMEMBERED_S {
            let keep = REMEMBERED_S / self.paused_s;
            self.paused_s *= keep;
            self.squared *= keep;
        }
    }

    /// Records an answer of the endpoint at `index` to any request.
    pub fn answered(&mut self, index: u32, now: Time) {
        if let Some(still) = self.of.get_mut(index as usize) {
            *still = Still { answered: now, ..Still::default() };
        }
    }

    /// Time of the last answer of the endpoint at `index`, if that is kept.
    pub fn last_answer(&self, index: u32) -> Option<Time> {
        self.of.get(index as usize).map(|still| still.answered)
    }

    /// Resets the slot at `index` for another endpoint.
    pub fn forget(&mut self, index: u32, now: Time) {
        self.answered(index, now);
    }

    /// Makes room for `places` endpoints; not called on the request path.
    pub fn make_room(&mut self, places: usize, now: Time) {
        if self.met && self.of.len() < places {
            self.of.resize(places, Still { answered: now, ..Still::default() });
        }
    }

    /// Time without progress after which open requests count as stalled, seconds.
    pub fn timeout_s(&self) -> f64 {
        let usual_s = if self.paused_s > 0.0 { self.squared / self.paused_s } else { 0.0 };
        (STALLED_MULTIPLE * usual_s).max(MIN_STALL_S)
    }

    /// Whether the endpoint at `index` is stalled by its open requests: several have not moved for
    /// [`timeout_s`](OpenRequests::timeout_s), no worker had a good answer meanwhile, and the fault is not common.
    pub fn stand_still(&self, index: u32, known: &EndpointView<'_>, now: Time) -> bool {
        !self.of.is_empty() && !self.common && self.long_still(index, known.good().start, now)
    }

    /// Whether the endpoint's open requests have not moved, and no worker had a good answer since `alive`, for longer than
    /// the timeout.
    fn long_still(&self, index: u32, alive: Time, now: Time) -> bool {
        let Some(still) = self.of.get(index as usize).filter(|still| still.requests >= SEVERAL) else {
            return false;
        };
        let timeout_s = self.timeout_s();
        still.age_s(now) > timeout_s && now.seconds_since(alive) > timeout_s
    }

    /// Forgets open requests after the clock stepped back to `now`, or after a time that was lost.
    pub fn restart(&mut self, now: Time) {
        self.restarted = now;
        for still in &mut self.of {
            if still.answered > now || still.requests > 0 {
                *still = Still { answered: now, ..Still::default() };
            }
        }
    }
}

impl Cluster {
    /// Updates whether open requests are stalled at too many endpoints to be their own fault.
    #[inline(never)]
    pub(super) fn look_at_open_requests(&mut self, now: Time) {
        self.endpoints.open_requests.make_room(self.endpoints.states.len(), now);
        if self.endpoints.open_requests.of.is_empty() {
            return;
        }
        let still = |index: &u32| {
            let known = self.endpoint(*index);
            known
                .is_some_and(|known| self.endpoints.open_requests.long_still(*index, known.good().start, now))
        };
        let count = (0..self.endpoints.states.len() as u32).filter(still).count() as f64;
        let share =
            if self.endpoints.open_requests.common { RESUME_STALLED_SHARE } else { MAX_STALLED_SHARE };
        let endpoints = self.endpoints();
        // One endpoint out of several is never a common fault.
        let most = (share * endpoints as f64).max(if endpoints > 1 { 1.0 } else { 0.0 });
        self.endpoints.open_requests.common = count > most;
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn s(seconds: f64) -> Time {
        Time::from_secs_f64(1e6 + seconds)
    }

    fn open() -> OpenRequests {
        let mut open = OpenRequests { met: true, ..OpenRequests::default() };
        open.make_room(2, s(0.0));
        open
    }

    #[test]
    fn several_that_stand_still_for_long_show_and_an_answer_ends_it() {
        let mut requests = open();
        (0..3).for_each(|n| requests.open(0, s(f64::from(n) * 0.1)));
        (0..2).for_each(|n| requests.open(1, s(f64::from(n) * 0.1)));
        assert!(!requests.long_still(0, s(0.0), s(5.0)), "5 s from the mean start on");
        assert!(requests.long_still(0, s(0.0), s(5.2)));
        assert!(!requests.long_still(0, s(1.0), s(5.2)), "another worker had an answer");
        assert!(!requests.long_still(1, s(0.0), s(9.0)), "two");
        requests.answered(0, s(6.0));
        assert!(!requests.long_still(0, s(6.0), s(60.0)), "what was open before says nothing any more");
        // One of those moves and then pauses again: a single stalled request.
        requests.moves(0, s(0.0), s(7.0));
        assert!(!requests.long_still(0, s(6.0), s(60.0)));
    }

    #[test]
    fn what_moves_on_does_not_long_still() {
        let mut requests = open();
        let mut moved = [s(0.0), s(0.3), s(0.6)];
        moved.iter().for_each(|at| requests.open(0, *at));
        for step in 0..200 {
            let now = s(1.0 + f64::from(step));
            for (client, at) in moved.iter_mut().enumerate() {
                let now = now.after_secs(0.3 * client as f64);
                requests.moves(0, *at, now);
                *at = now;
                assert!(!requests.long_still(0, s(0.0), now));
            }
        }
        assert!((requests.timeout_s() - 5.0).abs() < 1e-9);
    }

    #[test]
    fn where_pauses_are_long_longer_ones_are_asked_for() {
        let mut requests = open();
        // A thousand short pauses do not hide a minute of silence.
        let mut at = s(0.0);
        requests.open(1, at);
        for _ in 0..1000 {
            requests.moves(1, at, at.after_secs(0.01));
            at = at.after_secs(0.01);
        }
        requests.moves(1, at, at.after_secs(60.0));
        assert!(requests.timeout_s() > 200.0, "{}", requests.timeout_s());
        // It fades after many short pauses.
        let mut at = s(100.0);
        for _ in 0..40_000 {
            requests.moves(1, at, at.after_secs(1.0));
            at = at.after_secs(1.0);
        }
        assert!(requests.timeout_s() < 6.0, "{}", requests.timeout_s());
    }

    #[test]
    fn cancelled_requests_do_not_heal_a_stalled_endpoint() {
        let mut requests = open();
        (0..3).for_each(|_| requests.open(0, s(0.0)));
        assert!(requests.long_still(0, s(0.0), s(6.0)));
        (0..3).for_each(|_| requests.close(0, s(0.0), s(7.0), true));
        assert!(requests.long_still(0, s(0.0), s(60.0)));
        assert!((requests.timeout_s() - 5.0).abs() < 1e-9, "nor is it usual");
        requests.answered(0, s(61.0));
        assert!(!requests.long_still(0, s(61.0), s(99.0)));
        // A request that is closed elsewhere is gone.
        (0..3).for_each(|_| requests.open(1, s(0.0)));
        (0..3).for_each(|_| requests.close(1, s(0.0), s(1.0), false));
        assert!(!requests.long_still(1, s(0.0), s(60.0)));
    }

    #[test]
    fn places_are_made_only_where_they_are_needed() {
        let mut requests = OpenRequests::default();
        requests.make_room(1000, s(0.0));
        assert!(requests.of.is_empty());
        requests.open(0, s(0.0));
        requests.close(0, s(0.0), s(1.0), false);
        requests.make_room(1000, s(2.0));
        assert_eq!(requests.of.len(), 1000);
        // Requests opened before there was a slot are not counted.
        requests.close(0, s(1.0), s(3.0), false);
        assert_eq!(requests.of[0].requests, 0);
        requests.restart(s(-10.0));
        assert_eq!(requests.of[0].answered, s(-10.0));
    }
}
