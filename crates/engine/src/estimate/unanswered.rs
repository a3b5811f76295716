//! What an endpoint owes: answers to requests that were sent after its last sign of life.
//!
//! A request whose headers come late by nature, such as a long poll, says nothing as long as others are answered. Several that
//! were sent since, and no answer to any, say that the endpoint hangs.

use crate::time::Time;

/// Requests since the last answer of one endpoint, as one worker has sent them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unanswered {
    requests: u16,
    looks: u8,
    /// When the first of them was sent: milliseconds, modulo 49 days.
    since_ms: u32,
}

/// Milliseconds, modulo 49 days.
fn clock_ms(now: Time) -> u32 {
    (now.0 / 1_000_000) as u32
}

impl Unanswered {
    /// A request was sent at `now`; `looking` if only to see whether it still hangs.
    pub fn sent(&mut self, looking: bool, now: Time) {
        if self.requests == 0 {
            self.since_ms = clock_ms(now);
        }
        self.requests = self.requests.saturating_add(1);
        self.looks = self.looks.saturating_add(looking.into());
    }

    /// An answer came.
    pub fn clear(&mut self) {
        *self = Unanswered::default();
    }

    /// One of the requests ended without an answer.
    pub fn lost(&mut self) {
        self.requests = self.requests.saturating_sub(1);
    }

    /// For how long the first of them waits, seconds: an answer can be owed only from then on, however long ago the last
    /// one came.
    pub fn waited_s(&self, now: Time) -> f64 {
        if self.requests == 0 {
            return 0.0;
        }
        // A clock that steps back has not waited.
        let waited_ms = clock_ms(now).wrapping_sub(self.since_ms) as i32;
        f64::from(waited_ms.max(0)) / 1e3
    }

    /// How many requests wait since.
    pub fn requests(&self) -> u16 {
        self.requests
    }

    /// How many were sent only to see whether it still hangs.
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
        owed.clear();
        owed.lost();
        assert_eq!(owed, Unanswered::default());
        (0..100_000).for_each(|_| owed.sent(true, at(30.0)));
        assert_eq!((owed.requests(), owed.looks()), (u16::MAX, u8::MAX));
    }
}
