//! A real Envoy: configured, started, watched, reconfigured and ended.

mod bootstrap;
mod cluster;
mod policy;
mod retry;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

pub use cluster::{Cluster, EndpointState};
pub use policy::{Filter, Policy};
pub use retry::elsewhere;

use crate::process::{Running, ready};
use crate::{http, ports, tools, wait};

const READY: Duration = Duration::from_secs(30);
const BASE_ID: &str = "base-id";
const UPDATED: Duration = Duration::from_secs(15);

/// The settings of an Envoy.
#[derive(Clone, Debug)]
pub struct Config {
    /// The clusters that requests are routed to.
    pub clusters: Vec<Cluster>,
    /// Worker threads.
    pub concurrency: u32,
    /// The route timeout.
    pub route_timeout: Duration,
    /// The number of retries and their conditions (`connect-failure,refused-stream`); none by default.
    pub retries: Option<(u32, String)>,
    /// Further members of the retry policy, for example `per_try_timeout`.
    pub retry_policy: Value,
    /// Whether an attempt beyond `per_try_timeout` continues beside the next one; the first response counts.
    pub hedged: bool,
    /// Drain time of old listeners and filter chains, if not Envoy's ten minutes. Every response then asks its client
    /// at once to close the connection: Envoy's default, which asks gradually more of them, would cut off connections
    /// that were not asked in so short a time.
    pub drain: Option<Duration>,
    /// Request headers that are removed before a route is chosen.
    pub stripped: Vec<String>,
    /// The access log of the listener: an array of loggers, or null.
    pub access_log: Value,
    /// HTTP filters before the router, for example [`Filter::evenkeel`].
    pub filters: Vec<Filter>,
    /// Clusters with one endpoint that filters call: name and address.
    pub services: Vec<(String, SocketAddr)>,
    /// Whether there is a cluster `envoy_admin` for Envoy's own admin interface.
    pub admin_cluster: bool,
    /// Whether listener and endpoints come from files, so that [`Envoy::reload`] and [`Envoy::set_endpoints`] can
    /// replace them.
    pub dynamic: bool,
    /// Whether the filters' configurations come from files of their own (ECDS), so that [`Envoy::update_filter`] can
    /// replace one without a new listener.
    pub discovered_filters: bool,
    /// Whether [`Envoy::hot_restart`] can replace this process; requires a `drain`.
    pub hot_restart: bool,
    /// The cluster of a second listener, [`Envoy::beside`], which sends everything there without filters.
    pub beside: Option<String>,
    /// Extra members at the bootstrap's top level, for example `stats_config`.
    pub extra: Value,
    /// Envoy's component log levels.
    pub log_levels: String,
    /// Environment variables of the process.
    pub environment: Vec<(String, OsString)>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            clusters: Vec::new(),
            concurrency: 2,
            route_timeout: Duration::from_secs(3),
            retries: None,
            retry_policy: Value::Null,
            hedged: false,
            drain: None,
            stripped: Vec::new(),
            access_log: Value::Null,
            filters: Vec::new(),
            services: Vec::new(),
            admin_cluster: false,
            dynamic: false,
            discovered_filters: false,
            hot_restart: false,
            beside: None,
            extra: Value::Null,
            log_levels: "wasm:info,dynamic_modules:info,config:info".to_owned(),
            environment: Vec::new(),
        }
    }
}

impl Config {
    /// Routes everything to one cluster named `web`.
    pub fn single(endpoints: Vec<SocketAddr>, policy: Policy) -> Self {
        Self { clusters: vec![Cluster::new("web", endpoints, policy)], ..Self::default() }
    }
}

/// A running Envoy. Dropping it kills it.
#[derive(Debug)]
pub struct Envoy {
    config: Config,
    listener: SocketAddr,
    beside: SocketAddr,
    admin: SocketAddr,
    process: Running,
    bootstrap: PathBuf,
    directory: TempDir,
    epoch: u32,
    /// Former processes that have not ended yet.
    parents: Vec<Running>,
}

/// Removes the shared memory that Envoy leaves after hot restarts.
impl Drop for Envoy {
    fn drop(&mut self) {
        if let Some(base_id) = self.base_id() {
            let _gone_is_fine = fs::remove_file(format!("/dev/shm/envoy_shared_memory_{base_id}0"));
        }
    }
}

/// The position of a process in a series of hot restarts.
enum Generation {
    /// The only one: hot restarts are disabled.
    Only,
    /// The first, which draws the base id of the series.
    First,
    /// A later one, which replaces the one before.
    Next { epoch: u32, base_id: u32 },
}

