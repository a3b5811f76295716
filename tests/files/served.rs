//! Every Envoy configuration, served on loopback addresses: endpoints never see the steering header, clients choose
//! neither the endpoint nor the number of attempts, retries stay within their budget, and the status page is there.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testbed::anyhow::{Context, Result, ensure};
use testbed::backend::{self, Backend, Behaviour};
use testbed::http::{self, Method};
use testbed::load::Load;
use testbed::process::Running;
use testbed::{tempfile, tokio, tools, wait};

use crate::{envoy, module, shipped};

/// Deadline for Envoy to serve, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Request headers by which a client could control Envoy's retries.
const DEMANDS: [(&str, &str); 4] = [
    ("x-envoy-retry-on", "5xx,gateway-error,retriable-status-codes"),
    ("x-envoy-retriable-status-codes", "503"),
    ("x-envoy-max-retries", "8"),
    ("x-envoy-upstream-rq-timeout-ms", "1"),
];

/// The prefix of a /24 network in 127.0.0.0/8, all of which is loopback: each run and configuration has its own.
fn network(number: u32) -> String {
    let own = std::process::id() * 16 + number;
    format!("127.{}.{}.", 192 + own / 256 % 60, own % 256)
}

struct Served {
    text: String,
    ingress: SocketAddr,
    metrics: SocketAddr,
    backends: Vec<Backend>,
    envoy: Running,
    _directory: tempfile::TempDir,
}

async fn serve(bootstrap: &Path, network: &str) -> Result<Served> {
    let directory = tempfile::tempdir()?;
    let proxy = format!("{network}2");
    let mut backends = Vec::new();
    for host in 11..=16 {
        let address = format!("{network}{host}:8080").parse()?;
        backends.push(
            Backend::start(backend::Config { address, record_requests: true, ..Default::default() }).await?,
        );
    }
    let wasm = tools::wasm()?;
    let here = |text: String| text.replace("172.31.254.", network);
    let text = here(shipped::text(bootstrap)?)
        .replace(envoy::IN_CONTAINER, wasm.to_str().context("a path in UTF-8")?)
        .replace("/etc/envoy/eds", directory.path().to_str().context("a path in UTF-8")?)
        .replace("address: 0.0.0.0", &format!("address: {proxy}"))
        .replace("address: 127.0.0.1", &format!("address: {proxy}"))
        // No Prometheus runs here: Envoy has to serve without it.
        .replace("address: prometheus", &format!("address: {network}3"));
    fs::write(
        directory.path().join("web.yaml"),
        here(shipped::text(&shipped::folder().join("eds/web.yaml"))?),
    )?;
    let path = directory.path().join("envoy.yaml");
    fs::write(&path, &text)?;
    let mut command = Command::new(tools::envoy()?);
    command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warn", "-c"]).arg(&path);
    command.env("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", tools::module()?.parent().context("a folder")?);
    let envoy = Running::spawn("envoy", command, &directory.path().join("envoy.log"))?;
    let ingress = format!("{proxy}:10000").parse()?;
    let metrics = format!("{proxy}:9902").parse()?;
    Ok(Served { text, ingress, metrics, backends, envoy, _directory: directory })
}

impl Served {
    async fn endpoints(&self) -> Option<Vec<Value>> {
        let status = http::get(self.ingress, "/_evenkeel/status.json").await.ok()?.json().ok()?;
        status["upstreams"][0]["endpoints"].as_array().cloned()
    }

    /// Number of requests for `path` that backends received.
    fn arrived(&self, path: &str) -> usize {
        self.backends.iter().flat_map(Backend::requests).filter(|request| request.path == path).count()
    }

