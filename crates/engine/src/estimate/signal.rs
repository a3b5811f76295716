//! One signal value of one endpoint: smoothed, and trusted less as it ages.

use super::standing::Standing;
use crate::time::Time;

/// Upper bound of the time between changes, seconds: a value that stays longer says nothing about the update interval.
pub const MAX_NEWS_S: f64 = 30.0;
/// Upper bound of absolute values, so that sums and ratios cannot overflow.
const MAX_VALUE: f64 = 1e100;
/// Weight of a longer time between changes.
const NEWS_STEP: f32 = 0.25;

/// A smoothed value with its age; unknown until the first finite sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    value: f64,
    latest: f64,
    at: Time,
    changed: Time,
    news_s: f32,
    /// Whether it is a queue that stands.
    pub standing: Standing,
}

impl Reading {
    /// Records a sample observed at `at`. Ignores samples that are not finite or not newer than the last. After a
    /// silence of `memory_s` seconds smoothing starts anew.
    pub fn observe(&mut self, sample: f64, at: Time, smoothing: f64, memory_s: f64) {
        if !sample.is_finite() || at <= self.at {
            return;
        }
        let sample = sample.clamp(-MAX_VALUE, MAX_VALUE);
        let fresh = self.at == Time::ZERO || at.seconds_since(self.at) > memory_s;
        self.value = if fresh { sample } else { self.value + smoothing * (sample - self.value) };
        if fresh || sample != self.latest {
            self.news(at);
        }
        self.latest = sample;
        self.at = at;
    }

    /// Caps timestamps at `now` after the clock stepped back.
    pub fn not_after(&mut self, now: Time) {
        self.at = self.at.min(now);
        self.changed = self.changed.min(now);
        self.standing.not_after(now);
    }

    /// The smoothed value and its age in seconds, if there is one.
    pub fn get(&self, now: Time) -> Option<(f64, f64)> {
        (self.at != Time::ZERO).then(|| (self.value, now.seconds_since(self.at)))
    }

    /// The latest sample.
    pub fn latest(&self) -> f64 {
        self.latest
    }

    /// Records a change of the value. A shorter time between changes is adopted at once, a longer one gradually,
    /// because a value may also stay the same.
    fn news(&mut self, at: Time) {
        if self.changed != Time::ZERO {
            let since = at.seconds_since(self.changed).min(MAX_NEWS_S) as f32;
            let longer = (since - self.news_s).max(0.0);
            self.news_s = since.min(self.news_s) + NEWS_STEP * longer;
        }
        self.changed = at;
    }

    /// Approximate time between changes of the value, seconds: polls may be more frequent than updates at the source.
    pub fn news_s(&self) -> f64 {
        f64::from(self.news_s)
    }

    /// The value to act on: the latest sample if it is higher than the smoothed value. Holding traffic back from an
    /// endpoint that is no longer loaded costs little; feeding one that fills up costs refused requests.
    pub fn burden(&self) -> f64 {
        self.value.max(self.latest)
    }

    /// Confidence in the value: 1 up to an age of `fresh_s`, then falling to 0 at three times that.
    pub fn confidence(&self, now: Time, fresh_s: f64) -> f64 {
        match self.get(now) {
            Some((_, age)) => (1.0 - (age - fresh_s) / (2.0 * fresh_s)).clamp(0.0, 1.0),
            None => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn s(seconds: u64) -> Time {
        Time(seconds * 1_000_000_000)
    }

    #[test]
    fn smooths_and_ignores_what_is_no_number() {
        let mut reading = Reading::default();
        reading.observe(f64::NAN, s(1), 0.5, 15.0);
        assert_eq!(reading.get(s(2)), None);
        reading.observe(10.0, s(1), 0.5, 15.0);
        reading.observe(20.0, s(2), 0.5, 15.0);
        reading.observe(f64::INFINITY, s(3), 0.5, 15.0);
        assert_eq!(reading.get(s(4)), Some((15.0, 2.0)));
        assert_eq!(reading.burden(), 20.0);
        reading.observe(5.0, s(4), 0.5, 15.0);
        assert_eq!(reading.burden(), 10.0);
    }

    #[test]
    fn a_value_stays_a_number() {
        let mut reading = Reading::default();
        for (second, sample) in [-1e308, 1e308, 1e308, -1e308, f64::MAX, f64::MIN].into_iter().enumerate() {
            reading.observe(sample, s(1 + second as u64), 1.0, 15.0);
            assert!(reading.burden().is_finite() && (reading.burden() * 1e100).is_finite(), "{reading:?}");
        }
    }

    #[test]
    fn news_come_when_the_value_changes_not_with_every_poll() {
        let mut reading = Reading::default();
        (0..40u64).for_each(|poll| reading.observe((poll / 3) as f64, s(1 + 5 * poll), 1.0, 45.0));
        assert!((14.0..=15.0).contains(&reading.news_s()), "{}", reading.news_s());
        reading.observe(99.0, s(202), 1.0, 45.0);
        assert!(reading.news_s() < 10.0);
    }

    #[test]
    fn confidence_fades_to_nothing() {
        let mut reading = Reading::default();
        assert_eq!(reading.confidence(s(1), 5.0), 0.0);
        reading.observe(1.0, s(10), 1.0, 15.0);
        assert_eq!(reading.confidence(s(14), 5.0), 1.0);
        assert_eq!(reading.confidence(s(20), 5.0), 0.5);
        assert_eq!(reading.confidence(s(30), 5.0), 0.0);
    }

    #[test]
    fn after_a_long_silence_the_past_does_not_count() {
        let mut reading = Reading::default();
        reading.observe(100.0, s(1), 0.1, 15.0);
        reading.observe(0.0, s(60), 0.1, 15.0);
        assert_eq!(reading.get(s(60)), Some((0.0, 0.0)));
    }
}
