//! The lowest value of one PromQL signal, of two random choices.
//!
//! All proxies read the same, seconds-old numbers; taking the lowest of all would send all of them to the same
//! endpoint (Mitzenmacher, "How useful is old information?", 2000). Two choices keep the flow spread. An
//! endpoint whose value is unknown counts as the fleet's median, never as best; equal values go to fewer in flight.

use super::{Candidates, PickContext, Policy, Pool, Request, pick_lowest_cost};
use crate::endpoint::EndpointView;
use crate::rng::Rng;

/// Two, see above.
const CHOICES: usize = 2;

/// The signal says itself which endpoint is loaded; what holds an endpoint back beside it gives way late.
const BREAKS_AT: f32 = 4.0;

/// Keeps nothing between picks.
#[derive(Debug, Default)]
pub struct LeastSignal;

/// In-flight only breaks ties: it moves the value by less than a millionth of itself.
fn cost(member: EndpointView<'_>) -> f32 {
    member.signal + (member.signal.abs() + 1.0) * 1e-6 * member.total_in_flight().min(1000) as f32
}

impl Policy for LeastSignal {
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
