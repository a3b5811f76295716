//! A real Prometheus: configured, started, queried, stopped and started again.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Running, Signal, ready};
use crate::{http, ports, tools, wait};

const READY: Duration = Duration::from_secs(30);
const SCRAPED: Duration = Duration::from_secs(60);

/// The settings of a Prometheus.
#[derive(Clone, Debug)]
pub struct Config {
    /// Jobs and their targets.
    pub jobs: Vec<(String, Vec<SocketAddr>)>,
    /// The interval between scrapes.
    pub scrape_interval: Duration,
    /// The path of the metrics.
    pub metrics_path: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            jobs: Vec::new(),
            scrape_interval: Duration::from_secs(1),
            metrics_path: "/metrics".to_owned(),
        }
    }
}

impl Config {
    /// One job, scraped every second.
    pub fn job(name: &str, targets: Vec<SocketAddr>) -> Self {
        Self { jobs: vec![(name.to_owned(), targets)], ..Self::default() }
    }

    /// The configuration file: JSON, which is also YAML.
    fn text(&self) -> String {
        let interval = format!("{}ms", self.scrape_interval.as_millis());
        let job = |(name, targets): &(String, Vec<SocketAddr>)| {
            let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
            let targets = json!([{ "targets": targets }]);
            json!({ "job_name": name, "metrics_path": self.metrics_path, "static_configs": targets })
        };
        json!({
            "global": { "scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval },
            "scrape_configs": self.jobs.iter().map(job).collect::<Vec<_>>(),
        })
        .to_string()
    }
}

/// A sample of an instant query.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value, possibly NaN or infinite.
    pub value: f64,
}

/// A running Prometheus with its own address and data. Dropping it kills it.
#[derive(Debug)]
pub struct Prometheus {
    address: SocketAddr,
    process: Option<Running>,
    directory: TempDir,
}

impl Prometheus {
    /// Starts Prometheus and waits until it answers queries.
    pub async fn start(config: &Config) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("testbed-prometheus-").tempdir()?;
        fs::write(directory.path().join("prometheus.yaml"), config.text())?;
        let mut prometheus = Self { address: ports::free()?, process: None, directory };
        prometheus.resume().await?;
        Ok(prometheus)
    }

    /// The address of its API.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it has scraped all of its targets, which begins some seconds after it answers queries.
    pub async fn scrapes(&self, config: &Config) -> Result<()> {
        let targets = config.jobs.iter().map(|(_, targets)| targets.len()).sum::<usize>();
        let up = || async { self.query("up == 1").await.ok().filter(|up| up.len() == targets) };
        wait::until("every target to be scraped", SCRAPED, up).await.map(|_| ())
    }

    /// Kills it at once. Its data and address stay for [`Prometheus::resume`].
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Stops it and waits for its end.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(Duration::from_secs(10)).await;
        }
    }

    /// Its process while it runs, for example to stop and continue it.
    pub fn process(&mut self) -> Option<&mut Running> {
        self.process.as_mut()
    }

    /// Starts it again with the same data, and waits until it answers queries.
    pub async fn resume(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "Prometheus already runs");
        let directory = self.directory.path();
        let mut command = Command::new(tools::prometheus()?);
        command
            .arg(format!("--config.file={}", directory.join("prometheus.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={}", self.address))
            .arg("--log.level=warn");
        let mut process = Running::spawn("prometheus", command, &directory.join("output.log"))?;
        let address = self.address;
        ready(&mut process, READY, || async move {
            http::get(address, "/-/ready").await.is_ok_and(|answer| answer.status == 200)
        })
        .await?;
        self.process = Some(process);
        Ok(())
    }

    /// Changes what it scrapes; its data stays. Prometheus applies that within five seconds.
    pub fn reconfigure(&self, config: &Config) -> Result<()> {
        fs::write(self.directory.path().join("prometheus.yaml"), config.text())?;
        self.process.as_ref().context("Prometheus does not run")?.signal(Signal::HUP)
    }

    /// Its log since the last start.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("output.log")).unwrap_or_default()
    }

    /// Runs an instant query that yields a vector.
    pub async fn query(&self, promql: &str) -> Result<Vec<Sample>> {
        let path = format!("/api/v1/query?query={}", http::encode(promql));
        let answer = http::get(self.address, &path).await?.json()?;
        ensure!(answer["status"] == "success", "{promql}: {answer}");
        let samples = answer["data"]["result"].as_array().with_context(|| format!("{promql}: {answer}"))?;
        samples.iter().map(|sample| read(sample).with_context(|| format!("{promql}: {sample}"))).collect()
    }
}

fn read(sample: &Value) -> Option<Sample> {
    let labels = sample["metric"].as_object()?.iter();
    let labels = labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    Some(Sample { labels: labels.collect(), value: sample["value"][1].as_str()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{self, Backend};

    #[tokio::test]
    async fn it_scrapes_answers_dies_and_returns_with_its_data() -> Result<()> {
        let backend = Backend::start(backend::Config::default()).await?;
        let mut prometheus = Prometheus::start(&Config::job("web", vec![backend.address()])).await?;
        let scraped = |prometheus: &Prometheus| {
            let path = format!(
                "/api/v1/query?query={}",
                http::encode("max_over_time(http_requests_total{status=\"200\"}[1m])")
            );
            let address = prometheus.address();
            async move {
                let answer = http::get(address, &path).await.ok()?.json().ok()?;
                read(&answer["data"]["result"][0]).filter(|sample| sample.value == 1.0)
            }
        };
        http::get(backend.address(), "/").await?;
        let sample = wait::until("a scrape", Duration::from_secs(20), || scraped(&prometheus)).await?;
        assert_eq!(sample.labels["instance"], backend.address().to_string());
        assert_eq!(prometheus.query("up{job=\"web\"}").await?[0].value, 1.0);
        assert!(prometheus.query("no closing brace {").await.is_err());

        prometheus.stop().await;
        assert!(prometheus.query("up").await.is_err());
        backend.set(backend::Behaviour::Refuse);
        prometheus.resume().await?;
        wait::until("its old data", Duration::from_secs(20), || scraped(&prometheus)).await?;
        Ok(())
    }
}