impl Generation {
    fn of(config: &Config) -> Self {
        if config.hot_restart { Self::First } else { Self::Only }
    }

    fn arguments(&self, directory: &Path) -> Vec<String> {
        match self {
            // Otherwise parallel instances would share memory and a socket.
            Self::Only => vec!["--disable-hot-restart".to_owned()],
            Self::First => {
                let file = directory.join(BASE_ID).display().to_string();
                vec!["--use-dynamic-base-id".to_owned(), "--base-id-path".to_owned(), file]
            }
            Self::Next { epoch, base_id } => {
                let numbers = [("--restart-epoch", epoch), ("--base-id", base_id)];
                numbers.iter().flat_map(|(name, value)| [(*name).to_owned(), value.to_string()]).collect()
            }
        }
    }
}

fn spawn(config: &Config, bootstrap: &Path, directory: &Path, generation: &Generation) -> Result<Running> {
    let mut command = Command::new(tools::envoy()?);
    command.envs(config.environment.iter().map(|(name, value)| (name, value)));
    command.arg("-c").arg(bootstrap).args(generation.arguments(directory)).args([
        "--concurrency",
        &config.concurrency.to_string(),
        "--log-level",
        "warn",
        "--component-log-level",
        &config.log_levels,
        "--log-path",
    ]);
    command.arg(directory.join("envoy.log")).args(["--file-flush-interval-msec", "100"]);
    if let Some(drain) = config.drain {
        let seconds = drain.as_secs();
        command.args(["--drain-strategy", "immediate", "--drain-time-s", &seconds.to_string()]);
        command.args(["--parent-shutdown-time-s", &(seconds + 1).to_string()]);
    }
    let output = match generation {
        Generation::Next { epoch, .. } => format!("output-{epoch}.log"),
        _ => "output.log".to_owned(),
    };
    Running::spawn("envoy", command, &directory.join(output))
}

