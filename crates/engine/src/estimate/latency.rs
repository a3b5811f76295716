//! Latency of an endpoint to response headers: a robust estimate of the mean logarithm.
//!
//! Latencies are roughly log-normal, so the estimate is kept in the log domain and each sample moves it by a clipped
//! step (Huber, "Robust estimation of a location parameter", 1964): one request that is twenty times heavier than the
//! rest moves it no further than one that is twice as slow. Where the cluster's answers vary more, so does what is
//! clipped. A change test makes up for the slowness of clipped steps: several samples in a row beyond the clip on the
//! same side are a change, not outliers, and the estimate jumps to the median of the last three. How far is beyond, and
//! how many that takes, depends on how the cluster's answers vary by nature ([`Noise`](super::Noise)). It jumps upwards
//! only if the last of them was sent after the first had been answered: requests that wait through the same pause are
//! all late, but that is a single event, and it is over. A sample that met a queue weighs less, in proportion to the
//! variance of such samples.

use super::noise::Rows;
use crate::ablation::{Ablation, Part};
use crate::time::{LostTime, Time};

/// Minimum deviation beyond which a sample is clipped, natural log: a factor of two.
pub(super) const CLIP: f32 = core::f32::consts::LN_2;
/// Number of samples in the median that a jump takes, and samples behind the estimate after it.
const JUMP_AFTER: i8 = 3;
/// Number of samples after which the step 1/n becomes constant.
const WINDOW: f32 = 16.0;
/// Time constant with which samples lose their weight, seconds.
const MEMORY_S: f64 = 5.0;
/// Age difference to the newest estimate at which another worker's weighs 1/e, seconds.
const FRESHNESS_S: f64 = 0.5;
/// Minimum number of samples of an estimate that others may be compared with.
const SETTLED: f32 = 4.0;
/// Range of samples, seconds: keeps the logarithm finite.
const MIN_S: f64 = 1e-6;
const MAX_S: f64 = 3600.0;

/// One worker's latency estimate of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// Natural logarithm of the estimate in seconds.
    centre: f32,
    /// Number of samples behind the estimate, at most [`WINDOW`].
    samples: f32,
    /// Time of the last sample.
    updated: Time,
    /// Logarithms of the last two samples beyond the clip.
    beyond: [f32; 2],
    /// Time from the first to the last sample of the run, microseconds; saturates at 71 minutes.
    run_us: u32,
    /// Number of consecutive samples beyond the clip; negative if below the estimate.
    run: i8,
}

impl Latency {
    /// Records a sample in seconds of a request sent at `started`; ignores NaN and negative values.
    pub fn observe(&mut self, seconds: f64, started: Time, now: Time, ablation: &Ablation) {
        self.observe_weighed((seconds, 1.0), started, now, Rows::default(), ablation);
    }

    /// Records a sample with a `weight` up to 1; `rows` is how many in a row beyond the clip make a change.
    pub fn observe_weighed(
        &mut self,
        (seconds, weight): (f64, f32),
        started: Time,
        now: Time,
        rows: Rows,
        ablation: &Ablation,
    ) {
        if seconds.is_nan() || seconds < 0.0 {
            return;
        }
        let x = seconds.clamp(MIN_S, MAX_S).ln() as f32;
        // Without decay, the first answer after a silence would make old samples look fresh.
        if ablation.has(Part::Fade) {
            self.samples *= freshness(self.updated, now) as f32;
        }
        let since = self.since();
        self.updated = now;
        if self.samples < 0.5 {
            *self = Latency { centre: x, samples: weight.max(0.5), updated: now, ..Latency::default() };
            return;
        }
        let deviation = x - self.centre;
        let side = if deviation > rows.clip {
            1
        } else if deviation < -rows.clip {
            -1
        } else {
            0
        };
        self.run = if side == 0 || self.run.signum() != side { side } else { self.run.saturating_add(side) };
        self.run_us = if side == 0 || self.run == side { 0 } else { microseconds(since, now) };
        let apart = side < 0 || started >= self.since() || !ablation.has(Part::Apart);
        let news = if side < 0 { self.run <= -rows.below } else { self.run >= rows.above };
        if ablation.has(Part::Jump) && apart && side != 0 && news {
            let [a, b] = self.beyond;
            let median = a.max(b).min(a.min(b).max(x));
            *self = Latency {
                centre: median,
                samples: f32::from(JUMP_AFTER),
                updated: now,
                ..Latency::default()
            };
            return;
        }
        if side != 0 {
            self.beyond = [self.beyond[1], x];
        }
        self.samples = (self.samples + weight).min(WINDOW);
        let step = if ablation.has(Part::Clip) { deviation.clamp(-rows.clip, rows.clip) } else { deviation };
        self.centre += step * weight / self.samples;
    }

