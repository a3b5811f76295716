//! Owners of keys: multi-probe consistent hashing (Appleton, O'Reilly, "Multi-probe consistent hashing",
//! arXiv:1505.00062, 2015).
//!
//! Endpoints are points on a ring of 2³² places. A key has k = [`PROBES`] places, from each of which it goes to the
//! next point clockwise; it belongs to the point nearest to its probe. The next nearest are its second choices, spread
//! over all endpoints. When an endpoint leaves, only its own keys move.
//!
//! An endpoint has p points in proportion to its static weight, sixteen for a weight of one. A point whose arc is x
//! times the mean wins as 1 − e^(−kx), and x is exponentially distributed, so an endpoint's part of the keys deviates
//! by √(((1 − 2/(1+k) + 1/(1+2k)) · ((1+k)/k)² − 1) / p) of the mean: 6.5 % with seven probes and sixteen points. The
//! paper's 21 probes with one point each access memory too often for a set that is larger than the cache; a ring with
//! one probe needs 240 points for the same deviation.
//!
//! The ring holds every endpoint of the pool, eligible or not: an endpoint that is ejected for a moment gets the same
//! keys back. It is rebuilt when an endpoint joins, leaves or changes its weight, never on the request path.

use super::PickContext;
use crate::order;
use crate::rng::mix;

/// Number of probes of a key.
pub const PROBES: usize = 7;
/// Points of an endpoint of weight one.
const POINTS: f32 = 16.0;
/// Maximum number of points of one endpoint; above it, all weights are halved until the heaviest fits.
const MAX_POINTS: f32 = 256.0;
/// Maximum number of points on a ring: 2 MB, sorted within milliseconds.
const MAX_ON_A_RING: f32 = 262_144.0;
/// Increment for the places of points; it differs from that of probes to keep the two apart in one mixer.
const POINT_STEP: u64 = 0x9E37_79B9_7F4A_7C15;
/// Increment for the places of probes.
const PROBE_STEP: u64 = 0xD1B5_4A32_D192_ED03;

#[derive(Clone, Copy, Debug)]
struct Point {
    place: u32,
    index: u32,
}

/// The points, with an index for look-ups.
#[derive(Debug, Default)]
pub struct Ring {
    points: Vec<Point>,
    /// By the upper bits of a place: the first point at or after the first of these places.
    starts: Vec<u32>,
    shift: u32,
    fingerprint: u64,
}

impl Ring {
    /// Rebuilds the ring of `indices` if an endpoint joined, left or changed its weight; returns whether it did.
    pub fn refresh(&mut self, view: PickContext<'_>, indices: &[u32]) -> bool {
        let identity = |index: u32| view.identities.get(index as usize).copied().unwrap_or_default();
        let endpoint = |i: &u32| Some((*i, view.states.get(*i as usize).filter(|m| m.present)?));
        let present = || indices.iter().filter_map(endpoint);
        // A sum, because the order does not matter; with the index, because slots are reused.
        let fingerprint = present().fold(0u64, |sum, (index, m)| {
            let weight = u64::from(m.weight.to_bits()) << 32;
            sum.wrapping_add(mix(identity(index) ^ mix(weight | u64::from(index))))
        });
        if fingerprint == self.fingerprint {
            return false;
        }
        self.fingerprint = fingerprint;
        let heaviest = present().map(|(_, m)| m.weight).fold(0.0, f32::max);
        let scale = points_per_weight(heaviest, present().map(|(_, m)| m.weight).sum());
        self.points.clear();
        self.points.reserve_exact(present().map(|(_, m)| points_of(m.weight, scale) as usize).sum());
        for (index, endpoint) in present() {
            let count = points_of(endpoint.weight, scale);
            let places = (1..=count).map(|nth| place(identity(index), nth, POINT_STEP));
            self.points.extend(places.map(|place| Point { place, index }));
        }
        // Two points at one place have the same order in all workers.
        order::sort_by(&mut self.points, |a, b| {
            a.place < b.place || (a.place == b.place && identity(a.index) < identity(b.index))
        });
        self.index_places();
        true
    }

    /// Builds the index with one entry per one or two points: a look-up takes one step, and the points that follow are
    /// adjacent.
    fn index_places(&mut self) {
        let bits = self.points.len().max(2).ilog2().min(31);
        self.shift = 32 - bits;
        self.starts.clear();
        let mut at = 0u32;
        for bucket in 0..1u32 << bits {
            let first = bucket << self.shift;
            while self.points.get(at as usize).is_some_and(|p| p.place < first) {
                at += 1;
            }
            self.starts.push(at);
        }
    }

    /// Position at which the search for the first point clockwise from `place` starts.
    fn start(&self, place: u32) -> usize {
        self.starts.get((place >> self.shift) as usize).map_or(0, |at| *at as usize)
    }

