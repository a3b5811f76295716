//! Each in turn, the heavier the more often, evenly spaced: what NGINX calls smooth weighted round robin and
//! Envoy's `ROUND_ROBIN` does with weights.
//!
//! Earliest deadline first: an endpoint's turns are 1 / [`share`](crate::endpoint::EndpointState::share) apart, and the
//! next turn is the earliest. After a whole cycle every endpoint has had exactly its share. First turns lie anywhere
//! within a period, by the golden ratio's multiples: endpoints of one weight never come in a row between heavier ones.
//! Before its first request a worker moves all turns by a random part of their periods, so that workers do not go in
//! step, whatever the size of the fleet. The share is weight × signals × slow start; when it changes, what is left of
//! the wait shrinks or grows with it. A refresh takes the turns over rather than begin anew.
//!
//! Use it where requests are alike and capacities are known. It looks at neither latency nor load.

use super::calendar::{Calendar, Turn};
use super::{Candidates, MAX_CANDIDATES, PickContext, Policy, Pool, Request};
use crate::rng::Rng;

/// Endpoints that lost their eligibility since the refresh and are passed over in one pick.
const MAX_PASSED_OVER: usize = 4 * MAX_CANDIDATES;
/// Shares below count as this: a deadline stays finite.
const MIN_SHARE: f32 = 1e-6;
/// From then on fractions of time might be lost.
const LATE: f64 = 1e6;
/// The fractions of its multiples fill a period more evenly than those of any other number.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// Whose turn is when.
#[derive(Debug, Default)]
pub struct WeightedRoundRobin {
    calendar: Calendar,
    /// When the last turn was.
    clock: f64,
    begun: bool,
}

impl WeightedRoundRobin {
    fn next(&mut self) -> Option<u32> {
        let turn = self.calendar.next()?;
        self.clock = turn.due;
        Some(turn.index)
    }
}

impl Policy for WeightedRoundRobin {
    fn refresh(&mut self, view: PickContext<'_>, pool: &Pool) {
        let shares = || {
            let share = |index: &u32| Some((*index, view.eligible(*index)?.share.max(MIN_SHARE)));
            pool.all().iter().filter_map(share)
        };
        let before = self.calendar.turns();
        if self.clock < LATE && shares().eq(before.iter().map(|turn| (turn.index, turn.share))) {
            return;
        }
        // By endpoint: how long it has still to wait, in its own periods, so that a new share counts from now on.
        let mut waits: Vec<Option<f64>> = vec![None; view.states.len()];
        for turn in before {
            if let Some(wait) = waits.get_mut(turn.index as usize) {
                *wait = Some(((turn.due - self.clock) * f64::from(turn.share)).clamp(0.0, 1.0));
            }
        }
        let turns = shares().map(|(index, share)| {
            let before = waits.get(index as usize).copied().flatten();
            let wait = before.unwrap_or_else(|| (f64::from(index) * GOLDEN).fract());
            Turn::new(wait / f64::from(share), share, index)
        });
        // Time begins anew.
        self.clock = 0.0;
        self.calendar.fill(turns, pool.len());
    }

    fn pick(
        &mut self,
        view: PickContext<'_>,
        pool: &mut Pool,
        request: Request,
        rng: &mut Rng,
    ) -> Candidates {
        if !core::mem::replace(&mut self.begun, true) {
            self.calendar.turn_by(rng.unit());
        }
        let mut candidates = Candidates::default();
        for _ in 0..MAX_PASSED_OVER {
            match self.next() {
                Some(index) if view.eligible(index).is_some() => {
                    candidates.push(index);
                    break;
                }
                Some(_) => {}
                None => break,
            }
        }
        // A retry is no turn: its endpoint is drawn.
        if candidates.as_slice().len() < request.want {
            pool.draw(view, request.want, rng, |index, _| candidates.push(index));
            candidates.truncate(request.want);
        }
        candidates
    }
}
