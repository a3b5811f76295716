//! The parts of one run: backends and Envoy. Dropping it ends them. One Prometheus serves all runs.

use std::net::SocketAddr;
use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::Backend;
use testbed::envoy::Envoy;
use testbed::load::{self, Load};
use testbed::prometheus::{Config, Prometheus};
use testbed::{clock, wait};

use crate::act::Act;
use crate::contender::{Contender, STATUS};

const SCRAPED: Duration = Duration::from_secs(15);

pub struct Stage {
    pub backends: Vec<Backend>,
    pub envoy: Envoy,
}

impl Stage {
    /// Starts everything and waits until Prometheus has scraped every backend.
    pub async fn set(act: &Act, contender: Contender, prometheus: &Prometheus) -> Result<Self> {
        let mut backends = Vec::new();
        for index in 0..act.roles.len() {
            backends.push(Backend::start(act.backend(index)).await?);
        }
        let instances: Vec<String> = act.addresses.iter().map(SocketAddr::to_string).collect();
        let up = format!("sum(up{{instance=~\"{}\"}})", instances.join("|"));
        wait::until("Prometheus to scrape every backend", SCRAPED, || async {
            let up = prometheus.query(&up).await.ok()?;
            (up.first()?.value as usize == backends.len()).then_some(())
        })
        .await?;
        let config = contender.envoy(act.addresses.clone(), prometheus.address())?;
        Ok(Self { backends, envoy: Envoy::start(config).await? })
    }

    /// Starts the load and, with it, the backends' schedules.
    pub async fn begin(&self, act: &Act) -> Result<load::Running> {
        let running = Load { target: self.envoy.address(), ..act.load() }.start().await?;
        for (backend, role) in self.backends.iter().zip(&act.roles) {
            backend.follow(role.schedule());
        }
        Ok(running)
    }
}

/// A Prometheus that scrapes the backends of all acts: it needs a few seconds to notice its targets.
pub async fn prometheus(acts: &[Act]) -> Result<Prometheus> {
    let addresses = acts.iter().flat_map(|act| act.addresses.clone()).collect();
    Prometheus::start(&Config::job("web", addresses)).await
}

/// Leaves evenkeel's stages up under load, faults included, until Ctrl-C.
pub async fn keep(acts: &[Act], stages: Vec<Stage>, prometheus: &Prometheus) -> Result<()> {
    println!("\nPrometheus    http://{}/", prometheus.address());
    for (act, stage) in acts.iter().zip(&stages) {
        println!("\n{}:", act.title);
        println!("  Envoy       http://{}/", stage.envoy.address());
        println!("  status      http://{}{STATUS}", stage.envoy.address());
        println!("  admin       http://{}/", stage.envoy.admin());
        println!("  log         {}", stage.envoy.log_path().display());
        for (index, (backend, role)) in stage.backends.iter().zip(&act.roles).enumerate() {
            println!("  backend {}   http://{}/metrics   {}", index + 1, backend.address(), role.name);
        }
    }
    println!("\nStill up, under a tenth of the load. Ctrl-C ends everything.");
    loop {
        let mut loads = Vec::new();
        for (act, stage) in acts.iter().zip(&stages) {
            let gentle = Load { target: stage.envoy.address(), rate: act.rate / 10.0, ..act.load() };
            loads.push(gentle.start().await?);
        }
        for load in loads {
            load.finish().await;
        }
        clock::sleep(Duration::from_millis(100)).await;
    }
}
