//! Each endpoint in turn, in proportion to its share and evenly spaced: as smooth weighted round robin in NGINX and
//! weighted `ROUND_ROBIN` in Envoy.
//!
//! Earliest deadline first: an endpoint's turns are 1 / [`share`](crate::endpoint::EndpointState::share) apart, and the
//! next turn is the earliest. After a whole cycle every endpoint has had exactly its share. First turns are spread over
//! a period by the multiples of the golden ratio, so that endpoints of one weight never come in a row between heavier
//! ones. Before its first request a worker shifts all turns by a random fraction of their periods, so that workers do
//! not run in step, whatever the number of endpoints. When the share changes, the remaining wait shrinks or grows with
//! it; a refresh keeps the turns rather than start anew.
//!
//! Use it where requests are alike and capacities are known. It considers neither latency nor load.

use super::calendar::{Calendar, Turn};
use super::{Candidates, MAX_CANDIDATES, PickContext, Policy, Pool, Request};
use crate::rng::Rng;

/// Maximum number of endpoints skipped in a pick because they became ineligible since the refresh.
const MAX_PASSED_OVER: usize = 4 * MAX_CANDIDATES;
/// Minimum share, so that deadlines remain finite.
const MIN_SHARE: f32 = 1e-6;
/// Time at which it restarts at zero, before fractions lose precision.
const LATE: f64 = 1e6;
/// Golden ratio minus one; the fractions of its multiples fill a period more evenly than those of any other number.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// The turns of all endpoints.
#[derive(Debug, Default)]
pub struct WeightedRoundRobin {
    calendar: Calendar,
    /// Time of the last turn.
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
        // Remaining wait by endpoint, in its own periods, so that a new share takes effect from now on.
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
        // Time restarts at zero.
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
        // A retry does not take a turn: its endpoint is drawn.
        if candidates.as_slice().len() < request.want {
            pool.draw(view, request.want, rng, |index, _| candidates.push(index));
            candidates.truncate(request.want);
        }
        candidates
    }
}
