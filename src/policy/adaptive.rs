//! The cheapest of a few random endpoints, by what this process has measured a moment ago.
//!
//! cost = max(expected latency, floor) · price(what awaits an answer / weight)
//!
//! The expected latency is the robust estimate of all workers, as far as it is known to differ from the
//! fleet's ([`Known::price`]); the floor is what unanswered requests say beyond chance ([`Known::silent`]); the price is how
//! much requests that await an answer delay the next, learnt ([`Queueing`](crate::measure::Queueing)). What Prometheus
//! says is old by seconds and shared by everybody, so it changes how *often* an endpoint may win
//! ([`Member::held`](crate::member::Member::held)), never who is the best: stale data biases, fresh data decides, nobody herds.

use super::{Candidates, Policy, Pool, Request, View, cheapest};
use crate::known::Known;
use crate::random::Rng;
use crate::terms::Terms;

/// Costs are times: who takes twice as long is full.
const BREAKS_AT: f32 = 2.0;
/// What a stream that is open and answered counts of a request that waits: enough to part equals, so that streams
/// opened one after the other are spread, and a thousand of them are a tenth of a request.
const OPEN_COUNTS: f32 = 1e-4;

/// Keeps nothing between picks: all it knows stands in the members.
#[derive(Debug)]
pub struct Adaptive(pub Terms);

/// An endpoint that has been silent for so many times what is expected of it, and for so long, is looked at again; with
/// each further answer that it owes after twice the time.
const LOOK_AGAIN: f32 = 8.0;
const LOOK_AGAIN_S: f32 = 0.5;
/// So many of its turns have passed since the last request to it: looks are requests of users.
const TURNS_TO_LOOK: f32 = 4.0;

/// What the next request to this endpoint is expected to cost, in seconds. Nothing where it is to be looked into why the
/// endpoint is silent: the request that it is silent about may be one that waits by nature, and without another one
/// nobody would ever know. What hangs is looked at a number of times that grows with the logarithm of how long it does.
fn cost(terms: &Terms, view: View<'_>, member: Known<'_>) -> f32 {
    let floor = if terms.floor { member.silent(view.queueing, view.now) } else { 0.0 };
    let long = floor > LOOK_AGAIN_S && floor > LOOK_AGAIN * member.expected;
    if long && view.turns.passed(&member, TURNS_TO_LOOK) {
        let patience = LOOK_AGAIN_S.max(LOOK_AGAIN * member.expected);
        if floor > patience * (member.owed() as f32 - 1.0).exp2() {
            return 0.0;
        }
    }
    let awaiting = member.awaiting() as f32;
    let open = (member.total_in_flight() as f32 - awaiting).max(0.0);
    let depth = (awaiting + OPEN_COUNTS * open) * view.turns.unit / member.weight;
    member.expected.max(floor) * view.queueing.price(depth)
}

impl Policy for Adaptive {
    fn pick(&mut self, view: View<'_>, pool: &mut Pool, request: Request, rng: &mut Rng) -> Candidates {
        let terms = &self.0;
        cheapest(view, pool, terms.choices, request.want, rng, BREAKS_AT, |m, _| cost(terms, view, m))
    }

    fn counts_turns(&self) -> bool {
        true
    }

    fn cost(&self, view: View<'_>, index: u32) -> Option<f32> {
        Some(cost(&self.0, view, view.known(index)?))
    }

    fn sees_silence(&self) -> bool {
        true
    }

    fn exiles(&self) -> bool {
        self.0.explore
    }
}
