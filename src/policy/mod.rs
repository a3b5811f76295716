//! How an endpoint is chosen: one file a policy behind one small trait.
//!
//! | policy | question it answers |
//! |---|---|
//! | [`adaptive`] | who will answer soonest, by all that is known? |
//! | [`least_request`] | who has the fewest requests on the way? |
//! | [`least_signal`] | whose signal is lowest? |
//! | [`round_robin`] | whose turn is it? |
//!
//! A new policy is one file here, one line in [`build`], and its name in the configuration.

pub mod adaptive;
pub mod least_request;
pub mod least_signal;
pub mod pool;
pub mod round_robin;

use crate::config;
use crate::measure::Queueing;
use crate::member::Member;
use crate::random::Rng;
use crate::terms::Terms;
use crate::time::Time;

pub use pool::Pool;

/// The most endpoints a decision can name.
pub const MAX_CANDIDATES: usize = 8;

/// What a policy may look at.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Everything known, by endpoint index; vacant places have `present == false`.
    pub members: &'a [Member],
    /// How much requests in flight delay the next.
    pub queueing: &'a Queueing,
    /// The moment of the decision.
    pub now: Time,
}

impl View<'_> {
    /// The member at `index`, if it may be chosen.
    pub fn eligible(&self, index: u32) -> Option<&Member> {
        self.members.get(index as usize).filter(|m| m.eligible)
    }
}

/// Endpoint indices, best first: a fixed-size list, because a request allocates nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    indices: [u32; MAX_CANDIDATES],
    len: usize,
}

impl Candidates {
    /// Appends `index`; a full list and a repetition stay as they are.
    pub fn push(&mut self, index: u32) {
        if self.as_slice().contains(&index) {
            return;
        }
        if let Some(slot) = self.indices.get_mut(self.len) {
            *slot = index;
            self.len += 1;
        }
    }

    /// The indices, best first.
    pub fn as_slice(&self) -> &[u32] {
        self.indices.get(..self.len).unwrap_or_default()
    }

    /// The best, if any.
    pub fn first(&self) -> Option<u32> {
        self.as_slice().first().copied()
    }

    /// Keeps the best `len`.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

/// Chooses among the eligible. A policy owns what it remembers between picks (a cursor, a ring).
pub trait Policy {
    /// Called when membership, eligibility or shares may have changed, never on a request.
    fn refresh(&mut self, _view: View<'_>, _pool: &Pool) {}

    /// Names up to `want` distinct eligible endpoints, best first; none if there is none.
    fn pick(&mut self, view: View<'_>, pool: &mut Pool, want: usize, rng: &mut Rng) -> Candidates;

    /// Whether an endpoint can be left without traffic for ever, so that the engine must explore it.
    fn exiles(&self) -> bool {
        false
    }
}

/// The policy that the configuration names; `terms` are those of the adaptive one.
pub fn build(policy: &config::Policy, terms: Terms) -> Box<dyn Policy> {
    match policy {
        config::Policy::LeastRequest => Box::new(least_request::LeastRequest),
        config::Policy::LeastSignal { .. } => Box::new(least_signal::LeastSignal),
        config::Policy::RoundRobin => Box::new(round_robin::RoundRobin::default()),
        _ => Box::new(adaptive::Adaptive(terms)),
    }
}

/// Draws `draws` distinct members and ranks them by `cost`, lowest first; equal costs keep the random order of
/// the draw, so that nobody is preferred for its position.
pub fn cheapest(
    view: View<'_>,
    pool: &mut Pool,
    draws: usize,
    want: usize,
    rng: &mut Rng,
    cost: impl Fn(&Member) -> f32,
) -> Candidates {
    let mut drawn = [(f32::INFINITY, 0u32); pool::MAX_DRAWS];
    let mut count = 0;
    pool.draw(view, draws.max(want), rng, |index, member| {
        let cost = cost(member);
        let cost = if cost.is_nan() { f32::INFINITY } else { cost };
        if let Some(slot) = drawn.get_mut(count) {
            *slot = (cost, index);
            count += 1;
        }
    });
    let drawn = drawn.get_mut(..count).unwrap_or_default();
    // Stable, and without allocation for so few.
    drawn.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut candidates = Candidates::default();
    drawn.iter().take(want).for_each(|(_, index)| candidates.push(*index));
    candidates
}
