//! The benchmark cases on a real Envoy: unless a case says otherwise, ten endpoints with four slots of 20 ms log-normal
//! work, 600 requests/s open loop, two workers. Policies alternate run by run; the table shows medians.
//!
//! `cargo run --release --example cases -- [--case NAME,…] [--policy NAME,…] [--runs N] [--workers N] [--proxies N]
//! [--retries N]`
//!
//! Several proxies share the load evenly and do not exchange data.

use std::net::SocketAddr;
use std::time::Duration;

use testbed::anyhow::{Context, Result, bail};
use testbed::backend::{self, Backend, Behaviour, Kind, Step};
use testbed::envoy::{self, Envoy, Filter, Policy};
use testbed::load::{Load, Report};
use testbed::prometheus::{self, Prometheus};
use testbed::serde_json::{Value, json};
use testbed::{process, table, tokio, wait};

/// Default length of a run, seconds.
const RUN_S: f64 = 12.0;

#[derive(Clone, Copy, PartialEq)]
enum Who {
    /// The first n endpoints, all the time.
    Always(usize, Behaviour),
    /// The first endpoint, in the middle third.
    Third(Behaviour),
    /// The first endpoint, for the first 20 s.
    Healing(Behaviour),
    /// Each endpoint in turn, for three seconds.
    Roaming(Behaviour),
    /// Every endpoint.
    All(Behaviour),
    /// Every endpoint, with its own phase.
    Pauses,
}

#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    who: Who,
    endpoints: usize,
    slots: usize,
    /// Median work of a request, milliseconds.
    work_ms: u64,
    rate: f64,
    seconds: f64,
    tasks: bool,
    /// Whether Prometheus provides requests in flight, and is killed half-way.
    orphaned: bool,
}

fn cases() -> Vec<Case> {
    let fleet = |name, who, (endpoints, slots, work_ms), rate| Case {
        name,
        who,
        endpoints,
        slots,
        work_ms,
        rate,
        seconds: RUN_S,
        tasks: false,
        orphaned: false,
    };
    let case = |name, who| fleet(name, who, (10, 4, 20), 600.0);
    let slow = Behaviour::Slow;
    vec![
        case("equal", Who::All(Behaviour::Healthy)),
        Case { rate: 1650.0, ..case("equal-90", Who::All(Behaviour::Healthy)) },
        case("one-10x", Who::Always(1, slow(10.0))),
        case("fast-errors", Who::Third(Behaviour::FAIL_FAST)),
        case("black-hole", Who::Third(Behaviour::BlackHole)),
        case("crash", Who::Third(Behaviour::Refuse)),
        case("antagonist", Who::Third(slow(10.0))),
        case("roaming", Who::Roaming(slow(10.0))),
        case("three-4x", Who::Always(3, slow(4.0))),
        Case { rate: 1100.0, ..case("three-4x-1100", Who::Always(3, slow(4.0))) },
        case("two-16x", Who::Always(2, slow(16.0))),
        case("pauses", Who::Pauses),
        case("heavy", Who::All(Behaviour::Heavy { ratio: 0.05, factor: 20.0 })),
        case("fleet-errors", Who::All(Behaviour::ErrorRatio(0.5))),
        Case { seconds: 40.0, ..case("healed-slow", Who::Healing(slow(10.0))) },
        Case { seconds: 40.0, ..case("healed-errors", Who::Healing(Behaviour::FAIL_FAST)) },
        Case { seconds: 40.0, ..case("healed-hole", Who::Healing(Behaviour::BlackHole)) },
        // Requests that are over before workers know of each other's, 60 % and 80 % busy.
        fleet("brief-60", Who::All(Behaviour::Healthy), (4, 2, 4), 1080.0),
        fleet("brief-80", Who::All(Behaviour::Healthy), (4, 2, 4), 1440.0),
        // A second request to the same endpoint waits for the whole of the first.
        fleet("one-slot", Who::All(Behaviour::Healthy), (48, 1, 20), 600.0),
        // The others cannot carry the load of the one that fails some requests. Timers make the work longer than asked for:
        // 92 % would be all that the endpoints can serve.
        Case {
            seconds: 30.0,
            ..fleet("some-fail-88", Who::Always(1, Behaviour::ErrorRatio(0.15)), (5, 2, 20), 396.0)
        },
        Case { tasks: true, ..case("tasks", Who::Always(3, slow(4.0))) },
        Case { orphaned: true, seconds: 24.0, ..case("orphaned", Who::All(Behaviour::Healthy)) },
    ]
}

