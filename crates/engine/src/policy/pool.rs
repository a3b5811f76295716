//! The endpoints of a subset, prepared for random draws in constant time.

use core::ops::Range;

use super::{Candidates, PickContext};
use crate::endpoint::EndpointState;
use crate::order;
use crate::rng::Rng;

/// Maximum number of endpoints drawn by a decision.
pub const MAX_DRAWS: usize = 16;

/// Distinct random draws in proportion to [`EndpointState::share`], or to another measure.
///
/// With equal shares a draw is one step of a Fisher–Yates shuffle of a permutation that is kept: distinct without
/// rejection, O(1), regardless of the order that earlier draws left. With unequal shares a draw is Walker's alias
/// method (Vose, "A linear algorithm for generating random numbers with a given distribution", 1991): O(1), the table
/// is rebuilt on refresh; repetitions are drawn again, a bounded number of times, and what is missing then
/// [evenly](Pool::fill).
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// All endpoints of the subset, in rising order.
    indices: Vec<u32>,
    /// The eligible ones, in any order.
    order: Vec<u32>,
    alias: Vec<Alias>,
    /// All endpoints of the subset, in the order of their identities.
    common: Vec<u32>,
    /// The shares of the eligible ones, added up in this order; empty if all are equal.
    sums: Vec<f32>,
    /// What was drawn by shares that differ.
    drawn: [u32; MAX_DRAWS],
}

#[derive(Clone, Copy, Debug)]
struct Alias {
    /// Probability of `own` rather than `other`, in units of 2⁻³².
    keep: u32,
    own: u32,
    other: u32,
}

impl Pool {
    /// Replaces the endpoints by `indices`, in rising order; none is eligible until the next refresh. `identity` is
    /// the same for an endpoint in every worker.
    pub fn assign(&mut self, indices: impl Iterator<Item = u32>, identity: impl Fn(u32) -> u64) {
        self.indices.clear();
        self.indices.extend(indices);
        self.indices.shrink_to_fit();
        self.common.clone_from(&self.indices);
        order::sort_by_hash(&mut self.common, identity);
    }

    /// Updates the eligible endpoints, drawn in proportion to their shares.
    pub fn refresh(&mut self, endpoints: &[EndpointState]) {
        self.refresh_by(endpoints, |endpoint| endpoint.share);
    }

    /// Updates the eligible endpoints, drawn in proportion to `part`.
    pub fn refresh_by(&mut self, endpoints: &[EndpointState], part: impl Fn(&EndpointState) -> f32) {
        self.order.clear();
        let eligible = |i: &&u32| endpoints.get(**i as usize).is_some_and(|m| m.eligible);
        self.order.reserve_exact(self.indices.len());
        self.order.extend(self.indices.iter().filter(eligible));
        let share = |i: &u32| endpoints.get(*i as usize).map_or(0.0, &part);
        let (mut least, mut most) = (f32::INFINITY, 0.0f32);
        for share in self.order.iter().map(share) {
            (least, most) = (least.min(share), most.max(share));
        }
        self.alias.clear();
        self.sums.clear();
        if most > least * 1.01 {
            self.build_alias(share);
            self.sums.extend(self.common.iter().scan(0.0, |sum, i| {
                *sum += if eligible(&i) { share(i).max(0.0) } else { 0.0 };
                Some(*sum)
            }));
        }
    }

    fn build_alias(&mut self, share: impl Fn(&u32) -> f32) {
        let total: f64 = self.order.iter().map(|i| f64::from(share(i).max(0.0))).sum();
        let scale = self.order.len() as f64 / total.max(f64::MIN_POSITIVE);
        let (mut small, mut large): (Vec<_>, Vec<_>) = self
            .order
            .iter()
            .map(|i| (*i, f64::from(share(i).max(0.0)) * scale))
            .partition(|(_, p)| *p < 1.0);
        let full = |own| Alias { keep: u32::MAX, own, other: own };
        while let Some((own, p)) = small.pop() {
            let Some((other, rest)) = large.pop() else {
                self.alias.push(full(own));
                continue;
            };
            self.alias.push(Alias { keep: (p * 4_294_967_296.0) as u32, own, other });
            let rest = rest - (1.0 - p);
            if rest < 1.0 { small.push((other, rest)) } else { large.push((other, rest)) }
        }
        self.alias.extend(large.into_iter().map(|(own, _)| full(own)));
    }

