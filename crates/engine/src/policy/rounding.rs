//! Random rounding of what candidates are compared by: differences smaller than a step, which may be chance, decide only
//! as often as they are large. Otherwise the endpoint with the smallest advantage would get all requests of all workers.

use super::PickContext;
use crate::endpoint::EndpointView;
use crate::rng::Rng;

/// Step of latencies, in bits of a number: an eighth of an octave.
const STEP: u32 = 1 << 20;
/// At rest a step is so many bits coarser: a quarter of an octave. No queue makes up there for what an endpoint gets too
/// many of, and equal endpoints differ by more than an eighth, because the one that gets fewer requests answers them with
/// colder caches.
const COARSER_AT_REST: u32 = 1;

/// How figures of all candidates of one pick are rounded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rounding {
    /// Not at all: for the explanation of a cost.
    Exact,
    /// Down, after adding a part of a step.
    Random {
        /// The part, 0..1.
        part: f32,
        /// The same of a step of latencies, in bits of a number.
        add: u32,
        /// The bits that are left.
        mask: u32,
    },
}

impl Rounding {
    /// The rounding of one pick; `at_rest` if the endpoints have few requests in flight.
    pub fn draw(at_rest: bool, rng: &mut Rng) -> Rounding {
        let coarser = if at_rest { COARSER_AT_REST } else { 0 };
        let by = rng.below(STEP);
        let mask = 0u32.wrapping_sub(STEP) << coarser;
        Rounding::Random { part: by as f32 / STEP as f32, add: by << coarser, mask }
    }

    /// `latency`, rounded to a step.
    pub fn latency(self, latency: f32) -> f32 {
        match self {
            Rounding::Exact => latency,
            Rounding::Random { add, mask, .. } => f32::from_bits(latency.to_bits().wrapping_add(add) & mask),
        }
    }

    /// `count`, rounded to a whole number.
    pub fn count(self, count: f32) -> f32 {
        match self {
            Rounding::Exact => count,
            Rounding::Random { part, .. } => (count + part).floor(),
        }
    }

    /// Requests in flight to `endpoint` now, with open streams: this worker's own, and those of the others as far as
    /// their reports still hold.
    pub fn in_flight(self, view: PickContext<'_>, endpoint: &EndpointView<'_>) -> f32 {
        let known = endpoint.total_in_flight().saturating_sub(endpoint.others_awaiting());
        known as f32 + self.count(endpoint.others_awaiting_now(view.queueing.sojourn_s, view.now))
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn the_mean_is_kept() {
        let mut rng = Rng::new(5);
        for count in [0.0, 0.1, 0.5, 1.9, 7.0] {
            let sum: f32 = (0..4000).map(|n| Rounding::draw(n % 2 == 0, &mut rng).count(count)).sum();
            // Binomial, at most 1/4 of variance a draw; five standard deviations.
            assert!((sum / 4000.0 - count).abs() < 5.0 * (0.25f32 / 4000.0).sqrt(), "{count}: {sum}");
        }
    }

    /// Of two that differ by a part of a step, the slower looks equal as often as the part is small.
    #[test]
    fn near_equals_look_equal_as_often_as_they_are_near() {
        let mut rng = Rng::new(7);
        for (at_rest, step) in [(false, 1.0 / 8.0), (true, 1.0 / 4.0)] {
            for part in [0.0f32, 0.1, 0.4, 0.8, 1.0] {
                // At the lower end of an octave.
                let (quick, slow) = (1.0 / 64.0, (1.0 + part * step) / 64.0);
                let equal = (0..4000).filter(|_| {
                    let rounding = Rounding::draw(at_rest, &mut rng);
                    rounding.latency(quick) == rounding.latency(slow)
                });
                let equal = equal.count() as f32 / 4000.0;
                // Binomial, at most 1/4 of variance a draw; five standard deviations.
                assert!((equal - (1.0 - part)).abs() < 5.0 * (0.25f32 / 4000.0).sqrt(), "{part}: {equal}");
            }
        }
    }

    #[test]
    fn what_differs_by_a_step_or_more_keeps_its_order() {
        let mut rng = Rng::new(6);
        for _ in 0..1000 {
            let rounding = Rounding::draw(false, &mut rng);
            assert!(rounding.latency(0.020) < rounding.latency(0.023));
            let coarse = Rounding::draw(true, &mut rng);
            assert!(coarse.latency(0.020) < coarse.latency(0.025));
            assert!(rounding.count(1.2) < rounding.count(2.2));
            assert!(rounding.latency(0.020) <= rounding.latency(0.0201));
        }
        assert_eq!((Rounding::Exact.latency(0.0201), Rounding::Exact.count(1.2)), (0.0201, 1.2));
    }
}