const POLICIES: [&str; 4] = ["round_robin", "least_request", "outlier", "evenkeel"];

/// The results of one run.
#[derive(Clone, Debug)]
struct Figures {
    p50: f64,
    p90: f64,
    p95: f64,
    p99: f64,
    /// p90 of the work drawn at random, a lower bound for any policy.
    work_p90: f64,
    work_p95: f64,
    failed: u64,
    third_p99: f64,
    /// p99 of the second half divided by that of the first.
    halves: f64,
    sick_share: f64,
    healed_share: f64,
    tasks_p99: f64,
    /// CPU time of Envoy per request, µs.
    cpu_us: f64,
}

struct Options {
    cases: Vec<Case>,
    policies: Vec<String>,
    runs: u64,
    workers: u32,
    proxies: usize,
    /// Retries of a request on another endpoint, as in `envoy/envoy.yaml`.
    retries: u32,
    configuration: Value,
}

fn options() -> Result<Options> {
    let mut options = Options {
        cases: cases(),
        policies: POLICIES.map(String::from).to_vec(),
        runs: 1,
        workers: 2,
        proxies: 1,
        retries: 0,
        configuration: Value::Null,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--case" => {
                let named = |name: &str| {
                    let found = cases().into_iter().find(|c| c.name == name);
                    found.with_context(|| format!("no case {name:?}; there are: {}", names()))
                };
                options.cases = value.split(',').map(named).collect::<Result<_>>()?;
            }
            "--policy" => options.policies = value.split(',').map(String::from).collect(),
            "--runs" => options.runs = value.parse()?,
            "--workers" => options.workers = value.parse()?,
            "--proxies" => options.proxies = value.parse()?,
            "--retries" => options.retries = value.parse()?,
            // Members of the upstream's configuration, to compare variants.
            "--with" => options.configuration = testbed::serde_json::from_str(&value)?,
            _ => bail!("unknown option {word}"),
        }
    }
    Ok(options)
}

fn names() -> String {
    cases().iter().map(|c| c.name).collect::<Vec<_>>().join(", ")
}

#[tokio::main]
async fn main() -> Result<()> {
    process::until_signal(run()).await
}

async fn run() -> Result<()> {
    let options = options()?;
    let mut rows = Vec::new();
    for case in &options.cases {
        let mut figures: Vec<Vec<Figures>> = vec![Vec::new(); options.policies.len()];
        for run in 0..options.runs {
            for (policy, figures) in options.policies.iter().zip(&mut figures) {
                eprintln!("{} under {policy}, run {} of {}", case.name, run + 1, options.runs);
                figures.push(measure(case, policy, run, &options).await?);
            }
        }
        for (policy, figures) in options.policies.iter().zip(&figures) {
            rows.push(row(case, policy, figures));
        }
    }
    let header = [
        "case",
        "policy",
        "p50",
        "p90",
        "p95",
        "p99",
        "work p90",
        "work p95",
        "failed",
        "third p99",
        "2nd/1st half",
        "sick share",
        "healed share",
        "tasks p99",
        "CPU µs",
    ];
    println!("{}", table::render(&header, &rows));
    Ok(())
}

