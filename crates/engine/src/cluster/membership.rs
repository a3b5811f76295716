//! Changes of the endpoint set: new endpoints start slowly, those that leave are remembered.

use super::Cluster;
use crate::endpoint::{Counters, EndpointState, Spec, Tally};
use crate::time::Time;

impl Cluster {
    /// Replaces the endpoint set. New endpoints start slowly unless the set was empty before.
    #[inline(never)]
    pub fn set_fleet(&mut self, specs: &[Spec], now: Time) {
        let joined = if self.endpoints.set.is_empty() { Time::ZERO } else { now };
        self.set_fleet_joined(specs, joined, now);
    }

    /// Replaces the endpoint set, with `joined` as the time at which new endpoints joined; [`Time::ZERO`] means that
    /// they were there before the first discovery and need no slow start. Returns the number of new endpoints.
    pub fn set_fleet_joined(&mut self, specs: &[Spec], joined: Time, now: Time) -> usize {
        let changes = self.endpoints.set.update(specs);
        self.endpoints.make_room();
        for index in &changes.left {
            self.endpoints.leave(*index, now);
            self.rules.forget(*index);
            self.ejection.probing.iter_mut().for_each(|probing| probing.forget(*index));
        }
        for index in &changes.joined {
            let identity = self.endpoints.set.identities().get(*index as usize).copied().unwrap_or_default();
            let asked = self.traffic.requests;
            let state = self.endpoints.returning.take(identity, now).unwrap_or_else(|| {
                let mut state = EndpointState { present: true, eligible: true, ..EndpointState::default() };
                state.turn.asked = asked;
                state.health.joins(joined);
                state
            });
            self.endpoints.reset(*index, state);
        }
        for (index, endpoint) in self.endpoints.set.iter() {
            if let Some(state) = self.endpoints.states.get_mut(index as usize) {
                state.weight = endpoint.weight;
                let counted = self
                    .endpoints
                    .departed
                    .get(&endpoint.hash)
                    .filter(|_| state.counters == Tally::default());
                if let Some(counted) = counted.copied().and_then(Tally::resume) {
                    state.counters = counted;
                    self.endpoints.departed.remove(&endpoint.hash);
                }
                state.stand(endpoint.condition(), now);
            }
        }
        self.assign_subsets();
        for index in changes.left.iter().chain(&changes.joined) {
            self.forget_transitions(*index);
        }
        self.refresh(now);
        changes.joined.len()
    }

    /// This worker's lifetime counters and recent picks of each endpoint, by identity, including endpoints that have
    /// left.
    pub fn counters(&self) -> impl Iterator<Item = (u64, Counters, f32)> {
        let present = self.endpoints.set.present().map(|(index, identity)| {
            (identity, self.endpoints.counted(index, identity), self.recent_picks(index))
        });
        let left = self
            .endpoints
            .departed
            .iter()
            .filter(|(identity, _)| self.endpoints.set.index_of_hash(**identity).is_none());
        present.chain(left.map(|(identity, counters)| (*identity, *counters, 0.0)))
    }
}
