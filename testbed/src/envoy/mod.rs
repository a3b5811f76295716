//! A real Envoy: configured, started, watched, reconfigured, ended.

mod bootstrap;
mod policy;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

pub use policy::{Filter, Policy};

use crate::process::{Running, ready};
use crate::{http, ports, tools, wait};

const READY: Duration = Duration::from_secs(30);
const UPDATED: Duration = Duration::from_secs(15);

/// What Envoy is to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// The clusters that requests are routed to.
    pub clusters: Vec<Cluster>,
    /// Worker threads.
    pub concurrency: u32,
    /// How long an answer may take.
    pub route_timeout: Duration,
    /// Retries of a request and what for (`connect-failure,refused-stream`); none by default.
    pub retries: Option<(u32, String)>,
    /// Further members of the retry policy, for instance `per_try_timeout`.
    pub retry_policy: Value,
    /// How long old listeners and filter chains live on, if not Envoy's ten minutes.
    pub drain: Option<Duration>,
    /// Request headers that are taken off before a route is chosen.
    pub stripped: Vec<String>,
    /// HTTP filters before the router, for instance [`Filter::evenkeel`].
    pub filters: Vec<Filter>,
    /// Clusters with one endpoint that filters call: a name and where it is.
    pub services: Vec<(String, SocketAddr)>,
    /// Whether there is a cluster `envoy_admin` that points at Envoy's own admin interface.
    pub admin_cluster: bool,
    /// Whether listener and endpoints come from files, so that [`Envoy::reload`] and
    /// [`Envoy::set_endpoints`] can replace them.
    pub dynamic: bool,
    /// Extra members of the bootstrap's top level, for instance `stats_config`.
    pub extra: Value,
    /// Envoy's component log levels.
    pub log_levels: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            clusters: Vec::new(),
            concurrency: 2,
            route_timeout: Duration::from_secs(3),
            retries: None,
            retry_policy: Value::Null,
            drain: None,
            stripped: Vec::new(),
            filters: Vec::new(),
            services: Vec::new(),
            admin_cluster: false,
            dynamic: false,
            extra: Value::Null,
            log_levels: "wasm:info,config:info".to_owned(),
        }
    }
}

impl Config {
    /// Routes everything to one cluster named `web`.
    pub fn single(endpoints: Vec<SocketAddr>, policy: Policy) -> Self {
        Self { clusters: vec![Cluster::new("web", endpoints, policy)], ..Self::default() }
    }
}

/// An upstream cluster. The first one takes `/`, each other one the requests under its `prefix`.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// The path prefix that is routed to it.
    pub prefix: String,
    /// Its endpoints.
    pub endpoints: Vec<SocketAddr>,
    /// How Envoy balances it.
    pub policy: Policy,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// Whether it speaks HTTP/2.
    pub http2: bool,
    /// The path of active health checks, if any: every second, three failures, one success.
    pub health_check: Option<String>,
    /// HTTP filters that see each attempt, before the one that takes the steering header away.
    pub upstream_filters: Vec<Filter>,
    /// Members that are added to the cluster or replace its own.
    pub extra: Value,
}

impl Cluster {
    /// A cluster that takes every path.
    pub fn new(name: &str, endpoints: Vec<SocketAddr>, policy: Policy) -> Self {
        Self {
            name: name.to_owned(),
            prefix: "/".to_owned(),
            endpoints,
            policy,
            connect_timeout: Duration::from_secs(1),
            http2: false,
            health_check: None,
            upstream_filters: Vec::new(),
            extra: Value::Null,
        }
    }
}

/// An endpoint as a control plane announces it over EDS.
#[derive(Clone, Debug)]
pub struct Member {
    /// Where it listens.
    pub address: SocketAddr,
    /// `HEALTHY`, `UNHEALTHY`, `DRAINING`, `TIMEOUT` or `DEGRADED`.
    pub health: &'static str,
    /// Its load-balancing weight, 1 or more.
    pub weight: u32,
    /// The zone of its locality.
    pub zone: String,
    /// 0 is used first.
    pub priority: u32,
}

impl Member {
    /// A healthy endpoint without a zone.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, health: "HEALTHY", weight: 1, zone: String::new(), priority: 0 }
    }
}

/// A running Envoy. Dropping it kills it.
#[derive(Debug)]
pub struct Envoy {
    config: Config,
    listener: SocketAddr,
    admin: SocketAddr,
    process: Running,
    directory: TempDir,
}