fn row(case: &Case, policy: &str, runs: &[Figures]) -> Vec<String> {
    let median = |of: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let ms = |of| format!("{:.1}", median(of));
    let failed = runs.iter().map(|f| f.failed.to_string()).collect::<Vec<_>>().join(" ");
    vec![
        case.name.into(),
        policy.into(),
        ms(|f| f.p50),
        ms(|f| f.p90),
        ms(|f| f.p95),
        ms(|f| f.p99),
        ms(|f| f.work_p90),
        ms(|f| f.work_p95),
        failed,
        ms(|f| f.third_p99),
        format!("{:.2}", median(|f| f.halves)),
        format!("{:.4}", median(|f| f.sick_share)),
        if matches!(case.who, Who::Healing(_)) {
            format!("{:.3}", median(|f| f.healed_share))
        } else {
            "".into()
        },
        if case.tasks { ms(|f| f.tasks_p99) } else { String::new() },
        format!("{:.0}", median(|f| f.cpu_us)),
    ]
}

async fn measure(case: &Case, policy: &str, seed: u64, options: &Options) -> Result<Figures> {
    let kind = if case.tasks { Kind::WORKER } else { Kind::Service { queue: None } };
    let median = Duration::from_millis(case.work_ms);
    let config = backend::Config {
        kind,
        seed: seed * 100 + 1,
        slots: case.slots,
        median,
        ..backend::Config::default()
    };
    let mut backends = Backend::start_many(case.endpoints, config).await?;
    let addresses: Vec<SocketAddr> = backends.iter().map(Backend::address).collect();
    let mut prometheus = match case.tasks || case.orphaned {
        true => Some(scraping(&addresses).await?),
        false => None,
    };
    let mut envoys = Vec::new();
    for _ in 0..options.proxies {
        envoys.push(Envoy::start(proxy(case, policy, &addresses, prometheus.as_ref(), options)?).await?);
    }
    let seconds = |s: f64| Duration::from_secs_f64(s);
    schedule(case, &mut backends);
    let cpu_s = cpu_s_of(&mut envoys);
    let mut loads = Vec::new();
    for (at, envoy) in (0u64..).zip(&envoys) {
        let load = Load {
            target: envoy.address(),
            rate: case.rate / envoys.len() as f64,
            duration: seconds(case.seconds),
            seed: 1000 * at + seed + 7,
            ..Load::default()
        };
        loads.push(load.start().await?);
    }
    let half = seconds(case.seconds / 2.0);
    if case.orphaned {
        tokio::time::sleep(half).await;
        drop(prometheus.take());
    }
    let mut report = Report::default();
    for load in loads {
        report.merge(load.finish().await);
    }
    let all = report.summary();
    let third = report.between(seconds(case.seconds / 3.0), seconds(case.seconds * 2.0 / 3.0));
    let halves = [report.between(seconds(0.0), half), report.between(half, seconds(case.seconds))];
    let healed = report.between(seconds(20.0), seconds(40.0));
    let sick = match case.who {
        Who::Always(count, _) => count,
        _ => 1,
    };
    let tasks =
        sorted(backends.iter().flat_map(|b| b.finished_tasks()).map(|t| t.sojourn.as_secs_f64() * 1e3));
    let work = sorted(backends.iter().flat_map(|b| b.work()).map(|w| w.as_secs_f64() * 1e3));
    tell_failures(&report);
    Ok(Figures {
        p50: all.percentile_ms(50.0),
        p90: all.percentile_ms(90.0),
        p95: all.percentile_ms(95.0),
        p99: all.percentile_ms(99.0),
        work_p90: part(&work, 90),
        work_p95: part(&work, 95),
        failed: all.failed,
        halves: halves[1].percentile_ms(99.0) / halves[0].percentile_ms(99.0),
        third_p99: third.percentile_ms(99.0),
        sick_share: addresses.iter().take(sick).map(|a| all.share(&a.to_string())).sum(),
        healed_share: healed.share(&addresses[0].to_string()),
        cpu_us: (cpu_s_of(&mut envoys) - cpu_s) * 1e6 / all.requests.max(1) as f64,
        tasks_p99: part(&tasks, 99),
    })
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn part(sorted: &[f64], percent: usize) -> f64 {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or(f64::NAN)
}

/// Prints when the failed requests were sent, if there are few.
fn tell_failures(report: &Report) {
    const FEW: usize = 20;
    let failed = report.records.iter().filter(|record| record.outcome.failed());
    let at: Vec<String> = failed.map(|record| format!("{:.3}", f64::from(record.at_us) / 1e6)).collect();
    if (1..=FEW).contains(&at.len()) {
        eprintln!("  failed: sent at {} s", at.join(", "));
    }
}

/// CPU time of all of these Envoys, seconds.
fn cpu_s_of(envoys: &mut [Envoy]) -> f64 {
    envoys.iter_mut().map(|envoy| envoy.process().cpu_s()).sum()
}

/// A Prometheus that has scraped every backend. Its start takes seconds, which are not to be measured.
async fn scraping(addresses: &[SocketAddr]) -> Result<Prometheus> {
    let prometheus = Prometheus::start(&prometheus::Config::job("web", addresses.to_vec())).await?;
    let scraped = || async {
        let samples = prometheus.query("up == 1").await.ok()?;
        (samples.len() == addresses.len()).then_some(())
    };
    wait::until("every backend to be scraped", Duration::from_secs(30), scraped).await?;
    Ok(prometheus)
}

/// Gives each backend its schedule of behaviours.
fn schedule(case: &Case, backends: &mut [Backend]) {
    let step = |at: f64, behaviour| Step { at: Duration::from_secs_f64(at), behaviour };
    let healthy = Behaviour::Healthy;
    match case.who {
        Who::Always(count, behaviour) => backends.iter().take(count).for_each(|b| b.set(behaviour)),
        Who::All(behaviour) => backends.iter().for_each(|b| b.set(behaviour)),
        Who::Third(behaviour) => {
            let (from, to) = (case.seconds / 3.0, case.seconds * 2.0 / 3.0);
            backends[0].follow(vec![step(from, behaviour), step(to, healthy)]);
        }
        Who::Healing(behaviour) => backends[0].follow(vec![step(0.0, behaviour), step(20.0, healthy)]),
        Who::Roaming(behaviour) => {
            for (at, backend) in backends.iter_mut().enumerate() {
                let from = 3.0 * at as f64;
                backend.follow(vec![step(from, behaviour), step(from + 3.0, healthy)]);
            }
        }
        Who::Pauses => {
            // Pauses of half a second, twice in a run, with offsets so that some overlap.
            for (at, backend) in backends.iter_mut().enumerate() {
                let pause =
                    Behaviour::Pause { length: Duration::from_millis(500), every: Duration::from_secs(5) };
                backend.follow(vec![step(0.53 * at as f64, pause)]);
            }
        }
    }
}

fn proxy(
    case: &Case,
    policy: &str,
    addresses: &[SocketAddr],
    prometheus: Option<&Prometheus>,
    options: &Options,
) -> Result<envoy::Config> {
    let balance = Policy::named(policy)?;
    let mut config = envoy::Config::single(addresses.to_vec(), balance.clone());
    config.concurrency = options.workers;
    if options.retries > 0 {
        config.retry(options.retries);
        config.retry_policy["per_try_timeout"] = json!("1s");
    }
    if balance == Policy::evenkeel() {
        let mut upstream = json!({ "cluster": "web", "endpoints": { "static": addresses } });
        let mut plugin = json!({});
        if case.tasks {
            upstream["signals"] = json!([{ "name": "queue_depth", "query": "task_queue_depth", "max": 100 }]);
        }
        if case.orphaned {
            upstream["signals"] = json!([{ "name": "in_flight", "query": "http_inflight_requests" }]);
        }
        if prometheus.is_some() {
            plugin["prometheus"] = json!({ "cluster": "prometheus", "interval": "1s", "timeout": "500ms" });
        }
        if policy != "evenkeel" {
            upstream["policy"] = json!(policy.trim_start_matches("evenkeel:"));
        }
        for (name, value) in options.configuration.as_object().into_iter().flatten() {
            upstream[name] = value.clone();
        }
        plugin["upstreams"] = json!([upstream]);
        config.filters = vec![Filter::evenkeel(&plugin)?];
    }
    config.services = prometheus.map(|p| ("prometheus".to_owned(), p.address())).into_iter().collect();
    Ok(config)
}