    /// The steering header of this configuration.
    fn steering(&self) -> &'static str {
        if self.text.contains("type: ORIGINAL_DST") {
            "x-envoy-original-dst-host"
        } else {
            "x-evenkeel-endpoint"
        }
    }

    fn set(&self, behaviour: Behaviour) {
        self.backends.iter().for_each(|backend| backend.set(behaviour));
    }

    async fn check(&self) -> Result<()> {
        // Six in the configurations, five in the file that Envoy watches.
        wait::until("the endpoints on the status page", PATIENCE, || async {
            (self.endpoints().await?.len() >= 5).then_some(())
        })
        .await
        .with_context(|| self.envoy.log_tail(20))?;
        let load = Load { target: self.ingress, duration: Duration::from_secs(1), ..Load::default() };
        let summary = load.run().await?.summary();
        ensure!(summary.failed == 0, "{summary:?}");
        let picks: u64 =
            self.endpoints().await.context("endpoints")?.iter().filter_map(|e| e["picks"].as_u64()).sum();
        ensure!(picks >= summary.requests, "{picks} of {} were steered", summary.requests);

        // An address without an endpoint.
        for _ in 0..5 {
            let nowhere = [(self.steering(), "127.0.0.1:9")];
            let answer = http::send(self.ingress, Method::GET, "/", &nowhere, "").await?;
            ensure!(answer.status == 200 && answer.header(self.steering()).is_none(), "{answer:?}");
        }
        self.tries().await?;
        // With original_dst, evenkeel itself refuses what cannot be answered.
        if self.text.contains("previous_hosts") {
            self.budget().await?;
        }
        for request in self.backends.iter().flat_map(Backend::requests) {
            ensure!(!request.headers.contains_key(self.steering()), "{request:?}");
        }
        Ok(())
    }

    /// A request that must not be repeated arrives once, others at most as often as the route allows.
    async fn tries(&self) -> Result<()> {
        self.set(Behaviour::FAIL_FAST);
        for (method, path, most) in [(Method::POST, "/once", 1), (Method::GET, "/again", 3)] {
            let answer = http::send(self.ingress, method, path, &DEMANDS, "").await?;
            ensure!(answer.status == 503, "{path}: {answer:?}");
            let arrived = self.arrived(path);
            ensure!((1..=most).contains(&arrived), "{path} arrived {arrived} times");
        }
        Ok(())
    }

    /// Every endpoint fails, slowly: without a budget each request would arrive two or three times.
    async fn budget(&self) -> Result<()> {
        self.set(Behaviour::FailFast { status: 503, after: Duration::from_millis(300) });
        let load = Load {
            target: self.ingress,
            path: "/budget".to_owned(),
            rate: 200.0,
            duration: Duration::from_secs(1),
            ..Load::default()
        };
        let requests = load.run().await?.summary().requests as usize;
        let arrived = self.arrived("/budget");
        // The budget is a fifth of the active requests, retries included: a quarter of the requests. Ten at a time
        // would be a sixth.
        ensure!(arrived * 2 < requests * 3, "{requests} requests arrived {arrived} times");
        let metrics = http::get(self.metrics, "/stats/prometheus").await?.text();
        let over =
            metrics.lines().filter(|line| line.starts_with("envoy_cluster_upstream_rq_retry_overflow{"));
        let over: f64 = over.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        ensure!(over > 0.0, "the budget was never used up");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2, crate = "testbed::tokio")]
async fn no_endpoint_sees_the_header_and_no_client_commands() -> Result<()> {
    let bootstraps = [envoy::bootstraps()?, module::bootstraps()?].concat();
    ensure!((8..=16).contains(&bootstraps.len()), "{bootstraps:?}");
    let numbered: Vec<(u32, PathBuf)> = (0..).zip(bootstraps).collect();
    for pair in numbered.chunks(2) {
        let mut running = tokio::task::JoinSet::new();
        for (number, bootstrap) in pair.iter().cloned() {
            running.spawn(async move {
                let served = serve(&bootstrap, &network(number)).await?;
                served.check().await.with_context(|| bootstrap.display().to_string())
            });
        }
        while let Some(done) = running.join_next().await {
            done??;
        }
    }
    Ok(())
}
