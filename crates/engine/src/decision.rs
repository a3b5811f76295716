//! The decision on a request, its reason, and the handle of a request.

use crate::endpoint::EndpointRef;
use crate::time::Time;

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send it to the first candidate, and retries to the next ones.
    Steer(crate::policy::Candidates),
    /// Leave it to Envoy's fallback policy.
    Fallback,
    /// Reject it with a 503.
    Reject,
    /// Send it to the configured safe endpoint.
    SafeEndpoint,
}

/// Reason for a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    /// Chosen by the policy.
    #[default]
    Policy,
    /// A probe of an endpoint that gets no other traffic.
    Probe,
    /// Sent to an ejected endpoint, because the eligible ones cannot carry the load.
    Overflow,
    /// Left to Envoy, because no endpoint was eligible.
    Fallback,
    /// Left to Envoy as the part for hosts that only its own policy can reach.
    Unsteerable,
    /// Rejected with a 503, because no endpoint was eligible.
    Reject,
    /// Sent to the safe endpoint, because no endpoint was eligible.
    SafeEndpoint,
    /// Left to Envoy to compare its own policy.
    HeldOut,
    /// Left to Envoy, because the guard has found that steering does harm.
    GuardAside,
}

impl Reason {
    /// Name in labels, logs and headers.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Policy => "policy",
            Reason::Probe => "probe",
            Reason::Overflow => "overflow",
            Reason::Fallback => "fallback",
            Reason::Unsteerable => "unsteerable",
            Reason::Reject => "reject",
            Reason::SafeEndpoint => "safe_endpoint",
            Reason::HeldOut => "held_out",
            Reason::GuardAside => "guard_aside",
        }
    }
}

/// Handle of a request in flight. Its holder must call [`Balancer::record_response`](crate::Balancer::record_response)
/// and [`Balancer::finished`](crate::Balancer::finished) once each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHandle {
    /// Index of the cluster.
    pub upstream: usize,
    /// The endpoint.
    pub endpoint: EndpointRef,
    /// When it was sent.
    pub started: Time,
    /// Number of unanswered requests that it found there, scaled to an endpoint of mean weight.
    pub depth: u32,
}
