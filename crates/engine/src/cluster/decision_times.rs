//! Histogram of decision times that can be summed over workers.

/// Upper bounds of the buckets, nanoseconds. A decision takes a few microseconds; a page fault or a busy neighbour on
/// the processor makes it a hundred times longer. One more bucket holds everything above the last bound.
pub const BOUNDS_NS: [u64; 9] = [1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];
/// Longer times are discarded, nanoseconds: the clock was stepped during the decision.
const MAX_NS: u64 = 1_000_000_000;

/// Decision times of a sample of decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecisionTimes {
    /// Decisions per bucket; the last one holds those above the last bound.
    pub buckets: [u64; BOUNDS_NS.len() + 1],
    /// Sum of all times, nanoseconds.
    pub sum_ns: u64,
}

impl DecisionTimes {
    /// Counts one decision time; returns whether it was plausible and counted.
    pub fn observe(&mut self, ns: u64) -> bool {
        if ns > MAX_NS {
            return false;
        }
        let at = BOUNDS_NS.iter().position(|bound| ns <= *bound).unwrap_or(BOUNDS_NS.len());
        if let Some(bucket) = self.buckets.get_mut(at) {
            *bucket += 1;
        }
        self.sum_ns = self.sum_ns.saturating_add(ns);
        true
    }

    /// Number of decisions counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The `part` quantile in seconds, as the upper bound of its bucket; the last bound if it lies above that. `None`
    /// if nothing was counted.
    pub fn quantile_s(&self, part: f64) -> Option<f64> {
        let count = self.count();
        let wanted = (part * count as f64).ceil().max(1.0) as u64;
        let mut below = 0;
        let at = self.buckets.iter().position(|bucket| {
            below += bucket;
            below >= wanted
        })?;
        let bound = BOUNDS_NS.get(at.min(BOUNDS_NS.len() - 1))?;
        (count > 0).then_some(*bound as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn each_falls_into_the_first_bucket_that_holds_it() {
        let mut times = DecisionTimes::default();
        assert_eq!(times.quantile_s(0.5), None);
        for ns in [0, 1_000, 1_001, 9_999, 1_000_000, 1_000_001, MAX_NS] {
            assert!(times.observe(ns));
        }
        assert_eq!(times.buckets, [2, 1, 0, 1, 0, 0, 0, 0, 1, 2]);
        assert_eq!((times.count(), times.sum_ns), (7, 1_002_012_001));
        assert_eq!(times.quantile_s(0.5), Some(1e-5));
        assert_eq!(times.quantile_s(0.0), Some(1e-6));
        assert_eq!(times.quantile_s(1.0), Some(1e-3), "beyond the last bound nothing is known");
    }

    #[test]
    fn a_step_of_the_clock_is_no_decision() {
        let mut times = DecisionTimes::default();
        assert!(!times.observe(MAX_NS + 1) && !times.observe(u64::MAX));
        assert_eq!(times, DecisionTimes::default());
    }
}