    /// Position of the first point clockwise from `place`, at or after `start`.
    fn after(&self, start: usize, place: u32) -> usize {
        // Usually one of the next four. Counting avoids a data-dependent branch, so that the memory accesses of a key's
        // probes overlap.
        let next = self.points.get(start..).and_then(|points| points.first_chunk::<4>());
        let passed = next.map_or(0, |next| next.iter().map(|p| usize::from(p.place < place)).sum());
        let mut at = start + passed;
        if passed == 4 || next.is_none() {
            while self.points.get(at).is_some_and(|p| p.place < place) {
                at += 1;
            }
        }
        if at < self.points.len() { at } else { 0 }
    }

    /// The nearest point of each probe of `key`, unordered: `(distance, index)`, with repetitions.
    pub fn probe(&self, key: u64) -> Option<[(u32, u32); PROBES]> {
        let mut probes = [(0, 0); PROBES];
        for (nth, probe) in (1u64..).zip(&mut probes) {
            let place = place(key, nth, PROBE_STEP);
            *probe = (place, self.start(place));
        }
        let mut found = [(u32::MAX, 0); PROBES];
        for ((place, start), slot) in probes.into_iter().zip(&mut found) {
            let point = self.points.get(self.after(start, place))?;
            *slot = (point.place.wrapping_sub(place), point.index);
        }
        Some(found)
    }

    /// Endpoints clockwise from the first probe of `key`, with repetitions, once around the ring.
    pub fn walk(&self, key: u64) -> impl Iterator<Item = u32> {
        let first = place(key, 1, PROBE_STEP);
        let start = self.after(self.start(first), first);
        let (before, after) = self.points.split_at_checked(start).unwrap_or_default();
        after.iter().chain(before).map(|p| p.index)
    }
}

/// Place of the `nth` point or probe of `identity`.
fn place(identity: u64, nth: u64, step: u64) -> u32 {
    (mix(identity.wrapping_add(step.wrapping_mul(nth))) >> 32) as u32
}

/// Number of points per weight. It depends only on the heaviest endpoint, and only if that weighs more than sixteen:
/// otherwise its joining and leaving would move everyone's keys. The sum counts only if there are too many points.
fn points_per_weight(heaviest: f32, all: f32) -> f32 {
    let mut scale = POINTS;
    // In powers of two, so that a change of the sum rarely moves anything.
    while heaviest * scale > MAX_POINTS || (all * scale > MAX_ON_A_RING && scale > f32::MIN_POSITIVE) {
        scale *= 0.5;
    }
    // If all weights are small fractions, more points keep their ratios exact.
    if heaviest < 0.5 {
        while heaviest > 0.0 && heaviest * scale < 0.5 * MAX_POINTS && 2.0 * all * scale <= MAX_ON_A_RING {
            scale *= 2.0;
        }
    }
    scale
}

fn points_of(weight: f32, scale: f32) -> u64 {
    (weight * scale).round().max(1.0) as u64
}

/// The owner of `key`, eligible or not.
pub fn owner(ring: &Ring, key: u64) -> Option<u32> {
    ring.probe(key)?.into_iter().min_by_key(|(distance, _)| *distance).map(|(_, index)| index)
}

