//! Lifetime counters of a worker for one cluster, which can be summed over workers.

use super::decision_times::DecisionTimes;
use crate::health::State;

/// A worker's lifetime counters for one cluster.
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
    /// Ejections. One worker of the process counts these and [`changes`](Totals::changes) for all.
    pub ejections: u64,
    /// State changes to healthy, suspect, failed and recovering.
    pub changes: [u64; 4],
    /// Observe mode: decisions compared with Envoy's own.
    pub observed: Observed,
    /// Requests that were not sent as decided.
    pub astray: Astray,
    /// Load reports that were not a number, negative, or without the configured value.
    pub unusable_reports: u64,
    /// Out-of-band probes.
    pub out_of_band: OutOfBand,
    /// Decision times of a sample of decisions.
    pub times: DecisionTimes,
}

/// Requests that were not sent as decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Astray {
    /// Steered requests that another host answered, without a retry.
    pub not_followed: u64,
    /// Requests whose route was changed after the filter had decided.
    pub rerouted: u64,
}

/// Out-of-band probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutOfBand {
    /// Number sent.
    pub sent: u64,
    /// Number failed.
    pub failed: u64,
}

/// Requests that the guard left to Envoy's own policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByGuard {
    /// To compare Envoy's policy.
    pub held_out: u64,
    /// Because the guard has stepped aside.
    pub aside: u64,
}

/// Decisions in observe mode, compared with Envoy's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Decisions that could be compared with Envoy's pick.
    pub compared: u64,
    /// Decisions that named the endpoint that Envoy picked.
    pub agreed: u64,
    /// Sum of the expected latency saved by decisions that were better, microseconds.
    pub gained_us: u64,
    /// Sum of the expected latency added by decisions that were worse, microseconds.
    pub lost_us: u64,
}

impl Totals {
    const LEN: usize = 34;

    /// Index of a state in [`Totals::changes`]; stalled counts as suspect.
    pub fn change(state: State) -> usize {
        match state {
            State::Healthy => 0,
            State::Suspect | State::Stalled => 1,
            State::Failed => 2,
            State::Recovering => 3,
        }
    }

    /// Total number of decisions.
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

    /// All counters in a fixed order.
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

    /// All counters in a fixed order.
    pub fn to_array(mut self) -> [u64; Totals::LEN] {
        self.numbers_mut().map(|number| *number)
    }

    /// The inverse of [`Totals::to_array`].
    pub fn from_array(numbers: [u64; Totals::LEN]) -> Totals {
        let mut totals = Totals::default();
        totals.numbers_mut().into_iter().zip(numbers).for_each(|(to, from)| *to = from);
        totals
    }

    /// Subtracts counts that are reported elsewhere.
    pub fn subtract(&mut self, elsewhere: &Totals) {
        let mut rest = self.to_array();
        rest.iter_mut()
            .zip(elsewhere.to_array())
            .for_each(|(ours, theirs)| *ours = ours.saturating_sub(theirs));
        *self = Totals::from_array(rest);
    }

    /// Adds the counts of another worker.
    pub fn merge(&mut self, other: &Totals) {
        let mut sum = self.to_array();
        sum.iter_mut().zip(other.to_array()).for_each(|(ours, theirs)| *ours = ours.saturating_add(theirs));
        *self = Totals::from_array(sum);
    }
}