impl Envoy {
    /// Starts Envoy and waits until it serves.
    pub async fn start(config: Config) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("testbed-envoy-").tempdir()?;
        let (listener, beside, admin) = (ports::free()?, ports::free()?, ports::free()?);
        let files = bootstrap::Files::new(directory.path(), listener, admin);
        let path = files.write(&config, beside)?;
        let process = spawn(&config, &path, directory.path(), &Generation::of(&config))?;
        let mut envoy = Self {
            config,
            listener,
            beside,
            admin,
            process,
            bootstrap: path,
            directory,
            epoch: 0,
            parents: Vec::new(),
        };
        envoy.wait_ready().await?;
        Ok(envoy)
    }

    /// Starts a new process, which takes over the listening sockets and makes the present one drain and end. Returns
    /// once the new one serves.
    pub async fn hot_restart(&mut self) -> Result<()> {
        if !self.config.hot_restart {
            bail!("a hot restart needs `hot_restart`");
        }
        let base_id = self.base_id().context("Envoy's base id")?;
        self.epoch += 1;
        let generation = Generation::Next { epoch: self.epoch, base_id };
        let process = spawn(&self.config, &self.bootstrap, self.directory.path(), &generation)?;
        self.parents.push(std::mem::replace(&mut self.process, process));
        let (admin, epoch) = (self.admin, self.epoch);
        // Until then the old one's admin interface answers.
        let serves = || async move {
            let info = http::get(admin, "/server_info").await.ok().and_then(|answer| answer.json().ok());
            let info = info.unwrap_or_default();
            info["command_line_options"]["restart_epoch"] == epoch && info["state"] == "LIVE"
        };
        match ready(&mut self.process, READY, serves).await {
            Ok(()) => Ok(()),
            Err(error) => bail!("{error:#}\n{}", self.log_tail(25)),
        }
    }

    /// Waits until all processes that were replaced by hot restarts have ended.
    pub async fn parents_gone(&mut self) -> Result<()> {
        let parents = &mut self.parents;
        wait::until("the end of the processes before", READY, || {
            parents.retain_mut(|parent| parent.ended().is_none());
            let gone = parents.is_empty();
            async move { gone.then_some(()) }
        })
        .await
        .with_context(|| self.log_tail(25))
    }

    fn base_id(&self) -> Option<u32> {
        fs::read_to_string(self.directory.path().join(BASE_ID)).ok()?.trim().parse().ok()
    }

    /// The address of its listener.
    pub fn address(&self) -> SocketAddr {
        self.listener
    }

    /// The address of the second listener, if there is one.
    pub fn beside(&self) -> SocketAddr {
        self.beside
    }

    /// The address of its admin interface.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Running {
        &mut self.process
    }

    /// Its current configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its log so far. Envoy flushes every 100 ms.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default() + &self.process.log()
    }

    /// The path of the log.
    pub fn log_path(&self) -> PathBuf {
        self.directory.path().join("envoy.log")
    }

    /// The last `lines` lines of the log.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Waits until a line of the log contains `text`, and returns that line.
    pub async fn wait_for_log(&self, text: &str, deadline: Duration) -> Result<String> {
        wait::until(&format!("{text:?} in Envoy's log"), deadline, || {
            let line = self.log().lines().find(|line| line.contains(text)).map(str::to_owned);
            async move { line }
        })
        .await
        .with_context(|| self.log_tail(25))
    }

    /// Sends GET to the admin interface.
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

    /// Envoy's configuration dump.
    pub async fn config_dump(&self) -> Result<Value> {
        http::get(self.admin, "/config_dump").await?.json()
    }

    /// Replaces the HTTP filters with a new listener over file-based LDS. If Envoy refuses it, the error has the reason
    /// and the old listener stays.
    pub async fn reload(&mut self, filters: Vec<Filter>) -> Result<()> {
        if !self.config.dynamic {
            bail!("reloading needs `dynamic`");
        }
        let config = Config { filters, ..self.config.clone() };
        let write = |files: bootstrap::Files| files.write_listener(&config);
        self.taken_up("listener_manager.lds", "listener", write).await?;
        self.config = config;
        Ok(())
    }

    /// Replaces the configuration of the filter of the same name over file-based ECDS. If Envoy refuses it, the error
    /// has the reason and the old one stays.
    pub async fn update_filter(&mut self, filter: Filter) -> Result<()> {
        let known = self.config.filters.iter().position(|known| known.name() == filter.name());
        let (Some(at), true) = (known, self.config.discovered_filters) else {
            bail!("updating a filter needs one of that name, and `discovered_filters`");
        };
        let updates = format!("extension_config_discovery.http_filter.{}", filter.name());
        self.taken_up(&updates, "filter", |files| files.write_filter(&filter)).await?;
        self.config.filters[at] = filter;
        Ok(())
    }

    /// Writes a file that Envoy watches, and waits until Envoy has accepted or refused it, which it counts under
    /// `updates`.
    async fn taken_up(
        &self,
        updates: &str,
        what: &str,
        write: impl FnOnce(bootstrap::Files) -> Result<PathBuf>,
    ) -> Result<()> {
        let before = self.stats().await?;
        let log_before = self.log().len();
        write(self.files())?;
        let count = |stats: &BTreeMap<String, u64>, name: &str| stats.get(name).copied().unwrap_or(0);
        let (updated, rejected) = (format!("{updates}.update_success"), format!("{updates}.update_rejected"));
        let accepted = wait::until(&format!("Envoy to take up the new {what}"), UPDATED, || async {
            let now = self.stats().await.ok()?;
            if count(&now, &rejected) > count(&before, &rejected) {
                return Some(false);
            }
            (count(&now, &updated) > count(&before, &updated)).then_some(true)
        })
        .await
        .with_context(|| self.log_tail(25))?;
        if !accepted {
            // The reason is flushed after the counter has changed.
            let reason = wait::until("the reason in Envoy's log", UPDATED, || {
                let reason = self.log().get(log_before..).and_then(refusal);
                async move { reason }
            });
            bail!("Envoy refused the new {what}: {}", reason.await?);
        }
        Ok(())
    }

    /// Replaces a cluster's endpoints over file-based EDS.
    pub async fn set_endpoints(&mut self, cluster: &str, endpoints: Vec<SocketAddr>) -> Result<()> {
        self.set_members(cluster, endpoints.into_iter().map(EndpointState::new).collect()).await
    }

    /// The same, with health, weight, zone and priority of each endpoint.
    pub async fn set_members(&mut self, cluster: &str, members: Vec<EndpointState>) -> Result<()> {
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
            // A listener over LDS may come shortly after the server is live, or be refused.
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

/// The log lines that say why a listener was refused, including the filter's own faults.
fn refusal(log: &str) -> Option<String> {
    let complete = log.rfind('\n').map_or("", |end| &log[..end]);
    let named = complete.lines().any(|line| line.contains("rejected") || line.contains("Error adding"));
    named.then(|| complete.to_owned())
}

#[cfg(test)]
mod tests;
