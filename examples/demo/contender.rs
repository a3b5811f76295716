//! The contenders: two of Envoy's own policies, and evenkeel.

use std::net::SocketAddr;

use testbed::anyhow::Result;
use testbed::envoy::{Config, Filter, Policy};
use testbed::serde_json::{Value, json};
use testbed::tools;

/// The path under which evenkeel shows its status.
pub const STATUS: &str = "/_evenkeel";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    RoundRobin,
    LeastRequest,
    Evenkeel,
}

impl Contender {
    pub const ALL: [Self; 3] = [Self::RoundRobin, Self::LeastRequest, Self::Evenkeel];

    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastRequest => "least_request",
            Self::Evenkeel => "evenkeel",
        }
    }

    /// The heading of its column.
    pub fn heading(self) -> &'static str {
        match self {
            Self::LeastRequest => "least_request + outlier detection",
            other => other.name(),
        }
    }

    /// Envoy's configuration, the same for all but the balancing.
    pub fn envoy(self, endpoints: Vec<SocketAddr>, prometheus: SocketAddr) -> Result<Config> {
        let policy = match self {
            Self::RoundRobin => Policy::RoundRobin,
            Self::LeastRequest => Policy::LeastRequestWithOutlierDetection,
            Self::Evenkeel => Policy::evenkeel(),
        };
        let filters = match self {
            Self::Evenkeel => vec![Filter::evenkeel(&plugin(&endpoints, prometheus))?],
            _ => Vec::new(),
        };
        let services = vec![("prometheus".to_owned(), prometheus)];
        Ok(Config { filters, services, ..Config::single(endpoints, policy) })
    }
}

/// evenkeel's configuration in both acts: the endpoints, and one PromQL query.
fn plugin(endpoints: &[SocketAddr], prometheus: SocketAddr) -> Value {
    let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
    json!({
        "prometheus": {
            "cluster": "prometheus",
            "authority": prometheus.to_string(),
            "interval": "1s",
            "timeout": "500ms",
        },
        "upstreams": [{
            "cluster": "web",
            "endpoints": { "static": endpoints },
            "signals": [{ "name": "queue_depth", "query": "task_queue_depth", "max": 100 }],
        }],
        "status": { "path": STATUS },
    })
}

/// Fails early if a tool is missing.
pub fn check_tools(contenders: &[Contender]) -> Result<()> {
    tools::envoy()?;
    tools::prometheus()?;
    if contenders.contains(&Contender::Evenkeel) {
        tools::wasm()?;
    }
    Ok(())
}
