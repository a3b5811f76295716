//! Trend of the demand: the median of all slopes between the last few periods (Theil–Sen estimator).
//!
//! A steady rise is found exactly, a single outlier changes nothing, and a step is not taken for a slope of its own
//! height. Only rises are extrapolated; a fall counts once it has happened.

use crate::order;

/// Maximum number of periods kept.
pub const MAX_PERIODS: usize = 5;
/// Minimum number of periods for a trend.
const MIN_PERIODS: usize = 3;
/// Maximum extrapolated rise, as a fraction of the latest demand.
const MAX_AHEAD: f64 = 0.5;

/// Demand of the last periods, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trend(Vec<f64>);

impl Trend {
    /// The inverse of [`periods`](Trend::periods); only the last few count.
    pub fn of(periods: impl IntoIterator<Item = f64>) -> Trend {
        let mut trend = Trend::default();
        periods.into_iter().for_each(|demand| trend.observe(demand));
        trend
    }

    /// Adds the demand of a period.
    pub fn observe(&mut self, demand: f64) {
        if demand.is_finite() {
            self.0.push(demand);
            let excess = self.0.len().saturating_sub(MAX_PERIODS);
            self.0.drain(..excess);
        }
    }

    /// Forgets all periods after one with unknown demand.
    pub fn interrupt(&mut self) {
        self.0.clear();
    }

    /// Demand of the periods kept, oldest first.
    pub fn periods(&self) -> &[f64] {
        &self.0
    }

    /// Expected rise of the demand within the next `periods`; 0 if it is falling.
    pub fn rise(&self, periods: f64) -> f64 {
        let Some(last) = self.0.last().filter(|_| self.0.len() >= MIN_PERIODS) else { return 0.0 };
        let mut slopes = Vec::with_capacity(MAX_PERIODS * (MAX_PERIODS - 1) / 2);
        for (from, earlier) in self.0.iter().enumerate() {
            for (to, later) in self.0.iter().enumerate().skip(from + 1) {
                slopes.push((later - earlier) / (to - from) as f64);
            }
        }
        // A jump is steep between any two periods on both sides of it, but only once from one period to the next.
        let mut steps: Vec<f64> =
            self.0.iter().zip(self.0.iter().skip(1)).map(|(from, to)| to - from).collect();
        // The lower median is the smaller rise in case of doubt.
        let median = |rises: &mut [f64]| order::lower_median(rises).unwrap_or(0.0);
        let slope = median(&mut slopes).min(median(&mut steps));
        (slope * periods).clamp(0.0, MAX_AHEAD * last.max(0.0))
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn rise(demand: &[f64]) -> f64 {
        Trend::of(demand.iter().copied()).rise(1.0)
    }

    #[test]
    fn a_steady_rise_is_found_and_thought_on_within_bounds() {
        assert!((rise(&[4.0, 5.0, 6.0]) - 1.0).abs() < 1e-12);
        assert!((rise(&[9.0, 9.0, 1.0, 2.0, 3.0, 4.0, 5.0]) - 1.0).abs() < 1e-12, "the oldest are forgotten");
        assert!((Trend::of([4.0, 5.0, 6.0]).rise(2.0) - 2.0).abs() < 1e-12);
        assert_eq!(Trend::of([4.0, 5.0, 6.0]).rise(1e9), 3.0);
    }

    #[test]
    fn outliers_falls_and_too_little_add_nothing() {
        assert_eq!(rise(&[5.0, 5.0, 9.0, 5.0, 5.0]), 0.0);
        assert_eq!(rise(&[5.0, 5.0, 5.0, 5.0, 9.0]), 0.0);
        for jump in [[4.0, 4.0, 4.0, 7.0, 7.0], [4.0, 4.0, 7.0, 7.0, 7.0], [4.0, 7.0, 7.0, 7.0, 7.0]] {
            assert_eq!(rise(&jump), 0.0, "{jump:?}");
        }
        assert_eq!(rise(&[5.0, 9.0, 9.0]), 0.0);
        assert_eq!(rise(&[9.0, 7.0, 5.0]), 0.0);
        assert_eq!(rise(&[1.0, 9.0]), 0.0);
        assert_eq!(rise(&[]), 0.0);
        let mut trend = Trend::of([1.0, 2.0, 3.0]);
        trend.observe(f64::NAN);
        assert_eq!(trend.periods().len(), 3);
        trend.interrupt();
        assert_eq!(trend.rise(1.0), 0.0);
    }
}
