//! Requests that an endpoint has not answered, sent after its last answer.
//!
//! A request whose headers come late by nature, such as a long poll, says nothing as long as others are answered. If
//! several have been sent since the last answer and none was answered, the endpoint hangs.

use crate::time::{LostTime, Time};

/// One worker's requests to one endpoint since its last answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unanswered {
    requests: u16,
    looks: u8,
    /// When the first of them was sent, milliseconds modulo 49 days.
    since_ms: u32,
}

/// The time in milliseconds modulo 49 days.
fn clock_ms(now: Time) -> u32 {
    (now.0 / 1_000_000) as u32
}

impl Unanswered {
    /// Records a request sent at `now`; `looking` if it is a probe of a stalled endpoint.
    pub fn sent(&mut self, looking: bool, now: Time) {
        if self.requests == 0 {
            self.since_ms = clock_ms(now);
        }
        self.requests = self.requests.saturating_add(1);
        self.looks = self.looks.saturating_add(looking.into());
    }

    /// Clears all of them after an answer.
    pub fn clear(&mut self) {
        *self = Unanswered::default();
    }

    /// Removes a request that ended without an answer.
    pub fn lost(&mut self) {
        self.requests = self.requests.saturating_sub(1);
    }

    /// Counts the probes anew: nothing waits any more, so the endpoint's silence does, too.
    pub fn restart_looks(&mut self) {
        self.looks = 0;
    }

    /// Caps timestamps at `now` after the clock stepped back.
    pub fn not_after(&mut self, now: Time) {
        if (clock_ms(now).wrapping_sub(self.since_ms) as i32) < 0 {
            self.since_ms = clock_ms(now);
        }
    }

    /// A lost time was not waited for.
    pub fn lose_time(&mut self, lost: LostTime) {
        self.since_ms = self.since_ms.wrapping_add((lost.seconds() * 1e3) as u64 as u32);
    }

    /// Time since the first of them was sent, seconds: only from then on could an answer be due, however long ago the
    /// last one came.
    pub fn waited_s(&self, now: Time) -> f64 {
        if self.requests == 0 {
            return 0.0;
        }
        // The difference is negative if the clock stepped back.
        let waited_ms = clock_ms(now).wrapping_sub(self.since_ms) as i32;
        f64::from(waited_ms.max(0)) / 1e3
    }

    /// Number of requests since the last answer.
    pub fn requests(&self) -> u16 {
        self.requests
    }

    /// Number of probes among them.
    pub fn looks(&self) -> u8 {
        self.looks
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn counts_what_was_sent_since_the_last_answer() {
        let mut owed = Unanswered::default();
        let at = |s: f64| Time::from_secs_f64(4_294_960.0 + s);
        (0..3u32).for_each(|n| owed.sent(false, at(f64::from(n))));
        owed.sent(true, at(3.0));
        owed.lost();
        assert_eq!((owed.requests(), owed.looks()), (3, 1));
        assert!((owed.waited_s(at(20.0)) - 20.0).abs() < 2e-3, "the count of milliseconds wraps in between");
        assert_eq!(owed.waited_s(at(-5.0)), 0.0, "the clock stepped back");
        owed.not_after(at(-5.0));
        assert!((owed.waited_s(at(1.0)) - 6.0).abs() < 2e-3, "and goes on from there");
        owed.clear();
        owed.lost();
        assert_eq!(owed, Unanswered::default());
        (0..100_000).for_each(|_| owed.sent(true, at(30.0)));
        assert_eq!((owed.requests(), owed.looks()), (u16::MAX, u8::MAX));
    }
}
