//! One PromQL signal of one endpoint: smoothed, and forgotten as it grows old.

use super::standing::Standing;
use crate::time::Time;

/// A value that rests longer than this tells nothing about how often there are news, seconds.
pub const MAX_NEWS_S: f64 = 30.0;
/// Larger values count as this one: with it and with the least of the others can be reckoned without an overflow.
const MAX_VALUE: f64 = 1e100;
/// Weight of a longer time between changes.
const NEWS_STEP: f32 = 0.25;

/// A smoothed value with its age. Unknown until the first finite sample.
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
    /// Takes a sample observed at `at`. Samples that are not finite or not newer than the last are ignored.
    /// After a silence of `memory_s` seconds the past no longer counts.
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

    /// The clock stepped back to `now`.
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

    /// The value changed. A shorter time between changes is believed at once; a longer one by and by, because
    /// a value may also rest.
    fn news(&mut self, at: Time) {
        if self.changed != Time::ZERO {
            let since = at.seconds_since(self.changed).min(MAX_NEWS_S) as f32;
            let longer = (since - self.news_s).max(0.0);
            self.news_s = since.min(self.news_s) + NEWS_STEP * longer;
        }
        self.changed = at;
    }

    /// Seconds from one change of the value to the next, about: polls may come more often than news.
    pub fn news_s(&self) -> f64 {
        f64::from(self.news_s)
    }

    /// What to act on: a rise is believed at once, a fall as far as it is smoothed. Holding back from an
    /// endpoint that is no longer loaded costs little; feeding one that fills up costs refusals.
    pub fn burden(&self) -> f64 {
        self.value.max(self.latest)
    }

    /// How far the value may still be believed: 1 up to `fresh_s`, then falling to 0 at three times that.
    pub fn trust(&self, now: Time, fresh_s: f64) -> f64 {
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
    fn trust_fades_to_nothing() {
        let mut reading = Reading::default();
        assert_eq!(reading.trust(s(1), 5.0), 0.0);
        reading.observe(1.0, s(10), 1.0, 15.0);
        assert_eq!(reading.trust(s(14), 5.0), 1.0);
        assert_eq!(reading.trust(s(20), 5.0), 0.5);
        assert_eq!(reading.trust(s(30), 5.0), 0.0);
    }

    #[test]
    fn after_a_long_silence_the_past_does_not_count() {
        let mut reading = Reading::default();
        reading.observe(100.0, s(1), 0.1, 15.0);
        reading.observe(0.0, s(60), 0.1, 15.0);
        assert_eq!(reading.get(s(60)), Some((0.0, 0.0)));
    }
}
