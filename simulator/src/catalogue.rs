//! The scenarios by name. Unless a scenario says otherwise: ten endpoints with four slots of 20 ms, 600 requests/s, one
//! proxy with two workers, 12 s, and faults in the middle third.

mod zones;

use engine::rng::Rng;

use crate::distribution::Distribution;
use crate::scenario::{Change, Measure, Mode, Scaling, Scenario, Shape, Signal, SignalFault, View, What};

/// The middle third of a run of 12 s.
const THIRD: (f64, f64) = (4.0, 8.0);

/// A rush, in multiples of the usual rate: it builds up, lasts, and ends.
const RUSH: [f64; 16] = [1.0, 1.0, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.0, 4.0, 3.0, 2.0, 1.0, 1.0, 1.0];

/// The names of all scenarios, in the order of the table.
pub const NAMES: &[&str] = &[
    "equal",
    "equal-90",
    "one-10x",
    "three-4x-600",
    "three-4x-1100",
    "two-16x",
    "two-16x-4proxies",
    "antagonist",
    "roaming",
    "black-hole",
    "crash",
    "fast-errors",
    "some-errors",
    "rate-limited",
    "pauses",
    "pauses-often",
    "heavy",
    "healed-slow",
    "healed-errors",
    "healed-hole",
    "fleet-50-errors",
    "async",
    "newcomers",
    "three-speeds",
    "bursts",
    "tails",
    "sub-millisecond",
    "crash-restart",
    "rolling-deploy",
    "load-ramp",
    "prometheus-15s-8",
    "prometheus-15s-100",
    "async-15s-8",
    "prometheus-lies",
    "prometheus-gone",
];

/// Scenarios that are too large for regular runs; run only when named.
const BIG: &[&str] = &["big-fleet", "autoscale", "autoscale-flapping"];

/// Scenarios with zones, which only one of the balancers knows; run only when named.
const ZONES: &[&str] = &["zone-lost", "zone-hung", "zone-busy", "zone-errors"];

/// Small fleets: few endpoints, few slots or brief work; run only when named.
const SMALL: &[&str] = &["brief-60", "brief-80", "one-slot", "some-fail-88"];

/// All names: first the table's, then the ones that run only when named.
pub fn all() -> impl Iterator<Item = &'static str> {
    [NAMES, BIG, ZONES, SMALL].into_iter().flatten().copied()
}

