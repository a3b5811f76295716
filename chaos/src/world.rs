//! One Envoy with two listeners over the same endpoints, and everything that a fault can hit.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testbed::anyhow::{Context, Result};
use testbed::backend::{self, Backend};
use testbed::envoy::{Cluster, Envoy, Filter, Policy};
use testbed::liar::{self, Liar};
use testbed::load::Load;
use testbed::process::Running;
use testbed::prometheus::{self, Prometheus};
use testbed::relay::Relay;
use testbed::serde_json::Value;
use testbed::tempfile::TempDir;
use testbed::{http, ports, tempfile, wait};

use crate::configuration::{filter, module_path, overload_manager, pressure};
use crate::setting::{Setting, Source};
use crate::stepping::Stepping;

/// The number of endpoints, the same behind both listeners.
pub const ENDPOINTS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(30);
/// The environment variable that makes the program `chaos` run as a backend, which can be killed and stopped.
pub const AS_BACKEND: &str = "CHAOS_BACKEND";

/// A running world. Dropping it ends it.
pub struct World {
    /// The proxy.
    pub envoy: Envoy,
    /// The endpoints' addresses, the first one first.
    pub endpoints: Vec<SocketAddr>,
    /// The backends in this process; behind a relay the first endpoint is the first of them.
    pub backends: Vec<Backend>,
    /// The relay in front of the first endpoint.
    pub relay: Option<Relay>,
    /// The first endpoint, if it is a process of its own.
    pub child: Option<Child>,
    /// A real Prometheus.
    pub prometheus: Option<Prometheus>,
    /// The server in place of Prometheus or of the admin interface.
    pub liar: Option<Liar>,
    /// Envoy's wall clock, if it can be set.
    pub clock: Option<Stepping>,
    /// The true answer of the admin interface.
    pub honest: String,
    setting: Setting,
    directory: TempDir,
}

/// A backend in a process of its own.
pub struct Child {
    /// The process; `None` once it is killed.
    pub process: Option<Running>,
    program: PathBuf,
    address: SocketAddr,
}

impl Child {
    /// Starts it, on the same port each time, and waits until it answers.
    pub async fn start(&mut self, log: &Path) -> Result<()> {
        let mut command = Command::new(&self.program);
        command
            .env(AS_BACKEND, "1")
            .env("BACKEND_LISTEN", self.address.to_string())
            .env("BACKEND_MEDIAN", "8ms");
        self.process = Some(Running::spawn("backend", command, log)?);
        let address = self.address;
        wait::until("the backend to answer", PATIENCE, || async move { http::get(address, "/").await.ok() })
            .await?;
        Ok(())
    }
}

