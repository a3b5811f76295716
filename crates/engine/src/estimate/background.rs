//! Baseline of failures: the failure ratio among the latest answers of the other endpoints.
//!
//! An endpoint is judged against it, so that a common fault (a broken dependency, a poisonous request) ejects no
//! endpoint. Endpoints out of traffic do not count: three of ten that crash together must not excuse each other, while
//! failures in the half of a fleet that is left in traffic do show a common fault. Nor do those that answer nothing well
//! while the others do: a worker that starts beside them would need more failures of each, the more there are.

use crate::order;

/// Number of latest answers remembered: a tenth of a second at 1,000 requests/s and worker, and few enough to scan.
const REMEMBERED: usize = 128;
/// Number of answers at which the long-term counts are halved.
const LONG: f32 = 4000.0;
/// Upper bound of a failure ratio taken from the long-term counts; a higher one shows in the latest answers.
const RARE: f64 = 0.05;
/// Number of latest failures whose endpoints are remembered.
const FAILURES: usize = 16;
/// Minimum number of the other endpoints' answers before their ratio is known.
const FEWEST: u32 = 8;

/// Minimum number of failures before endpoints are set apart: two each of two endpoints.
const MIN_APART: u32 = 4;

/// An answer of the endpoint at `index`; [`u32::MAX`] for none.
#[derive(Clone, Copy, Debug)]
struct Answer {
    index: u32,
    failed: bool,
    /// Whether the endpoint is [set apart](BaselineErrors::set_apart).
    apart: bool,
}

impl Answer {
    fn none() -> Answer {
        Answer { index: u32::MAX, failed: false, apart: false }
    }
}

/// The latest answers of a cluster's endpoints, as one worker saw them.
#[derive(Clone, Debug)]
pub struct BaselineErrors {
    answers: [Answer; REMEMBERED],
    next: usize,
    /// Number of failures among them: usually 0, which saves counting.
    bad: u32,
    /// Whether any endpoint is set apart.
    any_apart: bool,
    /// Long-term counts: answers and failures.
    long: (f32, f32),
    /// Endpoints with the latest failures.
    failed: [u32; FAILURES],
}

impl Default for BaselineErrors {
    fn default() -> BaselineErrors {
        BaselineErrors {
            answers: [Answer::none(); REMEMBERED],
            next: 0,
            bad: 0,
            any_apart: false,
            long: (0.0, 0.0),
            failed: [u32::MAX; FAILURES],
        }
    }
}

