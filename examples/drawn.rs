//! Fleets drawn at random on a real Envoy: the ones of `simulate --drawn` that fit on this machine, with the same
//! endpoints, work, faults and policies. Prints a table for each fleet. Unlike simulated, background errors rest while
//! an endpoint is slow, and a retry avoids the endpoint that failed.
//!
//! ```sh
//! . .tools/env; EVENKEEL_WASM=target/wasm32-wasip1/release/evenkeel.wasm \
//!     cargo run --example drawn -- --seed 1 --fleets 10 --runs 2
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use engine::rng::Rng;
use simulator::drawn::{self, Fleet, Waits};
use simulator::scenario::{Mode, Scenario, What};
use testbed::anyhow::{Context, Result, bail};
use testbed::backend::{self, Backend, Behaviour, Step};
use testbed::envoy::{self, Envoy, Filter, Policy};
use testbed::load::{Load, Report};
use testbed::serde_json::{Value, json};
use testbed::{process, table, tokio};

const POLICIES: [&str; 4] = ["round_robin", "least_request", "outlier", "evenkeel"];
/// Requests per second that load, backends and Envoys carry on two cores.
const RATE: f64 = 500.0;
const ENDPOINTS: usize = 60;
/// Envoys, and worker threads of each.
const ENVOYS: usize = 4;
const WORKERS: usize = 6;
/// Below it, the machine's own delays are what is measured.
const WORK_S: f64 = 0.005;
/// Difference in the fraction that failed up to which policies are compared by latency.
const FAILED: f64 = 0.002;

struct Options {
    fleets: Vec<Fleet>,
    policies: Vec<String>,
    runs: u64,
}

fn options() -> Result<Options> {
    let (mut seed, mut count, mut lines) = (1, 10, Vec::new());
    let mut options = Options { fleets: Vec::new(), policies: POLICIES.map(String::from).to_vec(), runs: 1 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--seed" => seed = value.parse()?,
            "--fleets" => count = value.parse()?,
            "--fleet" => lines.push(value.parse().map_err(testbed::anyhow::Error::msg)?),
            "--runs" => options.runs = value.parse()?,
            "--policy" => options.policies = value.split(',').map(String::from).collect(),
            _ => bail!("unknown option {word}"),
        }
    }
    options.fleets = match lines.is_empty() {
        true => (seed..).map(drawn::draw).filter(fits).take(count).collect(),
        false => lines,
    };
    Ok(options)
}

fn fits(fleet: &Fleet) -> bool {
    fleet.rate <= RATE
        && fleet.endpoints <= ENDPOINTS
        && fleet.proxies <= ENVOYS
        && fleet.workers <= WORKERS
        && fleet.mean_work() >= WORK_S
        && fleet.signal.is_none()
}

/// p50, p90 and p99 of what did not fail at once, ms, and the fraction that failed.
type Figures = [f64; 4];

#[tokio::main]
async fn main() -> Result<()> {
    process::until_signal(run()).await
}

async fn run() -> Result<()> {
    let options = options()?;
    for fleet in &options.fleets {
        println!("\n{fleet}");
        let mut figures: Vec<Vec<Figures>> = vec![Vec::new(); options.policies.len()];
        for seed in 0..options.runs {
            for (policy, figures) in options.policies.iter().zip(&mut figures) {
                figures.push(measure(fleet, policy, seed).await?);
            }
        }
        let rows: Vec<Vec<String>> =
            options.policies.iter().zip(&figures).map(|(policy, runs)| row(policy, runs)).collect();
        println!("{}", table::render(&["policy", "p50", "p90", "p99", "failed %"], &rows));
        println!(
            "{}",
            verdict(&options.policies, &figures.iter().map(|runs| mean(runs)).collect::<Vec<_>>())
        );
    }
    Ok(())
}

/// What the last policy loses against the best of the others that let no more requests fail.
fn verdict(policies: &[String], figures: &[Figures]) -> String {
    let Some((ours, others)) = figures.split_last() else { return String::new() };
    let fewest = others.iter().map(|of| of[3]).fold(f64::INFINITY, f64::min);
    let fair: Vec<&Figures> = others.iter().filter(|of| of[3] <= fewest.max(ours[3]) + FAILED).collect();
    let lost = |at: usize| {
        let best = fair.iter().map(|of| of[at]).fold(f64::INFINITY, f64::min);
        format!("p{} {:.2}", [50, 90, 99][at], ours[at] / best)
    };
    let name = policies.last().map_or("", String::as_str);
    let ratios: Vec<String> = (0..3).map(lost).collect();
    format!("{name} over the best: {}, failed {:+.2} %", ratios.join(", "), 100.0 * (ours[3] - fewest))
}