    /// Number of eligible endpoints as of the last refresh.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no endpoint was eligible at the last refresh.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// All endpoints of the subset, in rising order.
    pub fn all(&self) -> &[u32] {
        &self.indices
    }

    /// The eligible endpoints as of the last refresh, unordered.
    pub fn as_slice(&self) -> &[u32] {
        &self.order
    }

    /// Draws up to `count` distinct endpoints that are still eligible, at most [`MAX_DRAWS`].
    pub fn draw(
        &mut self,
        view: PickContext<'_>,
        count: usize,
        rng: &mut Rng,
        mut each: impl FnMut(u32, &EndpointState),
    ) {
        let missing = self.draw_some(view, count, rng, &mut each);
        if !missing.is_empty() {
            for index in self.fill(view, missing, rng) {
                view.eligible(*index).into_iter().for_each(|endpoint| each(*index, endpoint));
            }
        }
    }

    /// The same, except those that are hardly ever drawn; returns which of the draws are left to [`fill`](Pool::fill).
    pub fn draw_some(
        &mut self,
        view: PickContext<'_>,
        count: usize,
        rng: &mut Rng,
        each: &mut impl FnMut(u32, &EndpointState),
    ) -> Range<usize> {
        let count = count.min(MAX_DRAWS);
        if self.alias.is_empty() {
            self.draw_evenly(view, count, rng, each);
            return 0..0;
        }
        self.draw_by_shares(view, count, rng, each)
    }

    /// Draws in proportion to shares that differ.
    #[inline(never)]
    fn draw_by_shares(
        &mut self,
        view: PickContext<'_>,
        count: usize,
        rng: &mut Rng,
        each: &mut impl FnMut(u32, &EndpointState),
    ) -> Range<usize> {
        let mut found = 0;
        let enough = count.min(self.order.len());
        for _ in 0..4 * count {
            if found == enough {
                return 0..0;
            }
            let index = self.draw_alias(rng);
            if self.drawn.get(..found).is_some_and(|d| d.contains(&index)) {
                continue;
            }
            let (Some(endpoint), Some(slot)) = (view.eligible(index), self.drawn.get_mut(found)) else {
                continue;
            };
            *slot = index;
            found += 1;
            each(index, endpoint);
        }
        if found == 0 {
            self.draw_evenly(view, count, rng, each);
            return 0..0;
        }
        found..enough
    }

    /// Draws evenly what is `missing` of the draws; returns what it has found. Where a few endpoints have most of the
    /// shares, hardly any other is drawn by shares.
    #[cold]
    #[inline(never)]
    pub fn fill(&mut self, view: PickContext<'_>, missing: Range<usize>, rng: &mut Rng) -> &[u32] {
        let (len, mut found) = (self.order.len(), missing.start);
        for at in 0..len.min(4 * MAX_DRAWS) {
            if found >= missing.end {
                break;
            }
            self.order.swap(at, at + rng.below((len - at) as u32) as usize);
            let index = self.order.get(at).copied().unwrap_or(u32::MAX);
            let known = self.drawn.get(..found).is_some_and(|drawn| drawn.contains(&index));
            if !known
                && view.eligible(index).is_some()
                && let Some(slot) = self.drawn.get_mut(found)
            {
                *slot = index;
                found += 1;
            }
        }
        self.drawn.get(missing.start..found).unwrap_or_default()
    }

    /// Draws `count` endpoints at [home](super::Home), in proportion to their shares; returns the distinct ones that are
    /// eligible.
    #[inline(never)]
    pub fn draw_at_home(
        &self,
        view: PickContext<'_>,
        count: usize,
        rng: &mut Rng,
        each: &mut impl FnMut(u32, &EndpointState),
    ) -> Candidates {
        let home = view.turns.home;
        let mut drawn = Candidates::default();
        for _ in 0..count {
            let at = home.from + home.width * rng.unit() as f32;
            let place = match self.sums.last() {
                Some(all) => self.sums.partition_point(|sum| *sum <= at * all),
                None => (at * self.common.len() as f32) as usize,
            };
            let index = self.common.get(place).copied().unwrap_or(u32::MAX);
            if let Some(endpoint) = view.eligible(index)
                && !drawn.as_slice().contains(&index)
            {
                drawn.push(index);
                each(index, endpoint);
            }
        }
        drawn
    }

