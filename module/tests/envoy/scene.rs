//! A scene: backends, a real Envoy with the module in front of them, and waves of requests.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use testbed::anyhow::{Context, Result, ensure};
use testbed::backend::{self, Backend};
use testbed::envoy::{self, Cluster, Envoy, Filter, Policy};
use testbed::load::{Load, Summary};
use testbed::prometheus::{self, Prometheus};
use testbed::serde_json::{Value, json};
use testbed::tempfile::{self, TempDir};
use testbed::tokio;
use testbed::tokio::sync::{Semaphore, SemaphorePermit};

/// Few scenes at a time, so that they do not starve each other on a small machine.
static TURNS: Semaphore = Semaphore::const_new(2);
/// Endpoints of the cluster.
const ENDPOINTS: usize = 3;
/// Requests a second in a wave.
const RATE: f64 = 150.0;

/// What a scene consists of.
pub struct Stage {
    /// Members of the plugin's configuration beside `upstreams`.
    pub plugin: Value,
    /// Members of its upstream beside `cluster` and `endpoints`.
    pub upstream: Value,
    /// How Envoy balances them; by itself a policy of its own that no header steers.
    pub policy: Policy,
    /// Whether the listener comes over LDS.
    pub dynamic: bool,
    /// Backends that are no endpoints of the cluster, beside the three that are.
    pub spare: usize,
    /// Changes of the cluster; the spare backends are the last ones.
    pub adjust: fn(&mut Cluster, &[Backend]),
    /// Whether a real Prometheus scrapes the backends.
    pub scraped: bool,
    /// Whether a panic is expected.
    pub may_panic: bool,
    /// Further variables of Envoy's environment.
    pub environment: Vec<(String, OsString)>,
    /// The rest of Envoy's configuration.
    pub proxy: envoy::Config,
}

impl Default for Stage {
    fn default() -> Stage {
        Stage {
            plugin: json!({}),
            upstream: json!({ "health": { "ejection": "3s" } }),
            policy: Policy::LeastRequest,
            dynamic: false,
            spare: 0,
            adjust: |_, _| (),
            scraped: false,
            may_panic: false,
            environment: Vec::new(),
            proxy: envoy::Config::default(),
        }
    }
}

impl Stage {
    /// One with a status page.
    pub fn with_status() -> Stage {
        Stage { plugin: json!({ "status": { "path": "/_evenkeel" } }), ..Stage::default() }
    }

    fn configuration(&self, backends: &[Backend], more: &Value) -> Value {
        let endpoints: Vec<Value> = backends.iter().map(|backend| json!(backend.address())).collect();
        let mut upstream = json!({ "cluster": "web", "endpoints": { "static": endpoints } });
        extend(&mut upstream, &self.upstream);
        extend(&mut upstream, more);
        let mut plugin = json!({ "upstreams": [upstream] });
        extend(&mut plugin, &self.plugin);
        plugin
    }

    /// Starts everything: three backends and two workers.
    pub async fn open(mut self) -> Result<Scene> {
        let turn = TURNS.acquire().await?;
        let how = backend::Config {
            median: Duration::from_millis(8),
            sigma: 0.3,
            record_requests: true,
            ..backend::Config::default()
        };
        let backends = Backend::start_many(ENDPOINTS + self.spare, how).await?;
        let addresses: Vec<_> = backends.iter().take(ENDPOINTS).map(Backend::address).collect();
        let configuration = self.configuration(&backends[..ENDPOINTS], &Value::Null);
        let scrape = prometheus::Config::job("web", addresses.clone());
        let prometheus = match self.scraped {
            true => Some(Prometheus::start(&scrape).await?),
            false => None,
        };
        let folder = search_path()?;
        let proxy = &mut self.proxy;
        proxy.services.extend(prometheus.iter().map(|p| ("prometheus".to_owned(), p.address())));
        let mut web = Cluster::new("web", addresses, self.policy.clone());
        (self.adjust)(&mut web, &backends);
        proxy.clusters.insert(0, web);
        proxy.filters.insert(0, Filter::module(&configuration.to_string()));
        proxy.dynamic = self.dynamic;
        proxy.environment = self.environment.clone();
        proxy.environment.push(("ENVOY_DYNAMIC_MODULES_SEARCH_PATH".into(), folder.path().into()));
        let envoy = Some(Envoy::start(self.proxy.clone()).await?);
        if let Some(prometheus) = &prometheus {
            prometheus.scrapes(&scrape).await?;
        }
        Ok(Scene { backends, prometheus, stage: self, envoy, _folder: folder, _turn: turn })
    }
}

