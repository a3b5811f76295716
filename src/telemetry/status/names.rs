//! Names in status page, JSON and metrics.

use config::Mode;
use engine::health::State;
use engine::settings::{Policy, RuleAction};

/// The states in JSON and labels.
pub const STATES: [&str; 4] = ["healthy", "suspect", "failed", "draining"];

/// The name of a state; a recovering endpoint is shown as failed.
pub fn state(state: State) -> &'static str {
    match state {
        State::Healthy => "healthy",
        State::Suspect | State::Stalled => "suspect",
        State::Failed | State::Recovering => "failed",
    }
}

/// The name of a policy in the configuration.
pub fn policy(policy: &Policy) -> &'static str {
    match policy {
        Policy::Adaptive => "adaptive",
        Policy::PeakEwma => "peak_ewma",
        Policy::LeastRequest => "least_request",
        Policy::WeightedScore(_) => "weighted_score",
        Policy::LeastSignal { .. } => "least_signal",
        Policy::WeightedRoundRobin => "weighted_round_robin",
        Policy::RoundRobin => "round_robin",
        Policy::Random => "random",
        Policy::IpHash => "ip_hash",
        Policy::ConsistentHash(_) => "consistent_hash",
    }
}

/// Whether the policy's costs are in seconds.
pub fn costs_seconds(policy: &Policy) -> bool {
    matches!(policy, Policy::Adaptive | Policy::PeakEwma)
}

/// The name of a mode in the configuration.
pub fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe",
    }
}

/// The name of a rule's action in the configuration.
pub fn action(action: RuleAction) -> &'static str {
    match action {
        RuleAction::Flag => "flag",
        RuleAction::DownWeight => "down_weight",
        RuleAction::Eject => "eject",
    }
}
