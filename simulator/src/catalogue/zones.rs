//! Two zones, of which the local one is lost or busy.

use super::{change, latency};
use crate::distribution::Distribution;
use crate::scenario::{Measure, Mode, Scenario, Shape, View, What, Zones};

/// Half of the endpoints are local and would be two thirds busy with all requests; the others are 30 ms farther away,
/// there and back.
fn two_zones() -> Scenario {
    Scenario { zones: Some(Zones { local: 5, farther: 0.015 }), ..Scenario::default() }
}

fn local(label: &'static str, window: (f64, f64)) -> View {
    View { label, what: Measure::Local, window }
}

/// The whole local zone has a fault from 4 s to 10 s.
pub fn lost(falls: What) -> Scenario {
    let at = |at, what| (0..5).map(move |endpoint| change(at, endpoint, what));
    Scenario {
        length: 40.0,
        changes: at(4.0, falls).chain(at(10.0, What::Mode(Mode::Serve))).collect(),
        views: vec![
            local("local before", (1.0, 4.0)),
            local("local 0-1 s", (4.0, 5.0)),
            local("local 1-2 s", (5.0, 6.0)),
            local("local 2-6 s", (6.0, 10.0)),
            local("local 5-10 s after", (15.0, 20.0)),
            local("local 20-30 s after", (30.0, 40.0)),
            latency("p99 2-6 s", 0.99, (6.0, 10.0)),
        ],
        ..two_zones()
    }
}

/// Load from half of the local zone's capacity to one and a half times as much, and back.
pub fn busy() -> Scenario {
    const STEPS: [f64; 9] = [0.5, 0.65, 0.9, 1.2, 1.5, 1.2, 0.9, 0.65, 0.5];
    let full = 20.0 / Distribution::TYPICAL.mean();
    let step = |n: usize| (5.0 * n as f64 + 2.0, 5.0 * (n + 1) as f64);
    Scenario {
        length: 45.0,
        rate: full,
        shape: Shape::Steps(STEPS.to_vec()),
        views: vec![
            local("local at 0.5", step(0)),
            local("local at 0.65", step(1)),
            local("local at 0.9", step(2)),
            local("local at 1.2", step(3)),
            local("local at 1.5", step(4)),
            latency("p99 at 1.5", 0.99, step(4)),
            local("local at 0.9", step(6)),
            local("local at 0.5", step(8)),
        ],
        ..two_zones()
    }
}