/// The scenario called `name`, with randomness derived from `seed`.
pub fn named(name: &str, seed: u64) -> Option<Scenario> {
    let name = all().find(|n| *n == name)?;
    let scenario = match name {
        "equal" => Scenario::default(),
        "equal-90" => Scenario { rate: 0.9 * 40.0 / Distribution::TYPICAL.mean(), ..Scenario::default() },
        "one-10x" => Scenario { changes: slow_from_start(&[(0, 10.0)]), ..Scenario::default() },
        "three-4x-600" => Scenario { changes: slow_from_start(&THREE_4X), ..Scenario::default() },
        "three-4x-1100" => {
            Scenario { changes: slow_from_start(&THREE_4X), rate: 1100.0, ..Scenario::default() }
        }
        "two-16x" => Scenario { changes: slow_from_start(&TWO_16X), ..Scenario::default() },
        "two-16x-4proxies" => {
            Scenario { changes: slow_from_start(&TWO_16X), proxies: 4, ..Scenario::default() }
        }
        "antagonist" => a_third(What::Slow(10.0), What::Slow(1.0)),
        "roaming" => roaming(),
        "black-hole" => a_third(What::Mode(Mode::Hole), What::Mode(Mode::Serve)),
        "crash" => a_third(What::Mode(Mode::Refuse), What::Mode(Mode::Serve)),
        "fast-errors" => a_third(What::Mode(Mode::Errors(1.0)), What::Mode(Mode::Serve)),
        "some-errors" => a_third(What::Mode(Mode::Errors(0.3)), What::Mode(Mode::Serve)),
        "rate-limited" => a_third(What::Mode(Mode::Limits(0.5)), What::Mode(Mode::Serve)),
        "pauses" => pauses(10.0, seed),
        "pauses-often" => pauses(5.0, seed),
        "heavy" => Scenario {
            heavy: (0.05, 20.0),
            views: vec![latency("p90", 0.90, (0.0, 12.0)), latency("p95", 0.95, (0.0, 12.0))],
            ..Scenario::default()
        },
        "healed-slow" => healed(What::Slow(10.0), What::Slow(1.0)),
        "healed-errors" => healed(What::Mode(Mode::Errors(1.0)), What::Mode(Mode::Serve)),
        "healed-hole" => healed(What::Mode(Mode::Hole), What::Mode(Mode::Serve)),
        "fleet-50-errors" => fleet_errors(),
        "async" => asynchronous(),
        "newcomers" => newcomers(),
        "three-speeds" => three_speeds(),
        "bursts" => {
            Scenario { shape: Shape::Bursts { every: 2.0, length: 0.25, factor: 4.0 }, ..Scenario::default() }
        }
        "sub-millisecond" => sub_millisecond(),
        "crash-restart" => crash_restart(),
        "rolling-deploy" => rolling_deploy(),
        "load-ramp" => load_ramp(seed),
        "prometheus-15s-8" => old_prometheus(8, 2),
        "prometheus-15s-100" => old_prometheus(100, 1),
        "async-15s-8" => Scenario {
            asynchronous: Some(100),
            views: vec![
                herding(),
                View { label: "tasks p99", what: Measure::Task(0.99), window: (0.0, 45.0) },
            ],
            ..old_prometheus(8, 2)
        },
        "prometheus-lies" => Scenario {
            changes: slow_from_start(&THREE_4X),
            signal: Some(Signal { scrape: 1.0, poll: 1.0, max: Some(100.0), fault: SignalFault::Lies }),
            ..Scenario::default()
        },
        "prometheus-gone" => prometheus_gone(),
        "autoscale" => scaled(Shape::Steps(RUSH.to_vec())),
        // Twice the load for 8 s every 25 s: no reason to start and stop endpoints each time.
        "autoscale-flapping" => scaled(Shape::Bursts { every: 25.0, length: 8.0, factor: 2.0 }),
        "zone-lost" => zones::lost(What::Mode(Mode::Refuse)),
        "zone-hung" => zones::lost(What::Mode(Mode::Hole)),
        "zone-errors" => zones::lost(What::Mode(Mode::Errors(0.5))),
        "zone-busy" => zones::busy(),
        "brief-60" => brief(0.6),
        "brief-80" => brief(0.8),
        // A second request to the same endpoint waits for the whole of the first.
        "one-slot" => Scenario { endpoints: 48, present: 48, slots: 1, ..Scenario::default() },
        "some-fail-88" => some_fail(),
        "big-fleet" => Scenario {
            length: 3.0,
            endpoints: 10_000,
            present: 10_000,
            proxies: 1_000,
            workers: 1,
            rate: 0.6 * 40_000.0 / Distribution::TYPICAL.mean(),
            // Fewer than one in a hundred: a proxy sees each endpoint once in ten seconds, so no proxy can know them.
            changes: (0..50).map(|e| change(0.0, e * 200, What::Slow(10.0))).collect(),
            ..Scenario::default()
        },
        _ => Scenario {
            work: Distribution::Pareto { scale: 0.010, shape: 1.5, most: 2.0 },
            views: vec![latency("p90", 0.90, (0.0, 12.0))],
            ..Scenario::default()
        },
    };
    Some(Scenario { name, ..scenario })
}

const THREE_4X: [(usize, f64); 3] = [(0, 4.0), (1, 4.0), (2, 4.0)];
const TWO_16X: [(usize, f64); 2] = [(0, 16.0), (1, 16.0)];

