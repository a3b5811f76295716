//! State changes and ejections, for log and counters, and recent picks.
//!
//! Every worker comes to the same state; one of them counts and logs the changes for all.

use super::{Cluster, ProbeShard, Totals};
use crate::endpoint::Tally;
use crate::health::State;
use crate::time::Time;

/// Time constant over which picks count as recent, to show an endpoint's share, seconds.
pub const RECENT_S: f64 = 10.0;
/// Maximum number of changes kept between two reads; further ones are only counted.
const MAX_CHANGES: usize = 64;

/// A change of an endpoint's state or eligibility.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The endpoint's index.
    pub index: u32,
    /// State before and after.
    pub states: [State; 2],
    /// Eligibility before and after.
    pub eligible: [bool; 2],
}

/// States as of the last comparison.
#[derive(Debug, Default)]
pub(super) struct TransitionLog {
    seen: Vec<(State, bool)>,
    /// Counters at the last recount, and recent picks, by endpoint index.
    recent: Vec<(Tally, f32)>,
    totals: Totals,
    counted: Time,
    changes: Vec<Change>,
}

impl Cluster {
    /// Compares all states with the last call's; counts and keeps the changes if this worker is the reporter.
    #[inline(never)]
    pub(super) fn record_transitions(&mut self, shard: ProbeShard) {
        self.stats.transitions.seen.resize(self.endpoints.states.len(), (State::Healthy, true));
        for (index, (endpoint, seen)) in
            (0..).zip(self.endpoints.states.iter().zip(&mut self.stats.transitions.seen))
        {
            let now = if endpoint.present {
                (endpoint.health.state(), endpoint.eligible)
            } else {
                (State::Healthy, true)
            };
            let (before, could) = core::mem::replace(seen, now);
            if !shard.is_reporter || !endpoint.present || (before, could) == now {
                continue;
            }
            let (state, eligible) = now;
            if state != before
                && let Some(count) = self.stats.totals.changes.get_mut(Totals::change(state))
            {
                *count += 1;
            }
            self.stats.totals.ejections += u64::from(could && !eligible);
            if self.stats.transitions.changes.len() < MAX_CHANGES {
                self.stats.transitions.changes.push(Change {
                    index,
                    states: [before, state],
                    eligible: [could, eligible],
                });
            }
        }
    }

    /// Takes the changes since the last call, in order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        core::mem::take(&mut self.stats.transitions.changes)
    }

    /// Updates the recent picks, and carries counters that are nearly full over to the lifetime counters.
    pub fn recount(&mut self, now: Time) {
        let seconds = now.seconds_since(core::mem::replace(&mut self.stats.transitions.counted, now));
        let fade = (-seconds / RECENT_S).exp() as f32;
        self.stats.transitions.recent.resize(self.endpoints.states.len(), Default::default());
        let kept = self.stats.transitions.recent.iter_mut().zip(self.endpoints.set.identities());
        for (endpoint, ((before, recent), identity)) in self.endpoints.states.iter_mut().zip(kept) {
            let picks = endpoint.counters.picks.saturating_sub(before.picks);
            *recent = *recent * fade + picks as f32;
            if let Some(full) = endpoint.counters.carry() {
                self.endpoints.departed.entry(*identity).or_default().merge(&full);
            }
            *before = endpoint.counters;
        }
        self.stats.transitions.totals = self.stats.totals;
    }

    /// Subtracts what had been counted at the last recount, which another worker now reports.
    pub fn forget_counts(&mut self) {
        self.stats.totals.subtract(&self.stats.transitions.totals);
        self.stats.transitions.totals = Totals::default();
        self.endpoints.departed.clear();
        for (endpoint, (before, _)) in
            self.endpoints.states.iter_mut().zip(&mut self.stats.transitions.recent)
        {
            endpoint.counters.subtract(&core::mem::take(before));
        }
    }

    /// This worker's recent picks of the endpoint at `index`, decaying over [`RECENT_S`].
    pub fn recent_picks(&self, index: u32) -> f32 {
        self.stats.transitions.recent.get(index as usize).map_or(0.0, |(_, recent)| *recent)
    }

    /// Resets the slot at `index` for another endpoint, without counting its earlier picks.
    pub(super) fn forget_transitions(&mut self, index: u32) {
        let counters = self.endpoints.states.get(index as usize).map(|m| m.counters).unwrap_or_default();
        if let Some(seen) = self.stats.transitions.seen.get_mut(index as usize) {
            *seen = (State::Healthy, true);
        }
        if let Some(recent) = self.stats.transitions.recent.get_mut(index as usize) {
            *recent = (counters, 0.0);
        }
    }

    /// Adopts the current states after a reload: changes that the older configuration reported are not reported again.
    pub(super) fn take_over_transitions(&mut self) {
        self.stats.transitions.seen.clear();
        self.stats
            .transitions
            .seen
            .extend(self.endpoints.states.iter().map(|m| (m.health.state(), m.eligible)));
    }
}