impl BaselineErrors {
    /// Records an answer of the endpoint at `index`.
    pub fn observe(&mut self, index: u32, failed: bool) {
        if let Some(slot) = self.answers.get_mut(self.next) {
            let before = core::mem::replace(slot, Answer { index, failed, apart: false });
            self.bad = self.bad + u32::from(failed) - u32::from(before.failed);
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

    /// Forgets all endpoints except those that `stays`, because their indices may be reused.
    pub fn retain(&mut self, stays: impl Fn(u32) -> bool) {
        let gone = self.answers.iter_mut().filter(|a| a.index != u32::MAX && !stays(a.index));
        gone.for_each(|answer| *answer = Answer::none());
        self.recount();
        self.failed.iter_mut().filter(|i| **i != u32::MAX && !stays(**i)).for_each(|i| *i = u32::MAX);
    }

    /// A copy with the indices mapped by `to`; endpoints without a new index are forgotten.
    pub fn moved(&self, to: impl Fn(u32) -> Option<u32>) -> BaselineErrors {
        let mut moved = self.clone();
        for answer in &mut moved.answers {
            match to(answer.index) {
                Some(to) if answer.index != u32::MAX => answer.index = to,
                _ => *answer = Answer::none(),
            }
        }
        moved.recount();
        for index in &mut moved.failed {
            *index = to(*index).filter(|_| *index != u32::MAX).unwrap_or(u32::MAX);
        }
        moved
    }

    /// Failure ratio of the endpoints that `counts` accepts; `None` while too little is known.
    pub fn ratio(&self, counts: impl Fn(u32) -> bool) -> Option<f64> {
        if self.bad == 0 {
            // Without any failure the ratio is 0 for any subset.
            let counted = |a: &&Answer| a.index != u32::MAX && counts(a.index);
            let enough = self.answers.iter().filter(counted).nth(FEWEST as usize - 1);
            return enough.map(|_| 0.0);
        }
        let (all, failed) = self.count(counts)?;
        Some(failed / all)
    }

    fn recount(&mut self) {
        self.bad = self.answers.iter().map(|a| u32::from(a.failed)).sum();
    }

    /// Sets the endpoints apart of which all latest answers, at least two, are failures, if that explains the failures
    /// better than one ratio common to all, but for a chance of `surprise`: shorter by its logarithm in nats, what it
    /// takes to name these endpoints among all included (Rissanen, "Modeling by shortest data description", 1978). A
    /// fault that all share, however frequent, leaves some endpoints without a good answer, but not more than it takes
    /// to name them.
    pub fn set_apart(&mut self, surprise: f64) {
        let enough = self.bad >= MIN_APART;
        if !enough && !self.any_apart {
            return;
        }
        let mut sorted = self.answers;
        order::sort_by(&mut sorted, |one, other| one.index < other.index);
        let known = sorted.partition_point(|answer| answer.index < u32::MAX);
        let sorted = sorted.get(..known).unwrap_or_default();
        let of_each = || sorted.chunk_by(|a, b| a.index == b.index);
        let fails = |of: &[Answer]| of.len() > 1 && of.iter().all(|answer| answer.failed);
        let (endpoints, failed) = (of_each().count(), self.bad as usize);
        let (apart, lost) =
            of_each().filter(|of| fails(of)).fold((0, 0), |(apart, lost), of| (apart + 1, lost + of.len()));
        let shorter = nats(failed, known) - nats(failed - lost, known - lost) - nats(apart, endpoints);
        let accepted = enough && shorter > -surprise.ln();
        let is_apart = |index: u32| {
            let from = sorted.partition_point(|answer| answer.index < index);
            let of = sorted.get(from..).unwrap_or_default().chunk_by(|a, b| a.index == b.index).next();
            accepted && of.is_some_and(fails)
        };
        let (all, failures) = &mut self.long;
        self.any_apart = accepted;
        for answer in self.answers.iter_mut().filter(|answer| answer.index != u32::MAX) {
            let was = core::mem::replace(&mut answer.apart, answer.failed && is_apart(answer.index));
            let counts = f32::from(u8::from(was)) - f32::from(u8::from(answer.apart));
            (*all, *failures) = ((*all + counts).max(0.0), (*failures + counts).max(0.0));
        }
    }

    /// Upper estimate of the failure ratio of the endpoints that `counts` accepts: one standard error above an estimate
    /// with one good and one bad answer as prior.
    pub fn at_most(&self, counts: impl Fn(u32) -> bool) -> Option<f64> {
        let (all, failed) = self.count(counts)?;
        let ratio = (failed + 1.0) / (all + 2.0);
        Some(ratio + (ratio * (1.0 - ratio) / all).sqrt())
    }

    /// The usual failure ratio: that of the latest answers of the endpoints that `counts` accepts, or of the long-term
    /// counts of all `endpoints`, whichever is higher. What happens to all endpoints once in a thousand answers shows
    /// only in the long term. There the failures of the endpoint at `of` are left out or, without one, those of the
    /// endpoint that fails most: an endpoint that fails often excuses neither itself nor others. `None` while too
    /// little is known.
    pub fn usual(&self, counts: impl Fn(u32) -> bool, of: Option<u32>, endpoints: usize) -> Option<f64> {
        let (all, failures) = self.long;
        // With fewer answers, a single failure would exceed the bound.
        let known = f64::from(all) * RARE >= 1.0;
        let long = known.then(|| match failures {
            0.0 => 0.0,
            _ => (f64::from(failures / all) * self.spread_out(of, endpoints)).min(RARE),
        });
        self.ratio(counts).into_iter().chain(long).reduce(f64::max)
    }

    /// Failure ratio that may well be usual although none has been seen in all answers of `workers` workers: one
    /// failure more than there were. Divided by `others`, the capacity of the other endpoints relative to this one:
    /// where there are many, nothing is lost by verifying one in vain.
    pub fn unseen(&self, others: f64, workers: u32) -> f64 {
        let answers = f64::from(self.long.0) * f64::from(workers.max(1));
        // A single endpoint has none to be compared with.
        if others > 0.0 { (1.0 / (answers + 2.0) / others).min(1.0) } else { 0.0 }
    }

    /// Fraction of the latest failures that is not due to a single endpoint: 0 if it has them all, 1 if it has its
    /// share.
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
        for answer in self.answers.iter().filter(|a| a.index != u32::MAX && !a.apart && counts(a.index)) {
            all += 1;
            failed += u32::from(answer.failed);
        }
        (all >= FEWEST).then(|| (f64::from(all), f64::from(failed)))
    }
}

/// Length in nats of the shortest description of which `some` of `all` are meant.
fn nats(some: usize, all: usize) -> f64 {
    let of = |n: usize| if n == 0 { 0.0 } else { -(n as f64) * (n as f64 / all as f64).ln() };
    of(some) + of(all.saturating_sub(some))
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
        assert_eq!(background.usual(|i| i != 3, None, 4), Some(0.0), "and no other");
        assert_eq!(background.usual(|i| i != 3, Some(0), 4), Some(RARE), "as rare errors of all");
        background.retain(|i| i != 3);
        assert_eq!(background.ratio(|_| true), Some(0.0));
    }

