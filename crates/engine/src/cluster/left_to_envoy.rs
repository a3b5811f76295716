//! Which requests are left to Envoy's own policy: those that the guard draws to compare it, and how they end.

use super::Cluster;
use super::probes::ProbeShard;
use crate::decision::Reason;
use crate::guard::arms::Lots;
use crate::guard::{Arm, Arms};
use crate::rng::Rng;
use crate::settings;
use crate::time::Time;

/// What this worker draws and counts for the guard.
#[derive(Clone, Debug)]
struct HeldOut {
    holdout: f64,
    /// Whether requests with a key are drawn, too. Else they are none of the guard's: a key stays on its endpoint.
    include_keyed: bool,
    lots: Lots,
    arms: Arms,
    /// The arm in which the latest decision counts, if it does.
    drawn: Option<Arm>,
    aside: bool,
}

impl HeldOut {
    fn new(guard: settings::Guard) -> HeldOut {
        HeldOut {
            holdout: (guard.holdout_percent / 100.0).clamp(0.0, 0.5),
            include_keyed: guard.include_keyed,
            lots: Lots::default(),
            arms: Arms::default(),
            drawn: None,
            aside: false,
        }
    }

    /// The reason to leave a request to Envoy's own policy, if it is left.
    #[inline(never)]
    fn draw(&mut self, key: Option<u64>, now: Time, rng: &mut Rng) -> Option<Reason> {
        self.drawn = None;
        if key.is_some() && !self.include_keyed {
            return None;
        }
        if self.aside {
            return Some(Reason::GuardAside);
        }
        let drawn = self.lots.draw(self.holdout, key, now, rng);
        self.drawn = drawn.counts.then_some(drawn.arm);
        (drawn.arm == Arm::HeldOut).then_some(Reason::HeldOut)
    }
}

/// What Envoy's own policy is to decide on.
#[derive(Clone, Debug)]
pub(super) struct LeftToEnvoy {
    /// The part of the requests for the hosts that only it can reach.
    pub unsteerable: f64,
    /// Where a part of the requests is left to it to compare.
    held_out: Option<Box<HeldOut>>,
}

impl LeftToEnvoy {
    /// Nothing but what the guard draws, if there is one.
    pub fn new(guard: Option<settings::Guard>) -> LeftToEnvoy {
        LeftToEnvoy { unsteerable: 0.0, held_out: guard.map(|guard| Box::new(HeldOut::new(guard))) }
    }

    /// Draws the arm of a request. The reason to leave it to Envoy, if it is left.
    pub fn draw_arm(&mut self, key: Option<u64>, now: Time, rng: &mut Rng) -> Option<Reason> {
        self.held_out.as_mut()?.draw(key, now, rng)
    }
}

impl Cluster {
    /// The arm in which the latest [`pick`](Cluster::pick) counts; none where nothing is compared.
    pub fn drawn(&self) -> Option<Arm> {
        self.left_to_envoy.held_out.as_ref()?.drawn
    }

    /// A request that was drawn into `arm` has ended: with an answer that took as long as `good` says, or with a failure.
    #[inline(never)]
    pub fn count_in_arm(&mut self, arm: Arm, good: Option<u16>) {
        if let Some(held_out) = &mut self.left_to_envoy.held_out {
            held_out.arms.count(arm, good);
        }
    }

    /// The part of the requests that is held out, above 0 and at most a half, and what this worker has counted; none
    /// without a guard.
    pub fn arms(&self) -> Option<(f64, &Arms)> {
        self.left_to_envoy.held_out.as_ref().map(|held_out| (held_out.holdout, &held_out.arms))
    }

    /// Whether the guard has stepped aside: nothing is steered that it may draw.
    pub fn is_aside(&self) -> bool {
        self.left_to_envoy.held_out.as_ref().is_some_and(|held_out| held_out.aside)
    }

    /// The guard steps aside, or no longer does. Of the keys, of which all workers draw the same, this worker counts
    /// its part.
    pub fn obey_guard(&mut self, aside: bool, part: ProbeShard) {
        if let Some(held_out) = &mut self.left_to_envoy.held_out {
            held_out.aside = aside;
            held_out.lots.count_part(part.rank, part.workers);
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn held_out(include_keyed: bool) -> HeldOut {
        let pause = core::time::Duration::from_secs(600);
        HeldOut::new(settings::Guard { holdout_percent: 50.0, include_keyed, pause })
    }

    #[test]
    fn a_key_stays_on_its_endpoint_unless_envoy_keeps_it_as_well() {
        let mut rng = Rng::new(3);
        for (include_keyed, left) in [(false, 0), (true, 500)] {
            let mut held_out = held_out(include_keyed);
            let mut draws = |aside| {
                held_out.aside = aside;
                let drawn = (0..1000).filter(|key| held_out.draw(Some(*key), Time::ZERO, &mut rng).is_some());
                drawn.count()
            };
            // Four standard deviations of Binomial(1000, 0.5): 63.
            assert!(draws(false).abs_diff(left) <= if left > 0 { 63 } else { 0 });
            assert_eq!(draws(true), if include_keyed { 1000 } else { 0 }, "aside");
        }
    }

    #[test]
    fn a_request_with_a_key_that_is_not_drawn_counts_in_no_arm() {
        let mut rng = Rng::new(3);
        let mut held_out = held_out(false);
        held_out.draw(None, Time::ZERO, &mut rng);
        assert!(held_out.drawn.is_some());
        held_out.draw(Some(7), Time::ZERO, &mut rng);
        assert_eq!(held_out.drawn, None);
    }
}
