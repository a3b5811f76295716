//! Each in turn, whatever its state: Envoy's `ROUND_ROBIN` without weights. Use it as a baseline.

use super::{Candidates, Policy, Pool, View};
use crate::random::Rng;

/// The order and whose turn it is.
#[derive(Debug, Default)]
pub struct RoundRobin {
    order: Vec<u32>,
    next: usize,
}

impl Policy for RoundRobin {
    fn refresh(&mut self, _view: View<'_>, pool: &Pool) {
        self.order.clear();
        self.order.extend_from_slice(pool.as_slice());
        self.order.sort_unstable();
    }

    fn pick(&mut self, view: View<'_>, pool: &mut Pool, want: usize, rng: &mut Rng) -> Candidates {
        let mut candidates = Candidates::default();
        let len = self.order.len();
        for step in 0..len {
            let at = (self.next + step) % len;
            let Some(index) = self.order.get(at).copied() else { break };
            if view.eligible(index).is_none() {
                continue;
            }
            if candidates.first().is_none() {
                self.next = at + 1;
            }
            candidates.push(index);
            if candidates.as_slice().len() >= want {
                break;
            }
            // Who went away since the last refresh is passed over; a long row of them is not walked twice.
            if step > 4 * super::MAX_CANDIDATES && candidates.first().is_some() {
                break;
            }
        }
        let _ = (pool, rng);
        candidates
    }
}
