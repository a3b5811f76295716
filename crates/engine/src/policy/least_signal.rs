//! The lowest value of one signal, of two random choices.
//!
//! All proxies read the same numbers, which are seconds old; taking the lowest of all would send all of them to the
//! same endpoint (Mitzenmacher, "How useful is old information?", 2000). Two choices keep the traffic spread. An
//! endpoint whose value is unknown counts as the cluster's median, never as best; ties go to the one with fewer
//! requests in flight for its weight.

use super::{Candidates, Home, PickContext, Policy, Pool, Request, Turns, pick_lowest_cost};
use crate::endpoint::EndpointView;
use crate::rng::Rng;

/// Number of endpoints compared; see the module's documentation.
const CHOICES: usize = 2;

/// Cost ratio at which an endpoint is used out of turn. High, because the signal itself says which endpoint is loaded.
const BREAKS_AT: f32 = 4.0;

/// The policy, without state of its own.
#[derive(Debug, Default)]
pub struct LeastSignal;

/// The value, with the requests in flight per weight as a tie-breaker: each adds 10⁻⁶ of (1 + the absolute value), up to
/// 1000.
fn cost(view: PickContext<'_>, endpoint: EndpointView<'_>) -> f32 {
    let in_flight = endpoint.total_in_flight() as f32 * view.turns.unit / endpoint.weight;
    endpoint.signal + (endpoint.signal.abs() + 1.0) * 1e-6 * in_flight.min(1000.0)
}

impl Policy for LeastSignal {
    fn pick(
        &mut self,
        view: PickContext<'_>,
        pool: &mut Pool,
        request: Request,
        rng: &mut Rng,
    ) -> Candidates {
        // No worker has to keep out of the others' way: requests in flight do not count.
        let view = PickContext { turns: Turns { home: Home::default(), ..view.turns }, ..view };
        pick_lowest_cost(view, pool, CHOICES, request.want, rng, BREAKS_AT, |m, _, _| cost(view, m))
    }

    fn counts_turns(&self) -> bool {
        true
    }

    fn cost(&self, view: PickContext<'_>, index: u32) -> Option<f32> {
        Some(cost(view, view.known(index)?))
    }
}
