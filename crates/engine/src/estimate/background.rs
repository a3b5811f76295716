//! How the rest of the fleet fares: the failure ratio among the latest answers of all others.
//!
//! An endpoint is judged against it, so that a fault that all share (a broken dependency, a poisonous request)
//! rules out no endpoint. Endpoints out of traffic do not count: three of ten that crash together must not excuse
//! each other, while half of a fleet that is left in traffic and fails too shows what is going on.

/// So many answers are remembered: a tenth of a second at 1,000 requests/s and worker, and few enough to scan.
const REMEMBERED: usize = 128;
/// When so many have been counted, older ones lose half of their weight in what is usual.
const LONG: f32 = 4000.0;
/// More than this is not rare, and shows in the latest answers.
const RARE: f64 = 0.05;
/// Of so many failures it is remembered which endpoint had them.
const FAILURES: usize = 16;
/// Fewer answers of others than this say nothing.
const FEWEST: u32 = 8;

/// The latest answers of an upstream, as one worker saw them.
#[derive(Clone, Debug)]
pub struct BaselineErrors {
    answers: [(u32, bool); REMEMBERED],
    next: usize,
    /// How many of them are failures: mostly none, and then there is little to count.
    bad: u32,
    /// Of many more: how many there were, and how many failures.
    long: (f32, f32),
    /// Who had the latest failures.
    failed: [u32; FAILURES],
}

impl Default for BaselineErrors {
    fn default() -> BaselineErrors {
        BaselineErrors {
            answers: [(u32::MAX, false); REMEMBERED],
            next: 0,
            bad: 0,
            long: (0.0, 0.0),
            failed: [u32::MAX; FAILURES],
        }
    }
}

impl BaselineErrors {
    /// Remembers an answer of the endpoint at `index`.
    pub fn observe(&mut self, index: u32, failed: bool) {
        if let Some(slot) = self.answers.get_mut(self.next) {
            let (_, before) = core::mem::replace(slot, (index, failed));
            self.bad = self.bad + u32::from(failed) - u32::from(before);
        }
        self.next = (self.next + 1) % REMEMBERED;
        let (all, failures) = &mut self.long;
        *all += 1.0;
        *failures += f32::from(u8::from(failed));
        if failed {
            self.failed.rotate_right(1);
            self.failed.iter_mut().take(1).for_each(|first| *first = index);
        }
        if *all > LONG {
            (*all, *failures) = (0.5 * *all, 0.5 * *failures);
        }
    }

    /// Forgets all endpoints but those that `stays`: their indices may be given to others.
    pub fn retain(&mut self, stays: impl Fn(u32) -> bool) {
        let gone = self.answers.iter_mut().filter(|(i, _)| *i != u32::MAX && !stays(*i));
        gone.for_each(|slot| *slot = (u32::MAX, false));
        self.recount();
        self.failed.iter_mut().filter(|i| **i != u32::MAX && !stays(**i)).for_each(|i| *i = u32::MAX);
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
        moved.recount();
        for index in &mut moved.failed {
            *index = to(*index).filter(|_| *index != u32::MAX).unwrap_or(u32::MAX);
        }
        moved
    }

    /// The failure ratio of the endpoints that `counts` accepts; none while too little is known.
    pub fn ratio(&self, counts: impl Fn(u32) -> bool) -> Option<f64> {
        if self.bad == 0 {
            // No failure is none of any part.
            let counted = |(index, _): &&(u32, bool)| *index != u32::MAX && counts(*index);
            let enough = self.answers.iter().filter(counted).nth(FEWEST as usize - 1);
            return enough.map(|_| 0.0);
        }
        let (all, failed) = self.count(counts)?;
        Some(failed / all)
    }

    fn recount(&mut self) {
        self.bad = self.answers.iter().map(|(_, bad)| u32::from(*bad)).sum();
    }

    /// What the failure ratio of the endpoints that `counts` accepts may well be, by what is known of it: one
    /// standard error above the estimate, which leans on one good and one bad answer.
    pub fn at_most(&self, counts: impl Fn(u32) -> bool) -> Option<f64> {
        let (all, failed) = self.count(counts)?;
        let ratio = (failed + 1.0) / (all + 2.0);
        Some(ratio + (ratio * (1.0 - ratio) / all).sqrt())
    }

