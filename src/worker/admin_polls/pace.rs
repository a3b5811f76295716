//! How much a poll asks for, and how long its answer is awaited. After one that came too late it is less and longer; by
//! degrees it is as before, once answers are quick.

use core::time::Duration;

/// The first timeout of a poll, at most. The answer comes from Envoy's own memory.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// The longest timeout of a poll; it doubles with each poll that times out. Envoy before 1.38 writes all clusters, and
/// a busy one takes its time.
const MAX_WAIT: Duration = Duration::from_secs(32);
/// The part of the timeout within which an answer is quick: with twice as much to write, or half the timeout, it would be
/// in time by far, so that a step back is not followed by another timeout.
const QUICK: f64 = 0.125;
/// The number of quick answers in a row for each step back.
const QUICK_IN_A_ROW: u32 = 3;

/// The size and the timeout of repeated polls.
#[derive(Debug)]
pub(super) struct Pace {
    /// The highest number of upstreams in one poll.
    most: usize,
    wait: Duration,
    /// The timeout as long as none has passed.
    usual: Duration,
    /// The number of quick answers in a row.
    quick: u32,
}

impl Pace {
    /// That of polls at this interval. The timeout ends before the next poll, however short the jittered interval.
    pub fn at(interval: Duration) -> Pace {
        let usual = FIRST_WAIT.min(interval / 2);
        Pace { most: usize::MAX, wait: usual, usual, quick: 0 }
    }

    /// Polls are at this interval from now on, and there is more to ask for.
    pub fn reset_wait(&mut self, interval: Duration) {
        self.usual = Pace::at(interval).usual;
        self.wait = self.wait.min(self.usual);
    }

    /// The highest number of upstreams in one poll.
    pub fn most(&self) -> usize {
        self.most
    }

    /// The timeout of a poll.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// A poll for so many upstreams had no answer in time: the answer may have been too large, or the timeout too short.
    pub fn timed_out(&mut self, asked: usize) {
        self.most = (asked / 2).max(1);
        self.wait = (2 * self.wait).min(MAX_WAIT);
        self.quick = 0;
    }

    /// A poll was answered within so many seconds; `all` is the number of upstreams that there are to ask for.
    pub fn answered(&mut self, took_s: f64, all: usize) {
        let is_quick = took_s <= QUICK * self.wait.as_secs_f64();
        self.quick = if is_quick { self.quick + 1 } else { 0 };
        if self.quick < QUICK_IN_A_ROW {
            return;
        }
        self.quick = 0;
        if self.most < all {
            self.most *= 2;
        } else {
            self.most = usize::MAX;
            self.wait = (self.wait / 2).max(self.usual);
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const ALL: usize = 64;

    /// A thousand polls of an Envoy that takes `takes_s(upstreams)`; the number of those that timed out.
    fn timed_out(pace: &mut Pace, takes_s: impl Fn(usize) -> f64) -> u32 {
        let mut late = 0;
        for _ in 0..1000 {
            let asked = pace.most().min(ALL);
            let took_s = takes_s(asked);
            if took_s > pace.wait().as_secs_f64() {
                pace.timed_out(asked);
                late += 1;
            } else {
                pace.answered(took_s, ALL);
            }
        }
        late
    }

    #[test]
    fn what_was_given_up_comes_back_by_degrees() {
        let mut pace = Pace::at(Duration::from_secs(5));
        assert_eq!((pace.most(), pace.wait()), (usize::MAX, FIRST_WAIT));
        (0..7).for_each(|_| pace.timed_out(pace.most().min(ALL)));
        assert_eq!((pace.most(), pace.wait()), (1, MAX_WAIT));
        let mut steps = Vec::new();
        for _ in 0..33 {
            pace.answered(0.01, ALL);
            steps.push((pace.most().min(ALL), pace.wait().as_secs()));
        }
        steps.dedup();
        let expected = [
            (1, 32),
            (2, 32),
            (4, 32),
            (8, 32),
            (16, 32),
            (32, 32),
            (64, 32),
            (64, 16),
            (64, 8),
            (64, 4),
            (64, 2),
        ];
        assert_eq!(steps, expected);
        assert_eq!(pace.most(), usize::MAX, "also those that come later");
        // One that is not quick begins anew.
        pace.timed_out(ALL);
        [0.01, 0.01, 1.0, 0.01, 0.01].into_iter().for_each(|took_s| pace.answered(took_s, ALL));
        assert_eq!((pace.most(), pace.wait().as_secs()), (32, 4));
        pace.answered(0.01, ALL);
        assert_eq!((pace.most(), pace.wait().as_secs()), (64, 4));
    }

    #[test]
    fn a_slow_envoy_is_not_tried_again_and_again() {
        for each_s in [0.01, 0.03, 0.1, 0.3, 0.6, 2.0, 5.0, 20.0] {
            let mut pace = Pace::at(Duration::from_secs(5));
            let late = timed_out(&mut pace, |upstreams| each_s * upstreams as f64);
            assert!(late <= 6, "{each_s} s each: {late}");
            // Before 1.38 it writes everything, whatever it is asked for.
            let mut pace = Pace::at(Duration::from_secs(5));
            let late = timed_out(&mut pace, |_| each_s);
            assert!(late <= 6, "{each_s} s: {late}");
        }
    }

    #[test]
    fn a_timeout_is_within_the_interval() {
        let mut pace = Pace::at(Duration::from_millis(200));
        assert_eq!(pace.wait(), Duration::from_millis(100));
        pace.timed_out(1);
        pace.reset_wait(Duration::from_millis(300));
        assert_eq!(pace.wait(), Duration::from_millis(150));
        (0..9).for_each(|_| pace.answered(0.0, 1));
        assert_eq!(pace.wait(), Duration::from_millis(150));
    }
}
