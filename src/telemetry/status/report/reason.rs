//! The reason, in words, why an endpoint is not eligible, or is eligible although something is wrong.

use engine::endpoint::{AnnouncedHealth, EndpointState};
use engine::health::State;
use engine::settings::RuleAction;
use engine::{Cluster, Explained};

/// Why an endpoint is not eligible, or is eligible although something is wrong; empty if nothing is wrong.
#[inline(never)]
pub fn reason(
    upstream: &Cluster,
    (endpoint, index): (&EndpointState, u32),
    explained: &Explained,
) -> &'static str {
    let well = endpoint.health.state() == State::Healthy;
    let sound = well
        && !endpoint.constraints.hints.held()
        && !endpoint.constraints.announced.is_unavailable()
        && endpoint.constraints.ruled != Some(RuleAction::Eject);
    match (endpoint.eligible, sound) {
        (true, true) if explained.load == 0.0 => "standby: its priority or zone gets no requests now",
        (true, true) if upstream.set_aside(index) => {
            "set aside: standing queue while the others' are empty; retried periodically"
        }
        (true, true) => "",
        (true, false) if upstream.panics() => "panic: too few healthy endpoints, health is ignored",
        (true, false) => "failed, not ejected: max_ejected_percent reached",
        (false, _) if endpoint.constraints.announced == AnnouncedHealth::Draining => "draining",
        (false, _) if endpoint.constraints.announced == AnnouncedHealth::Unhealthy => {
            "unhealthy by Envoy's health checks"
        }
        (false, _) if endpoint.health.state() == State::Stalled => {
            "stalled: several requests are waiting and none is answered"
        }
        (false, _) if endpoint.health.state() == State::Suspect => {
            "suspect: a failure is being verified by single requests"
        }
        (false, _) if endpoint.health.state() == State::Failed => {
            "ejected: consecutive failures; half-open probes"
        }
        (false, _) if endpoint.health.state() == State::Recovering => {
            "recovering: single requests until enough have succeeded"
        }
        (false, _) if endpoint.constraints.ruled == Some(RuleAction::Eject) => "ejected by a rule",
        (false, _) if endpoint.constraints.hints.held() => "paused: it sent Retry-After",
        (false, _) if endpoint.constraints.hints.degraded() => {
            "degraded by its own report; the others can carry the load"
        }
        (false, _) if explained.load == 0.0 => "standby: its version's share in the split is 0",
        (false, _) => "degraded; the others can carry the load",
    }
}
