//! Where a request goes and why, and what is handed out for it.

use crate::endpoint::EndpointRef;
use crate::time::Time;

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send it to the first of these, retries to the next.
    Steer(crate::policy::Candidates),
    /// Leave it to Envoy's fallback policy.
    Fallback,
    /// Answer 503.
    Reject,
    /// Send it to the configured safe endpoint.
    SafeEndpoint,
}

/// What decided where a request goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    /// The policy.
    #[default]
    Policy,
    /// The need to look after an endpoint that gets no traffic.
    Probe,
    /// More than the eligible endpoints can carry: an ejected one.
    Overflow,
    /// No endpoint was eligible: Envoy.
    Fallback,
    /// Some hosts can only be reached by Envoy's own policy, and this was their part.
    Unsteerable,
    /// No endpoint was eligible: answered 503.
    Reject,
    /// No endpoint was eligible: the safe endpoint.
    SafeEndpoint,
    /// Envoy's own policy, to compare it.
    HeldOut,
    /// The guard has found that steering does harm: Envoy.
    GuardAside,
}

impl Reason {
    /// As it stands in labels, logs and headers.
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

/// A request on its way to an endpoint. Its holder owes the engine one
/// [`Balancer::record_response`](crate::Balancer::record_response) and one [`Balancer::finished`](crate::Balancer::finished).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHandle {
    /// Which upstream.
    pub upstream: usize,
    /// Which endpoint.
    pub endpoint: EndpointRef,
    /// When it was sent.
    pub started: Time,
    /// How many others it found in flight there.
    pub depth: u32,
}
