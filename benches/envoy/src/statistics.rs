//! Medians and ratios.

/// The middle one; of an even number the mean of the middle two.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// `values` each over its counterpart.
pub fn ratios(values: &[f64], over: &[f64]) -> Vec<f64> {
    values.iter().zip(over).map(|(value, over)| value / over).collect()
}

/// The same as differences.
pub fn differences(values: &[f64], over: &[f64]) -> Vec<f64> {
    values.iter().zip(over).map(|(value, over)| value - over).collect()
}

/// The least and the most.
pub fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), v| (least.min(*v), most.max(*v)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_ratios_and_ranges() {
        assert_eq!(
            [median(&[]), median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0])],
            [None, Some(2.0), Some(2.5)]
        );
        assert_eq!(ratios(&[2.0, 3.0], &[1.0, 2.0]), [2.0, 1.5]);
        assert_eq!(differences(&[2.0, 3.0], &[1.0, 2.0]), [1.0, 1.0]);
        assert_eq!(range(&[2.0, 1.0, 3.0]), (1.0, 3.0));
    }
}
