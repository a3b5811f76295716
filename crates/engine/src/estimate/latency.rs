//! How long an endpoint takes to its response headers: a robust location of the logarithm.
//!
//! Latencies are roughly log-normal, so the estimate lives in the log domain and each sample moves it by a
//! clipped step (Huber, "Robust estimation of a location parameter", 1964): one request that is twenty times
//! heavier than the rest moves it no further than one that is twice as slow. What clipping costs, speed, comes
//! back by a change test: several samples in a row that all lie beyond the clip on the same side are not outliers
//! but news, and the estimate jumps to the median of the last three. How many that takes follows from how often the
//! upstream's answers lie beyond the clip by nature ([`Noise`](super::Noise)): three with log-normal work of σ 0.5,
//! seven of σ 1.5. Upwards only if the last of them was sent after the first had been answered: all that wait through
//! the same pause are late, but that is one event, and it is over. A sample that found a queue weighs less, by how much
//! more such samples differ.

use super::noise::Rows;
use crate::ablation::{Ablation, Part};
use crate::time::Time;

/// Deviation (natural log) from which a sample is clipped: a factor of two.
pub(crate) const CLIP: f32 = core::f32::consts::LN_2;
/// A jump is to the median of so many samples, and rests on them.
const JUMP_AFTER: i8 = 3;
/// The step is 1/n up to here, then constant: about the last 16 samples count.
const WINDOW: f32 = 16.0;
/// Time constant with which samples lose their weight, seconds.
const MEMORY_S: f64 = 5.0;
/// Evidence that is this much older than the newest weighs 1/e, in seconds.
const FRESHNESS_S: f64 = 0.5;
/// Samples of an estimate by which others are judged.
const SETTLED: f32 = 4.0;
/// Shorter and longer samples count as these, in seconds: keeps the logarithm finite.
const MIN_S: f64 = 1e-6;
const MAX_S: f64 = 3600.0;

/// The latency of one endpoint as one worker has seen it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// Natural logarithm of the estimate in seconds.
    centre: f32,
    /// Samples behind the estimate, at most [`WINDOW`].
    samples: f32,
    /// When the last sample came.
    updated: Time,
    /// The last two samples beyond the clip, logarithms.
    beyond: [f32; 2],
    /// How long before the last sample the first of the run came, microseconds; 71 minutes at most.
    run_us: u32,
    /// How many samples in a row were beyond the clip; negative below the estimate.
    run: i8,
}

impl Latency {
    /// Takes a sample in seconds, of a request sent at `started`; NaN and negative values are ignored.
    pub fn observe(&mut self, seconds: f64, started: Time, now: Time, ablation: &Ablation) {
        self.observe_weighed((seconds, 1.0), started, now, Rows::default(), ablation);
    }

    /// The same of a sample that weighs less than others, up to 1, where so many in a row are news.
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
        // Old evidence fades, or the first answer after a silence would pass it off as fresh.
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
        let side = if deviation > CLIP {
            1
        } else if deviation < -CLIP {
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
        let step = if ablation.has(Part::Clip) { deviation.clamp(-CLIP, CLIP) } else { deviation };
        self.centre += step * weight / self.samples;
    }

    /// Takes note that a request ended without an answer after `seconds`: the latency is at least that.
    pub fn observe_at_least(&mut self, seconds: f64, started: Time, now: Time, ablation: &Ablation) {
        if self.estimate().is_none_or(|estimate| seconds > estimate) {
            self.observe(seconds, started, now, ablation);
        }
    }

    /// The estimate in seconds, if there has been a sample.
    pub fn estimate(&self) -> Option<f64> {
        (self.samples > 0.0).then(|| f64::from(self.centre).exp())
    }

    /// Natural logarithm of the estimate in seconds and how many samples it rests on, as the [`Blend`] of it alone has it.
    #[inline]
    pub fn centre(&self) -> Option<(f64, f64)> {
        let known = self.samples > 0.0 && self.centre.is_finite();
        known.then(|| (f64::from(self.centre), f64::from(self.samples.min(WINDOW))))
    }

    /// How far (natural log) a sample of `seconds` lies above the estimate, if there is one.
    pub fn deviation(&self, seconds: f64) -> Option<f32> {
        (self.samples > 0.0).then(|| seconds.clamp(MIN_S, MAX_S).ln() as f32 - self.centre)
    }

    /// Whether the next sample says how answers differ by nature: the estimate rests on enough, and the last one was
    /// not beyond the clip. After one that was, the next may be as far off because something has changed.
    pub fn settled(&self) -> bool {
        self.samples >= SETTLED && self.run == 0
    }

    /// Whether the last samples lay below the clip: then the estimate is about to fall, and says nothing of queues.
    pub fn falling(&self) -> bool {
        self.run < 0
    }

    /// When the last sample came.
    pub fn updated(&self) -> Time {
        self.updated
    }

    /// The clock stepped back to `now`.
    pub fn not_after(&mut self, now: Time) {
        let since = self.since().min(now);
        self.updated = self.updated.min(now);
        self.run_us = microseconds(since, self.updated);
    }

    /// When the first sample of the run came.
    fn since(&self) -> Time {
        Time(self.updated.0.saturating_sub(1000 * u64::from(self.run_us)))
    }

    /// Natural logarithm of the estimate in seconds and the samples behind it: what other workers are told.
    pub fn parts(&self) -> (f32, f32, Time) {
        (self.centre, self.samples, self.updated)
    }
}

/// What samples of which the last came at `updated` still weigh at `now`.
pub fn freshness(updated: Time, now: Time) -> f64 {
    (-now.seconds_since(updated) / MEMORY_S).exp()
}

/// From `earlier` to `now`, rounded up, so that what is counted back from `now` is never later than it was.
fn microseconds(earlier: Time, now: Time) -> u32 {
    u32::try_from(now.0.saturating_sub(earlier.0).div_ceil(1000)).unwrap_or(u32::MAX)
}

/// Several workers' estimates of one endpoint, the fresher the heavier.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Blend {
    weight: f64,
    weighted: f64,
    newest: Time,
}

impl Blend {
    /// Adds an estimate as [`Latency::parts`] gave it.
    pub fn add(&mut self, (centre, samples, updated): (f32, f32, Time)) {
        if samples.is_nan() || samples <= 0.0 || !centre.is_finite() {
            return;
        }
        let weight = f64::from(samples.min(WINDOW));
        self.merge(&Blend { weight, weighted: weight * f64::from(centre), newest: updated });
    }

    /// What [`parts`](Blend::parts) gave.
    pub fn of((centre, samples, newest): (f32, f32, Time)) -> Blend {
        let weight = f64::from(samples);
        Blend { weight, weighted: weight * f64::from(centre), newest }
    }

    /// Natural logarithm of the estimate in seconds, the samples behind it and when the newest came: exact for a single
    /// estimate, and to seven digits for several.
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

    /// Natural logarithm of the common estimate in seconds, and how many samples it rests on.
    pub fn centre(&self) -> Option<(f64, f64)> {
        (self.weight > 0.0).then(|| (self.weighted / self.weight, self.weight))
    }

    /// When the newest sample in it came.
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
            let told = [(0.2f32.ln(), 16.0, second(5)), (0.02f32.ln(), 3.0, second(10))];
            let mut blend = Blend::default();
            order.iter().for_each(|i| blend.add(told[*i]));
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
