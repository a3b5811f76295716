//! Each endpoint in turn, regardless of its state: as Envoy's `ROUND_ROBIN` without weights. An endpoint whose share is
//! reduced by slow start, a rule or signals is skipped until it has waited long enough. Use it as a baseline.
//!
//! A worker starts at a random position, because otherwise all of them would send their first requests to the same
//! endpoints, again after every new configuration.

use super::{Candidates, PickContext, Policy, Pool, Request};
use crate::order;
use crate::rng::Rng;

/// The order of the endpoints, and the next turn.
#[derive(Debug, Default)]
pub struct RoundRobin {
    order: Vec<u32>,
    /// Position of the next turn; `None` before the first.
    next: Option<usize>,
    /// Number of requests to the whole cluster in which every endpoint here has a turn.
    round: f32,
}

impl Policy for RoundRobin {
    fn refresh(&mut self, view: PickContext<'_>, pool: &Pool) {
        self.order.clear();
        self.order.extend_from_slice(pool.as_slice());
        order::sort(&mut self.order);
        let weight = |index: &u32| view.states.get(*index as usize).map_or(0.0, |m| m.weight);
        let weights: f32 = self.order.iter().map(weight).sum();
        let len = self.order.len() as f32;
        self.round = (len * view.turns.apart / weights.max(f32::MIN_POSITIVE)).max(len);
    }

    fn pick(
        &mut self,
        view: PickContext<'_>,
        _pool: &mut Pool,
        request: Request,
        rng: &mut Rng,
    ) -> Candidates {
        let mut candidates = Candidates::default();
        let len = self.order.len();
        if len == 0 {
            return candidates;
        }
        let turn = *self.next.get_or_insert_with(|| rng.below(len as u32) as usize);
        let mut passed_over = None;
        for step in 0..len {
            let at = (turn + step) % len;
            let Some(index) = self.order.get(at).copied() else { break };
            let Some(endpoint) = view.eligible(index) else { continue };
            if endpoint.turn.held > 0.0 {
                let wanted = self.round / (1.0 - endpoint.turn.held);
                passed_over = passed_over.or(Some(index));
                if !view.turns.come(endpoint, wanted, 0.5 * self.round) {
                    continue;
                }
            }
            if candidates.first().is_none() {
                self.next = Some(at + 1);
            }
            candidates.push(index);
            if candidates.as_slice().len() >= request.want {
                break;
            }
            // Endpoints that became ineligible since the refresh are skipped; a long row of them is not walked twice.
            if step > 4 * super::MAX_CANDIDATES && candidates.first().is_some() {
                break;
            }
        }
        if candidates.as_slice().len() < request.want {
            passed_over.into_iter().for_each(|index| candidates.push(index));
        }
        candidates
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::endpoint::{EndpointState, PeerTable};
    use crate::estimate::Queueing;
    use crate::time::Time;

    #[test]
    fn retries_go_to_those_whose_turn_is_next() {
        let endpoints = vec![EndpointState { present: true, eligible: true, ..EndpointState::default() }; 3];
        let (mut pool, mut policy) = (Pool::default(), RoundRobin::default());
        pool.assign(0..3, u64::from);
        pool.refresh(&endpoints);
        let view = PickContext {
            states: &endpoints,
            peers: &PeerTable::default(),
            identities: &[],
            peaks: &[],
            queueing: &Queueing::default(),
            in_flight: 0,
            turns: crate::policy::Turns::default(),
            now: Time::ZERO,
        };
        policy.refresh(view, &pool);
        assert_eq!(policy.next, None, "it begins anywhere");
        policy.next = Some(0);
        let mut pick =
            |want| policy.pick(view, &mut pool, Request::wanting(want), &mut Rng::new(1)).as_slice().to_vec();
        assert_eq!(pick(8), [0, 1, 2]);
        assert_eq!(pick(2), [1, 2]);
        assert_eq!(pick(2), [2, 0]);
        assert_eq!(pick(1), [0]);
    }
}
