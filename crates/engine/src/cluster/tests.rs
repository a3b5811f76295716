//! A cluster of few endpoints that a test brings into the state that it is about, and what the rooms promise of it.

mod accounts;
mod again;
mod clock;
mod duties;
mod ejecting;
mod hinting;
mod lost_time;
mod overflowing;
mod pressing;
mod probing;
mod resting;
mod sharing;
mod silent_subsets;
mod stalling;
mod subsets;

use core::time::Duration;

use super::*;
use crate::endpoint::{AnnouncedHealth, EndpointState, Hints};
use crate::health::{FailureEvent, GoodRun};
use crate::settings::RuleAction;

/// So long after the epoch, seconds.
fn s(seconds: f64) -> Time {
    Time::from_secs_f64(1_000_000.0 + seconds)
}

/// One endpoint of the fleet, by its place in it.
fn endpoint(nth: usize) -> Spec {
    Spec::at(std::net::SocketAddr::from(([10, 0, (nth >> 8) as u8, nth as u8], 80)))
}

fn fleet(endpoints: usize) -> Vec<Spec> {
    (1..=endpoints).map(endpoint).collect()
}

/// A cluster as it is by default.
fn settings() -> settings::Upstream {
    settings::Upstream {
        cluster: "web".into(),
        endpoints: settings::Endpoints::default(),
        policy: settings::Policy::Adaptive,
        signals: Vec::new(),
        rules: Vec::new(),
        health: settings::Health {
            suspect_after: 1,
            fail_after: 3,
            recover_after: 3,
            ejection: Duration::from_secs(30),
            max_ejected_percent: 50.0,
            failures: settings::Failures::default(),
            blame_retried: true,
            heed_headers: true,
            probe: None,
        },
        slow_start: Duration::ZERO,
        failover: settings::Failover { none_eligible: settings::NoneEligible::Envoy, panic_percent: 50.0 },
        zone: None,
        affinity: None,
        split: Vec::new(),
        pressure: vec![settings::PressureTerm {
            value: settings::PressureValue::Occupancy,
            weight: 1.0,
            full: 1.0,
            most: 2.0,
        }],
        autoscale: None,
        guard: None,
    }
}

/// A signal without a maximum.
fn signal(name: &str) -> settings::Signal {
    settings::Signal {
        name: name.into(),
        query: name.into(),
        builtin: None,
        report: None,
        weight: 1.0,
        learn: false,
        max: None,
        smoothing: 1.0,
        address_label: "instance".into(),
        port: None,
        timestamp_query: None,
    }
}

/// A cluster of these endpoints of which nothing is known.
fn cluster(settings: &settings::Upstream, specs: &[Spec]) -> Cluster {
    let mut cluster = Cluster::new(settings, None, Ablation::ALL, s(0.0));
    cluster.set_fleet(specs, s(0.0));
    cluster
}

/// The same, with so many percent that may be out and so many below which it is panic.
fn limited(specs: &[Spec], max_ejected: usize, panic: usize) -> Cluster {
    let mut settings = settings();
    settings.health.max_ejected_percent = max_ejected as f64;
    settings.failover.panic_percent = panic as f64;
    cluster(&settings, specs)
}

/// What there is to say against an endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Failed,
    Recovering,
    Suspect,
    Stalled,
    Held,
    Ruled,
    DegradedByItself,
    Degraded,
    Unhealthy,
    Draining,
}

/// Everything that speaks against an endpoint.
const TROUBLES: [Is; 10] = [
    Is::Failed,
    Is::Recovering,
    Is::Suspect,
    Is::Stalled,
    Is::Held,
    Is::Ruled,
    Is::DegradedByItself,
    Is::Degraded,
    Is::Unhealthy,
    Is::Draining,
];

impl Is {
    /// Brings an endpoint into this state; what failed was sent at `sent`.
    fn make(self, endpoint: &mut EndpointState, limits: &settings::Health, sent: Time) {
        let fails = |endpoint: &mut EndpointState, times: u32| {
            endpoint.health.failure(sent, sent, FailureEvent { weight: times, broke: None });
            endpoint.health.assess(GoodRun::default(), sent, limits, 0.0);
        };
        match self {
            Is::Failed => fails(endpoint, 3),
            Is::Recovering => {
                fails(endpoint, 3);
                let later = sent.after_secs(1.0);
                endpoint.health.success(later);
                endpoint.health.assess(GoodRun::default(), later, limits, 0.0);
            }
            Is::Suspect => fails(endpoint, 1),
            Is::Stalled => {
                endpoint.health.set_stalled(true);
                endpoint.health.assess(GoodRun::default(), sent, limits, 0.0);
            }
            Is::Held => endpoint.constraints.hints = Hints::of(false, true),
            Is::Ruled => endpoint.constraints.ruled = Some(RuleAction::Eject),
            Is::DegradedByItself => endpoint.constraints.hints = Hints::of(true, false),
            Is::Degraded => endpoint.constraints.announced = AnnouncedHealth::Degraded,
            Is::Unhealthy => endpoint.constraints.announced = AnnouncedHealth::Unhealthy,
            Is::Draining => endpoint.constraints.announced = AnnouncedHealth::Draining,
        }
    }
}

impl Cluster {
    /// Brings the endpoint at `index` into this state.
    fn make(&mut self, index: usize, is: Is) {
        is.make(&mut self.endpoints.states[index], &self.config.health, s(0.0));
    }

    /// Which endpoints are in traffic, by index.
    fn in_use(&self) -> Vec<usize> {
        (0..self.endpoints.states.len()).filter(|index| self.endpoints.states[*index].eligible).collect()
    }
}
