//! Which endpoints there are: those that join start slowly, those that leave are remembered.

use super::Cluster;
use crate::endpoint::{Counters, EndpointState, Spec, Tally};
use crate::time::Time;

impl Cluster {
    /// Makes `specs` the fleet. Newcomers to a fleet that already serves start slowly.
    #[inline(never)]
    pub fn set_fleet(&mut self, specs: &[Spec], now: Time) {
        let joined = if self.endpoints.set.is_empty() { Time::ZERO } else { now };
        self.set_fleet_joined(specs, joined, now);
    }

    /// Makes `specs` the fleet, newcomers of which have joined at `joined`; with [`Time::ZERO`] they were there before
    /// the first look. How many there are.
    pub fn set_fleet_joined(&mut self, specs: &[Spec], joined: Time, now: Time) -> usize {
        let changes = self.endpoints.set.update(specs);
        self.endpoints.make_room();
        for index in &changes.left {
            self.endpoints.leave(*index, now);
            self.rules.forget(*index);
        }
        for index in &changes.joined {
            let identity = self.endpoints.set.identities().get(*index as usize).copied().unwrap_or_default();
            let asked = self.traffic.requests;
            let member = self.endpoints.returning.take(identity, now).unwrap_or_else(|| {
                let mut member = EndpointState { present: true, eligible: true, ..EndpointState::default() };
                member.turn.asked = asked;
                member.health.joins(joined);
                member
            });
            self.endpoints.reset(*index, member);
        }
        for (index, endpoint) in self.endpoints.set.iter() {
            if let Some(member) = self.endpoints.states.get_mut(index as usize) {
                member.weight = endpoint.weight;
                let counted = self
                    .endpoints
                    .departed
                    .get(&endpoint.hash)
                    .filter(|_| member.counters == Tally::default());
                if let Some(counted) = counted.copied().and_then(Tally::resume) {
                    member.counters = counted;
                    self.endpoints.departed.remove(&endpoint.hash);
                }
                member.stand(endpoint.condition(), now);
            }
        }
        self.assign_subsets();
        for index in changes.left.iter().chain(&changes.joined) {
            self.forget_transitions(*index);
        }
        self.refresh(now);
        changes.joined.len()
    }

    /// What this worker has counted for each endpoint, by identity: ever, and recent picks. Those that have left
    /// are among them.
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