    /// Records a request that ended without an answer after `seconds`, a lower bound of the latency.
    pub fn observe_at_least(&mut self, seconds: f64, started: Time, now: Time, ablation: &Ablation) {
        if self.estimate().is_none_or(|estimate| seconds > estimate) {
            self.observe(seconds, started, now, ablation);
        }
    }

    /// The estimate in seconds, if there has been a sample.
    pub fn estimate(&self) -> Option<f64> {
        (self.samples > 0.0).then(|| f64::from(self.centre).exp())
    }

    /// Mean logarithm of seconds and the number of samples behind it, the same as of a [`Blend`] of this estimate
    /// alone.
    #[inline]
    pub fn centre(&self) -> Option<(f64, f64)> {
        let known = self.samples > 0.0 && self.centre.is_finite();
        known.then(|| (f64::from(self.centre), f64::from(self.samples.min(WINDOW))))
    }

    /// Log ratio of a sample of `seconds` to the estimate, if there is one.
    pub fn deviation(&self, seconds: f64) -> Option<f32> {
        (self.samples > 0.0).then(|| seconds.clamp(MIN_S, MAX_S).ln() as f32 - self.centre)
    }

    /// Whether the next sample shows how answers differ by nature: the estimate has enough samples, and the last one
    /// was within the clip. After one beyond it, the next may deviate because something has changed.
    pub fn settled(&self) -> bool {
        self.samples >= SETTLED && self.run == 0
    }

    /// Whether the last samples were below the clip: the estimate is about to fall, so deviations from it say nothing
    /// about queueing.
    pub fn falling(&self) -> bool {
        self.run < 0
    }

    /// Time of the last sample.
    pub fn updated(&self) -> Time {
        self.updated
    }

    /// In a lost time no sample loses its weight.
    pub fn lose_time(&mut self, lost: LostTime) {
        self.updated = lost.shift(self.updated);
    }

    /// Caps timestamps at `now` after the clock stepped back.
    pub fn not_after(&mut self, now: Time) {
        let since = self.since().min(now);
        self.updated = self.updated.min(now);
        self.run_us = microseconds(since, self.updated);
    }

    /// Time of the first sample of the run.
    fn since(&self) -> Time {
        Time(self.updated.0.saturating_sub(1000 * u64::from(self.run_us)))
    }

    /// Mean logarithm of seconds, number of samples and time of the last one, as reported to the peers.
    pub fn parts(&self) -> (f32, f32, Time) {
        (self.centre, self.samples, self.updated)
    }
}

/// Weight at `now` of samples of which the last came at `updated`, 0..=1.
pub fn freshness(updated: Time, now: Time) -> f64 {
    (-now.seconds_since(updated) / MEMORY_S).exp()
}

/// Time from `earlier` to `now`, rounded up so that counting back from `now` never yields a later time than `earlier`.
fn microseconds(earlier: Time, now: Time) -> u32 {
    u32::try_from(now.0.saturating_sub(earlier.0).div_ceil(1000)).unwrap_or(u32::MAX)
}

/// Latency estimates of several workers for one endpoint, weighted by freshness.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Blend {
    weight: f64,
    weighted: f64,
    newest: Time,
}

impl Blend {
    /// Adds an estimate in the form of [`Latency::parts`].
    pub fn add(&mut self, (centre, samples, updated): (f32, f32, Time)) {
        if samples.is_nan() || samples <= 0.0 || !centre.is_finite() {
            return;
        }
        let weight = f64::from(samples.min(WINDOW));
        self.merge(&Blend { weight, weighted: weight * f64::from(centre), newest: updated });
    }

    /// The inverse of [`parts`](Blend::parts).
    pub fn of((centre, samples, newest): (f32, f32, Time)) -> Blend {
        let weight = f64::from(samples);
        Blend { weight, weighted: weight * f64::from(centre), newest }
    }

    /// Mean logarithm of seconds, number of samples and time of the newest: exact for a single estimate, to seven
    /// digits for several.
    pub fn parts(&self) -> (f32, f32, Time) {
        let centre = if self.weight > 0.0 { self.weighted / self.weight } else { 0.0 };
        (centre as f32, self.weight as f32, self.newest)
    }

    /// Adds another blend.
    pub fn merge(&mut self, other: &Blend) {
        if self.weight <= 0.0 && self.newest <= other.newest {
            *self = *other;
            return;
        }
        let newest = self.newest.max(other.newest);
        let fresh = |blend: &Blend| match newest.seconds_since(blend.newest) {
            0.0 => 1.0,
            behind => (-behind / FRESHNESS_S).exp(),
        };
        let (mine, theirs) = (fresh(self), fresh(other));
        self.weight = self.weight * mine + other.weight * theirs;
        self.weighted = self.weighted * mine + other.weighted * theirs;
        self.newest = newest;
    }