fn slow_from_start(who: &[(usize, f64)]) -> Vec<Change> {
    who.iter().map(|(endpoint, factor)| change(0.0, *endpoint, What::Slow(*factor))).collect()
}

fn change(at: f64, endpoint: usize, what: What) -> Change {
    Change { at, endpoint, what }
}

fn latency(label: &'static str, p: f64, window: (f64, f64)) -> View {
    View { label, what: Measure::Latency(p), window }
}

/// Requests that are over before workers know of each other's.
fn brief(load: f64) -> Scenario {
    let work = Distribution::LogNormal { median: 0.004, sigma: 0.46 };
    Scenario {
        endpoints: 4,
        present: 4,
        slots: 2,
        rate: load * 8.0 / work.mean(),
        work,
        ..Scenario::default()
    }
}

/// The others cannot carry the load of the one that fails some requests.
fn some_fail() -> Scenario {
    Scenario {
        length: 30.0,
        endpoints: 5,
        present: 5,
        slots: 2,
        rate: 0.88 * 10.0 / Distribution::TYPICAL.mean(),
        changes: vec![change(0.0, 0, What::Mode(Mode::Errors(0.15)))],
        ..Scenario::default()
    }
}

fn a_third(falls: What, heals: What) -> Scenario {
    Scenario {
        changes: vec![change(THIRD.0, 0, falls), change(THIRD.1, 0, heals)],
        views: vec![latency("its third", 0.99, THIRD)],
        ..Scenario::default()
    }
}

fn roaming() -> Scenario {
    let mut changes = Vec::new();
    for (victim, at) in [0.0, 3.0, 6.0, 9.0].into_iter().enumerate() {
        if let Some(before) = victim.checked_sub(1) {
            changes.push(change(at, before, What::Slow(1.0)));
        }
        changes.push(change(at, victim, What::Slow(10.0)));
    }
    Scenario { changes, ..Scenario::default() }
}

/// Each endpoint pauses for half a second about every `every` seconds.
fn pauses(every: f64, seed: u64) -> Scenario {
    let mut rng = Rng::new(seed ^ 0x0070_6175_7365);
    let mut changes = Vec::new();
    for endpoint in 0..10 {
        let mut at = every * rng.unit();
        while at < 12.0 {
            changes.push(change(at, endpoint, What::Pause(0.5)));
            at += every * (0.8 + 0.4 * rng.unit());
        }
    }
    Scenario { changes, ..Scenario::default() }
}

fn healed(falls: What, heals: What) -> Scenario {
    Scenario {
        length: 45.0,
        changes: vec![change(5.0, 0, falls), change(25.0, 0, heals)],
        views: vec![
            View { label: "share healed", what: Measure::Share { of: 0, wanted: 0.1 }, window: (25.0, 45.0) },
            latency("p99 healed", 0.99, (25.0, 45.0)),
            View { label: "share sick", what: Measure::Share { of: 0, wanted: 0.0 }, window: (7.0, 25.0) },
            View { label: "recovery s", what: Measure::Recovery(0), window: (25.0, 45.0) },
        ],
        ..Scenario::default()
    }
}

fn fleet_errors() -> Scenario {
    Scenario {
        changes: (0..10).map(|e| change(THIRD.0, e, What::Mode(Mode::Errors(0.5)))).collect(),
        views: vec![View { label: "spread", what: Measure::Spread, window: (4.0, 12.0) }],
        ..Scenario::default()
    }
}

fn asynchronous() -> Scenario {
    Scenario {
        asynchronous: Some(100),
        changes: slow_from_start(&THREE_4X),
        signal: Some(Signal { scrape: 1.0, poll: 1.0, max: Some(100.0), fault: SignalFault::None }),
        views: vec![View { label: "tasks p99", what: Measure::Task(0.99), window: (0.0, 12.0) }],
        ..Scenario::default()
    }
}

