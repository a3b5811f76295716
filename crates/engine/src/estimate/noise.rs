//! How much the answers of an upstream differ by nature: what makes a difference improbable, and a silence.
//!
//! No service says how wide its work is. What is believed of an endpoint is what this noise does not explain: an
//! estimate that lies further from the others' than its share of the *spread* can be, more samples in a row beyond the
//! clip than the *tails* bring about, a silence that the *survival* of latencies makes improbable.

use super::survival::Survival;

/// About the last this many answers count.
const WINDOW: f32 = 300.0;
/// What is assumed at first weighs as much as this many answers.
const PRIOR_WEIGHT: f32 = 20.0;
/// Mean absolute deviation (natural log) assumed at first: log-normal work of σ 0.5.
const DEVIATION_AT_FIRST: f32 = 0.4;
/// Share of answers beyond the clip on one side assumed at first, and the least.
const TAIL_AT_FIRST: f32 = 0.06;
/// A deviation counts up to this.
const CLIP: f32 = 3.0;
/// The standard deviation over the mean absolute one, of a normal distribution: √(π/2).
const NORMAL: f32 = 1.253;
/// The least spread: what no network is without.
const MIN_SPREAD: f32 = 0.1;
/// Samples in a row that chance brings about no more often than this are news.
const CHANCE: f32 = 3e-4;
/// So many in a row at least, and at most.
const ROWS: [i8; 2] = [3, 12];

/// What has been learnt of it.
#[derive(Clone, Debug)]
pub struct Noise {
    seen: f32,
    deviation: f32,
    above: f32,
    below: f32,
    rows: Rows,
    /// Whether there has been an answer since the rows were worked out.
    news: bool,
    /// How long answers take.
    pub survival: Survival,
}

/// Samples in a row beyond the clip that are news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Above the estimate.
    pub above: i8,
    /// Below it.
    pub below: i8,
}

impl Default for Rows {
    fn default() -> Rows {
        Rows { above: ROWS[0], below: ROWS[0] }
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
    /// An answer lay `deviation` (natural log) above what was expected of its endpoint, and weighs `weight`; beyond
    /// `clip` it is clipped. Only answers of a [settled](super::Latency::settled) endpoint: a change that lasts is one
    /// event, however many answers it has, or it would pass for the width of the work and the next change would be
    /// believed the later.
    pub fn observe(&mut self, deviation: f32, weight: f32, clip: f32) {
        if !deviation.is_finite() {
            return;
        }
        self.news = true;
        self.seen = (self.seen + 1.0).min(WINDOW);
        let step = 1.0 / self.seen;
        self.deviation += step * (deviation.abs().min(CLIP) * weight.sqrt() - self.deviation);
        self.above += step * (f32::from(u8::from(deviation > clip)) - self.above);
        self.below += step * (f32::from(u8::from(deviation < -clip)) - self.below);
    }

    /// Prepares what follows; called on a tick.
    pub fn refresh(&mut self, typical: f64) {
        let row = |tail: f32| {
            let tail = tail.clamp(TAIL_AT_FIRST, 0.6);
            ((CHANCE.ln() / tail.ln()).ceil() as i8).clamp(ROWS[0], ROWS[1])
        };
        if core::mem::take(&mut self.news) {
            self.rows = Rows { above: row(self.above), below: row(self.below) };
        }
        self.survival.refresh(typical);
    }

    /// Standard deviation of the logarithm of an answer.
    pub fn spread(&self) -> f32 {
        (NORMAL * self.deviation).max(MIN_SPREAD)
    }

    /// Samples in a row beyond the clip that are news.
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
            noise.observe((sigma * normal(&mut rng)) as f32, 1.0, core::f32::consts::LN_2);
        }
        noise.refresh(0.02);
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
                noise.observe(deviation, 1.0, core::f32::consts::LN_2);
            }
            latency.observe_weighed((seconds, 1.0), started, now, noise.rows(), &Ablation::default());
            noise.refresh(0.02);
        }
        assert_eq!(noise.rows(), Rows::default(), "{noise:?}");
    }

    #[test]
    fn the_spread_and_the_rows_are_those_of_the_work() {
        for (sigma, rows) in [(0.2, 3..=3), (0.46, 3..=4), (1.0, 5..=7), (2.0, 7..=10)] {
            let noise = learnt(sigma);
            assert!((noise.spread() / sigma as f32 - 1.0).abs() < 0.2, "{sigma}: {}", noise.spread());
            assert!(rows.contains(&noise.rows().above), "{sigma}: {:?}", noise.rows());
            assert!(rows.contains(&noise.rows().below), "{sigma}: {:?}", noise.rows());
        }
        let mut noise = Noise::default();
        noise.observe(f32::NAN, 1.0, 0.7);
        assert!((noise.spread() - 0.5).abs() < 0.01);
    }
}