fn mean(runs: &[Figures]) -> Figures {
    std::array::from_fn(|at| runs.iter().map(|run| run[at]).sum::<f64>() / runs.len().max(1) as f64)
}

fn row(policy: &str, runs: &[Figures]) -> Vec<String> {
    let figures = mean(runs);
    let ms = |at: usize| format!("{:.1}", figures[at]);
    vec![policy.to_owned(), ms(0), ms(1), ms(2), format!("{:.2}", 100.0 * figures[3])]
}

async fn measure(fleet: &Fleet, policy: &str, seed: u64) -> Result<Figures> {
    let scenario = fleet.scenario();
    let backends = start(fleet, &scenario, seed).await?;
    let addresses: Vec<SocketAddr> = backends.iter().map(Backend::address).collect();
    let mut envoys = Vec::new();
    for _ in 0..fleet.proxies {
        envoys.push(Envoy::start(proxy(fleet, &scenario, policy, &addresses)?).await?);
    }
    for (backend, steps) in backends.iter().zip(schedules(fleet, &scenario)) {
        backend.follow(steps);
    }
    let (mut loads, mut long) = (Vec::new(), Vec::new());
    for (at, envoy) in (0u64..).zip(&envoys) {
        let mut rng = Rng::new(1 + seed * 1000 + at);
        let rate = fleet.rate / envoys.len() as f64;
        let long_part = scenario.long.map_or(0.0, |part| part.share);
        let load = Load {
            target: envoy.address(),
            duration: seconds(fleet.length),
            seed: rng.next_u64(),
            timeout: attempts(fleet, &scenario) + Duration::from_secs(1),
            ..Load::default()
        };
        let count = (rate * fleet.length * 1.3) as usize + 100;
        let paths = (0..count).map(|_| work(fleet, &scenario, &mut rng)).collect();
        loads.push(Load { rate: rate * (1.0 - long_part), paths, ..load.clone() }.start().await?);
        if let Some(part) = scenario.long {
            let load = Load { rate: rate * long_part, timeout: seconds(part.seconds.min(600.0)), ..load };
            let paths = (0..count).map(|_| lasting(fleet, part.seconds, &mut rng)).collect();
            long.push(Load { paths, connections: 8, ..load }.start().await?);
        }
    }
    let mut report = Report::default();
    for load in loads {
        report.merge(load.finish().await);
    }
    drop(long);
    Ok(figures(&report, scenario.timeout))
}

fn figures(report: &Report, timeout: f64) -> Figures {
    let is_good = |outcome| matches!(outcome, testbed::load::Outcome::Status(200));
    let failed = report.records.iter().filter(|record| !is_good(record.outcome)).count();
    // A request that fails at once is not a fast one.
    let counts = report
        .records
        .iter()
        .filter(|record| is_good(record.outcome) || f64::from(record.latency_us) >= timeout * 1e6);
    let mut ms: Vec<f64> = counts.map(|record| f64::from(record.latency_us) / 1e3).collect();
    ms.sort_by(f64::total_cmp);
    let part = |percent: usize| ms.get(ms.len() * percent / 100).copied().unwrap_or(f64::NAN);
    [part(50), part(90), part(99), failed as f64 / report.records.len().max(1) as f64]
}

/// The path of a request that says how much work it is.
fn work(fleet: &Fleet, scenario: &Scenario, rng: &mut Rng) -> String {
    let heavy = if rng.unit() < fleet.heavy.0 { fleet.heavy.1 } else { 1.0 };
    format!("/work/{}us", (scenario.work.draw(rng) * heavy * 1e6) as u64)
}

/// The path of a request that occupies no slot and lasts.
fn lasting(fleet: &Fleet, mean_s: f64, rng: &mut Rng) -> String {
    match fleet.long {
        Some((Waits::Streams, _)) => "/events".to_owned(),
        Some((Waits::Never, _)) => "/say/fail:200:1h".to_owned(),
        _ => format!("/say/fail:200:{}ms", (-f64::ln(1.0 - rng.unit()) * mean_s * 1e3) as u64),
    }
}

async fn start(fleet: &Fleet, scenario: &Scenario, seed: u64) -> Result<Vec<Backend>> {
    let slowness = slowness_of(fleet, scenario);
    let mut backends = Vec::new();
    for (at, slots) in scenario.slots_of.iter().enumerate() {
        let config = backend::Config {
            slots: *slots,
            slowness: slowness[at],
            seed: seed * 1000 + at as u64,
            ..backend::Config::default()
        };
        backends.push(Backend::start(config).await?);
    }
    Ok(backends)
}