impl World {
    /// Starts everything, and waits until evenkeel knows its endpoints.
    pub async fn open(setting: Setting) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let config =
            backend::Config { median: Duration::from_millis(8), sigma: 0.3, ..backend::Config::default() };
        let backends =
            Backend::start_many(ENDPOINTS - usize::from(setting.process.is_some()), config).await?;
        let mut endpoints: Vec<SocketAddr> = backends.iter().map(Backend::address).collect();
        let (mut child, mut relay) = (None, None);
        if let Some(program) = &setting.process {
            let mut first = Child { process: None, program: program.clone(), address: ports::free()? };
            first.start(&directory.path().join("backend.log")).await?;
            endpoints.insert(0, first.address);
            child = Some(first);
        } else {
            let line = Relay::start(backends[0].address()).await?;
            endpoints[0] = line.address();
            relay = Some(line);
        }
        let (mut prometheus, mut liar) = (None, None);
        let mut proxy = setting.proxy.clone();
        match setting.source {
            Some(Source::Prometheus) => {
                let scrape = prometheus::Config::job("web", endpoints.clone());
                let real = Prometheus::start(&scrape).await?;
                proxy.services.push(("prometheus".to_owned(), real.address()));
                prometheus = Some(real);
            }
            Some(Source::Admin) => proxy.admin_cluster = true,
            Some(_) => {
                let false_one = Liar::start().await?;
                proxy.services.push(("prometheus".to_owned(), false_one.address()));
                liar = Some(false_one);
            }
            None => {}
        }
        let cluster = |name: &str, policy| Cluster {
            http2: setting.http2,
            extra: setting.cluster.clone(),
            ..Cluster::new(name, endpoints.clone(), policy)
        };
        let alone = cluster("alone", Policy::LeastRequestWithOutlierDetection);
        // The module names the host by a call, under any policy.
        let steered = if setting.module { Policy::LeastRequest } else { Policy::evenkeel() };
        if setting.module {
            proxy.environment.push(module_path(directory.path())?);
        }
        proxy.clusters = vec![cluster("web", steered), Cluster { prefix: "/_alone".to_owned(), ..alone }];
        proxy.beside = Some("alone".to_owned());
        proxy.filters = vec![filter(&setting, directory.path(), &endpoints, "")?];
        let clock = if setting.clock { Some(Stepping::new(directory.path())?) } else { None };
        proxy.environment.extend(clock.iter().flat_map(Stepping::environment));
        if let Some(action) = setting.overload {
            proxy.extra = overload_manager(directory.path(), action)?;
        }
        let envoy = Envoy::start(proxy).await?;
        let honest = envoy.admin_get("/clusters?format=json").await?;
        let world = Self {
            envoy,
            endpoints,
            backends,
            relay,
            child,
            prometheus,
            liar,
            clock,
            honest,
            setting,
            directory,
        };
        world.honest_again();
        wait::until("evenkeel to know its endpoints", PATIENCE, || async {
            (world.states().await.ok()?.len() == ENDPOINTS).then_some(())
        })
        .await
        .with_context(|| world.envoy.log_tail(25))?;
        Ok(world)
    }

    /// evenkeel with its configuration, and a `slow_start` that makes it differ from the one before.
    pub fn filter(&self, slow_start: &str) -> Result<Filter> {
        filter(&self.setting, self.directory.path(), &self.endpoints, slow_start)
    }

    /// Makes the fake server give true answers.
    pub fn honest_again(&self) {
        let Some(liar) = &self.liar else { return };
        match self.setting.source {
            Some(Source::FalseAdmin) => liar.set(liar::json(&self.honest)),
            _ => liar.set(liar::json(testbed::lies::vector(&[]))),
        }
    }

    /// Sets Envoy's pressure, 0..=1.
    pub fn pressure(&self, value: f64) -> Result<()> {
        pressure(self.directory.path(), value)
    }

    /// Restarts the first endpoint.
    pub async fn revive(&mut self) -> Result<()> {
        let log = self.directory.path().join("backend.log");
        self.child.as_mut().context("a process")?.start(&log).await
    }

    /// The load on the listener with the filter, or on the other.
    pub fn load(&self, with: bool, seconds: f64) -> Load {
        Load {
            target: if with { self.envoy.address() } else { self.envoy.beside() },
            path: self.setting.path.clone(),
            rate: self.setting.rate,
            duration: Duration::from_secs_f64(seconds),
            connections: 16,
            ..Load::default()
        }
    }

    /// The state of each endpoint on the status page.
    pub async fn states(&self) -> Result<Vec<Value>> {
        let status = http::get(self.envoy.address(), "/_evenkeel/status.json").await?.json()?;
        Ok(status["upstreams"][0]["endpoints"].as_array().cloned().unwrap_or_default())
    }

    /// The endpoints' addresses as text.
    pub fn addresses(&self) -> Vec<String> {
        self.endpoints.iter().map(ToString::to_string).collect()
    }

    /// The endpoints' names in their responses.
    pub fn names(&self) -> Vec<String> {
        let own = self.child.iter().map(|child| child.address);
        own.chain(self.backends.iter().map(Backend::address)).map(|address| address.to_string()).collect()
    }

    /// Allocated bytes and resident bytes of Envoy.
    pub async fn memory(&mut self) -> Result<(u64, u64)> {
        let answer: Value = testbed::serde_json::from_str(&self.envoy.admin_get("/memory").await?)?;
        let allocated = answer["allocated"].as_str().and_then(|bytes| bytes.parse().ok());
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.envoy.process().id()))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident: Option<u64> = resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok());
        Ok((allocated.context("allocated bytes")?, resident.context("resident kilobytes")? << 10))
    }
}
