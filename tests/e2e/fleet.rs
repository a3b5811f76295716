//! Several Envoys in front of the same endpoints, each with few requests, which share their measurements through a real
//! Prometheus. Prints the results with and without that signal; asserts only that no request fails and that the signal
//! arrives, because timings on a busy machine prove nothing.
//!
//! `FLEET_ENVOYS=20 cargo test --test e2e -- --ignored --nocapture fleet`

use std::time::Duration;

use testbed::anyhow::{Context, Result};
use testbed::backend::{self, Backend, Behaviour};
use testbed::envoy::{self, Cluster, Envoy, Filter, Policy};
use testbed::load::{Load, Report, Summary};
use testbed::prometheus::{self, Prometheus};
use testbed::serde_json::{Value, json};
use testbed::{http, tokio};

const METRICS: &str = "/_evenkeel/metrics";
const STATUS: &str = "/_evenkeel";
/// Request rate of each Envoy, requests/s.
const RATE: f64 = 20.0;
const LEARNING_S: u64 = 20;
const LENGTH_S: u64 = 60;

/// A scenario: what the endpoints do.
#[derive(Clone, Copy)]
struct Road {
    name: &'static str,
    behaviour: Behaviour,
    /// Number of endpoints that are 16 times slower.
    slow: usize,
}

const ROADS: [Road; 2] = [
    Road { name: "equal, 5 % tenfold", behaviour: Behaviour::Heavy { ratio: 0.05, factor: 10.0 }, slow: 0 },
    Road { name: "two of them 16 x slower", behaviour: Behaviour::Healthy, slow: 2 },
];

/// The balancing policy compared.
#[derive(Clone, Copy, PartialEq)]
enum By {
    LeastRequest,
    Alone,
    Fleet,
    Probing,
}

struct Fleet {
    backends: Vec<Backend>,
    prometheus: Prometheus,
    envoys: Vec<Envoy>,
}

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn configuration(backends: &[Backend], by: By) -> Value {
    let addresses: Vec<String> = backends.iter().map(|backend| backend.address().to_string()).collect();
    let mut plugin = json!({
        "status": { "path": STATUS },
        "upstreams": [{ "cluster": "web", "endpoints": { "static": addresses } }],
    });
    if by == By::Fleet {
        plugin["prometheus"] = json!({ "cluster": "prometheus", "interval": "5s", "timeout": "4s" });
        plugin["upstreams"][0]["signals"] = json!([{ "name": "fleet_latency", "builtin": "fleet_latency" }]);
    }
    if by == By::Probing {
        plugin["upstreams"][0]["health"] = json!({ "probe": { "path": "/probe" } });
    }
    plugin
}

impl Fleet {
    /// Starts everything, with the endpoints behaving as `road` says.
    async fn open(road: Road, by: By, envoys: usize, seed: u64) -> Result<Fleet> {
        let slots = number("FLEET_SLOTS", 4);
        let backend = backend::Config {
            slots,
            behaviour: road.behaviour,
            seed: 100 * seed + 1,
            ..backend::Config::default()
        };
        let backends = Backend::start_many(number("FLEET_ENDPOINTS", 20), backend).await?;
        backends.iter().take(road.slow).for_each(|backend| backend.set(Behaviour::Slow(16.0)));
        let prometheus = Prometheus::start(&prometheus::Config::job("evenkeel", Vec::new())).await?;
        let mut started = Vec::new();
        for _ in 0..envoys {
            let everyone = backends.iter().map(Backend::address).collect();
            let policy = if by == By::LeastRequest { Policy::LeastRequest } else { Policy::evenkeel() };
            let mut proxy = envoy::Config {
                clusters: vec![Cluster::new("web", everyone, policy)],
                concurrency: 1,
                services: vec![("prometheus".to_owned(), prometheus.address())],
                ..envoy::Config::default()
            };
            if by != By::LeastRequest {
                proxy.filters.push(Filter::evenkeel(&configuration(&backends, by))?);
            }
            started.push(Envoy::start(proxy).await?);
        }
        let fleet = Fleet { backends, prometheus, envoys: started };
        if by != By::LeastRequest {
            let scrape = fleet.scrape();
            fleet.prometheus.reconfigure(&scrape)?;
            fleet.prometheus.scrapes(&scrape).await?;
        }
        Ok(fleet)
    }

    fn scrape(&self) -> prometheus::Config {
        let targets = self.envoys.iter().map(Envoy::address).collect();
        prometheus::Config {
            metrics_path: METRICS.to_owned(),
            scrape_interval: Duration::from_secs(number("FLEET_SCRAPE_S", 5) as u64),
            ..prometheus::Config::job("evenkeel", targets)
        }
    }

