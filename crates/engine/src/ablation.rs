//! What the adaptive policy is made of, each part of which can be left out to see what it is good for.

/// Enough that a draw of only failing endpoints is rare, few enough that the best is not chosen by every request.
const CHOICES: usize = 6;

/// The parts; all of them by default. Leaving one out is for ablation, not for production.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ablation {
    /// How many endpoints a decision compares.
    pub choices: usize,
    /// What unanswered requests say: silence and age as a lower bound of the latency.
    pub floor: bool,
    /// The learnt curve of delay over depth; without it latency × (in-flight + 1), samples taken as they are.
    pub queueing: bool,
    /// Taking the queue out of the latency samples.
    pub idle: bool,
    /// Clipping samples that are far from the estimate.
    pub clip: bool,
    /// Jumping when three samples in a row are far from the estimate.
    pub jump: bool,
    /// Jumping upwards only with an answer to a request that was sent after the first of the three came back.
    pub apart: bool,
    /// Letting samples lose their weight with time, and unconfirmed failures too.
    pub fade: bool,
    /// Believing a difference from the fleet only beyond its own uncertainty.
    pub doubt: bool,
    /// The price of failures.
    pub errors: bool,
    /// Looking after slow endpoints that get no requests.
    pub explore: bool,
    /// What the other workers of the process know.
    pub sharing: bool,
    /// Holding traffic back after a single failure until a request went well.
    pub verify: bool,
    /// Taking out endpoints that fail repeatedly.
    pub eject: bool,
    /// Judging failures against those of the rest of the fleet.
    pub background: bool,
    /// Slow start of newcomers and of those that return.
    pub slow_start: bool,
    /// Signals from Prometheus.
    pub signals: bool,
    /// Acting on signals only as steeply as news come.
    pub news: bool,
}

impl Ablation {
    /// Everything.
    pub const ALL: Ablation = Ablation {
        choices: CHOICES,
        floor: true,
        queueing: true,
        idle: true,
        clip: true,
        jump: true,
        apart: true,
        fade: true,
        doubt: true,
        errors: true,
        explore: true,
        sharing: true,
        verify: true,
        eject: true,
        background: true,
        slow_start: true,
        signals: true,
        news: true,
    };
}

impl Default for Ablation {
    fn default() -> Ablation {
        Ablation::ALL
    }
}
