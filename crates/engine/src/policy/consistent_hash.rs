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
//! Reports come too late for requests that arrive at the same instant, and the clients of a hot key often go on in step:
//! all workers find its endpoint empty at once, then full at once. So an endpoint that was seen above its bound is
//! *crowded* until two seconds after one of them was last full. The workers divide the bound of a crowded
//! endpoint among them by rank, and each keeps to its own part, which it knows exactly. At a low bound that leaves some
//! workers no part at all, so only crowded endpoints are divided: elsewhere a key has one endpoint in all workers.
//!
//! Shares follow static weight; signals and slow start have no effect. Use it where an endpoint that has seen a key
//! before serves it more cheaply (caches, model prefixes), but any may serve it. Where only the key's owner may, switch
//! the bound off. A request without a key goes to a random endpoint, within the same bound.

use super::ring::{Ring, nearest};
use super::{Candidates, PickContext, Policy, Pool, Request, Turns};
use crate::rng::Rng;
use crate::settings::LoadBound;
use crate::time::Time;

/// Number of points walked if none of a key's own choices has room. With four of five full, this happens to a fraction
/// of 0.8⁷ of the requests, and of these 0.8²⁵⁶ find none.
const STEPS: usize = 256;
/// Time after which endpoints are no longer crowded if none of them was full again, seconds: several answers of usual
/// length.
const CROWDED_S: f64 = 2.0;

/// The ring, and the values that the bound depends on.
#[derive(Debug, Default)]
pub struct ConsistentHash {
    ring: Ring,
    bound: LoadBound,
    /// Sum of the weights of eligible endpoints.
    weights: f64,
    /// The other workers' requests in flight as of their last report.
    others: u32,
    /// By index: until when the endpoint is crowded, [`Time::ZERO`] for never.
    crowded: Vec<Time>,
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

    /// Requests in flight that an endpoint of this weight may have.
    fn bound(&self, weight: f32, per_weight: f64) -> f64 {
        (per_weight * f64::from(weight)).ceil().max(f64::from(self.bound.floor))
    }

    /// Finds the endpoints that are crowded.
    fn find_crowded(&mut self, view: PickContext<'_>, pool: &Pool) {
        let per_weight = self.per_weight(view.in_flight);
        self.crowded.resize(view.states.len(), Time::ZERO);
        // After the clock stepped back, none is crowded for longer than from now on.
        let latest = view.now.after_secs(CROWDED_S);
        self.crowded.iter_mut().for_each(|until| *until = latest.min(*until));
        let is_crowded =
            |index: u32, crowded: &[Time]| crowded.get(index as usize).is_some_and(|until| view.now < *until);
        let room = |index: u32| {
            let endpoint = view.eligible(index)?;
            let has = f64::from(view.peers.of(index, endpoint).total_in_flight());
            Some(self.bound(endpoint.weight, per_weight) - has)
        };
        // While one of them is full the others stay crowded, too: they may have nothing because the parts suffice.
        let full =
            |index: &u32| is_crowded(*index, &self.crowded) && room(*index).is_some_and(|room| room <= 0.0);
        let any_is_full = pool.all().iter().any(full);
        let crowded = |index: &u32| {
            (any_is_full && is_crowded(*index, &self.crowded)) || room(*index).is_some_and(|room| room < 0.0)
        };
        let crowded: Vec<u32> = pool.all().iter().copied().filter(crowded).collect();
        for index in crowded {
            if let Some(until) = self.crowded.get_mut(index as usize) {
                *until = latest;
            }
        }
    }
}

/// This worker's part of a bound that the workers divide.
fn part(bound: f64, turns: Turns, identity: u64) -> f64 {
    let workers = f64::from(turns.workers.max(1.0));
    let (each, left) = ((bound / workers).floor(), bound % workers);
    // Where one more each is too much, the first few by rank have it, counted from another worker at each endpoint.
    let rank = (u64::from(turns.rank) + identity % workers as u64) % workers as u64;
    each + f64::from(u8::from((rank as f64) < left))
}

impl Policy for ConsistentHash {
    fn refresh(&mut self, view: PickContext<'_>, pool: &Pool) {
        self.ring.refresh(view, pool.all());
        let weight = |i: &u32| view.eligible(*i).map(|m| f64::from(m.weight));
        self.weights = pool.all().iter().filter_map(weight).sum();
        let others = |i: &u32| view.known(*i).map(|known| known.others().in_flight.total);
        self.others = pool.all().iter().filter_map(others).fold(0, u32::saturating_add);
        if self.bound.bounded {
            self.find_crowded(view, pool);
        }
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
            let has_room = |index, divided: bool| {
                view.eligible(index).is_some_and(|m| {
                    let bound = self.bound(m.weight, per_weight);
                    if divided && self.crowded.get(index as usize).is_some_and(|until| view.now < *until) {
                        let identity = view.identities.get(index as usize).copied().unwrap_or_default();
                        return f64::from(m.in_flight.total()) < part(bound, view.turns, identity);
                    }
                    f64::from(view.peers.of(index, m).total_in_flight()) < bound
                })
            };
            candidates = nearest(&self.ring, key, request.want, STEPS, |index| has_room(index, true));
            if candidates.first().is_none() {
                candidates = nearest(&self.ring, key, request.want, STEPS, |index| has_room(index, false));
            }
        }
        if candidates.as_slice().len() < request.want.min(pool.len()) {
            // Many were ejected since the refresh: the rest may be above a bound that counts them all. And for a retry
            // one above the bound is better than none.
            let others =
                nearest(&self.ring, key, request.want, STEPS, |index| view.eligible(index).is_some());
            others.as_slice().iter().for_each(|index| candidates.push(*index));
            candidates.truncate(request.want);
        }
        if candidates.first().is_none() {
            pool.draw(view, request.want, rng, |index, _| candidates.push(index));
        }
        candidates
    }
}