    /// Sends `LENGTH_S` seconds of requests to each Envoy.
    async fn load(&self, seed: u64) -> Result<Report> {
        let mut running = Vec::new();
        for (envoy, seed) in self.envoys.iter().zip(1000 * seed..) {
            let load = Load {
                target: envoy.address(),
                rate: RATE,
                duration: Duration::from_secs(LENGTH_S),
                connections: 4,
                seed,
                ..Load::default()
            };
            running.push(load.start().await?);
        }
        let mut all = Report::default();
        for load in running {
            all.merge(load.finish().await);
        }
        Ok(all)
    }

    /// Share of these requests that each backend got, in the order of the backends.
    fn shares(&self, of: &Summary) -> Vec<f64> {
        self.backends.iter().map(|backend| of.share(&backend.address().to_string())).collect()
    }

    /// The signal's value for each endpoint, as the Envoy at index `at` has it.
    async fn values(&self, at: usize) -> Result<Vec<Option<f64>>> {
        let envoy = self.envoys.get(at).context("an Envoy")?;
        let status = http::get(envoy.address(), "/_evenkeel/status.json").await?.json()?;
        println!("  polls of the first Envoy: {}", status["prometheus"]);
        let endpoints = status["upstreams"][0]["endpoints"].as_array().context("endpoints")?.clone();
        Ok(endpoints.iter().map(|one| one["signals"]["fleet_latency"]["value"].as_f64()).collect())
    }
}

/// Jain's fairness index, (Σx)² / (n Σx²): 1 for equal shares, 1/n if one gets everything.
fn jain(shares: &[f64]) -> f64 {
    let (sum, squares): (f64, f64) = (shares.iter().sum(), shares.iter().map(|share| share * share).sum());
    sum * sum / (shares.len() as f64 * squares).max(f64::MIN_POSITIVE)
}

fn print(what: &str, fleet: &Fleet, slow: usize, of: &Summary) {
    let shares = fleet.shares(of);
    let (spared, others) = shares.split_at(slow);
    println!(
        "{what}: p50 {:.1} p90 {:.1} p99 {:.1} ms, {} of {} failed, Jain {:.3}, shares {:.3} to {:.3}; the slow {:.4}",
        of.percentile_ms(50.0),
        of.percentile_ms(90.0),
        of.percentile_ms(99.0),
        of.failed,
        of.requests,
        jain(others),
        others.iter().copied().fold(1.0, f64::min),
        others.iter().copied().fold(0.0, f64::max),
        spared.iter().sum::<f64>(),
    );
}

async fn run(road: Road, by: By, envoys: usize, seed: u64) -> Result<()> {
    let fleet = Fleet::open(road, by, envoys, seed).await?;
    let report = fleet.load(seed).await?;
    let name = match by {
        By::LeastRequest => "least_request",
        By::Alone => "adaptive",
        By::Fleet => "adaptive with fleet_latency",
        By::Probing => "adaptive with health.probe",
    };
    let s = Duration::from_secs;
    let what = format!("{envoys} Envoys, {}, {name}, seed {seed}", road.name);
    print(&format!("{what}, first {LEARNING_S} s"), &fleet, road.slow, &report.between(s(0), s(LEARNING_S)));
    print(&format!("{what}, then"), &fleet, road.slow, &report.between(s(LEARNING_S), s(LENGTH_S)));
    if by == By::Fleet {
        let values = fleet.values(0).await?;
        println!("  as the first Envoy has it: {values:?}");
        let known = values.iter().flatten().count();
        assert_eq!(known, fleet.backends.len(), "every endpoint is known from others: {values:?}");
        let later = report.between(s(LEARNING_S), s(LENGTH_S));
        assert_eq!(later.failed, 0, "{:?}", later.statuses);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures for minutes"]
async fn several_envoys_with_few_requests_each() -> Result<()> {
    let envoys = number("FLEET_ENVOYS", 4);
    let seed = number("FLEET_SEED", 1) as u64;
    let only = std::env::var("FLEET_BY").unwrap_or_default();
    let road = std::env::var("FLEET_ROAD").unwrap_or_default();
    for road in ROADS.into_iter().filter(|one| one.name.contains(&road)) {
        for (by, name) in [
            (By::LeastRequest, "least_request"),
            (By::Alone, "alone"),
            (By::Fleet, "fleet"),
            (By::Probing, "probing"),
        ] {
            if only.is_empty() || only.split(',').any(|one| one == name) {
                run(road, by, envoys, seed).await?;
            }
        }
    }
    Ok(())
}
