//! The same key, the same endpoint, as long as that one is not full: consistent hashing with bounded loads
//! (Mirrokni, Thorup, Zadimoghaddam, SODA 2018) on the [ring](super::ring).
//!
//! An endpoint is full when one more request would lift it above
//!
//! bound = max(floor, ⌈factor · (in-flight of all + 1) · weight / Σ weights of the eligible⌉)
//!
//! Then the key's next choice gets the request. Some endpoint always has room, because the bounds together exceed the
//! load; the fuller the fleet, the fewer are full, and at a factor of 1.25 at most four in five are. The floor is for
//! fleets that have next to nothing to do: two requests of one key are no crowd, and one that is held open must not
//! send the next elsewhere. In-flight counts what this worker has on the way, which it knows exactly, and what the
//! others had at their last report: many workers with one hot key would otherwise all find the same endpoint empty.
//! Shares follow static weight; signals and slow start change nothing. Use it where an endpoint that has seen a key
//! before serves it cheaper (caches, model prefixes), but any may serve it. Where none but the key's own may, the bound
//! can be switched off. A request without a key goes to a random endpoint, within the same bound.

use super::ring::{Ring, nearest};
use super::{Candidates, PickContext, Policy, Pool, Request};
use crate::rng::Rng;
use crate::settings::LoadBound;

/// Points walked when none of a key's own choices has room. With four of five full, 0.8⁷ of the requests come
/// here, and 0.8²⁵⁶ find none.
const STEPS: usize = 256;

/// The ring, and what the bound is measured against.
#[derive(Debug, Default)]
pub struct ConsistentHash {
    ring: Ring,
    bound: LoadBound,
    /// Σ weights of the eligible.
    weights: f64,
    /// What the other workers had in flight at their last report.
    others: u32,
}

impl ConsistentHash {
    /// With this bound.
    pub fn new(bound: LoadBound) -> ConsistentHash {
        ConsistentHash { bound, ..ConsistentHash::default() }
    }

    /// What an endpoint of weight one may have in flight, before rounding up.
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
            // Many were ejected since the refresh: those left may be above a bound that counts them all.
            candidates =
                nearest(&self.ring, key, request.want, STEPS, |index| view.eligible(index).is_some());
        }
        if candidates.first().is_none() {
            pool.draw(view, request.want, rng, |index, _| candidates.push(index));
        }
        candidates
    }
}
