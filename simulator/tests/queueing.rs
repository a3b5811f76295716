//! The event loop against queueing theory.

use simulator::contender::Contender;
use simulator::distribution::Distribution;
use simulator::peers::envoy::Kind;
use simulator::run::Run;
use simulator::scenario::Scenario;
use simulator::world;

const MEAN_S: f64 = 0.010;

/// One endpoint, so that the policy has no say.
fn one_endpoint(slots: usize, load: f64, work: Distribution, seed: u64) -> Run {
    let scenario = Scenario {
        length: 600.0,
        rate: load * slots as f64 / MEAN_S,
        endpoints: 1,
        present: 1,
        slots,
        work,
        network: 0.0,
        timeout: 1000.0,
        ..Scenario::default()
    };
    world::run(&scenario, &Contender::Envoy(Kind::Random, false), seed)
}

/// Mean seconds in the queue, that is without service.
fn mean_wait(run: &Run) -> f64 {
    let total: f64 = run.records.iter().map(|r| f64::from(r.latency_us) * 1e-6).sum();
    total / run.records.len() as f64 - MEAN_S
}

/// Erlang's C formula: the probability to wait in M/M/c, times the mean wait of those that do.
fn erlang_c(slots: usize, load: f64) -> f64 {
    let offered = load * slots as f64;
    let mut blocked = 1.0; // Erlang's B by its recursion
    for servers in 1..=slots {
        blocked = offered * blocked / (servers as f64 + offered * blocked);
    }
    let waits = blocked / (1.0 - load * (1.0 - blocked));
    waits * MEAN_S / (slots as f64 * (1.0 - load))
}

#[test]
fn m_m_1_and_m_m_c_wait_as_erlang_says() {
    for (slots, load) in [(1, 0.5), (1, 0.8), (4, 0.7), (4, 0.9), (16, 0.9)] {
        let run = one_endpoint(slots, load, Distribution::Exponential { mean: MEAN_S }, 7);
        let (found, expected) = (mean_wait(&run), erlang_c(slots, load));
        assert!((found / expected - 1.0).abs() < 0.10, "{slots} slots at {load}: {found}, not {expected}");
    }
}

#[test]
fn constant_work_waits_half_as_long_as_random_work() {
    // Pollaczek and Khinchine: the wait grows with 1 + (deviation / mean)².
    let run = one_endpoint(1, 0.8, Distribution::Constant(MEAN_S), 3);
    let (found, expected) = (mean_wait(&run), erlang_c(1, 0.8) / 2.0);
    assert!((found / expected - 1.0).abs() < 0.10, "{found}, not {expected}");
}

#[test]
fn arrivals_are_poisson() {
    let run = one_endpoint(4, 0.7, Distribution::Constant(MEAN_S), 5);
    let mut counts = vec![0.0; 6000];
    for record in &run.records {
        counts[record.started_us as usize / 100_000] += 1.0;
    }
    let mean = counts.iter().sum::<f64>() / counts.len() as f64;
    let variance = counts.iter().map(|c: &f64| (c - mean).powi(2)).sum::<f64>() / counts.len() as f64;
    assert!((mean - 28.0).abs() < 0.5, "{mean}");
    assert!((variance / mean - 1.0).abs() < 0.1, "{variance} / {mean}");
}
