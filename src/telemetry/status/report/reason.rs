//! The reason, in words, why an endpoint is not eligible, or is eligible although something is wrong.

use engine::endpoint::{AnnouncedHealth, EndpointState};
use engine::health::State;
use engine::settings::RuleAction;
use engine::{Cluster, Explained};

/// Why an endpoint is not eligible, or is eligible although something is wrong; empty if nothing is wrong.
#[inline(never)]
pub fn reason(
    upstream: &Cluster,
    (member, index): (&EndpointState, u32),
    explained: &Explained,
) -> &'static str {
    let well = member.health.state() == State::Healthy;
    let sound = well
        && !member.constraints.word.held()
        && !member.constraints.announced.is_unavailable()
        && member.constraints.ruled != Some(RuleAction::Eject);
    match (member.eligible, sound) {
        (true, true) if explained.load == 0.0 => {
            "standby: its priority or zone gets no requests at the moment"
        }
        (true, true) if upstream.set_aside(index) => {
            "set aside: its queue stands while the others' are empty; tried again from time to time"
        }
        (true, true) => "",
        (true, false) if upstream.panics() => "panic: too few endpoints are healthy, so health is ignored",
        (true, false) => "failed, not ejected: max_ejected_percent is reached",
        (false, _) if member.constraints.announced == AnnouncedHealth::Draining => "draining",
        (false, _) if member.constraints.announced == AnnouncedHealth::Unhealthy => {
            "unhealthy by Envoy's health checks"
        }
        (false, _) if member.health.state() == State::Stalled => {
            "stalled: several requests wait for an answer, and none comes"
        }
        (false, _) if member.health.state() == State::Suspect => {
            "suspect: a failure, verified by single requests"
        }
        (false, _) if member.health.state() == State::Failed => {
            "ejected: failures in a row, half-open probes"
        }
        (false, _) if member.health.state() == State::Recovering => {
            "recovering: single requests until enough have succeeded"
        }
        (false, _) if member.constraints.ruled == Some(RuleAction::Eject) => "ejected by a rule",
        (false, _) if member.constraints.word.held() => "it asked for a pause: Retry-After",
        (false, _) if member.constraints.word.degraded() => {
            "it reports itself degraded, and the others can carry the load"
        }
        (false, _) if explained.load == 0.0 => "its version has no share in the split",
        (false, _) => "degraded, and the others can carry the load",
    }
}
