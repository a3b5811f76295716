//! Requests of every kind with every option on, while configurations and Prometheus' answers change: each request ends
//! as it would without the filter, nothing traps, and no request stays in flight.

use std::time::Duration;

use testbed::anyhow::{Context, Result};
use testbed::backend::{self, Backend};
use testbed::envoy::{self, Cluster, Envoy, Filter, Policy};
use testbed::liar::Liar;
use testbed::mixture::{Findings, Mixture};
use testbed::serde_json::{Value, json};
use testbed::{http, lies, tokio, wait};

const PAGE: &str = "/_evenkeel";
const PATIENCE: Duration = Duration::from_secs(60);

/// A configuration with every option that can be combined.
fn every_option(backends: &[Backend], policy: &str) -> Value {
    let endpoint = |(index, backend): (usize, &Backend)| {
        json!({
            "address": backend.address(),
            "weight": 1 + index % 2,
            "zone": (["a", "b"][index % 2]),
            "version": (["v1", "v2"][index % 2]),
            "priority": index / 4,
        })
    };
    let endpoints: Vec<Value> = backends.iter().enumerate().map(endpoint).collect();
    let upstream = |cluster: &str| {
        json!({
            "cluster": cluster,
            "endpoints": {
                "static": endpoints,
                "prometheus": { "query": "up" },
                "envoy_admin": { "cluster": "envoy_admin", "interval": "1s" },
            },
            "policy": policy,
            "signals": [
                { "name": "depth", "query": "depth", "max": 100, "learn": true, "timestamp_query": "timestamp(depth)" },
                { "name": "fleet", "builtin": "fleet_latency" },
            ],
            "load_reports": [
                { "name": "load", "header": "endpoint-load-metrics", "metric": "application_utilization", "max": 1 },
            ],
            "rules": [
                { "when": "error_percent", "above": 60, "then": "eject" },
                { "when": "latency_ms", "above": 500, "then": "down_weight" },
            ],
            "health": {
                "ejection": "2s",
                "failures": ["gateway", "5xx", 429, "UNAVAILABLE", "INTERNAL"],
                "probe": { "path": "/", "interval": "1s" },
            },
            "slow_start": "2s",
            "failover": { "none_eligible": "safe_endpoint", "safe_endpoint": backends[0].address(), "panic_percent": 40 },
            "zone": { "local": "a", "spill_over_percent": 50 },
            "affinity": { "cookie": { "name": "session", "set": true, "ttl": "1h", "same_site": "lax" } },
            "split": { "v1": 70, "v2": 30 },
            "autoscale": { "period": "1s", "cool_down": "1s" },
            "guard": { "holdout_percent": 10, "include_keyed": true, "pause": "2s" },
        })
    };
    json!({
        "steering": { "candidates": 3 },
        "prometheus": {
            "cluster": "prometheus",
            "interval": "500ms",
            "timeout": "400ms",
            "method": "GET",
            "headers": { "x-scope-orgid": "tests" },
            "parameters": { "dedup": "true" },
        },
        "upstreams": [upstream("web"), upstream("call*")],
        "status": { "path": PAGE },
        "debug": { "secret": "a secret of the tests" },
        "attributes": ["endpoint", "reason", "cost", "decision"],
        "log": { "format": "json", "failures": true, "sample_percent": 5 },
    })
}

struct Stage {
    backends: Vec<Backend>,
    prometheus: Liar,
    envoy: Envoy,
}

