//! How the rest of the fleet fares: the failure ratio among the latest answers of all others.
//!
//! An endpoint is judged against it, so that a fault that all share (a broken dependency, a poisonous request)
//! rules out no endpoint. Endpoints out of traffic do not count: three of ten that crash together must not excuse
//! each other, while half of a fleet that is left in traffic and fails too shows what is going on.

/// So many answers are remembered: a tenth of a second at 1,000 requests/s and worker, and few enough to scan.
const REMEMBERED: usize = 128;
/// Fewer answers of others than this say nothing.
const FEWEST: u32 = 8;

/// The latest answers of an upstream, as one worker saw them.
#[derive(Clone, Debug)]
pub struct BaselineErrors {
    answers: [(u32, bool); REMEMBERED],
    next: usize,
}

impl Default for BaselineErrors {
    fn default() -> BaselineErrors {
        BaselineErrors { answers: [(u32::MAX, false); REMEMBERED], next: 0 }
    }
}

impl BaselineErrors {
    /// Remembers an answer of the endpoint at `index`.
    pub fn observe(&mut self, index: u32, failed: bool) {
        if let Some(slot) = self.answers.get_mut(self.next) {
            *slot = (index, failed);
        }
        self.next = (self.next + 1) % REMEMBERED;
    }

    /// Forgets all endpoints but those that `stays`: their indices may be given to others.
    pub fn retain(&mut self, stays: impl Fn(u32) -> bool) {
        let gone = self.answers.iter_mut().filter(|(i, _)| *i != u32::MAX && !stays(*i));
        gone.for_each(|slot| *slot = (u32::MAX, false));
    }

    /// The same answers where endpoints have other indices; those of endpoints without one are forgotten.
    pub fn moved(&self, to: impl Fn(u32) -> Option<u32>) -> BaselineErrors {
        let mut moved = self.clone();
        for (index, failed) in &mut moved.answers {
            match to(*index) {
                Some(to) if *index != u32::MAX => *index = to,
                _ => (*index, *failed) = (u32::MAX, false),
            }
        }
        moved
    }

    /// The failure ratio of the endpoints that `counts` accepts; none while too little is known.
    pub fn ratio(&self, counts: impl Fn(u32) -> bool) -> Option<f64> {
        let (all, failed) = self.count(counts)?;
        Some(failed / all)
    }

    /// What the failure ratio of the endpoints that `counts` accepts may well be, by what is known of it: one
    /// standard error above the estimate, which leans on one good and one bad answer.
    pub fn at_most(&self, counts: impl Fn(u32) -> bool) -> Option<f64> {
        let (all, failed) = self.count(counts)?;
        let ratio = (failed + 1.0) / (all + 2.0);
        Some(ratio + (ratio * (1.0 - ratio) / all).sqrt())
    }

    fn count(&self, counts: impl Fn(u32) -> bool) -> Option<(f64, f64)> {
        let (mut all, mut failed) = (0u32, 0u32);
        for (_, bad) in self.answers.iter().filter(|(i, _)| *i != u32::MAX && counts(*i)) {
            all += 1;
            failed += u32::from(*bad);
        }
        (all >= FEWEST).then(|| (f64::from(all), f64::from(failed)))
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn an_endpoint_is_compared_with_the_others_only() {
        let mut background = BaselineErrors::default();
        (0..64).for_each(|i| background.observe(i % 4, i % 4 == 3));
        assert_eq!(background.ratio(|i| i != 3), Some(0.0));
        assert_eq!(background.ratio(|_| true), Some(0.25));
        let bound = background.at_most(|_| true).unwrap();
        assert!((0.28..0.34).contains(&bound), "{bound}");
        background.retain(|i| i != 3);
        assert_eq!(background.ratio(|_| true), Some(0.0));
    }

    #[test]
    fn too_little_says_nothing() {
        let mut background = BaselineErrors::default();
        (0..7).for_each(|_| background.observe(1, true));
        assert_eq!(background.ratio(|_| true), None);
    }
}
