//! What goes wrong goes wrong as described, and every request ends exactly once.

use simulator::contender::{self, Contender};
use simulator::distribution::Distribution;
use simulator::peers::envoy::Kind;
use simulator::run::Run;
use simulator::scenario::{Change, Mode, Scenario, What};
use simulator::{catalogue, world};

const BLIND: Contender = Contender::Envoy(Kind::RoundRobin, false);

/// Two endpoints with one slot of 10 ms each, half busy; `what` happens to the first from second 2 on.
fn half_of_two(what: What) -> Scenario {
    Scenario {
        length: 8.0,
        rate: 100.0,
        endpoints: 2,
        present: 2,
        slots: 1,
        workers: 1,
        work: Distribution::Constant(0.010),
        network: 0.001,
        timeout: 1.0,
        changes: vec![Change { at: 2.0, endpoint: 0, what }],
        ..Scenario::default()
    }
}

fn failures(run: &Run, endpoint: u32) -> (usize, f64) {
    let failed: Vec<_> = run.records.iter().filter(|r| r.failed && r.endpoint == endpoint).collect();
    let mean =
        failed.iter().map(|r| f64::from(r.latency_us) / 1000.0).sum::<f64>() / failed.len().max(1) as f64;
    (failed.len(), mean)
}

#[test]
fn every_request_ends_once_whatever_happens() {
    for name in catalogue::NAMES.iter().filter(|n| !n.starts_with("prometheus-15s") && **n != "load-ramp") {
        let scenario = catalogue::named(name, 2).unwrap();
        let expected = world::run(&Scenario { retries: 0, ..scenario.clone() }, &BLIND, 2).records.len();
        for (policy, contender) in contender::all() {
            if contender == Contender::Oracle || policy.starts_with("ours") || policy == "adaptive" {
                let run = world::run(&scenario, &contender, 2);
                assert_eq!(run.records.len(), expected, "{name} {policy}");
                let shares: f64 = run.shares((0.0, scenario.length)).iter().sum();
                assert!((shares - 1.0).abs() < 1e-9, "{name} {policy}: {shares}");
            }
        }
    }
}

#[test]
fn a_black_hole_costs_the_time_out_and_heals() {
    let mut scenario = half_of_two(What::Mode(Mode::Hole));
    scenario.changes.push(Change { at: 5.0, endpoint: 0, what: What::Mode(Mode::Serve) });
    let run = world::run(&scenario, &BLIND, 1);
    let (failed, mean_ms) = failures(&run, 0);
    assert!((120..180).contains(&failed), "{failed} of about 150");
    assert!((mean_ms - 1000.0).abs() < 0.1, "{mean_ms}");
    assert_eq!(failures(&run, 1).0, 0);
    assert_eq!(run.failed((5.0, 8.0)), 0);
}

#[test]
fn refusals_and_errors_come_at_once() {
    for what in [Mode::Refuse, Mode::Errors(1.0)] {
        let run = world::run(&half_of_two(What::Mode(what)), &BLIND, 1);
        let (failed, mean_ms) = failures(&run, 0);
        assert!((250..350).contains(&failed), "{what:?}: {failed} of about 300");
        assert!((2.5..3.5).contains(&mean_ms), "{what:?}: {mean_ms}, not 1 ms and twice the network");
    }
}

#[test]
fn half_of_the_answers_fail_where_half_should() {
    let run = world::run(&half_of_two(What::Mode(Mode::Errors(0.5))), &BLIND, 1);
    let failed = failures(&run, 0).0;
    assert!((115..185).contains(&failed), "{failed} of about 150");
}

#[test]
fn a_pause_delays_what_runs_and_what_arrives() {
    let run = world::run(&half_of_two(What::Pause(0.5)), &BLIND, 1);
    let caught =
        run.records.iter().filter(|r| r.endpoint == 0 && (2_000_000..2_500_000).contains(&r.started_us));
    for record in caught.clone() {
        let ends = record.started_us + record.latency_us;
        assert!(ends >= 2_500_000, "{record:?}");
    }
    assert!(caught.count() > 10);
    assert_eq!(run.failed((0.0, 8.0)), 0);
}

#[test]
fn abandoned_work_still_occupies_its_slot() {
    // Twice as much as it can do: all but the first wait longer than the time-out, and the work done in vain
    // keeps it so until the queue of the overload has drained.
    let mut scenario = half_of_two(What::Slow(4.0));
    scenario.changes.push(Change { at: 4.0, endpoint: 0, what: What::Slow(1.0) });
    let run = world::run(&scenario, &BLIND, 1);
    let late =
        run.records.iter().filter(|r| r.endpoint == 0 && r.started_us > 4_000_000 && r.latency_us > 100_000);
    assert!(late.count() > 10, "the queue outlives its cause");
    assert!(run.latency(1.0, (7.0, 8.0)) < 200.0, "and then is gone");
}

#[test]
fn a_retry_is_chosen_anew() {
    let random = Contender::Envoy(Kind::Random, false);
    let mut scenario = half_of_two(What::Mode(Mode::Refuse));
    let once = world::run(&scenario, &random, 1).failed((0.0, 8.0)) as f64;
    scenario.retries = 1;
    let twice = world::run(&scenario, &random, 1).failed((0.0, 8.0)) as f64;
    assert!(once > 250.0);
    assert!((0.35..0.65).contains(&(twice / once)), "half of them fail again: {twice} of {once}");
}

#[test]
fn asynchronous_workers_answer_at_once_and_refuse_when_full() {
    let scenario = Scenario {
        asynchronous: Some(20),
        length: 20.0,
        changes: vec![Change { at: 0.0, endpoint: 0, what: What::Slow(4.0) }],
        ..half_of_two(What::Slow(4.0))
    };
    let run = world::run(&scenario, &BLIND, 1);
    assert!((run.latency(0.99, (0.0, 20.0)) - 3.0).abs() < 0.1);
    assert!(failures(&run, 0).0 > 200, "gets 50/s, does 25/s");
    assert_eq!(failures(&run, 1).0, 0);
    let accepted = run.records.iter().filter(|r| !r.failed).count();
    assert_eq!(run.tasks.len(), accepted, "what was accepted gets done");
    let longest = run.tasks.iter().map(|t| t.sojourn_us).max().unwrap();
    assert!((800_000..900_000).contains(&longest), "{longest}: twenty of 40 ms before it, and its own");
}
