//! The lowest weighted sum of load and latency, each over the maximum that counts as full.
//!
//! score = w₁ · (in-flight / weight) / in-flight maximum + w₂ · latency / latency maximum
//!
//! with w₁ = 0.6, w₂ = 0.4, 1000 requests and 500 ms unless configured otherwise; the lowest among a few random
//! endpoints gets the request. The form is one that operators write down themselves (compare Netflix, "Rethinking
//! Netflix's edge load balancing", 2018, which sums normalised views and picks one of two at random). The latency is
//! that of all workers as far as it is known to differ from the subset's
//! ([`EndpointState::expected`](crate::endpoint::EndpointState::expected)), and at least what unanswered requests have
//! waited already, as far as chance does not explain that ([`EndpointView::silent`]); an unknown endpoint counts as
//! typical. Use it where both maxima are known and the trade-off is a decision; it adds where [`adaptive`] multiplies,
//! so with maxima that are far off, one of the two terms decides alone.
//!
//! [`adaptive`]: super::adaptive

use super::rounding::Rounding;
use super::{Candidates, PickContext, Policy, Pool, Request, pick_lowest_cost};
use crate::endpoint::EndpointView;
use crate::rng::Rng;
use crate::settings;

/// Number of endpoints compared: enough that a draw of slow endpoints only is rare, few enough that not every request
/// goes to the best.
const CHOICES: usize = 5;

/// Cost ratio at which an endpoint is used out of turn: a score four times as high is not chance.
const BREAKS_AT: f32 = 4.0;

/// The cost of one request in flight, and of one second.
#[derive(Debug)]
pub struct WeightedScore {
    per_request: f32,
    per_second: f32,
}

impl WeightedScore {
    /// Creates the policy with the configured weights and maxima.
    pub fn new(score: &settings::WeightedScore) -> WeightedScore {
        WeightedScore {
            per_request: (score.in_flight_weight / score.in_flight_max) as f32,
            per_second: (score.latency_weight * 1e3 / score.latency_max_ms) as f32,
        }
    }

    fn score(&self, view: PickContext<'_>, endpoint: EndpointView<'_>, rounding: Rounding) -> f32 {
        let latency = endpoint.expected.max(endpoint.silent(view.queueing, view.now));
        self.per_request * rounding.in_flight(view, &endpoint) / endpoint.weight + self.per_second * latency
    }
}

impl Policy for WeightedScore {
    fn pick(
        &mut self,
        view: PickContext<'_>,
        pool: &mut Pool,
        request: Request,
        rng: &mut Rng,
    ) -> Candidates {
        let rounding = Rounding::draw(false, rng);
        pick_lowest_cost(view, pool, CHOICES, request.want, rng, BREAKS_AT, |m, _, _| {
            self.score(view, m, rounding)
        })
    }

    fn counts_turns(&self) -> bool {
        true
    }

    fn cost(&self, view: PickContext<'_>, index: u32) -> Option<f32> {
        Some(self.score(view, view.known(index)?, Rounding::Exact))
    }

    fn sees_silence(&self) -> bool {
        true
    }

    fn exiles(&self) -> bool {
        true
    }
}