    #[test]
    fn endpoints_that_answer_nothing_well_do_not_excuse_each_other() {
        for (endpoints, fail, each) in
            [(16, 4, 2), (16, 8, 2), (3, 2, 6), (5, 3, 4), (40, 10, 2), (40, 30, 3)]
        {
            let mut background = BaselineErrors::default();
            (0..endpoints * each).for_each(|n| background.observe(n % endpoints, n % endpoints < fail));
            background.set_apart(1e-3);
            let case = format!("{fail} of {endpoints}");
            let rest = (endpoints - fail) * each;
            assert_eq!(background.ratio(|_| true), (rest >= FEWEST).then_some(0.0), "{case}");
            // Well again: one good answer is enough.
            (0..fail).for_each(|n| background.observe(n, false));
            background.set_apart(1e-3);
            assert!(background.ratio(|_| true).unwrap() > 0.0, "{case}");
        }
    }

    #[test]
    fn what_was_set_apart_counts_again_once_few_failures_are_left() {
        let mut background = BaselineErrors::default();
        (0..32).for_each(|n| background.observe(n % 16, n % 16 < 4));
        background.set_apart(1e-3);
        assert_eq!(background.ratio(|_| true), Some(0.0));
        // The others' answers push most of the failures out; the endpoints are well again.
        (0..110).for_each(|n| background.observe(4 + n % 12, false));
        (0..4).for_each(|n| background.observe(n, false));
        assert_eq!(background.bad, 2);
        background.set_apart(1e-3);
        assert_eq!(background.ratio(|_| true), Some(2.0 / 128.0));
    }

    #[test]
    fn a_fault_common_to_all_sets_none_apart() {
        let mut rng = crate::rng::Rng::new(5);
        for endpoints in [2, 3, 8, 16, 64, 300] {
            for percent in [2, 10, 30, 50, 70, 90, 100] {
                let (mut background, mut apart, mut looks) = (BaselineErrors::default(), 0, 0);
                for n in 0..4000 {
                    background.observe(rng.below(endpoints), rng.below(100) < percent && n > 300);
                    background.set_apart(1e-3);
                    looks += 1;
                    apart += u32::from(background.answers.iter().any(|answer| answer.apart));
                }
                assert!(apart * 200 <= looks, "{endpoints} endpoints, {percent} %: {apart} of {looks}");
            }
        }
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
        assert_eq!(BaselineErrors::default().unseen(0.0, 1), 0.0, "none is beside it");
    }

    #[test]
    fn too_few_samples_give_no_figure() {
        let mut background = BaselineErrors::default();
        (0..7).for_each(|_| background.observe(1, true));
        assert_eq!(background.ratio(|_| true), None);
        (0..12).for_each(|_| background.observe(2, false));
        assert_eq!(background.usual(|i| i == 2, Some(2), 2), Some(0.0), "too few for what is rare");
    }
}
