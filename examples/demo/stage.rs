//! The parts of one run: backends, Prometheus, Envoy. Dropping it ends them all.

use std::net::SocketAddr;
use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::Backend;
use testbed::envoy::Envoy;
use testbed::load::{self, Load};
use testbed::prometheus::{self, Prometheus};
use testbed::{clock, wait};

use crate::act::Act;
use crate::contender::{Contender, STATUS};

const SCRAPED: Duration = Duration::from_secs(15);

pub struct Stage {
    pub backends: Vec<Backend>,
    pub prometheus: Prometheus,
    pub envoy: Envoy,
}

impl Stage {
    /// Starts everything and waits until Prometheus has scraped every backend.
    pub async fn set(act: &Act, contender: Contender) -> Result<Self> {
        let mut backends = Vec::new();
        for index in 0..act.roles.len() {
            backends.push(Backend::start(act.backend(index)).await?);
        }
        let addresses: Vec<SocketAddr> = backends.iter().map(Backend::address).collect();
        let prometheus = Prometheus::start(&prometheus::Config::job("web", addresses.clone())).await?;
        wait::until("Prometheus to scrape every backend", SCRAPED, || async {
            let up = prometheus.query("sum(up{job=\"web\"})").await.ok()?;
            (up.first()?.value as usize == addresses.len()).then_some(())
        })
        .await?;
        let envoy = Envoy::start(contender.envoy(addresses, prometheus.address())?).await?;
        Ok(Self { backends, prometheus, envoy })
    }

    /// Starts the load and, with it, the backends' schedules.
    pub async fn begin(&self, act: &Act) -> Result<load::Running> {
        let running = Load { target: self.envoy.address(), ..act.load() }.start().await?;
        for (backend, role) in self.backends.iter().zip(&act.roles) {
            backend.follow(role.schedule.clone());
        }
        Ok(running)
    }
}

/// Leaves evenkeel's stages up under load, faults included, until Ctrl-C.
pub async fn keep(acts: &[Act], stages: Vec<Stage>) -> Result<()> {
    for (act, stage) in acts.iter().zip(&stages) {
        println!("\n{}:", act.title);
        println!("  Envoy       http://{}/", stage.envoy.address());
        println!("  status      http://{}{STATUS}", stage.envoy.address());
        println!("  admin       http://{}/", stage.envoy.admin());
        println!("  Prometheus  http://{}/", stage.prometheus.address());
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
