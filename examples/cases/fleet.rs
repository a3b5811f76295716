//! One scenario on real parts: backends that follow its changes, Envoys in front of them, and its load.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use engine::rng::Rng;
use simulator::distribution::exponential;
use simulator::run::{Record, Run, Task};
use simulator::scenario::{Mode, Scenario, Shape, SignalFault, What};
use testbed::anyhow::{Result, bail};
use testbed::backend::{self, Backend, Behaviour, Kind, Step};
use testbed::envoy::Envoy;
use testbed::load::{Load, Report};
use testbed::prometheus::{self, Prometheus};
use testbed::serde_json::Value;
use testbed::{clock, tokio, wait};

use crate::proxy;

/// Mean duration from which a request counts as one that is never answered, seconds.
const NEVER_S: f64 = 1e5;
/// Longest time before a pause in which an endpoint runs as usual, whatever else it does, seconds.
const PERIOD_S: f64 = 1.0;

/// Runs `scenario` under `policy`; `configuration` has members for evenkeel's upstream.
pub async fn run(scenario: &Scenario, policy: &str, configuration: &Value, seed: u64) -> Result<Run> {
    refuse(scenario)?;
    let backends = start(scenario, seed).await?;
    let addresses: Vec<_> = backends.iter().map(Backend::address).collect();
    let mut prometheus = scraping(scenario, &backends).await?;
    let config = proxy::config(scenario, policy, configuration, &addresses, prometheus.as_ref())?;
    let mut envoys = Vec::new();
    for _ in 0..scenario.proxies {
        envoys.push(Envoy::start(config.clone()).await?);
    }
    let begun = clock::now();
    for (backend, steps) in backends.iter().zip(schedules(scenario)) {
        backend.follow(steps);
    }
    let (mut loads, mut long) = (Vec::new(), Vec::new());
    for (at, envoy) in (0u64..).zip(&envoys) {
        let mut rng = Rng::new(seed * 1000 + at);
        let [usual, lasting] = load(scenario, &mut rng).map(|load| Load { target: envoy.address(), ..load });
        loads.push(usual.start().await?);
        if scenario.long.is_some() {
            long.push(lasting.start().await?);
        }
    }
    if let Some(SignalFault::AbsentFrom(at)) = scenario.signal.map(|signal| signal.fault) {
        tokio::time::sleep(seconds(at)).await;
        drop(prometheus.take());
    }
    let mut report = Report::default();
    for load in loads {
        report.merge(load.finish().await);
    }
    drop(long);
    Ok(results(&report, &backends, begun))
}

/// Refuses what real parts do not do.
fn refuse(scenario: &Scenario) -> Result<()> {
    let moves = |what: What| matches!(what, What::Join | What::Leave);
    let absent = scenario.present < scenario.endpoints;
    let lies = scenario.signal.is_some_and(|signal| signal.fault == SignalFault::Lies);
    let what = match scenario {
        _ if absent || scenario.changes.iter().any(|change| moves(change.what)) => {
            "endpoints that join or leave"
        }
        _ if scenario.scaling.is_some() => "scaling",
        _ if scenario.zones.is_some() => "zones",
        _ if lies => "a signal that lies",
        _ => return Ok(()),
    };
    bail!("{}: there are no {what} here, only in the simulator", scenario.name)
}

async fn start(scenario: &Scenario, seed: u64) -> Result<Vec<Backend>> {
    let kind = match scenario.asynchronous {
        Some(queue) => Kind::Worker { queue },
        None => Kind::Service { queue: None },
    };
    let mut backends = Vec::new();
    for (at, slowness) in slowness(scenario).into_iter().enumerate() {
        let config = backend::Config {
            kind,
            slots: scenario.slots_at(at),
            slowness,
            seed: seed * 1000 + at as u64,
            ..backend::Config::default()
        };
        backends.push(Backend::start(config).await?);
    }
    Ok(backends)
}

/// A Prometheus that has scraped every backend, where the scenario has a signal. Its start takes seconds, which are not
/// to be measured.
async fn scraping(scenario: &Scenario, backends: &[Backend]) -> Result<Option<Prometheus>> {
    let Some(signal) = scenario.signal else { return Ok(None) };
    let addresses: Vec<_> = backends.iter().map(Backend::address).collect();
    let mut config = prometheus::Config::job("web", addresses);
    config.scrape_interval = seconds(signal.scrape);
    let prometheus = Prometheus::start(&config).await?;
    let scraped = || async {
        let samples = prometheus.query("up == 1").await.ok()?;
        (samples.len() == backends.len()).then_some(())
    };
    wait::until("every backend to be scraped", 3 * config.scrape_interval.max(seconds(10.0)), scraped)
        .await?;
    Ok(Some(prometheus))
}

/// Factor on the work of each endpoint from the start.
fn slowness(scenario: &Scenario) -> Vec<f64> {
    let mut all = vec![None; scenario.endpoints];
    for change in scenario.changes.iter().take_while(|change| change.at == 0.0) {
        if let What::Slow(factor) = change.what {
            all[change.endpoint].get_or_insert(factor);
        }
    }
    all.into_iter().map(|factor| factor.unwrap_or(1.0)).collect()
}

