//! Learnt weight of a signal: how much of its configured weight it deserves by its quality.
//!
//! w ← (1 − α)·w + α·(0.7·accuracy + 0.3·(1 − delay)), clamped to 0.1..=1. Accuracy is the fraction of the fleet for
//! which an answer has a usable value, delay how late it came. A signal that is often missing or late loses most of its
//! weight, but never all, so that it can recover.

use crate::time::Time;

/// Step of the moving average per answer, α.
const ALPHA: f64 = 0.1;
/// Part of the accuracy in the quality; the rest is timeliness.
const ACCURACY_SHARE: f64 = 0.7;
/// Range of the weight.
const RANGE: [f64; 2] = [0.1, 1.0];

/// A weight that follows the signal's quality; 1 at first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearntWeight {
    weight: f64,
    at: Time,
}

impl Default for LearntWeight {
    fn default() -> LearntWeight {
        LearntWeight { weight: 1.0, at: Time::ZERO }
    }
}

impl LearntWeight {
    /// Records an answer, observed at `at`, with a usable value for the fraction `accuracy` (0..=1) of the fleet;
    /// answers are expected every `interval_s` seconds. An answer that was already recorded is ignored.
    pub fn observe(&mut self, accuracy: f64, at: Time, interval_s: f64) {
        if at <= self.at {
            return;
        }
        let late = match self.at {
            Time::ZERO => 0.0,
            before => (at.seconds_since(before) / interval_s - 1.0).clamp(0.0, 1.0),
        };
        let quality = ACCURACY_SHARE * accuracy.clamp(0.0, 1.0) + (1.0 - ACCURACY_SHARE) * (1.0 - late);
        self.weight = (self.weight + ALPHA * (quality - self.weight)).clamp(RANGE[0], RANGE[1]);
        self.at = at;
    }

    /// Caps timestamps at `now` after the clock stepped back.
    pub fn not_after(&mut self, now: Time) {
        self.at = self.at.min(now);
    }

    /// Factor on the configured weight, 0.1..=1.
    pub fn get(&self) -> f64 {
        self.weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn after(answers: u64, accuracy: f64, every_s: u64) -> f64 {
        let mut learnt = LearntWeight::default();
        (1..=answers).for_each(|n| learnt.observe(accuracy, Time(n * every_s * 1_000_000_000), 5.0));
        learnt.get()
    }

    #[test]
    fn follows_the_formula() {
        assert!((after(1, 0.5, 5) - (0.9 + 0.1 * 0.65)).abs() < 1e-12);
        assert!((after(200, 1.0, 5) - 1.0).abs() < 1e-9);
        assert!((after(200, 0.5, 5) - 0.65).abs() < 1e-6);
    }

    #[test]
    fn late_and_empty_answers_lower_the_learnt_weight() {
        assert_eq!(after(500, 0.0, 60), 0.1);
        let mut learnt = LearntWeight::default();
        learnt.observe(0.0, Time(7), 5.0);
        let once = learnt.get();
        learnt.observe(0.0, Time(7), 5.0);
        assert_eq!(learnt.get(), once, "the same answer again");
    }
}
