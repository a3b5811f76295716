//! The share of an endpoint's answers that are failures, over about its last twenty.

use crate::time::Time;

/// Weight of the newest answer once enough have been seen.
const STEP: f32 = 0.05;

/// Time constant with which unconfirmed failures are forgotten, seconds.
const MEMORY_S: f64 = 10.0;

/// An exponentially weighted failure ratio; a success when nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ErrorRatio(f32);

impl ErrorRatio {
    /// Takes an answer into account.
    pub fn observe(&mut self, failed: bool) {
        self.0 += STEP * (f32::from(u8::from(failed)) - self.0);
    }

    /// Lets `seconds` pass: what is not confirmed is half forgotten after seven seconds.
    pub fn fade(&mut self, seconds: f64) {
        if self.0 > 0.0 {
            self.0 *= (1.0 - seconds / MEMORY_S).max(0.0) as f32;
        }
    }

    /// Forgets the failures: the endpoint has proven itself since.
    pub fn forgive(&mut self) {
        self.0 = 0.0;
    }

    /// The standard deviation of the estimate where the true ratio is `ratio`: √(p(1−p)·s/(2−s)) for step s.
    pub fn spread(ratio: f64) -> f64 {
        let step = f64::from(STEP);
        (ratio * (1.0 - ratio) * step / (2.0 - step)).max(0.0).sqrt()
    }

    /// The ratio, 0..=1.
    pub fn ratio(&self) -> f64 {
        f64::from(self.0)
    }
}

/// Answers that are taken for good before any has come: one failure alone is no ratio.
const TAKEN_FOR_GOOD: f32 = 5.0;
/// The weight of what has been seen, once that is enough: as many answers as the newest is a part of.
const ENOUGH: f32 = 1.0 / STEP;
/// After a silence of so many times the usual pause between answers, and not before [`MEMORY_S`], failures fade.
const UNUSUAL: f64 = 4.0;
/// A pause counts as no longer than this, seconds.
const MAX_PAUSE_S: f64 = 60.0;

/// The share of failures among the latest answers however seldom they come, for those that set thresholds on it:
/// what has been seen, and not what has faded since. It fades once the endpoint is silent for unusually long, so
/// that an endpoint that is taken out for it is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Failing {
    seen: f32,
    failed: f32,
    pause_s: f32,
    last: Time,
}

impl Failing {
    /// Takes an answer into account.
    pub fn observe(&mut self, failed: bool, now: Time) {
        let kept = self.kept(now);
        if self.last != Time::ZERO {
            let pause_s = now.seconds_since(self.last).min(MAX_PAUSE_S) as f32;
            self.pause_s += (pause_s - self.pause_s) / 4.0;
        }
        self.seen = self.seen * kept * (1.0 - STEP) + 1.0;
        self.failed = self.failed * kept * (1.0 - STEP) + f32::from(u8::from(failed));
        self.last = self.last.max(now);
    }

    /// The ratio, 0..=1.
    pub fn ratio(&self, now: Time) -> f64 {
        let kept = self.kept(now);
        let (seen, failed) = (self.seen * kept, self.failed * kept);
        let assumed = TAKEN_FOR_GOOD * (1.0 - seen / ENOUGH).max(0.0);
        f64::from(failed / (seen + assumed).max(1.0)).clamp(0.0, 1.0)
    }

    /// The clock stepped back to `now`.
    pub fn not_after(&mut self, now: Time) {
        self.last = self.last.min(now);
    }

    /// What the silence leaves of what has been seen.
    fn kept(&self, now: Time) -> f32 {
        let usual = (UNUSUAL * f64::from(self.pause_s)).max(MEMORY_S);
        let beyond = (now.seconds_since(self.last) - usual).max(0.0);
        (-beyond / MEMORY_S).exp() as f32
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn approaches_the_true_ratio() {
        let mut errors = ErrorRatio::default();
        let mut sum = 0.0;
        for i in 0..2000 {
            errors.observe(i % 4 == 0);
            sum += errors.ratio();
        }
        assert!((sum / 2000.0 - 0.25).abs() < 0.02);
        errors.forgive();
        assert_eq!(errors.ratio(), 0.0);
    }

    #[test]
    fn what_always_fails_reads_so_however_seldom_it_is_asked() {
        for pause_s in [0.001, 1.0, 10.0, 60.0] {
            let mut failing = Failing::default();
            let at = |n: u32| Time::from_secs_f64(1e9 + pause_s * f64::from(n));
            failing.observe(true, at(0));
            assert!(failing.ratio(at(0)) < 0.2, "one answer is no ratio: {}", failing.ratio(at(0)));
            (1..10).for_each(|n| failing.observe(true, at(n)));
            assert!(failing.ratio(at(9)) > 0.7, "{pause_s}: {}", failing.ratio(at(9)));
            (10..60).for_each(|n| failing.observe(true, at(n)));
            assert!(failing.ratio(at(59)) > 0.95, "{pause_s}: {}", failing.ratio(at(59)));
            (60..120).for_each(|n| failing.observe(n % 2 == 0, at(n)));
            assert!((0.4..0.6).contains(&failing.ratio(at(119))), "{pause_s}: {}", failing.ratio(at(119)));
        }
    }

    #[test]
    fn an_unusual_silence_lets_failures_fade() {
        let mut failing = Failing::default();
        let at = |s: f64| Time::from_secs_f64(1e9 + s);
        (0..100).for_each(|n| failing.observe(true, at(f64::from(n) * 0.1)));
        assert!(failing.ratio(at(15.0)) > 0.95);
        assert!(failing.ratio(at(60.0)) < 0.2, "{}", failing.ratio(at(60.0)));
    }
}
