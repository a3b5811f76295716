//! Failure ratio of an endpoint over about its last twenty answers.

use crate::time::Time;

/// Weight of the newest answer once there are enough.
const STEP: f32 = 0.05;

/// Time constant with which failures decay without new answers, seconds.
const MEMORY_S: f64 = 10.0;

/// Exponentially weighted failure ratio; 0 when nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ErrorRatio(f32);

impl ErrorRatio {
    /// Records an answer.
    pub fn observe(&mut self, failed: bool) {
        self.0 += STEP * (f32::from(u8::from(failed)) - self.0);
    }

    /// Decays the ratio by `seconds`; its half-life is seven seconds.
    pub fn fade(&mut self, seconds: f64) {
        if self.0 > 0.0 {
            self.0 *= (1.0 - seconds / MEMORY_S).max(0.0) as f32;
        }
    }

    /// Resets the ratio after the endpoint has proven itself.
    pub fn forgive(&mut self) {
        self.0 = 0.0;
    }

    /// Standard deviation of the estimate for a true ratio of `ratio`: √(p(1−p)·s/(2−s)) for step s.
    pub fn spread(ratio: f64) -> f64 {
        let step = f64::from(STEP);
        (ratio * (1.0 - ratio) * step / (2.0 - step)).max(0.0).sqrt()
    }

    /// The ratio, 0..=1.
    pub fn ratio(&self) -> f64 {
        f64::from(self.0)
    }
}

/// Number of good answers assumed at first, so that a single failure does not make a high ratio.
const TAKEN_FOR_GOOD: f32 = 5.0;
/// Weight of the answers seen at which none are assumed any more, the inverse of [`STEP`].
const ENOUGH: f32 = 1.0 / STEP;
/// Silence after which failures decay, in multiples of the usual pause between answers, and at least [`MEMORY_S`].
const UNUSUAL: f64 = 4.0;
/// Upper bound of a pause, seconds.
const MAX_PAUSE_S: f64 = 60.0;
/// Factor on the counts with each answer of an endpoint that is out of traffic for its ratio: ten good answers in a row take
/// it from failing always to one in ten.
const KEPT_OUT: f32 = 0.75;

/// Failure ratio among the latest answers for thresholds, regardless of how rare answers are: it does not decay between
/// them. It decays once the endpoint has been silent for unusually long, so that one that was ejected by a threshold is
/// tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Failing {
    seen: f32,
    failed: f32,
    pause_s: f32,
    last: Time,
}

impl Failing {
    /// Records an answer. If the endpoint is `out` of traffic for its ratio, this is a look at what it does now: the older an
    /// answer the less it says.
    pub fn observe(&mut self, failed: bool, out: bool, now: Time) {
        let kept = self.kept(now) * if out { KEPT_OUT } else { 1.0 };
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

    /// Caps timestamps at `now` after the clock stepped back.
    pub fn not_after(&mut self, now: Time) {
        self.last = self.last.min(now);
    }

    /// Factor on the counts after the silence since the last answer.
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
            failing.observe(true, false, at(0));
            assert!(failing.ratio(at(0)) < 0.2, "one answer is no ratio: {}", failing.ratio(at(0)));
            (1..10).for_each(|n| failing.observe(true, false, at(n)));
            assert!(failing.ratio(at(9)) > 0.7, "{pause_s}: {}", failing.ratio(at(9)));
            (10..60).for_each(|n| failing.observe(true, false, at(n)));
            assert!(failing.ratio(at(59)) > 0.95, "{pause_s}: {}", failing.ratio(at(59)));
            (60..120).for_each(|n| failing.observe(n % 2 == 0, false, at(n)));
            assert!((0.4..0.6).contains(&failing.ratio(at(119))), "{pause_s}: {}", failing.ratio(at(119)));
        }
    }

    #[test]
    fn an_unusual_silence_lets_failures_fade() {
        let mut failing = Failing::default();
        let at = |s: f64| Time::from_secs_f64(1e9 + s);
        (0..100).for_each(|n| failing.observe(true, false, at(f64::from(n) * 0.1)));
        assert!(failing.ratio(at(15.0)) > 0.95);
        assert!(failing.ratio(at(60.0)) < 0.2, "{}", failing.ratio(at(60.0)));
    }

    /// What it answers while it is out of traffic is what counts, whatever it answered before.
    #[test]
    fn one_that_is_out_is_back_after_some_good_answers() {
        for out in [false, true] {
            let mut failing = Failing::default();
            let at = |n: u32| Time::from_secs_f64(1e9 + f64::from(n));
            (0..100).for_each(|n| failing.observe(true, false, at(n)));
            let mut well = |n: &u32| {
                failing.observe(false, out, at(100 + n));
                failing.ratio(at(100 + n)) < 0.1
            };
            let back = (1..100).find(&mut well);
            let most = if out { 8..=14 } else { 30..=60 };
            assert!(back.is_some_and(|back| most.contains(&back)), "{back:?}");
            failing.observe(true, out, at(200));
            assert!(failing.ratio(at(200)) > 0.1 || !out, "one of a few");
        }
    }
}
