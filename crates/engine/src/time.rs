//! Time as a number that callers pass in: nothing here reads a clock.

use core::time::Duration;

/// Nanoseconds since an arbitrary epoch; all workers of one process share it.
///
/// The host's clock is a wall clock and may step back, so every difference saturates at zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

/// Maximum difference between two threads' readings of one clock, seconds, however long one of them was delayed in
/// between.
const SKEW_S: f64 = 1.0;

impl Time {
    /// The epoch itself; older than anything observed.
    pub const ZERO: Time = Time(0);

    /// The time `seconds` after the epoch; negative and NaN count as the epoch.
    pub fn from_secs_f64(seconds: f64) -> Time {
        Time((seconds * 1e9) as u64)
    }

    /// Seconds from `earlier` to this time, zero if `earlier` is later.
    pub fn seconds_since(self, earlier: Time) -> f64 {
        self.0.saturating_sub(earlier.0) as f64 * 1e-9
    }

    /// Whether this time, read by another thread, is so far ahead of `now` that it was read before the clock stepped
    /// back.
    pub fn from_the_future(self, now: Time) -> bool {
        self.seconds_since(now) > SKEW_S
    }

    /// This time plus `duration`.
    pub fn after(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// This time minus `seconds`, at least the epoch; negative and NaN do not change it.
    pub fn before_secs(self, seconds: f64) -> Time {
        Time(self.0.saturating_sub((seconds * 1e9) as u64))
    }

    /// This time plus `seconds`; negative and NaN do not change it.
    pub fn after_secs(self, seconds: f64) -> Time {
        Time(self.0.saturating_add((seconds * 1e9) as u64))
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_clock_that_steps_back_reads_as_no_time_at_all() {
        assert_eq!(Time(5).seconds_since(Time(9)), 0.0);
        assert_eq!(Time(3_000_000_000).seconds_since(Time(1_000_000_000)), 2.0);
    }

    #[test]
    fn nonsense_seconds_do_not_move_time() {
        let now = Time(7);
        assert_eq!(now.after_secs(f64::NAN), now);
        assert_eq!(now.after_secs(-1.0), now);
        assert_eq!(now.after_secs(f64::INFINITY), Time(u64::MAX));
    }
}