/// What each endpoint does when.
fn schedules(fleet: &Fleet, scenario: &Scenario) -> Vec<Vec<Step>> {
    const PAUSE: Duration = Duration::from_millis(500);
    const BEFORE: Duration = Duration::from_millis(1);
    let normal = match fleet.errors > 0.0 {
        true => Behaviour::FailSome { status: 503, ratio: fleet.errors },
        false => Behaviour::Healthy,
    };
    let slowness = slowness_of(fleet, scenario);
    let mut all = vec![vec![Step { at: Duration::ZERO, behaviour: normal }]; fleet.endpoints];
    for change in &scenario.changes {
        let at = seconds(change.at);
        let steps = &mut all[change.endpoint];
        let behaviour = match change.what {
            What::Slow(factor) => match factor / slowness[change.endpoint] {
                relative if (relative - 1.0).abs() < 1e-9 => normal,
                relative => Behaviour::Slow(relative),
            },
            What::Mode(Mode::Hole) => Behaviour::BlackHole,
            What::Mode(Mode::Refuse) => Behaviour::Refuse,
            What::Mode(Mode::Errors(ratio)) => Behaviour::FailSome { status: 503, ratio },
            What::Mode(Mode::Limits(ratio)) => Behaviour::FailSome { status: 429, ratio },
            What::Pause(_) => {
                let pause = Behaviour::Pause { length: PAUSE, every: PAUSE + BEFORE };
                steps.push(Step { at, behaviour: pause });
                steps.push(Step { at: at + PAUSE + BEFORE, behaviour: normal });
                continue;
            }
            _ => normal,
        };
        steps.push(Step { at, behaviour });
    }
    all
}

/// Factor on the work of each endpoint without a fault.
fn slowness_of(fleet: &Fleet, scenario: &Scenario) -> Vec<f64> {
    let mut all = vec![1.0; fleet.endpoints];
    // The scatter comes first, before the faults.
    for change in scenario.changes.iter().take(if fleet.scatter > 0.0 { fleet.endpoints } else { 0 }) {
        if let What::Slow(factor) = change.what {
            all[change.endpoint] = factor;
        }
    }
    all
}

fn proxy(
    fleet: &Fleet,
    scenario: &Scenario,
    policy: &str,
    addresses: &[SocketAddr],
) -> Result<envoy::Config> {
    let balance = Policy::named(policy)?;
    let mut config = envoy::Config::single(addresses.to_vec(), balance.clone());
    config.concurrency = u32::try_from(fleet.workers)?;
    config.route_timeout = attempts(fleet, scenario);
    if fleet.long.is_some() {
        config.route_timeout = Duration::ZERO;
    }
    if fleet.retries > 0 {
        config.retry(fleet.retries);
    }
    config.retry_policy["per_try_timeout"] = json!(format!("{:.3}s", scenario.timeout));
    if !scenario.weights.is_empty() {
        let endpoint = |(address, weight): (&SocketAddr, &f64)| {
            json!({
                "endpoint": { "address": { "socket_address": {
                    "address": address.ip().to_string(), "port_value": address.port(),
                }}},
                "load_balancing_weight": weight.round() as u64,
            })
        };
        let endpoints: Vec<Value> = addresses.iter().zip(&scenario.weights).map(endpoint).collect();
        config.clusters[0].extra = json!({
            "load_assignment": { "cluster_name": "web", "endpoints": [{ "lb_endpoints": endpoints }] },
        });
    }
    if balance == Policy::evenkeel() {
        let weights = scenario.weights.iter().copied().chain(std::iter::repeat(1.0));
        let endpoint = |(address, weight)| json!({ "address": address, "weight": weight });
        let endpoints: Vec<Value> = addresses.iter().zip(weights).map(endpoint).collect();
        let plugin = json!({ "upstreams": [{ "cluster": "web", "endpoints": { "static": endpoints } }] });
        config.filters = vec![Filter::evenkeel(&plugin)?];
    }
    Ok(config)
}

/// The time that all attempts of a request may take.
fn attempts(fleet: &Fleet, scenario: &Scenario) -> Duration {
    seconds(scenario.timeout * f64::from(fleet.retries + 1))
}

fn seconds(s: f64) -> Duration {
    Duration::from_secs_f64(s)
}