fn newcomers() -> Scenario {
    let mut changes = Vec::new();
    for endpoint in 10..20 {
        changes.push(change(4.0, endpoint, What::Slow(10.0)));
        changes.push(change(4.0, endpoint, What::Join));
        changes.push(change(5.0, endpoint, What::Slow(4.0)));
        changes.push(change(6.0, endpoint, What::Slow(2.0)));
        changes.push(change(7.0, endpoint, What::Slow(1.0)));
    }
    changes.sort_by(|a, b| a.at.total_cmp(&b.at));
    Scenario {
        rate: 1100.0,
        endpoints: 20,
        changes,
        views: vec![latency("its third", 0.99, THIRD)],
        ..Scenario::default()
    }
}

/// 0.3 ms of work, network time that is not negligible, and one endpoint ten times slower for a third of the run.
fn sub_millisecond() -> Scenario {
    Scenario {
        length: 3.0,
        rate: 40_000.0,
        work: Distribution::LogNormal { median: 0.0003, sigma: 0.46 },
        network: 0.00005,
        changes: vec![change(1.0, 0, What::Slow(10.0)), change(2.0, 0, What::Slow(1.0))],
        views: vec![latency("its third", 0.99, (1.0, 2.0))],
        ..Scenario::default()
    }
}

/// One endpoint is down for two seconds, then cold for two more.
fn crash_restart() -> Scenario {
    Scenario {
        changes: vec![
            change(4.0, 0, What::Mode(Mode::Refuse)),
            change(6.0, 0, What::Slow(5.0)),
            change(6.0, 0, What::Mode(Mode::Serve)),
            change(7.0, 0, What::Slow(2.0)),
            change(8.0, 0, What::Slow(1.0)),
        ],
        views: vec![latency("its third", 0.99, THIRD)],
        ..Scenario::default()
    }
}

/// One endpoint after another leaves, is replaced a second later, and is cold for a second.
fn rolling_deploy() -> Scenario {
    let mut changes = Vec::new();
    for endpoint in 0..10 {
        let at = 2.0 + 2.0 * endpoint as f64;
        changes.extend([
            change(at, endpoint, What::Leave),
            change(at + 0.5, endpoint, What::Mode(Mode::Refuse)),
            change(at + 1.0, endpoint, What::Slow(5.0)),
            change(at + 1.0, endpoint, What::Mode(Mode::Serve)),
            change(at + 1.0, endpoint, What::Join),
            change(at + 2.0, endpoint, What::Slow(1.0)),
        ]);
    }
    changes.sort_by(|a, b| a.at.total_cmp(&b.at));
    Scenario { length: 24.0, rate: 1100.0, changes, ..Scenario::default() }
}

/// Up to fourteen endpoints, of which four are present, and which take five seconds to start; 250/s are a third of the
/// capacity of four. With a target of 0.7, a rush of four times that rate needs eight.
fn scaled(shape: Shape) -> Scenario {
    let length = 240.0;
    Scenario {
        length,
        rate: 250.0,
        shape,
        endpoints: 14,
        present: 4,
        scaling: Some(Scaling {
            start: 5.0,
            min: 3,
            target: 0.7,
            period: 5.0,
            cool_down: 30.0,
            look_ahead: 10.0,
        }),
        views: vec![
            View { label: "replicas", what: Measure::Replicas, window: (0.0, length) },
            View { label: "replicas before", what: Measure::Replicas, window: (30.0, 45.0) },
            View { label: "replicas in the rush", what: Measure::Replicas, window: (135.0, 165.0) },
            View { label: "replicas after", what: Measure::Replicas, window: (235.0, length) },
            latency("p99 in the rush", 0.99, (120.0, 165.0)),
        ],
        ..Scenario::default()
    }
}