impl Envoy {
    /// Starts it and waits until it serves.
    pub async fn start(config: Config) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("testbed-envoy-").tempdir()?;
        let (listener, admin) = (ports::free()?, ports::free()?);
        let files = bootstrap::Files::new(directory.path(), listener, admin);
        let path = files.write(&config)?;
        let mut command = Command::new(tools::envoy()?);
        command.arg("-c").arg(&path).args([
            "--concurrency",
            &config.concurrency.to_string(),
            // Parallel instances would otherwise share memory and a socket.
            "--disable-hot-restart",
            "--log-level",
            "warn",
            "--component-log-level",
            &config.log_levels,
            "--log-path",
        ]);
        command.arg(directory.path().join("envoy.log")).args(["--file-flush-interval-msec", "100"]);
        if let Some(drain) = config.drain {
            command.args(["--drain-time-s", &drain.as_secs().to_string()]);
        }
        let process = Running::spawn("envoy", command, &directory.path().join("output.log"))?;
        let mut envoy = Self { config, listener, admin, process, directory };
        envoy.wait_ready().await?;
        Ok(envoy)
    }

    /// Where it takes requests.
    pub fn address(&self) -> SocketAddr {
        self.listener
    }

    /// Where its admin interface is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Running {
        &mut self.process
    }

    /// Its configuration as it stands.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What it logged so far. Envoy flushes every 100 ms.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default() + &self.process.log()
    }

    /// The log's file.
    pub fn log_path(&self) -> PathBuf {
        self.directory.path().join("envoy.log")
    }

    /// The log's end.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Waits until a line of the log contains `text` and returns that line.
    pub async fn wait_for_log(&self, text: &str, deadline: Duration) -> Result<String> {
        wait::until(&format!("{text:?} in Envoy's log"), deadline, || {
            let line = self.log().lines().find(|line| line.contains(text)).map(str::to_owned);
            async move { line }
        })
        .await
        .with_context(|| self.log_tail(25))
    }

    /// GET on the admin interface.
    pub async fn admin_get(&self, path: &str) -> Result<String> {
        Ok(http::get(self.admin, path).await?.text())
    }

    /// Counters and gauges by name.
    pub async fn stats(&self) -> Result<BTreeMap<String, u64>> {
        let text = self.admin_get("/stats").await?;
        let entry = |line: &str| {
            let (name, value) = line.rsplit_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(text.lines().filter_map(entry).collect())
    }

    /// One counter or gauge; 0 if it does not exist yet.
    pub async fn stat(&self, name: &str) -> Result<u64> {
        Ok(self.stats().await?.get(name).copied().unwrap_or(0))
    }

    /// The configuration as Envoy sees it.
    pub async fn config_dump(&self) -> Result<Value> {
        http::get(self.admin, "/config_dump").await?.json()
    }

    /// Replaces the HTTP filters by a new listener over file-based LDS. An error carries Envoy's reason for
    /// refusing it; the old listener then goes on serving.
    pub async fn reload(&mut self, filters: Vec<Filter>) -> Result<()> {
        if !self.config.dynamic {
            bail!("reloading needs `dynamic`");
        }
        let config = Config { filters, ..self.config.clone() };
        let before = self.stats().await?;
        let log_before = self.log().len();
        self.files().write_listener(&config)?;
        let count = |stats: &BTreeMap<String, u64>, name: &str| stats.get(name).copied().unwrap_or(0);
        let (updated, rejected) =
            ("listener_manager.lds.update_success", "listener_manager.lds.update_rejected");
        let accepted = wait::until("Envoy to take up the new listener", UPDATED, || async {
            let now = self.stats().await.ok()?;
            if count(&now, rejected) > count(&before, rejected) {
                return Some(false);
            }
            (count(&now, updated) > count(&before, updated)).then_some(true)
        })
        .await
        .with_context(|| self.log_tail(25))?;
        if !accepted {
            // The reason is flushed after the counter moved.
            let reason = wait::until("the reason in Envoy's log", UPDATED, || {
                let reason = self.log().get(log_before..).and_then(refusal);
                async move { reason }
            });
            bail!("Envoy refused the new listener: {}", reason.await?);
        }
        self.config = config;
        Ok(())
    }

    /// Replaces a cluster's endpoints over file-based EDS.
    pub async fn set_endpoints(&mut self, cluster: &str, endpoints: Vec<SocketAddr>) -> Result<()> {
        self.set_members(cluster, endpoints.into_iter().map(Member::new).collect()).await
    }

    /// The same, with what a control plane says of each.
    pub async fn set_members(&mut self, cluster: &str, members: Vec<Member>) -> Result<()> {
        if !self.config.dynamic {
            bail!("replacing endpoints needs `dynamic`");
        }
        let stat = format!("cluster.{cluster}.update_success");
        let before = self.stat(&stat).await?;
        let files = self.files();
        let target = self.config.clusters.iter_mut().find(|known| known.name == cluster);
        let target = target.with_context(|| format!("no cluster {cluster}"))?;
        target.endpoints = members.iter().map(|member| member.address).collect();
        files.write_members(cluster, &members)?;
        wait::until("Envoy to take up the new endpoints", UPDATED, || async {
            (self.stat(&stat).await.ok()? > before).then_some(())
        })
        .await
        .with_context(|| self.log_tail(25))
    }

    fn files(&self) -> bootstrap::Files {
        bootstrap::Files::new(self.directory.path(), self.listener, self.admin)
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let (admin, dynamic) = (self.admin, self.config.dynamic);
        let answers = || async move {
            let live = http::get(admin, "/ready").await.is_ok_and(|answer| answer.status == 200);
            // A listener over LDS may come a moment after the server is live, or be refused.
            live && (!dynamic || listener_settled(admin).await)
        };
        match ready(&mut self.process, READY, answers).await {
            Ok(()) => Ok(()),
            Err(error) => bail!("{error:#}\n{}", self.log_tail(25)),
        }
    }
}

async fn listener_settled(admin: SocketAddr) -> bool {
    let stats = http::get(admin, "/stats?filter=listener_manager").await.map(|answer| answer.text());
    stats.unwrap_or_default().lines().filter_map(|line| line.split_once(": ")).any(|(name, value)| {
        let settled = ["listener_manager.listener_create_success", "listener_manager.lds.update_rejected"];
        settled.contains(&name) && value != "0"
    })
}

/// The lines that say why a listener was refused, the filter's own faults included.
fn refusal(log: &str) -> Option<String> {
    let complete = log.rfind('\n').map_or("", |end| &log[..end]);
    let named = complete.lines().any(|line| line.contains("rejected") || line.contains("Error adding"));
    named.then(|| complete.to_owned())
}

#[cfg(test)]
mod tests;
