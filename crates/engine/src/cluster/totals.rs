//! What a worker did for an upstream, ever: counts that add up over workers.

use super::decision_times::DecisionTimes;
use crate::health::State;

/// What this worker did for the upstream, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests steered by the policy.
    pub policy: u64,
    /// Requests that verified or explored an endpoint.
    pub probes: u64,
    /// Requests to ejected endpoints because the others could not carry them.
    pub overflow: u64,
    /// Requests left to Envoy's fallback because no endpoint was eligible.
    pub fallbacks: u64,
    /// Requests left to Envoy's own policy for the hosts that only it can reach.
    pub unsteerable: u64,
    /// Requests left to Envoy's own policy by the guard.
    pub guard: ByGuard,
    /// Requests refused because no endpoint was eligible.
    pub rejects: u64,
    /// Requests sent to the safe endpoint because no endpoint was eligible.
    pub safe_endpoint: u64,
    /// Times an endpoint was taken out of traffic. One worker of the process counts these and the changes.
    pub ejections: u64,
    /// Changes to healthy, suspect, failed and recovering.
    pub changes: [u64; 4],
    /// Observe mode: decisions beside Envoy's own.
    pub observed: Observed,
    /// Requests that went another way than was decided.
    pub astray: Astray,
    /// Load reports of endpoints that were no number, negative or without the value that is asked for.
    pub unusable_reports: u64,
    /// Probes out of band.
    pub out_of_band: OutOfBand,
    /// How long some of the decisions took.
    pub times: DecisionTimes,
}

/// Requests that went another way than was decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Astray {
    /// Those that were steered and answered by another host than the one that was named, and were no retries.
    pub not_followed: u64,
    /// Those that got here by a route that was chosen after the filter had looked at them.
    pub rerouted: u64,
}

/// Probes out of band: requests of the balancer's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutOfBand {
    /// All that were sent.
    pub sent: u64,
    /// Of these, those that failed.
    pub failed: u64,
}

/// Requests that the guard left to Envoy's own policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByGuard {
    /// To compare it.
    pub held_out: u64,
    /// Because steering does harm.
    pub aside: u64,
}

/// Decisions that were only shown, beside Envoy's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Decisions that could be compared with Envoy's own pick.
    pub compared: u64,
    /// Of these, the ones that named the same endpoint.
    pub agreed: u64,
    /// Expected seconds that the decisions would have saved, in microseconds, gains and losses apart.
    pub gained_us: u64,
    /// Expected microseconds that the decisions would have cost.
    pub lost_us: u64,
}

impl Totals {
    const LEN: usize = 34;

    /// The index of a state in [`Totals::changes`].
    pub fn change(state: State) -> usize {
        match state {
            State::Healthy => 0,
            State::Suspect | State::Stalled => 1,
            State::Failed => 2,
            State::Recovering => 3,
        }
    }

    /// Requests that were decided on.
    pub fn decisions(&self) -> u64 {
        let Totals {
            policy,
            probes,
            overflow,
            fallbacks,
            unsteerable,
            guard: ByGuard { held_out, aside },
            rejects,
            safe_endpoint,
            ..
        } = self;
        [probes, overflow, fallbacks, unsteerable, held_out, aside, rejects, safe_endpoint]
            .into_iter()
            .fold(*policy, |sum, n| sum.saturating_add(*n))
    }

    /// Every number, always in the same order.
    fn numbers_mut(&mut self) -> [&mut u64; Totals::LEN] {
        let [healthy, suspect, failed, recovering] = &mut self.changes;
        let [t0, t1, t2, t3, t4, t5, t6, t7, t8, t9] = &mut self.times.buckets;
        [
            &mut self.policy,
            &mut self.probes,
            &mut self.overflow,
            &mut self.fallbacks,
            &mut self.unsteerable,
            &mut self.guard.held_out,
            &mut self.guard.aside,
            &mut self.rejects,
            &mut self.safe_endpoint,
            &mut self.ejections,
            healthy,
            suspect,
            failed,
            recovering,
            &mut self.observed.compared,
            &mut self.observed.agreed,
            &mut self.observed.gained_us,
            &mut self.observed.lost_us,
            &mut self.astray.not_followed,
            &mut self.astray.rerouted,
            &mut self.unusable_reports,
            &mut self.out_of_band.sent,
            &mut self.out_of_band.failed,
            t0,
            t1,
            t2,
            t3,
            t4,
            t5,
            t6,
            t7,
            t8,
            t9,
            &mut self.times.sum_ns,
        ]
    }

    /// All numbers in a fixed order.
    pub fn to_array(mut self) -> [u64; Totals::LEN] {
        self.numbers_mut().map(|number| *number)
    }

    /// Numbers in the order of [`Totals::to_array`].
    pub fn from_array(numbers: [u64; Totals::LEN]) -> Totals {
        let mut totals = Totals::default();
        totals.numbers_mut().into_iter().zip(numbers).for_each(|(to, from)| *to = from);
        totals
    }

    /// Takes off what is told elsewhere.
    pub fn take_off(&mut self, told: &Totals) {
        let mut rest = self.to_array();
        rest.iter_mut().zip(told.to_array()).for_each(|(ours, told)| *ours = ours.saturating_sub(told));
        *self = Totals::from_array(rest);
    }

    /// Adds what another worker did.
    pub fn merge(&mut self, other: &Totals) {
        let mut sum = self.to_array();
        sum.iter_mut().zip(other.to_array()).for_each(|(ours, theirs)| *ours = ours.saturating_add(theirs));
        *self = Totals::from_array(sum);
    }
}
