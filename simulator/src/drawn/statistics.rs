//! Statistics: what chance explains of a mean of differences, quantiles, fairness.

/// One-sided 95 % quantiles of Student's t distribution, by degrees of freedom from 1.
const T95: [f64; 15] =
    [6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782, 1.771, 1.761, 1.753];

/// Mean of `values`, and its lower confidence bound (one-sided, 95 %).
pub(super) fn at_least(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    let Some(freedom) = values.len().checked_sub(2) else { return (mean, f64::NEG_INFINITY) };
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let t = T95.get(freedom).copied().unwrap_or(1.65);
    (mean, mean - t * (variance / count).sqrt())
}

/// The value below which the fraction `part` of the sorted `values` lies.
pub(super) fn quantile(values: &[f64], part: f64) -> f64 {
    let last = values.len().saturating_sub(1);
    values.get((part * last as f64).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Jain's fairness index: 1 if all are equal, 1/n if one has everything.
pub(super) fn jain(values: &[f64]) -> f64 {
    let (sum, squares) = values.iter().fold((0.0, 0.0), |(sum, squares), v| (sum + v, squares + v * v));
    if squares > 0.0 { sum * sum / (values.len() as f64 * squares) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use engine::rng::Rng;

    use super::*;
    use crate::distribution::normal;

    #[test]
    fn chance_passes_for_a_difference_once_in_twenty() {
        let mut rng = Rng::new(11);
        for seeds in [2, 4, 8] {
            let found = (0..4000)
                .filter(|_| at_least(&(0..seeds).map(|_| normal(&mut rng)).collect::<Vec<_>>()).1 > 0.0)
                .count();
            // 200 are expected, with a standard deviation of 14.
            assert!((140..260).contains(&found), "{seeds}: {found}");
        }
        assert!(at_least(&[1.0, 1.1, 0.9, 1.0]).1 > 0.9);
        assert_eq!(at_least(&[3.0]), (3.0, f64::NEG_INFINITY));
    }

    #[test]
    fn fairness_is_one_or_less() {
        assert!((jain(&[0.2; 5]) - 1.0).abs() < 1e-12);
        assert_eq!(jain(&[1.0, 0.0, 0.0, 0.0]), 0.25);
        assert_eq!(quantile(&[1.0, 2.0, 3.0], 0.5), 2.0);
    }
}
