//! How long decisions take, as a histogram that adds up over workers.

/// Upper bounds of the buckets in nanoseconds: a decision takes a few microseconds, and a page fault or a neighbour on
/// the processor a hundred times that. What is longer falls into one more bucket.
pub const BOUNDS_NS: [u64; 9] = [1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];
/// A decision that seems to have taken longer was interrupted by a step of the clock, nanoseconds.
const MAX_NS: u64 = 1_000_000_000;

/// A sample of decisions by how long they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecisionTimes {
    /// How many fell into each bucket, those beyond the last bound at the end.
    pub buckets: [u64; BOUNDS_NS.len() + 1],
    /// All of them together, nanoseconds.
    pub sum_ns: u64,
}

impl DecisionTimes {
    /// Counts one. Whether it was counted.
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

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The time, in seconds, that this part of them does not exceed, as far as the buckets tell; the last bound where
    /// it lies beyond. None without any.
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
