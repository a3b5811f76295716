//! The cheapest of a few random endpoints, by what this process has measured a moment ago.
//!
//! cost = max(expected latency, floor) · (in-flight / weight + 1)^β
//!
//! The expected latency is the robust estimate of all workers, as far as it is known to differ from the
//! fleet's ([`Member::price`]); the floor is what unanswered requests say ([`Member::floor`]); β is how much a
//! request in flight delays the next, learnt ([`Queueing`](crate::measure::Queueing)). What Prometheus
//! says is old by seconds and shared by everybody, so it changes how *often* an endpoint is considered
//! ([`Member::share`]), never who wins: stale data biases, fresh data decides, nobody herds.

use super::{Candidates, Policy, Pool, View, cheapest};
use crate::member::Member;
use crate::random::Rng;

/// Enough that a draw of only sick endpoints is rare, few enough that the best is not everybody's choice.
const CHOICES: usize = 6;

/// Keeps nothing between picks: all it knows stands in the members.
#[derive(Debug, Default)]
pub struct Adaptive;

/// What the next request to this endpoint is expected to cost, in seconds.
pub fn cost(view: View<'_>, member: &Member) -> f32 {
    let latency = member.expected.max(member.floor(view.now) as f32);
    latency * view.queueing.price(member.total_in_flight() as f32 / member.weight)
}

impl Policy for Adaptive {
    fn pick(&mut self, view: View<'_>, pool: &mut Pool, want: usize, rng: &mut Rng) -> Candidates {
        cheapest(view, pool, CHOICES, want, rng, |m| cost(view, m))
    }

    fn exiles(&self) -> bool {
        true
    }
}
