//! Requests that the client has not ended, and that nothing moves on: long uploads, streams in both directions.
//!
//! No answer is due to them, and a client may take its time. But where the endpoint hangs, an upload stops when the
//! buffers are full, and a stream's client waits for a word: several of its open requests stand still, and it answers
//! nothing, for much longer than requests of this cluster usually stand still.

use crate::cluster::Cluster;
use crate::endpoint::EndpointView;
use crate::time::Time;

/// One slow client says nothing, and two may meet by chance.
const SEVERAL: u32 = 3;
/// However quickly requests move on elsewhere, so long is no sign, seconds: connections that are lost are noticed and
/// replaced within that time.
const MIN_STALL_S: f64 = 5.0;
/// What is open stands still for so many times as long as is usual. Where pauses are exponential, that is eight times
/// their mean, which three in a row reach once in 10¹⁰.
const STALLED_MULTIPLE: f64 = 4.0;
/// Where they stand still at more than this part of the endpoints the fault is common, or they wait by nature, and none is
/// stalled …
const MAX_STALLED_SHARE: f64 = 0.5;
/// … until it is less than this again.
const RESUME_STALLED_SHARE: f64 = 0.25;
/// Pauses count by how long they were; the older they are, the less. So many seconds of standing still are remembered.
const REMEMBERED_S: f64 = 3600.0;

/// The open requests of a cluster.
#[derive(Debug, Default)]
pub(super) struct OpenRequests {
    /// Whether there has been one, so that there have to be places for them.
    met: bool,
    /// Whether what is open stands still nearly everywhere.
    common: bool,
    of: Vec<Still>,
    /// Σ length and Σ length² of pauses, whose ratio is how long the pause lasts in which a moment falls.
    paused_s: f64,
    squared: f64,
}

/// An endpoint's open requests that have moved since its last answer.
#[derive(Clone, Copy, Debug, Default)]
struct Still {
    requests: u32,
    /// Σ of when each moved last, microseconds.
    moved_us: u64,
    /// When the endpoint last answered anything.
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

    /// For how long they have stood still, seconds, on average.
    fn age_s(&self, now: Time) -> f64 {
        let ages_us = u64::from(self.requests).wrapping_mul(now.0 / 1000).wrapping_sub(self.moved_us);
        let ages_us = i64::try_from(ages_us).unwrap_or(0); // beyond: the clock stepped back
        ages_us as f64 * 1e-6 / f64::from(self.requests.max(1))
    }
}

impl OpenRequests {
    /// A request to the endpoint at `index` begins at `now`, and the client has not ended it.
    pub fn open(&mut self, index: u32, now: Time) {
        self.met = true;
        if let Some(still) = self.of.get_mut(index as usize) {
            still.add(now);
        }
    }

    /// One moves on that last moved at `moved`.
    pub fn moves(&mut self, index: u32, moved: Time, now: Time) {
        self.paused(moved, now);
        if let Some(still) = self.of.get_mut(index as usize) {
            still.take(moved);
            still.add(now);
        }
    }

