//! Ordinary fleets off the catalogue, on which the adaptive policy once lost to Envoy's own.

use simulator::contender;
use simulator::distribution::Distribution;
use simulator::run::Run;
use simulator::scenario::{Long, Scenario};
use simulator::world;

fn run(scenario: &Scenario, policy: &str, seed: u64) -> Run {
    world::run(scenario, &contender::named(policy).unwrap(), seed)
}

/// Geometric mean over seeds of a percentile against that of least request.
fn against_least_request(scenario: &Scenario, p: f64, seeds: u64) -> f64 {
    let whole = (0.0, scenario.length);
    let log = |seed| {
        let (ours, theirs) = (run(scenario, "adaptive", seed), run(scenario, "least_request", seed));
        (ours.latency(p, whole) / theirs.latency(p, whole)).ln()
    };
    ((1..=seeds).map(log).sum::<f64>() / seeds as f64).exp()
}

fn few(endpoints: usize, slots: usize, load: f64) -> Scenario {
    let work = Distribution::TYPICAL;
    let rate = load * (endpoints * slots) as f64 / work.mean();
    Scenario { endpoints, present: endpoints, slots, rate, length: 20.0, ..Scenario::default() }
}

#[test]
fn requests_that_are_never_answered_condemn_nobody() {
    let long = Long { share: 0.01, seconds: 1e6, streams: false };
    let scenario = Scenario { rate: 30.0, length: 40.0, long: Some(long), ..few(3, 4, 0.5) };
    for seed in 1..=3 {
        let shares = run(&scenario, "adaptive", seed).shares((5.0, 40.0));
        assert!(shares.iter().all(|share| *share >= 0.2), "{seed}: {shares:?}");
    }
}

#[test]
fn rare_errors_of_all_cost_nothing() {
    for errors in [0.002, 0.01] {
        let scenario = Scenario { errors, ..few(2, 4, 0.6) };
        let ratio = against_least_request(&scenario, 0.99, 3);
        assert!(ratio < 1.1, "{errors}: {ratio}");
    }
}

#[test]
fn wide_work_is_no_difference_between_endpoints() {
    let work = Distribution::LogNormal { median: 0.02, sigma: 1.0 };
    let scenario = Scenario { work, heavy: (0.1, 10.0), ..few(4, 16, 0.8) };
    let scenario = Scenario { rate: 0.8 * 64.0 / scenario.mean_work(), ..scenario };
    let ratio = against_least_request(&scenario, 0.5, 3);
    assert!(ratio < 1.15, "{ratio}");
}
