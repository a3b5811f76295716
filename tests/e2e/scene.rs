//! A scene: backends, a real Envoy with evenkeel in front of them, and waves of requests.

use std::net::SocketAddr;
use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::{self, Backend};
use testbed::envoy::{self, Cluster, Envoy, Filter, Policy};
use testbed::load::{Load, Summary};
use testbed::prometheus::{self, Prometheus};
use testbed::serde_json::{Map, Value, json};
use testbed::tokio;
use testbed::tokio::sync::{Semaphore, SemaphorePermit};

/// Limits how many scenes run at a time, so that they do not starve each other on a small machine.
static TURNS: Semaphore = Semaphore::const_new(2);

/// Request rate of a wave, requests/s.
pub const RATE: f64 = 150.0;

/// Everything that a scene is built from.
pub struct Stage {
    /// Number of endpoints in evenkeel's configuration.
    pub backends: usize,
    /// Members of each endpoint's entry other than its address, in order.
    pub places: Vec<Value>,
    /// Number of endpoints of the cluster that only Envoy knows: requests there were not steered.
    pub strangers: usize,
    /// Initial behaviour of all backends.
    pub backend: backend::Config,
    /// Envoy's load-balancing policy for the cluster.
    pub policy: Policy,
    /// Members of the plugin's configuration other than `upstreams`.
    pub plugin: Value,
    /// Members of its upstream other than `cluster` and `endpoints`.
    pub upstream: Value,
    /// Leaves evenkeel out, to see what Envoy does alone.
    pub bare: bool,
    /// Talks HTTP/2 to the backends.
    pub http2: bool,
    /// Installs evenkeel as an upstream filter too, so that it sees every attempt.
    pub follow: bool,
    /// Runs a real Prometheus that scrapes the backends every second, as Envoy's cluster `prometheus`.
    pub scraped: bool,
    /// The rest of Envoy's configuration; its clusters and filters follow the scene's own.
    pub proxy: envoy::Config,
}

impl Default for Stage {
    fn default() -> Self {
        let backend = backend::Config {
            median: Duration::from_millis(8),
            sigma: 0.3,
            record_requests: true,
            ..backend::Config::default()
        };
        Self {
            backends: 5,
            places: Vec::new(),
            strangers: 0,
            backend,
            policy: Policy::evenkeel(),
            plugin: json!({}),
            // Ejections end soon, to keep the tests short.
            upstream: json!({ "health": { "ejection": "3s" } }),
            bare: false,
            http2: false,
            follow: false,
            scraped: false,
            proxy: envoy::Config::default(),
        }
    }
}

/// A running scene. Dropping it shuts it down and checks that nothing panicked and nothing is left in flight.
pub struct Scene {
    /// Backends in evenkeel's configuration.
    pub backends: Vec<Backend>,
    /// Backends that only Envoy knows.
    pub strangers: Vec<Backend>,
    /// The Prometheus that scrapes them, if there is one.
    pub prometheus: Option<Prometheus>,
    envoy: Option<Envoy>,
    _turn: SemaphorePermit<'static>,
}

/// The outcome of a wave of requests.
pub struct Wave {
    /// Results as the clients saw them.
    pub summary: Summary,
    /// Requests that each backend received.
    pub received: Vec<u64>,
    /// Requests that the strangers received.
    pub strangers: u64,
}

impl Wave {
    /// Share of the requests that the backend at `index` received, 0 to 1.
    pub fn share(&self, index: usize) -> f64 {
        let all: u64 = self.received.iter().sum::<u64>() + self.strangers;
        self.received[index] as f64 / all.max(1) as f64
    }

    /// Whether all backends but one got at least a fifth of a fair share. On a busy machine a hiccup may make one look
    /// slow, which is then rarely explored.
    pub fn spread(&self) -> bool {
        let fair = 1.0 / self.received.len() as f64;
        (0..self.received.len()).filter(|index| self.share(*index) < 0.2 * fair).count() <= 1
    }
}

impl Stage {
    /// The plugin's configuration with `upstream` members on top of the stage's own.
    pub fn configuration(&self, backends: &[Backend], upstream: &Value) -> Value {
        let places = self.places.iter().chain(std::iter::repeat(&Value::Null));
        let endpoint = |(address, place): (SocketAddr, &Value)| {
            let mut endpoint = json!({ "address": address });
            extend(&mut endpoint, place);
            endpoint
        };
        let endpoints: Vec<Value> = addresses(backends).into_iter().zip(places).map(endpoint).collect();
        let mut entry = json!({ "cluster": "web", "endpoints": { "static": endpoints } });
        extend(&mut entry, &self.upstream);
        extend(&mut entry, upstream);
        let mut plugin = json!({ "upstreams": [entry] });
        extend(&mut plugin, &self.plugin);
        plugin
    }