async fn open() -> Result<Stage> {
    let backends =
        backend::Config { median: Duration::from_millis(1), slots: 16, ..backend::Config::default() };
    let backends = Backend::start_many(6, backends).await?;
    let addresses: Vec<_> = backends.iter().map(Backend::address).collect();
    let prometheus = Liar::start().await?;
    let follow = || Ok::<_, testbed::anyhow::Error>(vec![Filter::evenkeel_upstream()?]);
    let web =
        Cluster { upstream_filters: follow()?, ..Cluster::new("web", addresses.clone(), Policy::evenkeel()) };
    let calls = Cluster {
        prefix: "/chat".to_owned(),
        http2: true,
        upstream_filters: follow()?,
        ..Cluster::new("calls", addresses, Policy::evenkeel())
    };
    let envoy = Envoy::start(envoy::Config {
        clusters: vec![web, calls],
        filters: vec![Filter::evenkeel(&every_option(&backends, "adaptive"))?],
        services: vec![("prometheus".to_owned(), prometheus.address())],
        admin_cluster: true,
        discovered_filters: true,
        // Deadline for an answer; generous, for busy machines.
        route_timeout: Duration::from_secs(50),
        // Retries only requests that have reached no endpoint, so that clients see the endpoints' failures.
        retries: Some((2, "connect-failure,refused-stream".to_owned())),
        ..envoy::Config::default()
    });
    Ok(Stage { envoy: envoy.await?, backends, prometheus })
}

/// Number of requests in flight, for evenkeel and for Envoy.
async fn in_flight(envoy: &Envoy) -> Option<(i64, u64)> {
    let status = http::get(envoy.address(), &format!("{PAGE}/status.json")).await.ok()?.json().ok()?;
    let upstreams = status["upstreams"].as_array()?;
    let endpoints =
        upstreams.iter().flat_map(|upstream| upstream["endpoints"].as_array().into_iter().flatten());
    let told = endpoints.map(|endpoint| endpoint["in_flight"].as_i64()).sum::<Option<i64>>()?;
    let stats = envoy.stats().await.ok()?;
    let active = |cluster: &str| stats.get(&format!("cluster.{cluster}.upstream_rq_active")).copied();
    Some((told, active("web")? + active("calls")?))
}

/// Sends `requests`, and meanwhile changes the configuration and Prometheus' answers a hundred times.
async fn send(requests: u64) -> Result<()> {
    const TURNS: u64 = 100;
    let mut stage = open().await?;
    let names: Vec<String> = stage.backends.iter().map(|backend| backend.address().to_string()).collect();
    let lies = lies::all(&names);
    let target = stage.envoy.address();
    let mixture = Mixture { target, status: Some(PAGE.to_owned()), requests, clients: 32, seed: 11 };
    let mut running = mixture.start();
    let policies = ["adaptive", "peak_ewma", "consistent_hash", "least_request", "round_robin"];
    for turn in 0..TURNS {
        wait::until("some more requests", PATIENCE * 10, || {
            let over = running.is_over();
            let enough = over || running.begun() * TURNS >= requests * turn;
            async move { enough.then_some(()) }
        })
        .await?;
        stage.prometheus.set(lies[turn as usize % lies.len()].1.clone());
        let configuration = every_option(&stage.backends, policies[turn as usize % policies.len()]);
        stage.envoy.update_filter(Filter::evenkeel(&configuration)?).await?;
    }
    let findings: Findings = running.finish().await;
    println!("{} requests: {:?}", findings.total(), findings.sent);
    assert_eq!(findings.total(), requests);
    assert!(findings.unexpected.is_empty(), "{:#?}", findings.unexpected);
    wait::until("nothing in flight", PATIENCE, || async {
        (in_flight(&stage.envoy).await? == (0, 0)).then_some(())
    })
    .await
    .with_context(|| format!("{:?}", stage.envoy.log_tail(5)))?;
    let log = stage.envoy.log();
    for trap in ["panicked", "RuntimeError", "proxy_on_"] {
        assert!(!log.contains(trap), "{trap}: {:?}", log.lines().find(|line| line.contains(trap)));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_thousands_ends_as_it_has_to() -> Result<()> {
    send(6_000).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "many minutes"]
async fn every_request_of_a_million_ends_as_it_has_to() -> Result<()> {
    send(1_000_000).await
}