/// The load ramp of the Prequal paper (§5): from 0.75 to 1.74 of the fleet's allotment, in nine steps. An endpoint may
/// use twice its allotment while its machine is idle; an antagonist takes that away on one machine in ten, on different
/// ones every three seconds.
fn load_ramp(seed: u64) -> Scenario {
    const STEPS: [f64; 9] = [0.75, 0.83, 0.93, 1.03, 1.14, 1.27, 1.41, 1.57, 1.74];
    const SECONDS: f64 = 3.0;
    let mut rng = Rng::new(seed ^ 0x7261_6d70);
    let mut changes = Vec::new();
    for round in 0..STEPS.len() {
        let at = SECONDS * round as f64;
        let before = changes.len().saturating_sub(5);
        let victims: Vec<Change> = changes[before..].to_vec();
        changes.extend(victims.iter().map(|v| change(at, v.endpoint, What::Slow(1.0))));
        for _ in 0..5 {
            changes.push(change(at, rng.below(50) as usize, What::Slow(2.0)));
        }
    }
    let allotted = 50.0 * 4.0 / Distribution::TYPICAL.mean() / 2.0;
    let step = |n: usize| (SECONDS * n as f64, SECONDS * (n + 1) as f64);
    Scenario {
        length: SECONDS * STEPS.len() as f64,
        rate: allotted,
        shape: Shape::Steps(STEPS.to_vec()),
        endpoints: 50,
        present: 50,
        proxies: 4,
        changes,
        views: vec![
            latency("at 0.75", 0.99, step(0)),
            latency("at 0.83", 0.99, step(1)),
            latency("at 0.93", 0.99, step(2)),
            latency("at 1.03", 0.99, step(3)),
            latency("at 1.14", 0.99, step(4)),
            latency("at 1.27", 0.99, step(5)),
            latency("at 1.41", 0.99, step(6)),
            latency("at 1.57", 0.99, step(7)),
            latency("at 1.74", 0.99, step(8)),
        ],
        ..Scenario::default()
    }
}

fn herding() -> View {
    View { label: "herding", what: Measure::Herding, window: (3.0, 45.0) }
}

/// A busy fleet of equal endpoints whose queue depths are up to 15 s old.
fn old_prometheus(proxies: usize, workers: usize) -> Scenario {
    Scenario {
        length: 45.0,
        slots: 10,
        rate: 0.85 * 100.0 / Distribution::TYPICAL.mean(),
        proxies,
        workers,
        signal: Some(Signal { scrape: 15.0, poll: 5.0, max: None, fault: SignalFault::None }),
        views: vec![herding()],
        ..Scenario::default()
    }
}

/// Prometheus stops answering after a third of the run.
fn prometheus_gone() -> Scenario {
    Scenario {
        changes: slow_from_start(&THREE_4X),
        signal: Some(Signal {
            scrape: 1.0,
            poll: 1.0,
            max: Some(100.0),
            fault: SignalFault::AbsentFrom(4.0),
        }),
        views: vec![latency("before", 0.99, (0.0, 4.0)), latency("after", 0.99, (4.0, 12.0))],
        ..Scenario::default()
    }
}

fn three_speeds() -> Scenario {
    let speeds = [4.0, 4.0, 4.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0];
    let who: Vec<_> = speeds.iter().copied().enumerate().filter(|(_, s)| *s > 1.0).collect();
    Scenario { changes: slow_from_start(&who), rate: 800.0, ..Scenario::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_scenario_with_changes_in_order() {
        for name in all() {
            let scenario = named(name, 1).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(scenario.name, name);
            assert!(
                scenario.changes.is_sorted_by(|a, b| a.at <= b.at) || name.starts_with("pauses"),
                "{name}"
            );
            assert!(scenario.changes.iter().all(|c| c.endpoint < scenario.endpoints), "{name}");
            let load = scenario.rate / scenario.capacity();
            assert!((0.2..1.0).contains(&load), "{name}: {load}");
        }
        assert!(named("nonsense", 1).is_none());
    }
}