    /// Starts the scene.
    pub async fn open(self) -> Result<Scene> {
        let turn = TURNS.acquire().await?;
        let backends = Backend::start_many(self.backends, self.backend.clone()).await?;
        let strangers = Backend::start_many(self.strangers, self.backend.clone()).await?;
        let configuration = self.configuration(&backends, &Value::Null);
        let everyone = addresses(&backends).into_iter().chain(addresses(&strangers)).collect();
        let mut proxy = self.proxy;
        let scrape = prometheus::Config::job("web", addresses(&backends));
        let prometheus = match self.scraped {
            true => Some(Prometheus::start(&scrape).await?),
            false => None,
        };
        proxy.services.extend(prometheus.iter().map(|p| ("prometheus".to_owned(), p.address())));
        let upstream_filters = if self.follow { vec![Filter::evenkeel_upstream()?] } else { Vec::new() };
        let cluster =
            Cluster { http2: self.http2, upstream_filters, ..Cluster::new("web", everyone, self.policy) };
        proxy.clusters.insert(0, cluster);
        if !self.bare {
            proxy.filters.insert(0, Filter::evenkeel(&configuration)?);
        }
        let envoy = Some(Envoy::start(proxy).await?);
        if let Some(prometheus) = &prometheus {
            prometheus.scrapes(&scrape).await?;
        }
        Ok(Scene { backends, strangers, prometheus, envoy, _turn: turn })
    }
}

impl Scene {
    /// Its Envoy.
    pub fn envoy(&self) -> &Envoy {
        self.envoy.as_ref().expect("it runs until the scene is dropped")
    }

    /// Its Envoy, to be changed.
    pub fn envoy_mut(&mut self) -> &mut Envoy {
        self.envoy.as_mut().expect("it runs until the scene is dropped")
    }

    /// A load on this scene.
    pub fn load(&self, seconds: f64) -> Load {
        Load {
            target: self.envoy().address(),
            rate: RATE,
            duration: Duration::from_secs_f64(seconds),
            connections: 16,
            ..Load::default()
        }
    }

    /// Sends requests for `seconds`; returns their outcome.
    pub async fn wave(&self, seconds: f64) -> Result<Wave> {
        self.wave_of(self.load(seconds)).await
    }

    /// Runs `load`; returns its outcome.
    pub async fn wave_of(&self, load: Load) -> Result<Wave> {
        let before = (received(&self.backends), received(&self.strangers));
        let summary = load.run().await?.summary();
        let after = received(&self.backends);
        Ok(Wave {
            summary,
            received: after.iter().zip(before.0).map(|(after, before)| after - before).collect(),
            strangers: received(&self.strangers).iter().sum::<u64>() - before.1.iter().sum::<u64>(),
        })
    }

    /// Number of lines of Envoy's log that contain `text`.
    pub fn logged(&self, text: &str) -> usize {
        self.envoy().log().lines().filter(|line| line.contains(text)).count()
    }
}

/// Final checks of every scene.
impl Drop for Scene {
    fn drop(&mut self) {
        let Some(mut envoy) = self.envoy.take() else { return };
        if std::thread::panicking() {
            eprintln!("the end of Envoy's log:\n{}", envoy.log_tail(25));
            return;
        }
        let (id, ended) = (envoy.process().id(), envoy.process().ended());
        // Terminated, not killed, so that the whole log is written.
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(envoy.process().stop(Duration::from_secs(10)));
        });
        let log = envoy.log();
        drop(envoy);
        assert!(ended.is_none(), "Envoy ended by itself: {ended:?}\n{log}");
        assert!(!log.contains("panicked"), "something panicked:\n{log}");
        let left = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        assert!(!left.contains("envoy"), "Envoy is still there: {left}");
    }
}

/// Requests that each backend has received so far.
pub fn received(backends: &[Backend]) -> Vec<u64> {
    backends.iter().map(|backend| backend.counts().received).collect()
}

fn addresses(backends: &[Backend]) -> Vec<SocketAddr> {
    backends.iter().map(Backend::address).collect()
}

/// Adds the members of `more`, replacing those of the same name.
fn extend(object: &mut Value, more: &Value) {
    let members = more.as_object().cloned().unwrap_or_else(Map::new);
    if let Some(object) = object.as_object_mut() {
        object.extend(members);
    }
}
