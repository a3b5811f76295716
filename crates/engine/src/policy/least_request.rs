//! The fewest requests in flight per weight, of two random choices (Mitzenmacher, "The power of two choices in
//! randomized load balancing", 2001): as Envoy's `LEAST_REQUEST`, but counting the requests of all workers.

use super::{Candidates, PickContext, Policy, Pool, Request, pick_lowest_cost};
use crate::endpoint::EndpointView;
use crate::rng::Rng;

/// Envoy's default `choice_count`.
const CHOICES: usize = 2;

/// Cost ratio at which an endpoint is used out of turn: four times as many requests in flight are not chance.
const BREAKS_AT: f32 = 4.0;

/// The policy, without state of its own.
#[derive(Debug, Default)]
pub struct LeastRequest;

fn cost(member: EndpointView<'_>) -> f32 {
    (member.total_in_flight() + 1) as f32 / member.weight
}

impl Policy for LeastRequest {
    fn pick(
        &mut self,
        view: PickContext<'_>,
        pool: &mut Pool,
        request: Request,
        rng: &mut Rng,
    ) -> Candidates {
        pick_lowest_cost(view, pool, CHOICES, request.want, rng, BREAKS_AT, |m, _| cost(m))
    }

    fn counts_turns(&self) -> bool {
        true
    }

    fn cost(&self, view: PickContext<'_>, index: u32) -> Option<f32> {
        view.known(index).map(cost)
    }
}
