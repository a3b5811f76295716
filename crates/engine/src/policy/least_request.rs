//! Fewest requests in flight over weight, of two random choices (Mitzenmacher, "The power of two choices in
//! randomized load balancing", 2001): Envoy's `LEAST_REQUEST`, but counting what all workers have in flight.

use super::{Candidates, Policy, Pool, Request, View, cheapest};
use crate::endpoint::Known;
use crate::rng::Rng;

/// Envoy's default `choice_count`.
const CHOICES: usize = 2;

/// So many times as many in flight are no chance any more.
const BREAKS_AT: f32 = 4.0;

/// Keeps nothing between picks.
#[derive(Debug, Default)]
pub struct LeastRequest;

fn cost(member: Known<'_>) -> f32 {
    (member.total_in_flight() + 1) as f32 / member.weight
}

impl Policy for LeastRequest {
    fn pick(&mut self, view: View<'_>, pool: &mut Pool, request: Request, rng: &mut Rng) -> Candidates {
        cheapest(view, pool, CHOICES, request.want, rng, BREAKS_AT, |m, _| cost(m))
    }

    fn counts_turns(&self) -> bool {
        true
    }

    fn cost(&self, view: View<'_>, index: u32) -> Option<f32> {
        view.known(index).map(cost)
    }
}
