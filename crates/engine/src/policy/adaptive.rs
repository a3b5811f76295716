//! The lowest cost among a few random endpoints, by what this process has just measured.
//!
//! cost = max(expected latency, minimum latency) · queueing(unanswered requests / weight)
//!
//! The expected latency is the robust estimate of all workers, as far as it is known to differ from the subset's
//! ([`EndpointView::expected_cost`]). The minimum latency follows from unanswered requests, as far as chance does not
//! explain the silence ([`EndpointView::silent`]). The queueing factor is the learnt effect of unanswered requests on the next
//! one ([`Queueing`](crate::estimate::Queueing)). Signals are seconds old and the same for all proxies, so they change
//! how *often* an endpoint may win ([`LastTurn::held`](crate::endpoint::LastTurn::held)), never which endpoint is best:
//! stale data sets shares, fresh data decides, and proxies do not herd.

use super::rounding::Rounding;
use super::{Candidates, PickContext, Policy, Pool, Request, pick_lowest_cost};
use crate::ablation::{Ablation, Part};
use crate::endpoint::EndpointView;
use crate::rng::Rng;

/// Cost ratio at which an endpoint is used out of turn. Costs are times, so at twice the time the others are full.
const BREAKS_AT: f32 = 2.0;
/// Weight of an open, answered stream against an unanswered request: enough to break ties, so that streams opened one
/// after the other are spread; a thousand of them count as a tenth of a request.
const OPEN_COUNTS: f32 = 1e-4;

/// The adaptive policy. It has no state of its own: everything it uses is in the endpoint states.
#[derive(Debug)]
pub struct Adaptive(pub Ablation);

/// Silence after which an endpoint gets another request to see whether it hangs, in multiples of its expected latency.
/// Each further unanswered request doubles it.
const LOOK_AGAIN: f32 = 8.0;
/// Minimum of that silence, seconds.
const LOOK_AGAIN_S: f32 = 0.5;
/// Minimum number of turns of this worker, for each worker, since its last request to the endpoint before such a
/// request, because it is a user's: every worker looks, and knows of the others' looks only later.
const TURNS_TO_LOOK: f32 = 4.0;

/// Expected cost of the next request to this endpoint, seconds. Zero if the endpoint is due for a request to find out
/// why it is silent: the unanswered one may be slow by nature, and without another request that would never show. An
/// endpoint that hangs gets a number of these that grows with the logarithm of the time.
///
/// With many proxies an endpoint of little weight is mostly idle by this worker's own requests, however busy it is. If it was
/// drawn `first`, which happens in proportion to its weight, an idle one costs as much as the others. Otherwise the request
/// to come counts as well, as far as it is more for this weight than for the mean one: each proxy would prefer it to heavier
/// endpoints with room.
fn cost(
    ablation: &Ablation,
    view: PickContext<'_>,
    endpoint: EndpointView<'_>,
    first: bool,
    rounding: Rounding,
) -> f32 {
    let floor = if ablation.has(Part::MinLatency) { endpoint.silent(view.queueing, view.now) } else { 0.0 };
    let long = floor > LOOK_AGAIN_S && floor > LOOK_AGAIN * endpoint.expected;
    if long && view.turns.passed(&endpoint, TURNS_TO_LOOK * view.turns.workers) {
        let stall_timeout = LOOK_AGAIN_S.max(LOOK_AGAIN * endpoint.expected);
        if floor > stall_timeout * (endpoint.unanswered() as f32 - 1.0).exp2() {
            return 0.0;
        }
    }
    let open = endpoint.total_in_flight().saturating_sub(endpoint.awaiting()) as f32;
    let takes = if floor > endpoint.expected { floor } else { endpoint.expected };
    let lasts = if takes > view.queueing.sojourn_s { takes } else { view.queueing.sojourn_s };
    let pending =
        endpoint.own_pending() as f32 + rounding.count(endpoint.others_awaiting_now(lasts, view.now));
    let lighter = view.turns.unit / endpoint.weight;
    let to_come = if first || lighter < 1.0 { 0.0 } else { lighter - 1.0 };
    let depth = (pending + OPEN_COUNTS * open) * lighter + to_come;
    rounding.latency(takes) * view.queueing.cost(depth)
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
        let rounding = Rounding::draw(view.turns.at_rest, rng);
        pick_lowest_cost(view, pool, ablation.choices, request.want, rng, BREAKS_AT, |m, _, first| {
            cost(ablation, view, m, first, rounding)
        })
    }

    fn counts_turns(&self) -> bool {
        true
    }

    fn cost(&self, view: PickContext<'_>, index: u32) -> Option<f32> {
        Some(cost(&self.0, view, view.known(index)?, true, Rounding::Exact))
    }

    fn sees_silence(&self) -> bool {
        true
    }

    fn exiles(&self) -> bool {
        self.0.has(Part::Explore)
    }
}
