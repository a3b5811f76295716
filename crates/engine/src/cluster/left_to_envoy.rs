//! Requests that are left to Envoy's own policy: those that the guard draws to compare it, and their outcomes.

use super::Cluster;
use super::probes::ProbeShard;
use crate::decision::Reason;
use crate::guard::arms::Lots;
use crate::guard::{Arm, Arms};
use crate::rng::Rng;
use crate::settings;
use crate::time::Time;

/// This worker's draws and counts for the guard.
#[derive(Clone, Debug)]
struct HeldOut {
    holdout: f64,
    /// Whether requests with a key are drawn as well. If not, the guard ignores them, because a key stays on its
    /// endpoint.
    include_keyed: bool,
    lots: Lots,
    arms: Arms,
    /// The arm in which the latest decision counts, if any.
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

    /// Draws an arm; returns the reason if the request is left to Envoy's own policy.
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

/// Requests on which Envoy's own policy decides.
#[derive(Clone, Debug)]
pub(super) struct LeftToEnvoy {
    /// Fraction of the requests meant for hosts that only Envoy's policy can reach, 0..=1.
    pub unsteerable: f64,
    /// The guard's state, if it is configured.
    held_out: Option<Box<HeldOut>>,
}

impl LeftToEnvoy {
    /// Nothing but what the guard draws, if it is configured.
    pub fn new(guard: Option<settings::Guard>) -> LeftToEnvoy {
        LeftToEnvoy { unsteerable: 0.0, held_out: guard.map(|guard| Box::new(HeldOut::new(guard))) }
    }

    /// Draws the arm of a request; returns the reason if it is left to Envoy.
    pub fn draw_arm(&mut self, key: Option<u64>, now: Time, rng: &mut Rng) -> Option<Reason> {
        self.held_out.as_mut()?.draw(key, now, rng)
    }

    /// Whether the guard has stepped aside for requests with this key.
    pub fn stands_aside(&self, key: Option<u64>) -> bool {
        self.held_out
            .as_ref()
            .is_some_and(|held_out| held_out.aside && (key.is_none() || held_out.include_keyed))
    }
}

impl Cluster {
    /// The arm in which the latest [`pick`](Cluster::pick) counts; `None` if it counts in neither.
    pub fn drawn(&self) -> Option<Arm> {
        self.left_to_envoy.held_out.as_ref()?.drawn
    }

    /// Counts the outcome of a request in `arm`: its latency bucket `good`, or `None` for a failure.
    #[inline(never)]
    pub fn count_in_arm(&mut self, arm: Arm, good: Option<u16>) {
        if let Some(held_out) = &mut self.left_to_envoy.held_out {
            held_out.arms.count(arm, good);
        }
    }

    /// The fraction of requests that is held out, above 0 and at most 0.5, and this worker's counts; `None` without a
    /// guard.
    pub fn arms(&self) -> Option<(f64, &Arms)> {
        self.left_to_envoy.held_out.as_ref().map(|held_out| (held_out.holdout, &held_out.arms))
    }

    /// Whether the guard has stepped aside: the requests that it draws from are no longer steered.
    pub fn is_aside(&self) -> bool {
        self.left_to_envoy.held_out.as_ref().is_some_and(|held_out| held_out.aside)
    }

    /// Applies the guard's verdict. All workers draw the same keys, so this worker counts only its part of them.
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
