//! The cheapest of a few random endpoints, by what this process has measured a moment ago.
//!
//! cost = max(expected latency, floor) · price(what awaits an answer / weight)
//!
//! The expected latency is the robust estimate of all workers, as far as it is known to differ from the
//! fleet's ([`EndpointView::expected_cost`]); the floor is what unanswered requests say ([`EndpointView::min_latency`]); the
//! price is how much requests in flight delay the next, learnt ([`Queueing`](crate::estimate::Queueing)). What
//! Prometheus says is old by seconds and shared by all, so it changes how *often* an endpoint may win
//! ([`EndpointState::held`](crate::endpoint::EndpointState::held)), never which endpoint is the best: stale data
//! biases, fresh data decides, nothing herds.

use super::{Candidates, PickContext, Policy, Pool, Request, pick_lowest_cost};
use crate::ablation::Ablation;
use crate::endpoint::EndpointView;
use crate::rng::Rng;

/// Costs are times: who takes twice as long is full.
const BREAKS_AT: f32 = 2.0;
/// What a stream that is open and answered counts of a request that waits: enough to part equals, so that streams
/// opened one after the other are spread, and a thousand of them are a tenth of a request.
const OPEN_COUNTS: f32 = 1e-4;

/// Keeps nothing between picks: all it knows stands in the members.
#[derive(Debug)]
pub struct Adaptive(pub Ablation);

/// What the next request to this endpoint is expected to cost, in seconds.
fn cost(ablation: &Ablation, view: PickContext<'_>, member: EndpointView<'_>) -> f32 {
    let floor = if ablation.floor { member.min_latency(view.now) as f32 } else { 0.0 };
    let awaiting = member.awaiting() as f32;
    let open = (member.total_in_flight() as f32 - awaiting).max(0.0);
    let depth = (awaiting + OPEN_COUNTS * open) * view.turns.unit / member.weight;
    member.expected.max(floor) * view.queueing.price(depth)
}

impl Policy for Adaptive {
    fn pick(
        &mut self,
        view: PickContext<'_>,
        pool: &mut Pool,
        request: Request,
        rng: &mut Rng,
    ) -> Candidates {
        let ablation = &self.0;
        pick_lowest_cost(view, pool, ablation.choices, request.want, rng, BREAKS_AT, |m, _| {
            cost(ablation, view, m)
        })
    }

    fn counts_turns(&self) -> bool {
        true
    }

    fn cost(&self, view: PickContext<'_>, index: u32) -> Option<f32> {
        Some(cost(&self.0, view, view.known(index)?))
    }

    fn sees_silence(&self) -> bool {
        true
    }

    fn exiles(&self) -> bool {
        self.0.explore
    }
}
