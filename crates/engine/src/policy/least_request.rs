//! Fewest requests in flight over weight, of two random choices (Mitzenmacher, "The power of two choices in
//! randomized load balancing", 2001): Envoy's `LEAST_REQUEST`, but counting what all workers have in flight.

use super::{Candidates, PickContext, Policy, Pool, Request, pick_lowest_cost};
use crate::endpoint::EndpointView;
use crate::rng::Rng;

/// Envoy's default `choice_count`.
const CHOICES: usize = 2;

/// So many times as many in flight are no chance any more.
const BREAKS_AT: f32 = 4.0;

/// Keeps nothing between picks.
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