/// The endpoints of `key` by distance that satisfy `fits`, at most `want`; if there are too few, the search goes on
/// clockwise for `steps` points.
pub fn nearest(
    ring: &Ring,
    key: u64,
    want: usize,
    steps: usize,
    fits: impl Fn(u32) -> bool,
) -> super::Candidates {
    let mut candidates = super::Candidates::default();
    let Some(mut found) = ring.probe(key) else { return candidates };
    for _ in 0..PROBES {
        if candidates.as_slice().len() >= want {
            return candidates;
        }
        let Some(nearest) = found.iter_mut().min_by_key(|(distance, _)| *distance) else { break };
        let index = nearest.1;
        nearest.0 = u32::MAX;
        // Its other probes follow later, and are ignored.
        if fits(index) {
            candidates.push(index);
        }
    }
    for index in ring.walk(key).take(steps) {
        if candidates.as_slice().len() >= want {
            break;
        }
        if fits(index) {
            candidates.push(index);
        }
    }
    candidates
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::endpoint::{EndpointState, PeerTable};
    use crate::estimate::Queueing;
    use crate::rng::{Rng, hash};
    use crate::time::Time;

    fn fleet(weights: &[f32]) -> Vec<EndpointState> {
        let endpoint = |weight: &f32| EndpointState {
            present: true,
            eligible: true,
            weight: *weight,
            share: *weight,
            ..EndpointState::default()
        };
        weights.iter().map(endpoint).collect()
    }

    fn identities(of: usize) -> Vec<u64> {
        (0..of).map(|i| hash(format!("10.0.{}.{}:8080", i / 250, i % 250).as_bytes())).collect()
    }

    fn ring(endpoints: &[EndpointState]) -> Ring {
        let mut ring = Ring::default();
        refresh(&mut ring, endpoints, &identities(endpoints.len()));
        ring
    }

    fn refresh(ring: &mut Ring, endpoints: &[EndpointState], identities: &[u64]) -> bool {
        let view = PickContext {
            states: endpoints,
            peers: &PeerTable::default(),
            identities,
            peaks: &[],
            queueing: &Queueing::default(),
            in_flight: 0,
            turns: crate::policy::Turns::default(),
            now: Time::ZERO,
        };
        ring.refresh(view, &(0..endpoints.len() as u32).collect::<Vec<_>>())
    }

    fn owner(ring: &Ring, key: u64) -> u32 {
        let first = nearest(ring, key, 1, 0, |_| true).first();
        assert_eq!(super::owner(ring, key), first);
        first.unwrap()
    }

    /// The definition taken literally: every probe against every point of every endpoint, without order or index. Uses
    /// identities and weights alone.
    fn by_definition(endpoints: &[EndpointState], key: u64) -> u32 {
        let finalise = |mut z: u64| {
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        };
        let identities = identities(endpoints.len());
        let mut best = (u32::MAX, u32::MAX);
        for probe in 1..=7u64 {
            let from = (finalise(key.wrapping_add(probe.wrapping_mul(0xD1B5_4A32_D192_ED03))) >> 32) as u32;
            for (index, endpoint) in endpoints.iter().enumerate() {
                for point in 1..=(endpoint.weight * 16.0).round() as u64 {
                    let step = point.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                    let at = (finalise(identities[index].wrapping_add(step)) >> 32) as u32;
                    let clockwise = if at >= from {
                        at - from
                    } else {
                        (u64::from(at) + (1 << 32) - u64::from(from)) as u32
                    };
                    if clockwise < best.0 {
                        best = (clockwise, index as u32);
                    }
                }
            }
        }
        best.1
    }

    #[test]
    fn agrees_with_the_definition() {
        for weights in [&[1.0f32; 1][..], &[1.0; 2], &[1.0; 50], &[1.0, 2.0, 3.0, 0.5, 16.0]] {
            let endpoints = fleet(weights);
            let ring = ring(&endpoints);
            let mut rng = Rng::new(1);
            for _ in 0..500 {
                let key = rng.next_u64();
                assert_eq!(owner(&ring, key), by_definition(&endpoints, key), "{weights:?} {key}");
            }
        }
    }

    #[test]
    fn losing_one_of_n_moves_its_keys_and_no_others() {
        for n in [2usize, 3, 10, 100, 1000] {
            let mut endpoints = fleet(&vec![1.0; n]);
            let full = ring(&endpoints);
            let mut rng = Rng::new(n as u64);
            let keys: Vec<u64> = (0..20_000.max(400 * n)).map(|_| rng.next_u64()).collect();
            let before: Vec<u32> = keys.iter().map(|k| owner(&full, *k)).collect();
            for lost in [0, n / 2, n - 1] {
                endpoints[lost].present = false;
                let rest = ring(&endpoints);
                endpoints[lost].present = true;
                let moved = keys.iter().zip(&before).filter(|(key, was)| {
                    let now = owner(&rest, **key);
                    assert!(now == **was || **was == lost as u32, "a key of somebody else's moved");
                    now != **was
                });
                let moved = moved.count() as f64 / keys.len() as f64;
                assert!(moved <= 1.3 / n as f64 && moved > 0.7 / n as f64, "{n}: {}", moved * n as f64);
            }
        }
    }

    #[test]
    fn keys_follow_the_weights_whatever_their_unit() {
        for weights in [[1.0f32, 2.0, 3.0, 4.0], [100.0, 200.0, 300.0, 400.0], [0.01, 0.02, 0.03, 0.04]] {
            let endpoints = fleet(&weights);
            let ring = ring(&endpoints);
            let total: f32 = weights.iter().sum();
            let mut counts = [0u32; 4];
            let mut rng = Rng::new(2);
            (0..100_000).for_each(|_| counts[owner(&ring, rng.next_u64()) as usize] += 1);
            for (weight, count) in weights.iter().zip(counts) {
                let ratio = count as f32 / (100_000.0 * weight / total);
                assert!((0.85..1.15).contains(&ratio), "{weights:?} {counts:?}");
            }
        }
    }

    #[test]
    fn is_rebuilt_for_changes_only() {
        let mut endpoints = fleet(&[1.0; 10]);
        let mut ring = Ring::default();
        let mut identities = identities(10);
        let mut refresh =
            |endpoints: &[EndpointState], identities: &[u64]| refresh(&mut ring, endpoints, identities);
        assert!(refresh(&endpoints, &identities));
        endpoints[3].eligible = false;
        endpoints[4].share = 0.1;
        assert!(!refresh(&endpoints, &identities), "ejection and shares move no keys");
        endpoints[3].weight = 2.0;
        assert!(refresh(&endpoints, &identities));
        endpoints.swap(0, 1);
        identities.swap(0, 1);
        assert!(refresh(&endpoints, &identities), "the same endpoints at other indices");
        endpoints[9].present = false;
        assert!(refresh(&endpoints, &identities));
    }
}
