//! How much a request in flight delays the next one: learnt, because nobody tells how many an endpoint serves at
//! once.
//!
//! An endpoint that works on one request at a time answers the second after twice the time: its latency grows
//! like in-flight + 1. One with many slots does not care until they are full. Latency × in-flight, the usual
//! price, is right for the first and sends requests to slow endpoints to spare the second. So the exponent β in
//! latency ∝ (in-flight + 1)^β is fitted by least squares on logarithms over the upstream's recent answers.

/// About the last this many answers count.
const WINDOW: f32 = 1000.0;
/// An answer's deviation from its endpoint's estimate counts up to this (natural log).
const CLIP: f32 = 3.0;
/// Variance of ln(in-flight + 1) below which the fit says nothing.
const LEAST_VARIANCE: f32 = 0.02;
/// The exponent assumed while nothing is known, and its weight in answers.
const PRIOR: f32 = 0.5;
const PRIOR_WEIGHT: f32 = 50.0;
/// Fewer in flight is better even where it does not show in the latency: it spreads what may go wrong.
const LEAST: f32 = 0.3;
/// Depths with a prepared factor; deeper ones count as the deepest.
const DEPTHS: usize = 128;

/// The fitted exponent with its prepared factors.
#[derive(Clone, Debug)]
pub struct Queueing {
    seen: f32,
    mean_depth: f32,
    mean_delay: f32,
    covariance: f32,
    variance: f32,
    factors: [f32; DEPTHS],
}

impl Default for Queueing {
    fn default() -> Queueing {
        let mut queueing = Queueing {
            seen: 0.0,
            mean_depth: 0.0,
            mean_delay: 0.0,
            covariance: 0.0,
            variance: 0.0,
            factors: [1.0; DEPTHS],
        };
        queueing.refresh();
        queueing
    }
}

impl Queueing {
    /// An answer to a request that found `depth` others in flight, `deviation` (natural log) above what its
    /// endpoint usually takes.
    pub fn observe(&mut self, depth: u32, deviation: f32) {
        if !deviation.is_finite() {
            return;
        }
        self.seen = (self.seen + 1.0).min(WINDOW);
        let step = 1.0 / self.seen;
        let x = (1.0 + depth as f32).ln() - self.mean_depth;
        let y = deviation.clamp(-CLIP, CLIP) - self.mean_delay;
        self.mean_depth += step * x;
        self.mean_delay += step * y;
        self.covariance += step * ((1.0 - step) * x * y - self.covariance);
        self.variance += step * ((1.0 - step) * x * x - self.variance);
    }

    /// The exponent, between [`LEAST`] and 1.
    pub fn exponent(&self) -> f32 {
        if self.variance < LEAST_VARIANCE {
            return PRIOR;
        }
        let fitted = self.covariance / self.variance;
        ((fitted * self.seen + PRIOR * PRIOR_WEIGHT) / (self.seen + PRIOR_WEIGHT)).clamp(LEAST, 1.0)
    }

    /// Prepares the factors from the exponent; called on a tick.
    pub fn refresh(&mut self) {
        let exponent = self.exponent();
        for (depth, factor) in self.factors.iter_mut().enumerate() {
            *factor = (1.0 + depth as f32).powf(exponent);
        }
    }

    /// What `depth` requests in flight (a fraction, where capacity is weighted) multiply the latency by.
    pub fn factor(&self, depth: f32) -> f32 {
        let below = depth.max(0.0) as usize;
        let at = |depth: usize| self.factors.get(depth.min(DEPTHS - 1)).copied().unwrap_or(1.0);
        let (low, high) = (at(below), at(below + 1));
        low + (high - low) * (depth - below as f32).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;

    fn fit(delay: impl Fn(u32) -> f32) -> f32 {
        let mut queueing = Queueing::default();
        let mut rng = Rng::new(3);
        for _ in 0..3000 {
            let depth = rng.below(8);
            queueing.observe(depth, delay(depth) + (rng.unit() as f32 - 0.5));
        }
        queueing.refresh();
        queueing.exponent()
    }

    #[test]
    fn a_single_server_shows_a_linear_price_and_a_wide_one_hardly_any() {
        assert!(fit(|depth| (1.0 + depth as f32).ln()) > 0.9);
        assert_eq!(fit(|_| 0.0), LEAST);
    }

    #[test]
    fn without_variation_nothing_is_concluded() {
        let mut queueing = Queueing::default();
        (0..5000).for_each(|_| queueing.observe(0, 1.0));
        assert_eq!(queueing.exponent(), PRIOR);
        queueing.observe(3, f32::NAN);
        assert!(queueing.exponent().is_finite());
    }

    #[test]
    fn factors_rise_with_depth_and_interpolate() {
        let queueing = Queueing::default();
        assert!((queueing.factor(3.0) - 2.0).abs() < 1e-5);
        assert!(queueing.factor(0.5) > 1.0 && queueing.factor(0.5) < queueing.factor(1.0));
        assert!(queueing.factor(1e9) >= queueing.factor(127.0));
    }
}
