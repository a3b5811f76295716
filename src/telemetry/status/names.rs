//! What things are called in what is shown.

use config::Mode;
use engine::health::State;
use engine::settings::{Policy, RuleAction};

/// The states of the contract, as they stand in JSON and in labels.
pub const STATES: [&str; 4] = ["healthy", "suspect", "failed", "draining"];

/// The name of a state; one that recovers has failed and is not back yet.
pub fn state(state: State) -> &'static str {
    match state {
        State::Healthy => "healthy",
        State::Suspect | State::Stalled => "suspect",
        State::Failed | State::Recovering => "failed",
    }
}

/// A policy as the configuration names it.
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

/// Whether the policy's costs are seconds.
pub fn costs_seconds(policy: &Policy) -> bool {
    matches!(policy, Policy::Adaptive | Policy::PeakEwma)
}

/// A mode as the configuration names it.
pub fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe",
    }
}

/// What a rule does, as the configuration names it.
pub fn action(action: RuleAction) -> &'static str {
    match action {
        RuleAction::Flag => "flag",
        RuleAction::DownWeight => "down_weight",
        RuleAction::Eject => "eject",
    }
}
