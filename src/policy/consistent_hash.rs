//! The same key, the same endpoint, as long as that one is not full: consistent hashing with bounded loads
//! (Mirrokni, Thorup, Zadimoghaddam, SODA 2018) on the [ring](super::ring).
//!
//! An endpoint is full when one more request would lift it above
//!
//! bound = ⌈1.25 · (in-flight of all + 1) · weight / Σ weights of the eligible⌉
//!
//! Then the key's next choice gets the request. Somebody always has room, because the bounds together exceed the
//! load; the fuller the fleet, the fewer are full, and at most four in five are. In-flight counts what this worker
//! has on the way, which it knows exactly: each worker keeps the bound, so all together do, and a user whose requests come
//! one after the other is not moved by another worker's news of a moment ago. Shares follow static weight; signals and slow start change nothing. Use it where
//! an endpoint that has seen a key before serves it cheaper (caches, model prefixes), but any may serve it. A
//! request without a key goes to a random endpoint, within the same bound.

use super::ring::{Ring, nearest};
use super::{Candidates, Policy, Pool, Request, View};
use crate::random::Rng;

/// The paper's 1 + ε: nobody carries a quarter more than its part. HAProxy's documentation of the same factor calls
/// values from 1.25 to 2 reasonable.
const BOUND: f64 = 1.25;
/// Points walked when none of a key's own choices has room. With four of five full, 0.8⁷ of the requests come
/// here, and 0.8²⁵⁶ find nobody.
const STEPS: usize = 256;

/// The ring, and what the bound is measured against.
#[derive(Debug, Default)]
pub struct ConsistentHash {
    ring: Ring,
    /// Σ weights of the eligible.
    weights: f64,
}

impl Policy for ConsistentHash {
    fn refresh(&mut self, view: View<'_>, pool: &Pool) {
        self.ring.refresh(view, pool.everybody());
        let weight = |i: &u32| view.eligible(*i).map(|m| f64::from(m.weight));
        self.weights = pool.everybody().iter().filter_map(weight).sum();
    }

    fn pick(&mut self, view: View<'_>, pool: &mut Pool, request: Request, rng: &mut Rng) -> Candidates {
        let key = request.key.unwrap_or_else(|| rng.next_u64());
        let per_weight = bound_per_weight(view.in_flight, self.weights);
        let has_room = |index| {
            view.eligible(index)
                .is_some_and(|m| f64::from(m.in_flight.total()) < (per_weight * f64::from(m.weight)).ceil())
        };
        let mut candidates = nearest(&self.ring, key, request.want, STEPS, has_room);
        if candidates.first().is_none() {
            // Many were ejected since the refresh: who is left may be above a bound that counts them all.
            candidates =
                nearest(&self.ring, key, request.want, STEPS, |index| view.eligible(index).is_some());
        }
        if candidates.first().is_none() {
            pool.draw(view, request.want, rng, |index, _| candidates.push(index));
        }
        candidates
    }
}

/// What an endpoint of weight one may have in flight, before rounding up.
fn bound_per_weight(in_flight: u32, weights: f64) -> f64 {
    BOUND * (f64::from(in_flight) + 1.0) / weights.max(f64::MIN_POSITIVE)
}