/// What each endpoint does when.
fn schedules(scenario: &Scenario) -> Vec<Vec<Step>> {
    let usual = slowness(scenario);
    let mut states: Vec<(f64, Mode)> = usual.iter().map(|slow| (*slow, Mode::Serve)).collect();
    let mut all = vec![vec![step(0.0, behaviour(scenario, 1.0, Mode::Serve))]; scenario.endpoints];
    let mut changes: Vec<_> = scenario.changes.iter().collect();
    changes.sort_by(|a, b| a.at.total_cmp(&b.at));
    for change in changes {
        let (state, steps) = (&mut states[change.endpoint], &mut all[change.endpoint]);
        match change.what {
            What::Slow(factor) => state.0 = factor,
            What::Mode(mode) => state.1 = mode,
            What::Pause(length) => {
                // A pause is at the end of its period, which begins where the step before ends, or well before the pause:
                // work that is begun in it ends in the next period.
                let free = change.at - steps.last().map_or(0.0, |step| step.at.as_secs_f64());
                let before = free.clamp(0.001, PERIOD_S);
                let every = seconds(before + length);
                steps.push(step(
                    (change.at - before).max(0.0),
                    Behaviour::Pause { length: seconds(length), every },
                ));
            }
            What::Join | What::Leave => continue,
        }
        let paused = if let What::Pause(length) = change.what { length } else { 0.0 };
        let relative = state.0 / usual[change.endpoint];
        steps.push(step(change.at + paused, behaviour(scenario, relative, state.1)));
    }
    all
}

fn step(at: f64, behaviour: Behaviour) -> Step {
    Step { at: seconds(at), behaviour }
}

fn behaviour(scenario: &Scenario, slowness: f64, mode: Mode) -> Behaviour {
    match mode {
        Mode::Hole => Behaviour::BlackHole,
        Mode::Refuse => Behaviour::Refuse,
        Mode::Errors(ratio) => Behaviour::FailSome { status: 503, ratio },
        Mode::Limits(ratio) => Behaviour::FailSome { status: 429, ratio },
        Mode::Serve if (slowness - 1.0).abs() > 1e-9 => Behaviour::Slow(slowness),
        Mode::Serve if scenario.errors > 0.0 => Behaviour::FailSome { status: 503, ratio: scenario.errors },
        Mode::Serve => Behaviour::Healthy,
    }
}

/// The load of one proxy: requests that are measured, and long ones among them.
fn load(scenario: &Scenario, rng: &mut Rng) -> [Load; 2] {
    let rate = scenario.rate / scenario.proxies as f64;
    let count = (rate * scenario.length * scenario.shape.most() * 1.3) as usize + 100;
    let long = scenario.long.map_or((0.0, 0.0), |long| (long.share, long.seconds));
    let usual = Load {
        rate: rate * (1.0 - long.0),
        duration: seconds(scenario.length),
        steps: steps(scenario),
        seed: rng.next_u64(),
        timeout: proxy::all_attempts(scenario) + seconds(1.0),
        paths: (0..count).map(|_| work(scenario, rng)).collect(),
        ..Load::default()
    };
    let lasting = Load {
        rate: rate * long.0,
        timeout: seconds(long.1.min(600.0)),
        paths: (0..count).map(|_| wait_for(scenario, rng)).collect(),
        connections: 8,
        ..usual.clone()
    };
    [usual, lasting]
}

/// Changes of the rate.
fn steps(scenario: &Scenario) -> Vec<(Duration, f64)> {
    let edges: Vec<f64> = match &scenario.shape {
        Shape::Steady => Vec::new(),
        Shape::Bursts { every, length, .. } => {
            let bursts = (0..(scenario.length / every) as usize).map(|burst| burst as f64 * every);
            bursts.flat_map(|from| [from, from + length]).collect()
        }
        Shape::Steps(steps) => {
            (0..steps.len()).map(|at| scenario.length * at as f64 / steps.len() as f64).collect()
        }
    };
    let factor = |edge: f64| scenario.shape.at(edge + 1e-9, scenario.length);
    edges.into_iter().map(|edge| (seconds(edge), factor(edge))).collect()
}

/// The path of a request that says how much work it is.
fn work(scenario: &Scenario, rng: &mut Rng) -> String {
    let heavy = if rng.unit() < scenario.heavy.0 { scenario.heavy.1 } else { 1.0 };
    format!("/work/{}us", (scenario.work.draw(rng) * heavy * 1e6) as u64)
}

/// The path of a request that occupies no slot and lasts.
fn wait_for(scenario: &Scenario, rng: &mut Rng) -> String {
    match scenario.long {
        Some(long) if long.streams => "/events".to_owned(),
        Some(long) if long.seconds < NEVER_S => {
            format!("/say/fail:200:{}ms", (exponential(rng) * long.seconds * 1e3) as u64)
        }
        _ => "/say/fail:200:1h".to_owned(),
    }
}

fn results(report: &Report, backends: &[Backend], begun: Instant) -> Run {
    let index: HashMap<String, u32> =
        (0..).zip(backends).map(|(at, backend)| (backend.address().to_string(), at)).collect();
    let of: Vec<Option<u32>> = report.backends.iter().map(|name| index.get(name).copied()).collect();
    let record = |record: &testbed::load::Record| Record {
        started_us: record.at_us,
        latency_us: record.latency_us,
        endpoint: of.get(usize::from(record.backend)).copied().flatten().unwrap_or(u32::MAX),
        failed: !matches!(record.outcome, testbed::load::Outcome::Status(200..=299)),
    };
    let us = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    let task = |task: backend::FinishedTask| Task {
        accepted_us: us(task.accepted.saturating_duration_since(begun)),
        sojourn_us: us(task.sojourn),
    };
    Run {
        records: report.records.iter().map(record).collect(),
        tasks: backends.iter().flat_map(Backend::finished_tasks).map(task).collect(),
        fleet: Vec::new(),
        endpoints: backends.len(),
    }
}

/// A duration of so many seconds.
pub fn seconds(s: f64) -> Duration {
    Duration::from_secs_f64(s)
}
