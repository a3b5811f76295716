//! Envoy and Prometheus as shipped, with the backends of the Compose file, on loopback addresses. Every panel of the
//! dashboards finds data.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testbed::anyhow::{Context, Result, ensure};
use testbed::backend::{self, Backend, Behaviour};
use testbed::load::Load;
use testbed::process::Running;
use testbed::{http, tempfile, tokio, tools, wait};

use crate::{envoy, grafana, shipped};

const PATIENCE: Duration = Duration::from_secs(60);

/// The prefix of a /24 network in 127.0.0.0/8, all of which is loopback, in place of the container's: each run has its
/// own.
pub fn network(number: u32) -> String {
    let own = std::process::id() * 16 + number;
    format!("127.{}.{}.", 64 + own / 256 % 128, own % 256)
}

/// The running processes. Dropping it ends them.
pub struct Together {
    /// Address for requests.
    pub ingress: SocketAddr,
    prometheus: SocketAddr,
    /// Four good backends, a slow one and one that fails.
    pub backends: Vec<Backend>,
    _envoy: Running,
    _prometheus: Running,
    _directory: tempfile::TempDir,
}

/// Starts Envoy with this configuration, Prometheus and the backends; Alertmanager would be at 4:9093 of this network.
pub async fn start(bootstrap: &Path, network: &str) -> Result<Together> {
    let directory = tempfile::tempdir()?;
    let (proxy, server) = (format!("{network}2"), format!("{network}3"));

    let mut backends = Vec::new();
    for host in 11..=16 {
        let behaviour = match host {
            14 => Behaviour::Slow(10.0),
            16 => Behaviour::FAIL_FAST,
            _ => Behaviour::Healthy,
        };
        let address = format!("{network}{host}:8080").parse()?;
        let config =
            backend::Config { address, behaviour, record_requests: true, ..backend::Config::default() };
        backends.push(Backend::start(config).await?);
    }

    let here = |text: String| text.replace("172.31.254.", network);
    let wasm = tools::wasm()?;
    let config = here(shipped::text(bootstrap)?)
        .replace("/etc/envoy/evenkeel.wasm", wasm.to_str().context("a path in UTF-8")?)
        .replace("address: 0.0.0.0", &format!("address: {proxy}"))
        .replace("address: 127.0.0.1", &format!("address: {proxy}"))
        .replace("address: prometheus", &format!("address: {server}"))
        // Shorter intervals than shipped, to keep the test short.
        .replace("\"period\": \"30s\"", "\"period\": \"2s\"");
    let path = directory.path().join("envoy.yaml");
    fs::write(&path, config)?;
    let mut command = Command::new(tools::envoy()?);
    command.args(["--disable-hot-restart", "--concurrency", "2", "--log-level", "warn", "-c"]).arg(&path);
    let envoy = Running::spawn("envoy", command, &directory.path().join("envoy.log"))?;

    let folder = shipped::folder().join("prometheus");
    for name in ["alerts.yml", "alerts-evenkeel.yml"] {
        // Shorter intervals than shipped, to keep the test short.
        let rules = shipped::text(&folder.join(name))?
            .replace("interval: 15s", "interval: 1s")
            .replace("for: 30s", "for: 2s")
            .replace("for: 1m", "for: 2s");
        fs::write(directory.path().join(name), rules)?;
    }
    let config = here(shipped::text(&folder.join("prometheus.yml"))?)
        .replace("scrape_interval: 5s", "scrape_interval: 1s")
        .replace("scrape_timeout: 4s", "scrape_timeout: 1s")
        .replace("evaluation_interval: 15s", "evaluation_interval: 1s")
        .replace("alertmanager:9093", &format!("{network}4:9093"))
        .replace("\"envoy:9902\"", &format!("\"{proxy}:9902\""))
        .replace("\"envoy:10000\"", &format!("\"{proxy}:10000\""));
    let path = directory.path().join("prometheus.yml");
    fs::write(&path, config)?;
    let mut command = Command::new(tools::prometheus()?);
    command
        .arg(format!("--config.file={}", path.display()))
        .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
        .arg(format!("--web.listen-address={server}:9090"));
    let prometheus = Running::spawn("prometheus", command, &directory.path().join("prometheus.log"))?;

    let together = Together {
        ingress: format!("{proxy}:10000").parse()?,
        prometheus: format!("{server}:9090").parse()?,
        backends,
        _envoy: envoy,
        _prometheus: prometheus,
        _directory: directory,
    };
    let (ingress, server) = (together.ingress, together.prometheus);
    let up = || async move {
        let answers =
            http::get(ingress, "/").await.is_ok() && http::get(server, "/-/ready").await.ok()?.status == 200;
        answers.then_some(())
    };
    let waited = wait::until("Envoy and Prometheus to serve", PATIENCE, up).await;
    waited.with_context(|| together._envoy.log_tail(20) + &together._prometheus.log_tail(20))?;
    Ok(together)
}

impl Together {
    /// Number of series in the answer to a query.
    async fn series(&self, query: &str) -> Result<usize> {
        let path = format!("/api/v1/query?query={}", http::encode(query));
        let answer: Value = http::get(self.prometheus, &path).await?.json()?;
        Ok(answer["data"]["result"].as_array().with_context(|| format!("{query}: {answer}"))?.len())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2, crate = "testbed::tokio")]
async fn both_ways_to_steer_work_as_shipped_and_the_dashboards_show_it() -> Result<()> {
    // The bootstraps that the Compose file uses; the others are tested separately.
    let mut bootstraps = envoy::bootstraps()?;
    bootstraps.retain(|path| path.ends_with("envoy.yaml") || path.ends_with("envoy-stateful-session.yaml"));
    ensure!(bootstraps.len() == 2, "{bootstraps:?}");
    for (number, bootstrap) in (0..).zip(&bootstraps) {
        let name = bootstrap.display();
        let mut together = start(bootstrap, &network(number)).await?;
        let load = Load { target: together.ingress, rate: 150.0, duration: PATIENCE * 4, ..Load::default() };
        let load = load.start().await?;

        for panel in grafana::panels()? {
            if panel.title == "Alerts" {
                // The table of alerts has data only while an endpoint is down.
                let gone = together.backends.pop();
                drop(gone.context("a backend")?);
            }
            for expression in panel.expressions("5s")? {
                let what = format!("data for the panel {:?} under {name}", panel.title);
                wait::until(&what, PATIENCE, || async {
                    (together.series(&expression).await.ok()? > 0).then_some(())
                })
                .await
                .with_context(|| expression.clone())?;
            }
        }

        let summary = load.report().summary();
        // Left to Envoy's least request, the backend that fails at once gets more than its share: a fifth fails.
        ensure!(summary.failed * 50 < summary.requests, "{name}: {summary:?}");
        for backend in &together.backends {
            for request in backend.requests() {
                assert!(!request.headers.contains_key("x-evenkeel-endpoint"), "{name}: {request:?}");
            }
        }
        let (header, value) = ("x-evenkeel-endpoint", together.backends[3].address().to_string());
        let answer = http::send(together.ingress, http::Method::GET, "/", &[(header, &value)], "").await?;
        assert_eq!(answer.header(header), None, "{name}");
    }
    Ok(())
}
