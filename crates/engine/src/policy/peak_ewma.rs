//! The lower product of peak latency and requests in flight, of two random choices.
//!
//! cost = peak EWMA · (in-flight / weight + 1 / mean weight)
//!
//! The balancer of Finagle and linkerd ("Beyond round robin: load balancing for latency", Buoyant, 2016): the
//! [average](crate::estimate::PeakEwma) jumps to a slow answer and forgets it over 10 s, so a single slow answer is
//! enough to be avoided. An endpoint without an answer costs the subset's typical latency. Failures do not count as
//! answers, so fast errors attract no traffic. Use it where latency differs between endpoints and requests are alike; a
//! request that is heavy by nature counts against the endpoint that happened to get it.

use super::rounding::Rounding;
use super::{Candidates, PickContext, Policy, Pool, Request, pick_lowest_cost};
use crate::endpoint::EndpointView;
use crate::rng::Rng;

/// Number of endpoints compared, as published.
const CHOICES: usize = 2;

/// Cost ratio at which an endpoint is used out of turn: peaks eight times as high are not chance.
const BREAKS_AT: f32 = 8.0;

/// The policy, without state of its own: the averages are stored beside the endpoint states.
#[derive(Debug, Default)]
pub struct PeakEwma;

fn cost(view: PickContext<'_>, index: u32, endpoint: EndpointView<'_>, rounding: Rounding) -> f32 {
    let peak = view.peaks.get(index as usize).and_then(|peak| peak.estimate(view.now));
    let latency = peak.unwrap_or(endpoint.expected);
    latency * (rounding.in_flight(view, &endpoint) / endpoint.weight + 1.0 / view.turns.unit)
}

impl Policy for PeakEwma {
    fn pick(
        &mut self,
        view: PickContext<'_>,
        pool: &mut Pool,
        request: Request,
        rng: &mut Rng,
    ) -> Candidates {
        let rounding = Rounding::draw(false, rng);
        pick_lowest_cost(view, pool, CHOICES, request.want, rng, BREAKS_AT, |m, index, _| {
            cost(view, index, m, rounding)
        })
    }

    fn counts_turns(&self) -> bool {
        true
    }

    fn cost(&self, view: PickContext<'_>, index: u32) -> Option<f32> {
        Some(cost(view, index, view.known(index)?, Rounding::Exact))
    }

    fn exiles(&self) -> bool {
        true
    }
}
