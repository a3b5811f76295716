//! What the adaptive policy is made of, each part of which can be left out to see what it is good for.

/// Enough that a draw of only failing endpoints is rare, few enough that the best is not chosen by every request.
const CHOICES: usize = 6;

/// A part that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// What unanswered requests say: silence and age as a lower bound of the latency.
    MinLatency,
    /// The learnt curve of delay over depth; without it latency × (in-flight + 1), samples taken as they are.
    Queueing,
    /// Taking the queue out of the latency samples.
    IdleLatency,
    /// Clipping samples that are far from the estimate.
    Clip,
    /// Jumping when three samples in a row are far from the estimate.
    Jump,
    /// Jumping upwards only with an answer to a request that was sent after the first of the three came back.
    Apart,
    /// Letting samples lose their weight with time, and unconfirmed failures too.
    Fade,
    /// Believing a difference from the fleet only beyond its own uncertainty.
    ConfidenceMargin,
    /// The price of failures.
    Errors,
    /// Looking after slow endpoints that get no requests.
    Explore,
    /// What the other workers of the process know.
    Sharing,
    /// Holding traffic back after a single failure until a request went well.
    Verify,
    /// Taking out endpoints that fail repeatedly.
    Eject,
    /// Judging failures against those of the rest of the fleet.
    BaselineErrors,
    /// Slow start of newcomers and of those that return.
    SlowStart,
    /// Signals from Prometheus.
    Signals,
    /// Acting on signals only as steeply as news come.
    News,
}

/// The parts that are there; all of them by default. Leaving one out is for ablation, not for production.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ablation {
    /// How many endpoints a decision compares.
    pub choices: usize,
    left_out: u32,
}

impl Ablation {
    /// Everything.
    pub const ALL: Ablation = Ablation { choices: CHOICES, left_out: 0 };

    /// Everything but these.
    pub fn without(parts: &[Part]) -> Ablation {
        let left_out = parts.iter().fold(0, |set, part| set | bit(*part));
        Ablation { left_out, ..Ablation::ALL }
    }

    /// Everything, with so many endpoints compared by a decision.
    pub fn comparing(choices: usize) -> Ablation {
        Ablation { choices, ..Ablation::ALL }
    }

    /// Whether `part` is there.
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
