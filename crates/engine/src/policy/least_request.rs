//! The fewest requests in flight per weight, of two random choices (Mitzenmacher, "The power of two choices in
//! randomized load balancing", 2001), as Envoy's `LEAST_REQUEST`. Requests of other workers are known from their reports.
//!
//! Endpoints at rest cost the same, so that each of them gets requests as often as it is drawn, by its weight. If the
//! request to come counted per weight, too, the heaviest would get all requests that meet no other.

use super::rounding::Rounding;
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

fn cost(view: PickContext<'_>, endpoint: EndpointView<'_>, rounding: Rounding) -> f32 {
    rounding.in_flight(view, &endpoint) / endpoint.weight + 1.0 / view.turns.unit
}

impl Policy for LeastRequest {
    fn pick(
        &mut self,
        view: PickContext<'_>,
        pool: &mut Pool,
        request: Request,
        rng: &mut Rng,
    ) -> Candidates {
        let rounding = Rounding::draw(false, rng);
        pick_lowest_cost(view, pool, CHOICES, request.want, rng, BREAKS_AT, |m, _, _| cost(view, m, rounding))
    }

    fn counts_turns(&self) -> bool {
        true
    }

    fn cost(&self, view: PickContext<'_>, index: u32) -> Option<f32> {
        Some(cost(view, view.known(index)?, Rounding::Exact))
    }
}