    /// What failure ratio is usual: that of the latest answers of the endpoints that `counts` accepts, or of many more
    /// of all of so many `endpoints`, whichever is more. What happens to all once in a thousand answers shows only in
    /// many. Of those the failures of the endpoint at `of` do not count, nor, without one, those of whichever fails
    /// most: one that fails often excuses neither itself nor others. None while too little is known.
    pub fn usual(&self, counts: impl Fn(u32) -> bool, of: Option<u32>, endpoints: usize) -> Option<f64> {
        let (all, failures) = self.long;
        // One failure of fewer would be more than rare.
        let known = f64::from(all) * RARE >= 1.0;
        let long = known.then(|| match failures {
            0.0 => 0.0,
            _ => (f64::from(failures / all) * self.spread_out(of, endpoints)).min(RARE),
        });
        self.ratio(counts).into_iter().chain(long).reduce(f64::max)
    }

    /// What failure ratio may well be usual though none has been seen among all the answers of so many workers: one
    /// failure more than there were. It counts the less the more there is to take over, in `others` as large: nothing is
    /// lost where one of many is verified for nothing.
    pub fn unseen(&self, others: f64, workers: u32) -> f64 {
        let answers = f64::from(self.long.0) * f64::from(workers.max(1));
        // Which endpoint is alone has no endpoint beside it to be compared with.
        if others > 0.0 { (1.0 / (answers + 2.0) / others).min(1.0) } else { 0.0 }
    }

    /// What part of the latest failures is not one endpoint's: 0 if it has them all, 1 if it has its share.
    fn spread_out(&self, of: Option<u32>, endpoints: usize) -> f64 {
        let failed = || self.failed.iter().filter(|index| **index != u32::MAX);
        let of_one = |index: u32| failed().filter(|i| **i == index).count();
        let own = of.map_or_else(|| failed().map(|i| of_one(*i)).max().unwrap_or(0), of_one);
        let all = failed().count();
        let others = (all - own) as f64 / all.max(1) as f64;
        (others * endpoints as f64 / endpoints.saturating_sub(1).max(1) as f64).min(1.0)
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
        assert_eq!(background.usual(|i| i != 3, Some(3), 4), Some(0.0), "its own failures excuse nothing");
        assert_eq!(background.usual(|i| i != 3, None, 4), Some(0.0), "and nobody else");
        assert_eq!(background.usual(|i| i != 3, Some(0), 4), Some(RARE), "as rare errors of all");
        background.retain(|i| i != 3);
        assert_eq!(background.ratio(|_| true), Some(0.0));
    }

    #[test]
    fn what_is_rare_shows_in_many_answers() {
        let mut background = BaselineErrors::default();
        (0..20_000u32).for_each(|i| background.observe(i % 2, i % 1999 >= 1997));
        for of in [None, Some(0), Some(1)] {
            let usual = background.usual(|i| i == 5, of, 2).unwrap();
            assert!((0.0007..0.0013).contains(&usual), "{of:?}: {usual}");
        }
    }

    #[test]
    fn what_was_not_seen_may_be_usual_where_few_have_answered_and_few_can_take_over() {
        let mut background = BaselineErrors::default();
        (0..998).for_each(|_| background.observe(0, false));
        assert_eq!(background.unseen(1.0, 1), 0.001);
        assert!(background.unseen(1.0, 4) < 0.0003 && background.unseen(9.0, 1) < 0.0002);
        assert_eq!(BaselineErrors::default().unseen(1.0, 0), 0.5);
        assert_eq!(BaselineErrors::default().unseen(0.1, 1), 1.0, "the others are small beside it");
        assert_eq!(BaselineErrors::default().unseen(0.0, 1), 0.0, "nobody is beside it");
    }

    #[test]
    fn too_little_says_nothing() {
        let mut background = BaselineErrors::default();
        (0..7).for_each(|_| background.observe(1, true));
        assert_eq!(background.ratio(|_| true), None);
        (0..12).for_each(|_| background.observe(2, false));
        assert_eq!(background.usual(|i| i == 2, Some(2), 2), Some(0.0), "too few for what is rare");
    }
}
