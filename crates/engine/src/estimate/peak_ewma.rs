//! Peak EWMA: a moving average of latency that follows a rise at once and a fall slowly, as in Finagle and linkerd.
//!
//! A sample above the average replaces it; one below moves it by 1 − e^(−Δt/τ), where Δt is the time since the previous
//! sample and τ = 10 s. Without samples it decays with the same τ, so that no endpoint is held to a peak for ever.

use crate::time::Time;

/// linkerd's default decay, seconds.
const DECAY_S: f64 = 10.0;

/// One worker's peak EWMA of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PeakEwma {
    /// The average in seconds; zero before the first sample.
    average: f32,
    updated: Time,
}

impl PeakEwma {
    /// Records a sample in seconds; ignores NaN and negative values.
    pub fn observe(&mut self, seconds: f64, now: Time) {
        if seconds.is_nan() || seconds < 0.0 {
            return;
        }
        let (sample, average) = (seconds as f32, self.average);
        let old = kept(now, self.updated);
        self.average = if sample > average { sample } else { average * old + sample * (1.0 - old) };
        self.updated = now;
    }

    /// Records a request that ended without an answer after `seconds`, a lower bound of the latency, regardless of how
    /// far the average has decayed.
    pub fn observe_at_least(&mut self, seconds: f64, now: Time) {
        let sample = seconds as f32;
        if sample >= self.estimate(now).unwrap_or(0.0) {
            (self.average, self.updated) = (sample, now);
        }
    }

    /// The average in seconds as of `now`, if there has been a sample.
    pub fn estimate(&self, now: Time) -> Option<f32> {
        (self.average > 0.0).then(|| self.average * kept(now, self.updated))
    }

    /// Caps timestamps at `now` after the clock stepped back.
    pub fn not_after(&mut self, now: Time) {
        self.updated = self.updated.min(now);
    }
}

fn kept(now: Time, then: Time) -> f32 {
    (-now.seconds_since(then) / DECAY_S).exp() as f32
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn at(seconds: f64) -> Time {
        Time::from_secs_f64(1000.0 + seconds)
    }

    #[test]
    fn a_rise_counts_at_once_and_a_fall_by_the_time_that_passed() {
        let mut peak = PeakEwma::default();
        assert_eq!(peak.estimate(at(0.0)), None);
        peak.observe(0.1, at(0.0));
        peak.observe(1.1, at(1.0));
        assert_eq!(peak.estimate(at(1.0)), Some(1.1));
        // After one time constant 1/e of the distance is left.
        peak.observe(0.1, at(11.0));
        let left = peak.estimate(at(11.0)).unwrap() - 0.1;
        assert!((left - (-1.0f32).exp()).abs() < 1e-3, "{left}");
    }

    #[test]
    fn silence_forgets_and_nonsense_changes_nothing() {
        let mut peak = PeakEwma::default();
        peak.observe(1.0, at(0.0));
        peak.observe(f64::NAN, at(1.0));
        peak.observe(-1.0, at(1.0));
        peak.observe_at_least(0.5, at(1.0));
        assert_eq!(peak.estimate(at(0.0)), Some(1.0));
        assert!(peak.estimate(at(100.0)).unwrap() < 1e-4);
        peak.not_after(at(-50.0));
        assert!(peak.estimate(at(-40.0)).unwrap() < 0.4, "a clock that stepped back does not stop the decay");
    }

    #[test]
    fn repeated_timeouts_stay_expensive() {
        let mut peak = PeakEwma::default();
        for time_out in 0..20 {
            let now = at(3.0 * f64::from(time_out));
            peak.observe_at_least(3.0, now);
            assert_eq!(peak.estimate(now), Some(3.0));
        }
        peak.observe_at_least(1.0, at(58.0));
        assert!(peak.estimate(at(58.0)).unwrap() > 2.0, "less than is known says nothing");
        peak.observe_at_least(f64::NAN, at(59.0));
        peak.observe_at_least(2.9, at(70.0));
        assert_eq!(peak.estimate(at(70.0)), Some(2.9), "more than is left of what was known");
    }
}
