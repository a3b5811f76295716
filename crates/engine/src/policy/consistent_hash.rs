//! The same key goes to the same endpoint, as long as that is not full: consistent hashing with bounded loads
//! (Mirrokni, Thorup, Zadimoghaddam, SODA 2018) on the [ring](super::ring).
//!
//! An endpoint is full when one more request would lift it above
//!
//! bound = max(floor, ⌈factor · (in-flight of all + 1) · weight / Σ weights of the eligible⌉)
//!
//! Then the request goes to the key's next choice. Some endpoint always has room, because the bounds together exceed
//! the load; at a factor of 1.25 at most four in five are full. The floor is for clusters with little load: two
//! requests of one key are no overload, and one that is held open must not move the next elsewhere. In-flight counts
//! this worker's requests, which are known exactly, and the others' as of their last report: otherwise many workers
//! with one hot key would all find the same endpoint empty.
//!
//! Shares follow static weight; signals and slow start have no effect. Use it where an endpoint that has seen a key
//! before serves it more cheaply (caches, model prefixes), but any may serve it. Where only the key's owner may, switch
//! the bound off. A request without a key goes to a random endpoint, within the same bound.

use super::ring::{Ring, nearest};
use super::{Candidates, PickContext, Policy, Pool, Request};
use crate::rng::Rng;
use crate::settings::LoadBound;

/// Number of points walked if none of a key's own choices has room. With four of five full, this happens to a fraction
/// of 0.8⁷ of the requests, and of these 0.8²⁵⁶ find none.
const STEPS: usize = 256;

/// The ring, and the values that the bound depends on.
#[derive(Debug, Default)]
pub struct ConsistentHash {
    ring: Ring,
    bound: LoadBound,
    /// Sum of the weights of eligible endpoints.
    weights: f64,
    /// The other workers' requests in flight as of their last report.
    others: u32,
}

impl ConsistentHash {
    /// Creates the policy with this bound.
    pub fn new(bound: LoadBound) -> ConsistentHash {
        ConsistentHash { bound, ..ConsistentHash::default() }
    }

    /// Bound of an endpoint of weight one, before rounding up.
    fn per_weight(&self, in_flight: u32) -> f64 {
        let all = f64::from(in_flight) + f64::from(self.others) + 1.0;
        self.bound.factor * all / self.weights.max(f64::MIN_POSITIVE)
    }
}

impl Policy for ConsistentHash {
    fn refresh(&mut self, view: PickContext<'_>, pool: &Pool) {
        self.ring.refresh(view, pool.all());
        let weight = |i: &u32| view.eligible(*i).map(|m| f64::from(m.weight));
        self.weights = pool.all().iter().filter_map(weight).sum();
        let others = |i: &u32| view.known(*i).map(|known| known.others().in_flight.total);
        self.others = pool.all().iter().filter_map(others).fold(0, u32::saturating_add);
    }

    fn owner(&self, key: u64) -> Option<u32> {
        super::ring::owner(&self.ring, key)
    }

    fn pick(
        &mut self,
        view: PickContext<'_>,
        pool: &mut Pool,
        request: Request,
        rng: &mut Rng,
    ) -> Candidates {
        let key = request.key.unwrap_or_else(|| rng.next_u64());
        let mut candidates = Candidates::default();
        if self.bound.bounded {
            let per_weight = self.per_weight(view.in_flight);
            let floor = f64::from(self.bound.floor);
            let has_room = |index| {
                view.eligible(index).is_some_and(|m| {
                    let bound = (per_weight * f64::from(m.weight)).ceil().max(floor);
                    f64::from(view.peers.of(index, m).total_in_flight()) < bound
                })
            };
            candidates = nearest(&self.ring, key, request.want, STEPS, has_room);
        }
        if candidates.first().is_none() {
            // Many were ejected since the refresh: the rest may be above a bound that counts them all.
            candidates =
                nearest(&self.ring, key, request.want, STEPS, |index| view.eligible(index).is_some());
        }
        if candidates.first().is_none() {
            pool.draw(view, request.want, rng, |index, _| candidates.push(index));
        }
        candidates
    }
}
