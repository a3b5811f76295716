//! Random rounding of what candidates are compared by: differences smaller than a step, which may be chance, decide only
//! as often as they are large. Otherwise the endpoint with the smallest advantage would get all requests of all workers.

use super::PickContext;
use crate::endpoint::EndpointView;
use crate::rng::Rng;

/// Step of latencies, in bits of a number: an eighth of an octave.
const STEP: u32 = 1 << 20;

/// How figures of all candidates of one pick are rounded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rounding {
    /// Not at all: for the explanation of a cost.
    Exact,
    /// Down, after adding this part of a step, `0..STEP`.
    Random(u32),
}

impl Rounding {
    /// The rounding of one pick.
    pub fn draw(rng: &mut Rng) -> Rounding {
        Rounding::Random(rng.below(STEP))
    }

    /// `latency`, rounded to a step of an eighth of an octave.
    pub fn latency(self, latency: f32) -> f32 {
        match self {
            Rounding::Exact => latency,
            Rounding::Random(by) => f32::from_bits(latency.to_bits().wrapping_add(by) & !(STEP - 1)),
        }
    }

    /// `count`, rounded to a whole number.
    pub fn count(self, count: f32) -> f32 {
        match self {
            Rounding::Exact => count,
            Rounding::Random(by) => (count + by as f32 / STEP as f32).floor(),
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
            let sum: f32 = (0..4000).map(|_| Rounding::draw(&mut rng).count(count)).sum();
            // Binomial, at most 1/4 of variance a draw; five standard deviations.
            assert!((sum / 4000.0 - count).abs() < 5.0 * (0.25f32 / 4000.0).sqrt(), "{count}: {sum}");
        }
    }

    #[test]
    fn what_differs_by_a_step_or_more_keeps_its_order() {
        let mut rng = Rng::new(6);
        for _ in 0..1000 {
            let rounding = Rounding::draw(&mut rng);
            assert!(rounding.latency(0.020) < rounding.latency(0.023));
            assert!(rounding.count(1.2) < rounding.count(2.2));
            assert!(rounding.latency(0.020) <= rounding.latency(0.0201));
        }
        assert_eq!((Rounding::Exact.latency(0.0201), Rounding::Exact.count(1.2)), (0.0201, 1.2));
    }
}
