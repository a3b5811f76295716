//! The cheapest of a few random endpoints, by what this process has measured a moment ago.
//!
//! cost = max(expected latency, floor) · price(what awaits an answer / weight)
//!
//! The expected latency is the robust estimate of all workers, as far as it is known to differ from the
//! fleet's ([`EndpointView::expected_cost`]); the floor is what unanswered requests say beyond chance
//! ([`EndpointView::silent`]); the price is how much requests that await an answer delay the next, learnt
//! ([`Queueing`](crate::estimate::Queueing)). What Prometheus says is old by seconds and shared by all, so it changes
//! how *often* an endpoint may win ([`LastTurn::held`](crate::endpoint::LastTurn::held)), never which
//! endpoint is the best: stale data biases, fresh data decides, nothing herds.

use super::{Candidates, PickContext, Policy, Pool, Request, pick_lowest_cost};
use crate::ablation::{Ablation, Part};
use crate::endpoint::EndpointView;
use crate::rng::Rng;

/// Latencies that differ by less than this part of an octave, in bits of a number, are told apart only as often as they
/// differ by, of the whole: so a small advantage, which may be chance, does not take all the traffic.
const NEAR: u32 = 1 << 20;
/// Costs are times: who takes twice as long is full.
const BREAKS_AT: f32 = 2.0;
/// What a stream that is open and answered counts of a request that waits: enough to part equals, so that streams
/// opened one after the other are spread, and a thousand of them are a tenth of a request.
const OPEN_COUNTS: f32 = 1e-4;

/// Keeps nothing between picks: all it knows stands in the members.
#[derive(Debug)]
pub struct Adaptive(pub Ablation);

/// An endpoint that has been silent for so many times what is expected of it, and for so long, is looked at again; with
/// each further answer that it owes after twice the time.
const LOOK_AGAIN: f32 = 8.0;
const LOOK_AGAIN_S: f32 = 0.5;
/// So many of its turns have passed since the last request to it: looks are requests of users.
const TURNS_TO_LOOK: f32 = 4.0;

/// What the next request to this endpoint is expected to cost, in seconds. Nothing where it is to be looked into why
/// the endpoint is silent: the request that it is silent about may be one that waits by nature, and without another one
/// no endpoint would ever know. What hangs is looked at a number of times that grows with the logarithm of how long it
/// does.
fn cost(
    ablation: &Ablation,
    view: PickContext<'_>,
    member: EndpointView<'_>,
    told: impl Fn(f32) -> f32,
) -> f32 {
    let floor = if ablation.has(Part::MinLatency) { member.silent(view.queueing, view.now) } else { 0.0 };
    let long = floor > LOOK_AGAIN_S && floor > LOOK_AGAIN * member.expected;
    if long && view.turns.passed(&member, TURNS_TO_LOOK) {
        let stall_timeout = LOOK_AGAIN_S.max(LOOK_AGAIN * member.expected);
        if floor > stall_timeout * (member.unanswered() as f32 - 1.0).exp2() {
            return 0.0;
        }
    }
    let open = member.total_in_flight().saturating_sub(member.awaiting()) as f32;
    let depth = (member.pending() as f32 + OPEN_COUNTS * open) * view.turns.unit / member.weight;
    let takes = if floor > member.expected { floor } else { member.expected };
    told(takes) * view.queueing.price(depth)
}

/// `latency`, rounded down to a step after less than one was added.
fn blurred(latency: f32, by: u32) -> f32 {
    f32::from_bits(latency.to_bits().wrapping_add(by) & !(NEAR - 1))
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
        let blur = rng.below(NEAR);
        pick_lowest_cost(view, pool, ablation.choices, request.want, rng, BREAKS_AT, |m, _| {
            cost(ablation, view, m, |takes| blurred(takes, blur))
        })
    }

    fn counts_turns(&self) -> bool {
        true
    }

    fn cost(&self, view: PickContext<'_>, index: u32) -> Option<f32> {
        Some(cost(&self.0, view, view.known(index)?, |takes| takes))
    }

    fn sees_silence(&self) -> bool {
        true
    }

    fn exiles(&self) -> bool {
        self.0.has(Part::Explore)
    }
}
