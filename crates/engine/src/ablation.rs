//! The parts of the adaptive policy, each of which the simulator can leave out to measure what it contributes.

/// Number of endpoints compared by a pick: enough that a draw of failing endpoints only is rare, few enough that not
/// every request goes to the best.
const CHOICES: usize = 6;

/// A part that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// Lower bounds of the latency from the age and silence of unanswered requests.
    MinLatency,
    /// The learnt curve of delay over depth; without it, the cost is latency × (in-flight + 1), and samples are taken
    /// as they are.
    Queueing,
    /// Removal of the queueing delay from latency samples.
    IdleLatency,
    /// Clipping of samples far from the estimate.
    Clip,
    /// The jump of the estimate after several consecutive samples far from it.
    Jump,
    /// The condition for jumps upwards: the last sample's request was sent after the first one of the run was answered.
    Apart,
    /// Decay of samples and of unconfirmed failures with time.
    Fade,
    /// The confidence margin: differences from the baseline count only beyond their own uncertainty.
    ConfidenceMargin,
    /// The error penalty.
    Errors,
    /// Exploration of slow endpoints that get no requests.
    Explore,
    /// Reports of the other workers in the process.
    Sharing,
    /// Suspicion: after a single failure, no traffic until a request succeeds.
    Verify,
    /// Ejection of endpoints that fail repeatedly.
    Eject,
    /// The comparison of failures with the rest of the fleet.
    BaselineErrors,
    /// Slow start of endpoints that are new or return.
    SlowStart,
    /// Signals.
    Signals,
    /// The limit on how steeply signals are acted on, by their update interval.
    News,
}

/// The active parts, all by default. Parts are left out in the simulator, not in production.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ablation {
    /// Number of endpoints that a pick compares.
    pub choices: usize,
    left_out: u32,
}

impl Ablation {
    /// All parts.
    pub const ALL: Ablation = Ablation { choices: CHOICES, left_out: 0 };

    /// All parts except these.
    pub fn without(parts: &[Part]) -> Ablation {
        let left_out = parts.iter().fold(0, |set, part| set | bit(*part));
        Ablation { left_out, ..Ablation::ALL }
    }

    /// All parts, with `choices` endpoints compared by a pick.
    pub fn comparing(choices: usize) -> Ablation {
        Ablation { choices, ..Ablation::ALL }
    }

    /// Whether `part` is active.
    #[inline]
    pub const fn has(&self, part: Part) -> bool {
        self.left_out & bit(part) == 0
    }
}

const fn bit(part: Part) -> u32 {
    1 << part as u8
}

impl Default for Ablation {
    fn default() -> Ablation {
        Ablation::ALL
    }
}