/// A folder with what cargo has built for these tests, under the name that Envoy looks for.
fn search_path() -> Result<TempDir> {
    let own = std::env::current_exe()?;
    let built: PathBuf = own.parent().context("a folder")?.join("libevenkeel_module.so");
    ensure!(built.is_file(), "the module is not built: no {}", built.display());
    let folder = tempfile::Builder::new().prefix("evenkeel-module-").tempdir()?;
    std::os::unix::fs::symlink(built, folder.path().join("libevenkeel.so"))?;
    Ok(folder)
}

/// A running scene. Dropping it ends it, and checks that Envoy ended as it was asked to.
pub struct Scene {
    /// The endpoints.
    pub backends: Vec<Backend>,
    #[expect(dead_code, reason = "it scrapes until the scene is dropped")]
    prometheus: Option<Prometheus>,
    stage: Stage,
    envoy: Option<Envoy>,
    _folder: TempDir,
    _turn: SemaphorePermit<'static>,
}

/// What came of some requests.
pub struct Wave {
    /// As the clients saw it.
    pub summary: Summary,
    /// Requests that each backend received.
    pub received: Vec<u64>,
}

impl Wave {
    /// The share of the requests that the backend at `index` received.
    pub fn share(&self, index: usize) -> f64 {
        self.received[index] as f64 / self.received.iter().sum::<u64>().max(1) as f64
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

    /// The plugin's configuration with more members of its upstream.
    pub fn configuration(&self, upstream: &Value) -> Value {
        self.stage.configuration(&self.backends[..ENDPOINTS], upstream)
    }

    /// The counter of the module's choices of this kind, `engine` or `fallback_left`.
    pub async fn choices(&self, kind: &str) -> Result<u64> {
        let stats = self.envoy().stats().await?;
        let counter =
            stats.into_iter().find(|(name, _)| name.ends_with(&format!("evenkeel.lb_{kind}_total")));
        Ok(counter.with_context(|| format!("no counter of {kind}"))?.1)
    }

    /// Load on this scene.
    pub fn load(&self, seconds: f64) -> Load {
        Load {
            target: self.envoy().address(),
            rate: RATE,
            duration: Duration::from_secs_f64(seconds),
            connections: 16,
            ..Load::default()
        }
    }

    /// Requests for `seconds`, and what came of them.
    pub async fn wave(&self, seconds: f64) -> Result<Wave> {
        let before = received(&self.backends);
        let summary = self.load(seconds).run().await?.summary();
        let after = received(&self.backends);
        let received = after.iter().zip(before).map(|(after, before)| after - before).collect();
        Ok(Wave { summary, received })
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let Some(mut envoy) = self.envoy.take() else { return };
        if std::thread::panicking() {
            eprintln!("the end of Envoy's log:\n{}", envoy.log_tail(25));
            return;
        }
        let ended = envoy.process().ended();
        let stopped = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(envoy.process().stop(Duration::from_secs(10)));
            envoy.process().ended()
        });
        let log = envoy.log();
        assert!(ended.is_none(), "Envoy ended by itself: {ended:?}\n{log}");
        assert!(self.stage.may_panic || !log.contains("panicked"), "something panicked:\n{log}");
        assert!(!log.contains("Segmentation") && !log.contains("Abort"), "{stopped:?}\n{log}");
    }
}

/// Requests that each of them received so far.
pub fn received(backends: &[Backend]) -> Vec<u64> {
    backends.iter().map(|backend| backend.counts().received).collect()
}

/// Members of `more` are added or replace those of the same name.
fn extend(object: &mut Value, more: &Value) {
    if let (Some(object), Some(more)) = (object.as_object_mut(), more.as_object()) {
        object.extend(more.clone());
    }
}
