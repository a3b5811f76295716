//! Clusters and endpoints.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::{Filter, Policy};

/// An upstream cluster. The first one gets `/`, each other one the requests under its `prefix`.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// The path prefix that is routed to it.
    pub prefix: String,
    /// Its endpoints.
    pub endpoints: Vec<SocketAddr>,
    /// Envoy's load-balancing policy.
    pub policy: Policy,
    /// The connect timeout.
    pub connect_timeout: Duration,
    /// Whether it speaks HTTP/2.
    pub http2: bool,
    /// The path of active health checks, if any: every second, unhealthy after three failures, healthy after one
    /// success.
    pub health_check: Option<String>,
    /// HTTP filters that see each attempt, before the one that removes the steering header.
    pub upstream_filters: Vec<Filter>,
    /// Members that are added to the cluster or replace its own.
    pub extra: Value,
}

impl Cluster {
    /// A cluster for all paths.
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
pub struct EndpointState {
    /// The address that it listens on.
    pub address: SocketAddr,
    /// `HEALTHY`, `UNHEALTHY`, `DRAINING`, `TIMEOUT` or `DEGRADED`.
    pub health: &'static str,
    /// Its load-balancing weight, 1 or more.
    pub weight: u32,
    /// The zone of its locality.
    pub zone: String,
    /// Priority; 0 is used first.
    pub priority: u32,
}

impl EndpointState {
    /// A healthy endpoint without a zone.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, health: "HEALTHY", weight: 1, zone: String::new(), priority: 0 }
    }
}
