//! Envoy with evenkeel, and Prometheus; both are told of replicas that come and go. Dropping it ends them.

use std::net::SocketAddr;
use std::time::Duration;

use testbed::anyhow::Result;
use testbed::envoy::{self, Envoy, Filter, Policy};
use testbed::prometheus::{self, Prometheus};
use testbed::{http, wait};

use crate::story::Story;

const STATUS: &str = "/_evenkeel";

pub struct Stage {
    envoy: Envoy,
    prometheus: Prometheus,
}

/// The figures that evenkeel publishes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Number {
    pub pressure: Option<f64>,
    pub desired: Option<u32>,
}

impl Stage {
    pub async fn set(story: &Story, replicas: &[SocketAddr]) -> Result<Stage> {
        let prometheus = Prometheus::start(&scraping(replicas)).await?;
        let filter = Filter::evenkeel(&story.plugin(prometheus.address(), STATUS))?;
        let config = envoy::Config {
            filters: vec![filter],
            services: vec![("prometheus".to_owned(), prometheus.address())],
            admin_cluster: true,
            // Endpoints over EDS, from a file that is replaced.
            dynamic: true,
            // A request sent to a replica just before it left is retried.
            retries: Some((1, "connect-failure,refused-stream".to_owned())),
            ..envoy::Config::single(replicas.to_vec(), Policy::evenkeel())
        };
        Ok(Stage { envoy: Envoy::start(config).await?, prometheus })
    }

    /// Waits until Prometheus has scraped the replicas and evenkeel has found them.
    pub async fn ready(&self, deadline: Duration) -> Result<()> {
        wait::until("evenkeel to see its endpoints' signal", deadline, || async {
            let text = self.metrics().await?;
            text.lines().any(|line| line.starts_with("evenkeel_endpoint_signal{")).then_some(())
        })
        .await
    }

    pub fn address(&self) -> SocketAddr {
        self.envoy.address()
    }

    /// Replaces the members of the cluster.
    pub async fn members(&mut self, replicas: Vec<SocketAddr>) -> Result<()> {
        self.prometheus.reconfigure(&scraping(&replicas))?;
        self.envoy.set_endpoints("web", replicas).await
    }

    /// The current figures; empty while evenkeel does not answer.
    pub async fn number(&self) -> Number {
        let text = self.metrics().await.unwrap_or_default();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.strip_prefix("{upstream=\"web\"} ")?.trim().parse::<f64>().ok()
        };
        Number {
            pressure: value("evenkeel_upstream_pressure"),
            desired: value("evenkeel_upstream_desired_replicas").map(|number| number as u32),
        }
    }

    async fn metrics(&self) -> Option<String> {
        let answer = http::get(self.address(), &format!("{STATUS}/metrics")).await.ok()?;
        (answer.status == 200).then(|| answer.text())
    }
}

fn scraping(replicas: &[SocketAddr]) -> prometheus::Config {
    prometheus::Config::job("web", replicas.to_vec())
}