    /// Mean logarithm of seconds and the number of samples behind it.
    pub fn centre(&self) -> Option<(f64, f64)> {
        (self.weight > 0.0).then(|| (self.weighted / self.weight, self.weight))
    }

    /// Time of the newest sample.
    pub fn newest(&self) -> Time {
        self.newest
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::rng::Rng;

    fn log_normal(rng: &mut Rng, median: f64, sigma: f64) -> f64 {
        let normal = (-2.0 * (1.0 - rng.unit()).ln()).sqrt() * (core::f64::consts::TAU * rng.unit()).cos();
        median * (sigma * normal).exp()
    }

    fn feed(latency: &mut Latency, samples: impl IntoIterator<Item = f64>) -> f64 {
        samples.into_iter().for_each(|s| latency.observe(s, Time(1), Time(1), &Ablation::ALL));
        latency.estimate().unwrap()
    }

    #[test]
    fn settles_on_the_median_of_log_normal_work() {
        let mut rng = Rng::new(5);
        let mut latency = Latency::default();
        let mut sum = 0.0;
        for _ in 0..4000 {
            sum += feed(&mut latency, [log_normal(&mut rng, 0.020, 0.46)]).ln();
        }
        let typical = (sum / 4000.0).exp();
        assert!((0.018..0.022).contains(&typical), "{typical}");
    }

    #[test]
    fn a_tenfold_slowdown_is_believed_after_three_answers_and_its_end_too() {
        let mut latency = Latency::default();
        feed(&mut latency, [0.02; 50]);
        assert!(feed(&mut latency, [0.2; 2]) < 0.03);
        assert!(feed(&mut latency, [0.2]) > 0.19);
        assert!(feed(&mut latency, [0.02; 3]) < 0.021);
    }

    #[test]
    fn what_waited_through_the_same_pause_is_one_event() {
        let ms = |ms: u64| Time(ms * 1_000_000);
        let mut latency = Latency::default();
        feed(&mut latency, [0.02; 50]);
        for start in [0, 10, 20, 30] {
            let back = 520 + start / 10;
            latency.observe((back - start) as f64 / 1e3, ms(start), ms(back), &Ablation::ALL);
        }
        assert!(latency.estimate().unwrap() < 0.025);
        latency.observe(0.5, ms(521), ms(1021), &Ablation::ALL);
        assert!(latency.estimate().unwrap() > 0.4, "sent after the pause, and late again");
    }

    #[test]
    fn single_heavy_requests_hardly_move_it() {
        let mut latency = Latency::default();
        let estimate = feed(&mut latency, (0..400).map(|i| if i % 20 == 0 { 0.4 } else { 0.02 }));
        assert!(estimate < 0.022, "{estimate}");
    }

    #[test]
    fn nonsense_is_ignored_and_extremes_stay_finite() {
        let mut latency = Latency::default();
        latency.observe(f64::NAN, Time(1), Time(1), &Ablation::ALL);
        latency.observe(-1.0, Time(1), Time(1), &Ablation::ALL);
        assert_eq!(latency.estimate(), None);
        assert!(feed(&mut latency, [0.0, f64::INFINITY, 0.0, f64::MAX]).is_finite());
    }

    #[test]
    fn an_unanswered_request_only_ever_raises() {
        let mut latency = Latency::default();
        feed(&mut latency, [0.1; 5]);
        latency.observe_at_least(0.01, Time(2), Time(2), &Ablation::ALL);
        assert!((latency.estimate().unwrap() - 0.1).abs() < 1e-6);
        latency.observe_at_least(0.15, Time(2), Time(2), &Ablation::ALL);
        assert!(latency.estimate().unwrap() > 0.1);
    }

    #[test]
    fn fresh_news_outweighs_what_another_worker_knew_long_ago() {
        let second = |s: u64| Time(s * 1_000_000_000);
        for order in [[0, 1], [1, 0]] {
            let reports = [(0.2f32.ln(), 16.0, second(5)), (0.02f32.ln(), 3.0, second(10))];
            let mut blend = Blend::default();
            order.iter().for_each(|i| blend.add(reports[*i]));
            let (centre, samples) = blend.centre().unwrap();
            assert!((0.0195..0.0205).contains(&centre.exp()), "{}", centre.exp());
            assert!((2.9..3.1).contains(&samples));
        }
        let mut latency = Latency::default();
        assert_eq!(latency.centre(), None);
        feed(&mut latency, [0.02, 0.03, 0.05, 0.02, 0.3]);
        let mut alone = Blend::default();
        alone.add(latency.parts());
        assert_eq!((alone.centre(), Blend::of(alone.parts())), (latency.centre(), alone));
        let mut hostile = Blend::default();
        hostile.add((f32::NAN, 3.0, second(1)));
        hostile.add((0.0, f32::NAN, second(1)));
        assert_eq!(hostile.centre(), None);
    }
}
