//! Counters and the log of state changes of a cluster.

use super::Totals;
use super::transitions::TransitionLog;
use crate::decision::Reason;

/// Counters, the latest decision's reason, and state changes.
#[derive(Default)]
pub(super) struct Stats {
    /// This worker's counters.
    pub totals: Totals,
    /// Reason for the latest decision.
    pub reason: Reason,
    /// State changes since they were last taken.
    pub transitions: TransitionLog,
}

impl Stats {
    /// Counts a decision by its reason.
    #[inline(never)]
    pub fn decided(&mut self, reason: Reason) {
        self.reason = reason;
        let totals = &mut self.totals;
        let count = match reason {
            Reason::Policy => &mut totals.policy,
            Reason::Probe => &mut totals.probes,
            Reason::Overflow => &mut totals.overflow,
            Reason::Fallback => &mut totals.fallbacks,
            Reason::Unsteerable => &mut totals.unsteerable,
            Reason::HeldOut => &mut totals.guard.held_out,
            Reason::GuardAside => &mut totals.guard.aside,
            Reason::Reject => &mut totals.rejects,
            Reason::SafeEndpoint => &mut totals.safe_endpoint,
        };
        *count += 1;
    }

    /// Counts a decision in observe mode: whether it named the endpoint that Envoy used, and the expected latencies of
    /// the two, seconds.
    pub fn compare(&mut self, same: bool, (named_s, used_s): (f64, f64)) {
        let observed = &mut self.totals.observed;
        observed.compared += 1;
        observed.agreed += u64::from(same);
        let gain_us = (used_s - named_s) * 1e6;
        observed.gained_us += gain_us.max(0.0) as u64;
        observed.lost_us += (-gain_us).max(0.0) as u64;
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::cluster::totals::Observed;

    #[test]
    fn each_decision_is_counted_once() {
        let mut stats = Stats::default();
        for reason in [Reason::Policy, Reason::Probe, Reason::Policy, Reason::Reject] {
            stats.decided(reason);
        }
        assert_eq!(stats.reason, Reason::Reject);
        let Totals { policy, probes, rejects, fallbacks, .. } = stats.totals;
        assert_eq!((policy, probes, rejects, fallbacks), (2, 1, 1, 0));
    }

    #[test]
    fn gains_and_losses_are_counted_apart() {
        let mut stats = Stats::default();
        stats.compare(false, (0.25, 0.5));
        stats.compare(true, (0.5, 0.5));
        stats.compare(false, (0.25, 0.125));
        let Observed { compared, agreed, gained_us, lost_us } = stats.totals.observed;
        assert_eq!((compared, agreed, gained_us, lost_us), (3, 1, 250_000, 125_000));
    }
}
