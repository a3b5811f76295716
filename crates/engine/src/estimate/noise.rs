//! How much the answers of a cluster vary by nature, which decides whether a difference or a silence is improbable.
//!
//! No service declares how much its work varies. An endpoint is believed to differ only as far as this noise does not
//! explain it: an estimate further from the others' than the *spread* of answers allows, more consecutive samples
//! beyond the clip than their *tails* produce, a silence that is improbable by the *survival* function of latencies.

use super::latency::CLIP as NARROWEST;
use super::survival::Survival;

/// Window of the moving averages, answers.
const WINDOW: f32 = 300.0;
/// Weight of the initial assumptions, answers.
const PRIOR_WEIGHT: f32 = 20.0;
/// Initial mean absolute deviation (natural log): log-normal work of σ 0.5.
const DEVIATION_AT_FIRST: f32 = 0.4;
/// Initial and minimum fraction of answers beyond the clip, on each side.
const TAIL_AT_FIRST: f32 = 0.06;
/// Upper bound of a deviation (natural log).
const CLIP: f32 = 3.0;
/// Ratio of standard to mean absolute deviation of a normal distribution: √(π/2).
const NORMAL: f32 = 1.253;
/// Minimum spread (natural log), which every network has.
const MIN_SPREAD: f32 = 0.1;
/// Deviation beyond which a sample is clipped, in multiples of the spread: in Huber's range, whose 1.345 costs 5 % of the
/// precision where deviations are normal.
const CLIP_SPREADS: f32 = 1.5;
/// Probability below which a row of samples beyond the clip is a change.
const CHANCE: f32 = 3e-4;
/// Minimum and maximum length of such a row.
const ROWS: [i8; 2] = [3, 12];

/// Learnt variation of a cluster's answers.
#[derive(Clone, Debug)]
pub struct Noise {
    seen: f32,
    deviation: f32,
    above: f32,
    below: f32,
    rows: Rows,
    /// Whether there has been an answer since the rows were computed.
    news: bool,
    /// Distribution of latencies.
    pub survival: Survival,
}

/// How far a sample may deviate by nature, and how many consecutive samples beyond that make a change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rows {
    /// Deviation (natural log) beyond which a sample is clipped.
    pub clip: f32,
    /// On the side above the estimate.
    pub above: i8,
    /// On the side below the estimate.
    pub below: i8,
}

impl Default for Rows {
    fn default() -> Rows {
        Rows { clip: NARROWEST, above: ROWS[0], below: ROWS[0] }
    }
}

impl Default for Noise {
    fn default() -> Noise {
        Noise {
            seen: PRIOR_WEIGHT,
            deviation: DEVIATION_AT_FIRST,
            above: TAIL_AT_FIRST,
            below: TAIL_AT_FIRST,
            rows: Rows::default(),
            news: true,
            survival: Survival::default(),
        }
    }
}

impl Noise {
    /// Records an answer that deviated by `deviation` (natural log) from what was expected of its endpoint, with the
    /// given `weight`. Only for answers of [settled](super::Latency::settled) endpoints: a lasting change is a single
    /// event, however many answers it affects. Otherwise it would look like variation of the work, and the next change
    /// would be detected later.
    pub fn observe(&mut self, deviation: f32, weight: f32) {
        if !deviation.is_finite() {
            return;
        }
        self.news = true;
        self.seen = (self.seen + 1.0).min(WINDOW);
        let step = 1.0 / self.seen;
        self.deviation += step * (deviation.abs().min(CLIP) * weight.sqrt() - self.deviation);
        self.above += step * (f32::from(u8::from(deviation > self.rows.clip)) - self.above);
        self.below += step * (f32::from(u8::from(deviation < -self.rows.clip)) - self.below);
    }

    /// Recomputes derived values; called on a tick.
    pub fn refresh(&mut self, typical: f64) {
        let row = |tail: f32| {
            let tail = tail.clamp(TAIL_AT_FIRST, 0.6);
            ((CHANCE.ln() / tail.ln()).ceil() as i8).clamp(ROWS[0], ROWS[1])
        };
        if core::mem::take(&mut self.news) {
            let clip = (CLIP_SPREADS * self.spread()).max(NARROWEST);
            self.rows = Rows { clip, above: row(self.above), below: row(self.below) };
        }
        self.survival.refresh(typical);
    }

    /// Standard deviation of the logarithm of an answer's latency.
    pub fn spread(&self) -> f32 {
        (NORMAL * self.deviation).max(MIN_SPREAD)
    }

    /// Number of consecutive samples beyond the clip that make a change.
    pub fn rows(&self) -> Rows {
        self.rows
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::ablation::Ablation;
    use crate::estimate::Latency;
    use crate::rng::Rng;
    use crate::time::Time;

    fn normal(rng: &mut Rng) -> f64 {
        (-2.0 * (1.0 - rng.unit()).ln()).sqrt() * (core::f64::consts::TAU * rng.unit()).cos()
    }

    fn learnt(sigma: f64) -> Noise {
        let (mut noise, mut rng) = (Noise::default(), Rng::new(6));
        for _ in 0..3000 {
            noise.observe((sigma * normal(&mut rng)) as f32, 1.0);
            noise.refresh(0.02);
        }
        noise
    }

    #[test]
    fn a_change_that_lasts_is_no_width_of_the_work() {
        let (mut noise, mut latency, mut rng) = (Noise::default(), Latency::default(), Rng::new(3));
        for answer in 0..3000u64 {
            let slow = if answer / 16 % 2 == 0 { 1.0 } else { 10.0 };
            let seconds = 0.02 * slow * (0.3 * normal(&mut rng)).exp();
            let (started, now) = (Time(answer * 40_000_000), Time(answer * 40_000_000 + 20_000_000));
            if let (Some(deviation), true) = (latency.deviation(seconds), latency.settled()) {
                noise.observe(deviation, 1.0);
            }
            latency.observe_weighed((seconds, 1.0), started, now, noise.rows(), &Ablation::default());
            noise.refresh(0.02);
        }
        let Rows { clip, above, below } = noise.rows();
        assert_eq!((above, below), (3, 3), "{noise:?}");
        assert!(clip < 0.5 * 10f32.ln(), "{noise:?}");
    }

    #[test]
    fn the_spread_and_the_rows_are_those_of_the_work() {
        for (sigma, rows) in [(0.2, 3..=3), (0.46, 3..=4), (1.0, 3..=5), (2.0, 3..=5)] {
            let noise = learnt(sigma);
            assert!((noise.spread() / sigma as f32 - 1.0).abs() < 0.2, "{sigma}: {}", noise.spread());
            assert!(rows.contains(&noise.rows().above), "{sigma}: {:?}", noise.rows());
            assert!(rows.contains(&noise.rows().below), "{sigma}: {:?}", noise.rows());
            let clip = core::f32::consts::LN_2.max(1.5 * sigma as f32);
            assert!((noise.rows().clip / clip - 1.0).abs() < 0.2, "{sigma}: {:?}", noise.rows());
        }
        let mut noise = Noise::default();
        noise.observe(f32::NAN, 1.0);
        assert!((noise.spread() - 0.5).abs() < 0.01);
    }
}
