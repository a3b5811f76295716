//! Today's figures of both arms, and their difference.

use super::arms::Arms;
use super::interval;

/// Quantiles that are compared.
pub const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];
/// Probability that a bound is ever wrong.
const ALPHA: f64 = 0.05;

/// Relative difference, steered over held out less 1: −0.38 is 38 percent less.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Point estimate.
    pub estimate: f64,
    /// Lower confidence bound.
    pub low: f64,
    /// Upper confidence bound.
    pub high: f64,
}

/// Comparison of one latency quantile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantileEstimate {
    /// The quantile, 0..=1.
    pub part: f64,
    /// Its value among steered requests, seconds.
    pub steered_s: Option<f64>,
    /// Its value among held-out requests, seconds.
    pub held_out_s: Option<f64>,
    /// Their difference; `None` while there are too few requests.
    pub change: Option<Change>,
}

/// Comparison of failures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FailureEstimate {
    /// Failures among steered requests.
    pub steered: u64,
    /// Failures among held-out requests.
    pub held_out: u64,
    /// Estimated failures avoided by steering; negative if steering adds failures.
    pub avoided: f64,
    /// Lower confidence bound of `avoided`.
    pub low: f64,
    /// Upper confidence bound of `avoided`.
    pub high: f64,
}

/// Today's figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimates {
    /// Number of steered requests.
    pub steered: u64,
    /// Number of held-out requests.
    pub held_out: u64,
    /// Latency quantiles, in the order of [`QUANTILES`].
    pub quantiles: [QuantileEstimate; 3],
    /// Failures.
    pub failures: FailureEstimate,
}

impl Estimates {
    /// Computes the figures from `arms`, with the fraction `holdout` held out.
    pub fn of(arms: &Arms, holdout: f64) -> Estimates {
        Estimates {
            steered: arms.steered.requests(),
            held_out: arms.held_out.requests(),
            quantiles: QUANTILES.map(|part| quantile(arms, part)),
            failures: failures(arms, holdout),
        }
    }
}

fn quantile(arms: &Arms, part: f64) -> QuantileEstimate {
    let (steered, held_out) = (&arms.steered.latency, &arms.held_out.latency);
    let (steered_s, held_out_s) = (steered.quantile(part), held_out.quantile(part));
    let bounds = |of: &super::histogram::Histogram| {
        let (low, high) = interval::ranks(part, of.total(), ALPHA / 2.0)?;
        Some((of.at_rank(low)?, of.at_rank(high)?))
    };
    let change = steered_s.zip(held_out_s).and_then(|(ours, theirs)| {
        let ((low, high), (their_low, their_high)) = bounds(steered).zip(bounds(held_out))?;
        Some(Change {
            estimate: ours / theirs - 1.0,
            low: low / their_high - 1.0,
            high: high / their_low - 1.0,
        })
    });
    QuantileEstimate { part, steered_s, held_out_s, change }
}

fn failures(arms: &Arms, holdout: f64) -> FailureEstimate {
    let (steered, held_out) = (arms.steered.failures, arms.held_out.failures);
    let all = steered.saturating_add(held_out);
    // Number of steered requests that each held-out one stands for.
    let each = (1.0 - holdout) / holdout;
    let (low, high) = interval::probability(held_out, all, ALPHA);
    let avoided = |held_out: f64| held_out * each - steered as f64;
    FailureEstimate {
        steered,
        held_out,
        avoided: avoided(held_out as f64),
        low: avoided(all as f64 * low),
        high: avoided(all as f64 * high),
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::super::histogram::bucket_of;
    use super::*;

    #[test]
    fn bounds_enclose_the_difference_and_are_missing_where_there_is_too_little() {
        let mut arms = Arms::default();
        let fill = |arms: &mut Arms, from: u64, to: u64| {
            for n in from..to {
                arms.steered.count(Some(bucket_of((n % 100 + 1) * 1_000_000)));
                if n % 10 == 0 {
                    arms.held_out.count(Some(bucket_of((n / 10 % 100 + 1) * 2_000_000)));
                }
            }
        };
        fill(&mut arms, 0, 200);
        let few = Estimates::of(&arms, 1.0 / 11.0);
        assert!(few.quantiles[2].change.is_none() && few.quantiles[2].steered_s.is_some());
        fill(&mut arms, 200, 100_000);
        arms.steered.failures = 100;
        arms.held_out.failures = 40;
        let all = Estimates::of(&arms, 1.0 / 11.0);
        for of in all.quantiles {
            let Change { estimate, low, high } = of.change.unwrap();
            assert!(low < -0.48 && -0.52 < high && high < -0.4, "{of:?}");
            assert!((estimate + 0.5).abs() < 0.03, "{of:?}");
        }
        let FailureEstimate { avoided, low, high, .. } = all.failures;
        assert!(
            (avoided - 300.0).abs() < 1e-6 && (0.0..300.0).contains(&low) && high > 300.0,
            "{:?}",
            all.failures
        );
    }
}
