//! Statistics: which differences can be chance.
//!
//! Failures of two arms with the same offered load are compared by the conditional test of two Poisson rates (J.
//! Przyborowski and H. Wilenski, "Homogeneity of results in testing samples from Poisson series", Biometrika 31, 1940):
//! of `a + b` failures in all, those of the first arm are binomial with its share of the requests, if requests fail
//! equally often in both. The test is exact and one-sided: only more failures through evenkeel count against it.

/// The probability that a whole run blames evenkeel for chance (Bonferroni: divided by the number of faults).
pub const LEVEL: f64 = 0.01;

/// Failures and requests of one arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arm {
    /// Requests that failed.
    pub failed: u64,
    /// All requests.
    pub requests: u64,
}

/// The probability that at least `with.failed` of all failures are in the first arm, if both arms fail equally often.
pub fn explained(with: Arm, alone: Arm) -> f64 {
    let all = with.failed + alone.failed;
    let requests = with.requests + alone.requests;
    if with.failed == 0 || requests == 0 {
        return 1.0;
    }
    let share = with.requests as f64 / requests as f64;
    if share <= 0.0 || share >= 1.0 {
        return 1.0;
    }
    binomial_tail(all, share, with.failed)
}

/// P(X ≥ `least`) for a binomial X, summed from the exact terms in logarithms.
fn binomial_tail(trials: u64, chance: f64, least: u64) -> f64 {
    // ln C(n, k) by the ratio of neighbours, from k = 0 on.
    let mut term = trials as f64 * (1.0 - chance).ln();
    let mut sum = 0.0;
    for k in 0..=trials {
        if k >= least {
            sum += term.exp();
        }
        term += ((trials - k) as f64).ln() - ((k + 1) as f64).ln() + chance.ln() - (1.0 - chance).ln();
    }
    sum.min(1.0)
}

/// A trend: the median of all slopes between two samples (H. Theil, 1950; P. K. Sen, "Estimates of the regression
/// coefficient based on Kendall's tau", JASA 63, 1968), with Sen's 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// Change over all samples, as a fraction of their median.
    pub change: f64,
    /// The lower bound of the change, as a fraction.
    pub least: f64,
    /// The upper bound of the change, as a fraction.
    pub most: f64,
}

/// The trend of samples in order of time; `None` for fewer than eight.
pub fn trend(samples: &[(f64, f64)]) -> Option<Trend> {
    let count = samples.len();
    let (first, last) = (samples.first()?, samples.last()?);
    let middle = median(samples.iter().map(|sample| sample.1).collect())?;
    if count < 8 || middle <= 0.0 || last.0 <= first.0 {
        return None;
    }
    let mut slopes = Vec::with_capacity(count * (count - 1) / 2);
    for (index, early) in samples.iter().enumerate() {
        for late in &samples[index + 1..] {
            slopes.push((late.1 - early.1) / (late.0 - early.0));
        }
    }
    slopes.sort_by(f64::total_cmp);
    // Kendall's variance of the number of ascending pairs minus that of descending ones.
    let n = count as f64;
    let half_width = 1.96 * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt() / 2.0;
    let at = |place: f64| slopes[place.clamp(0.0, (slopes.len() - 1) as f64) as usize];
    let centre = slopes.len() as f64 / 2.0;
    let scale = (last.0 - first.0) / middle;
    Some(Trend {
        change: median(slopes.clone())? * scale,
        least: at((centre - half_width).floor()) * scale,
        most: at((centre + half_width).ceil()) * scale,
    })
}

/// The median; `None` for no values.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let count = values.len();
    if count == 0 {
        return None;
    }
    Some((values[(count - 1) / 2] + values[count / 2]) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(failed: u64, requests: u64) -> Arm {
        Arm { failed, requests }
    }

    #[test]
    fn what_is_explained_is_exact() {
        // All four failures in one of two equal arms: one in sixteen.
        assert!((explained(arm(4, 100), arm(0, 100)) - 1.0 / 16.0).abs() < 1e-12);
        // Three of four: C(4,3) + C(4,4) of sixteen.
        assert!((explained(arm(3, 100), arm(1, 100)) - 5.0 / 16.0).abs() < 1e-12);
        // With a third of the requests: (1/3)² for both.
        assert!((explained(arm(2, 100), arm(0, 200)) - 1.0 / 9.0).abs() < 1e-12);
        assert!((explained(arm(0, 100), arm(7, 100)) - 1.0).abs() < 1e-12);
        assert!(explained(arm(600, 1000), arm(600, 1000)) > 0.5);
        assert!(explained(arm(700, 1000), arm(500, 1000)) < 1e-7);
        assert!(explained(arm(20_000, 50_000), arm(20_000, 50_000)) > 0.49, "many are no overflow");
    }

    #[test]
    fn a_trend_is_the_change_over_all_samples() {
        let line =
            |slope: f64| (0..20).map(|x| (f64::from(x), 100.0 + slope * f64::from(x))).collect::<Vec<_>>();
        let flat = trend(&line(0.0)).unwrap();
        assert_eq!((flat.change, flat.least, flat.most), (0.0, 0.0, 0.0));
        let rising = trend(&line(1.0)).unwrap();
        assert!((rising.change - 19.0 / 109.5).abs() < 1e-9, "{rising:?}");
        // A single outlier changes little.
        let mut wild = line(1.0);
        wild[10].1 = 1e6;
        assert!((trend(&wild).unwrap().change - 19.0 / 109.5).abs() < 0.02);
        assert_eq!(trend(&line(1.0)[..7]), None);
    }

    #[test]
    fn an_interval_is_wide_where_samples_scatter() {
        // Up and down by a tenth, without a trend.
        let samples: Vec<(f64, f64)> = (0..30_u32)
            .map(|x| (f64::from(x), 100.0 + f64::from(x.wrapping_mul(7_919) % 21) - 10.0))
            .collect();
        let trend = trend(&samples).unwrap();
        assert!(trend.least < 0.0 && trend.most > 0.0, "{trend:?}");
    }
}
