//! Distributions of the work in a request, in seconds on an endpoint of normal speed.

use std::f64::consts::TAU;

use engine::rng::Rng;

/// A distribution of service times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// `exp(N(ln median, sigma²))`, typical of most services.
    LogNormal {
        /// The median.
        median: f64,
        /// Standard deviation of the logarithm.
        sigma: f64,
    },
    /// Memoryless, as in M/M/c.
    Exponential {
        /// The mean.
        mean: f64,
    },
    /// A power-law tail; its variance is infinite for `shape` ≤ 2.
    Pareto {
        /// The minimum.
        scale: f64,
        /// Exponent of the tail, above 1.
        shape: f64,
        /// The maximum: no service lets a request run for ever.
        most: f64,
    },
    /// Always this value.
    Constant(f64),
}

impl Distribution {
    /// 20 ms, as in the acceptance scenarios, with a 99th percentile of 58 ms.
    pub const TYPICAL: Distribution = Distribution::LogNormal { median: 0.020, sigma: 0.46 };

    /// Draws a value.
    pub fn draw(&self, rng: &mut Rng) -> f64 {
        match *self {
            Distribution::LogNormal { median, sigma } => median * (sigma * normal(rng)).exp(),
            Distribution::Exponential { mean } => mean * exponential(rng),
            Distribution::Pareto { scale, shape, most } => {
                (scale * (1.0 - rng.unit()).powf(-1.0 / shape)).min(most)
            }
            Distribution::Constant(value) => value,
        }
    }

    /// The mean; for [`Distribution::Pareto`], with its maximum.
    pub fn mean(&self) -> f64 {
        match *self {
            Distribution::LogNormal { median, sigma } => median * (sigma * sigma / 2.0).exp(),
            Distribution::Exponential { mean } => mean,
            Distribution::Pareto { scale, shape, most } => {
                let tail = (scale / most).powf(shape);
                scale * shape / (shape - 1.0) * (1.0 - tail * most / scale) + most * tail
            }
            Distribution::Constant(value) => value,
        }
    }
}

/// A standard exponential random number.
pub fn exponential(rng: &mut Rng) -> f64 {
    -(1.0 - rng.unit()).ln()
}

/// A standard normal random number (Box and Muller, 1958).
pub fn normal(rng: &mut Rng) -> f64 {
    (2.0 * exponential(rng)).sqrt() * (TAU * rng.unit()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_what_the_formulas_say() {
        for distribution in [
            Distribution::TYPICAL,
            Distribution::Exponential { mean: 0.02 },
            Distribution::Pareto { scale: 0.01, shape: 1.8, most: 1.0 },
            Distribution::Constant(0.02),
        ] {
            let mut rng = Rng::new(4);
            let mean = (0..400_000).map(|_| distribution.draw(&mut rng)).sum::<f64>() / 4e5;
            assert!((mean / distribution.mean() - 1.0).abs() < 0.02, "{distribution:?}: {mean}");
        }
    }

    #[test]
    fn an_idle_fleet_has_its_99th_percentile_near_58_ms() {
        let mut rng = Rng::new(9);
        let mut values: Vec<f64> = (0..100_000).map(|_| Distribution::TYPICAL.draw(&mut rng)).collect();
        values.sort_by(f64::total_cmp);
        assert!((values[99_000] - 0.0583).abs() < 0.001, "{}", values[99_000]);
    }
}