    /// One is complete, or answered, or over. Where it was in vain at an endpoint that is `stalled`, it stays: else the
    /// endpoint would be well again as soon as the clients that wait for it have left.
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
        let seconds = to.seconds_since(from).max(0.0);
        let keep = REMEMBERED_S / (REMEMBERED_S + seconds);
        self.paused_s = self.paused_s * keep + seconds;
        self.squared = self.squared * keep + seconds * seconds;
        if self.paused_s > REMEMBERED_S {
            let keep = REMEMBERED_S / self.paused_s;
            self.paused_s *= keep;
            self.squared *= keep;
        }
    }

    /// The endpoint at `index` answered something.
    pub fn answered(&mut self, index: u32, now: Time) {
        if let Some(still) = self.of.get_mut(index as usize) {
            *still = Still { answered: now, ..Still::default() };
        }
    }

    /// When the endpoint at `index` last answered anything, where that is kept.
    pub fn last_answer(&self, index: u32) -> Option<Time> {
        self.of.get(index as usize).map(|still| still.answered)
    }

    /// The place at `index` is another endpoint's.
    pub fn forget(&mut self, index: u32, now: Time) {
        self.answered(index, now);
    }

    /// There are so many places for endpoints. Not on the way of a request.
    pub fn make_room(&mut self, places: usize, now: Time) {
        if self.met && self.of.len() < places {
            self.of.resize(places, Still { answered: now, ..Still::default() });
        }
    }

    /// For how long what is open may stand still, seconds.
    pub fn timeout_s(&self) -> f64 {
        let usual_s = if self.paused_s > 0.0 { self.squared / self.paused_s } else { 0.0 };
        (STALLED_MULTIPLE * usual_s).max(MIN_STALL_S)
    }

    /// Whether several have stood still at the endpoint at `index` for longer than that, in which no worker was answered
    /// well, and elsewhere they do not.
    pub fn stand_still(&self, index: u32, known: &EndpointView<'_>, now: Time) -> bool {
        !self.of.is_empty() && !self.common && self.long_still(index, known.good().start, now)
    }

    /// The same, where another worker was last answered well at `alive`.
    fn long_still(&self, index: u32, alive: Time, now: Time) -> bool {
        let Some(still) = self.of.get(index as usize).filter(|still| still.requests >= SEVERAL) else {
            return false;
        };
        let timeout_s = self.timeout_s();
        still.age_s(now) > timeout_s && now.seconds_since(alive) > timeout_s
    }

    /// The clock stepped back to `now`: what is open is forgotten.
    pub fn not_after(&mut self, now: Time) {
        for still in &mut self.of {
            if still.answered > now || still.requests > 0 {
                *still = Still { answered: now, ..Still::default() };
            }
        }
    }
}

impl Cluster {
    /// Whether open requests stand still everywhere.
    #[inline(never)]
    pub(super) fn look_at_open_requests(&mut self, now: Time) {
        self.endpoints.open_requests.make_room(self.endpoints.states.len(), now);
        if self.endpoints.open_requests.of.is_empty() {
            return;
        }
        let still = |index: &u32| {
            let known = self.member(*index);
            known
                .is_some_and(|known| self.endpoints.open_requests.long_still(*index, known.good().start, now))
        };
        let count = (0..self.endpoints.states.len() as u32).filter(still).count() as f64;
        let share =
            if self.endpoints.open_requests.common { RESUME_STALLED_SHARE } else { MAX_STALLED_SHARE };
        let endpoints = self.endpoints();
        // One of several is never the fault of all.
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
        // One of those moves, and then stands still: it is one.
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
        // A thousand quick messages hide no minute of silence.
        let mut at = s(0.0);
        requests.open(1, at);
        for _ in 0..1000 {
            requests.moves(1, at, at.after_secs(0.01));
            at = at.after_secs(0.01);
        }
        requests.moves(1, at, at.after_secs(60.0));
        assert!(requests.timeout_s() > 200.0, "{}", requests.timeout_s());
        // It is forgotten when the pauses have been short for long.
        let mut at = s(100.0);
        for _ in 0..40_000 {
            requests.moves(1, at, at.after_secs(1.0));
            at = at.after_secs(1.0);
        }
        assert!(requests.timeout_s() < 6.0, "{}", requests.timeout_s());
    }

    #[test]
    fn who_gives_up_on_a_stalled_endpoint_does_not_heal_it() {
        let mut requests = open();
        (0..3).for_each(|_| requests.open(0, s(0.0)));
        assert!(requests.long_still(0, s(0.0), s(6.0)));
        (0..3).for_each(|_| requests.close(0, s(0.0), s(7.0), true));
        assert!(requests.long_still(0, s(0.0), s(60.0)));
        assert!((requests.timeout_s() - 5.0).abs() < 1e-9, "nor is it usual");
        requests.answered(0, s(61.0));
        assert!(!requests.long_still(0, s(61.0), s(99.0)));
        // Elsewhere it is gone.
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
        // What was open before there was a place is not counted.
        requests.close(0, s(1.0), s(3.0), false);
        assert_eq!(requests.of[0].requests, 0);
        requests.not_after(s(-10.0));
        assert_eq!(requests.of[0].answered, s(-10.0));
    }
}