    fn draw_alias(&self, rng: &mut Rng) -> u32 {
        let bits = rng.next_u64();
        let column = (((bits >> 32) * self.alias.len() as u64) >> 32) as usize;
        match self.alias.get(column) {
            Some(alias) if bits as u32 <= alias.keep => alias.own,
            Some(alias) => alias.other,
            None => u32::MAX,
        }
    }

    /// Draws with equal probability. Tries up to four times `count` slots, because some may have become ineligible
    /// since the refresh.
    fn draw_evenly(
        &mut self,
        view: PickContext<'_>,
        count: usize,
        rng: &mut Rng,
        each: &mut impl FnMut(u32, &EndpointState),
    ) {
        let len = self.order.len();
        let mut found = 0;
        for at in 0..len.min(4 * count) {
            if found == count {
                return;
            }
            let with = at + rng.below((len - at) as u32) as usize;
            self.order.swap(at, with);
            let Some(index) = self.order.get(at).copied() else { return };
            if let Some(endpoint) = view.eligible(index) {
                found += 1;
                each(index, endpoint);
            }
        }
        // Most endpoints became ineligible since the refresh: try every one rather than find none.
        if found == 0 {
            for index in self.order.iter().copied() {
                if let Some(endpoint) = view.eligible(index) {
                    each(index, endpoint);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use std::sync::LazyLock;

    use super::*;
    use crate::endpoint::PeerTable;
    use crate::estimate::Queueing;
    use crate::time::Time;

    fn of_shares(shares: &[f32]) -> Vec<EndpointState> {
        shares
            .iter()
            .map(|s| EndpointState {
                present: true,
                eligible: *s > 0.0,
                share: *s,
                weight: 1.0,
                ..EndpointState::default()
            })
            .collect()
    }

    fn view(endpoints: &[EndpointState]) -> PickContext<'_> {
        static QUEUEING: LazyLock<Queueing> = LazyLock::new(Queueing::default);
        static PEERS: LazyLock<PeerTable> = LazyLock::new(PeerTable::default);
        let (peers, queueing) = (&*PEERS, &*QUEUEING);
        PickContext {
            states: endpoints,
            peers,
            identities: &[],
            peaks: &[],
            queueing,
            in_flight: 0,
            now: Time::ZERO,
            turns: crate::policy::Turns::default(),
        }
    }

    fn first_draws(endpoints: &[EndpointState], rounds: usize, draws: usize) -> Vec<f64> {
        let mut pool = Pool::default();
        pool.assign(0..endpoints.len() as u32, u64::from);
        pool.refresh(endpoints);
        let mut rng = Rng::new(7);
        let mut counts = vec![0.0; endpoints.len()];
        for _ in 0..rounds {
            let mut seen = Vec::new();
            pool.draw(view(endpoints), draws, &mut rng, |i, _| seen.push(i));
            assert!((1..seen.len()).all(|n| !seen[n..].contains(&seen[n - 1])), "distinct: {seen:?}");
            counts[seen[0] as usize] += 1.0;
        }
        counts
    }

    #[test]
    fn draws_follow_the_shares() {
        for shares in [&[1.0f32; 10][..], &[1.0, 2.0, 3.0, 4.0], &[0.01, 1.0, 1.0], &[1000.0, 1.0, 1.0, 1.0]]
        {
            let total: f32 = shares.iter().sum();
            let counts = first_draws(&of_shares(shares), 40_000, 2);
            let chi: f64 = shares
                .iter()
                .zip(&counts)
                .map(|(s, n)| (f64::from(s / total) * 40_000.0, n))
                .map(|(expected, n)| (n - expected).powi(2) / expected)
                .sum();
            assert!(chi < 30.0, "{shares:?} {counts:?} χ²={chi}");
        }
    }

    #[test]
    fn never_draws_ineligible_endpoints_and_finds_the_last_one() {
        let mut list = of_shares(&[1.0; 40]);
        let mut pool = Pool::default();
        pool.assign(0..40, u64::from);
        pool.refresh(&list);
        list.iter_mut().take(39).for_each(|m| m.eligible = false);
        let mut rng = Rng::new(1);
        for _ in 0..100 {
            let mut seen = Vec::new();
            pool.draw(view(&list), 5, &mut rng, |i, _| seen.push(i));
            assert_eq!(seen, [39]);
        }
    }
}
