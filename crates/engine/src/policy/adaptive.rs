//! The cheapest of a few random endpoints, by what this process has measured a moment ago.
//!
//! cost = max(expected latency, floor) · price(what awaits an answer / weight)
//!
//! The expected latency is the robust estimate of all workers, as far as it is known to differ from the
//! fleet's ([`Known::price`]); the floor is what unanswered requests say ([`Known::floor`]); the price is how much
//! requests in flight delay the next, learnt ([`Queueing`](crate::estimate::Queueing)). What Prometheus
//! says is old by seconds and shared by everybody, so it changes how *often* an endpoint may win
//! ([`Member::held`](crate::endpoint::Member::held)), never who is the best: stale data biases, fresh data decides, nobody herds.

use super::{Candidates, Policy, Pool, Request, View, cheapest};
use crate::ablation::Terms;
use crate::endpoint::Known;
use crate::rng::Rng;

/// Costs are times: who takes twice as long is full.
const BREAKS_AT: f32 = 2.0;
/// What a stream that is open and answered counts of a request that waits: enough to part equals, so that streams
/// opened one after the other are spread, and a thousand of them are a tenth of a request.
const OPEN_COUNTS: f32 = 1e-4;

/// Keeps nothing between picks: all it knows stands in the members.
#[derive(Debug)]
pub struct Adaptive(pub Terms);

/// What the next request to this endpoint is expected to cost, in seconds.
fn cost(terms: &Terms, view: View<'_>, member: Known<'_>) -> f32 {
    let floor = if terms.floor { member.floor(view.now) as f32 } else { 0.0 };
    let awaiting = member.awaiting() as f32;
    let open = (member.total_in_flight() as f32 - awaiting).max(0.0);
    let depth = (awaiting + OPEN_COUNTS * open) * view.turns.unit / member.weight;
    member.expected.max(floor) * view.queueing.price(depth)
}

impl Policy for Adaptive {
    fn pick(&mut self, view: View<'_>, pool: &mut Pool, request: Request, rng: &mut Rng) -> Candidates {
        let terms = &self.0;
        cheapest(view, pool, terms.choices, request.want, rng, BREAKS_AT, |m, _| cost(terms, view, m))
    }

    fn counts_turns(&self) -> bool {
        true
    }

    fn cost(&self, view: View<'_>, index: u32) -> Option<f32> {
        Some(cost(&self.0, view, view.known(index)?))
    }

    fn sees_silence(&self) -> bool {
        true
    }

    fn exiles(&self) -> bool {
        self.0.explore
    }
}
