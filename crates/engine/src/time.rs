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

/// Time in which nothing was waited for: the clock was set forward, or the process was stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LostTime {
    /// Where it begins.
    pub from: Time,
    /// Where it ends.
    pub to: Time,
}

impl LostTime {
    /// Its length, seconds.
    pub fn seconds(self) -> f64 {
        self.to.seconds_since(self.from)
    }

    /// Seconds between `started` and `now` that were not lost.
    pub fn elapsed_s(self, started: Time, now: Time) -> f64 {
        let all_s = now.seconds_since(started);
        if started >= self.to {
            return all_s;
        }
        (all_s - self.to.min(now).seconds_since(self.from.max(started))).max(0.0)
    }

    /// A time before it, moved so that what has passed since then does not count it; [`Time::ZERO`], which stands for
    /// never, stays.
    pub fn shift(self, time: Time) -> Time {
        if time == Time::ZERO { time } else { time.after_secs(self.seconds()).min(self.to) }
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

    #[test]
    fn what_is_lost_is_not_counted_and_nothing_else() {
        let s = |seconds: f64| Time::from_secs_f64(1000.0 + seconds);
        let lost = LostTime { from: s(10.0), to: s(3610.0) };
        for (started, now, elapsed_s) in [
            (0.0, 5.0, 5.0),
            (9.0, 3611.0, 2.0),
            (10.0, 3610.0, 0.0),
            (100.0, 3611.0, 1.0),
            (3610.0, 3615.0, 5.0),
            (4000.0, 4003.0, 3.0),
            (9.0, 100.0, 1.0),
            (5.0, 3.0, 0.0),
        ] {
            let elapsed = lost.elapsed_s(s(started), s(now));
            assert!((elapsed - elapsed_s).abs() < 1e-6, "{started}..{now}: {elapsed}");
        }
        assert!((LostTime::default().elapsed_s(s(1.0), s(3.0)) - 2.0).abs() < 1e-6);
    }

    #[test]
    fn what_was_before_a_lost_time_is_as_young_as_it_was() {
        let lost = LostTime { from: Time(2_000_000_000), to: Time(9_000_000_000) };
        assert_eq!(lost.shift(Time(1_000_000_000)), Time(8_000_000_000));
        assert_eq!(lost.shift(Time(5_000_000_000)), lost.to, "noted within it");
        assert_eq!(lost.shift(Time::ZERO), Time::ZERO, "never");
    }
}
