//! The settings of a world: its load, its endpoints' form, where evenkeel gets signals and endpoints from.

use std::path::PathBuf;
use std::time::Duration;

use testbed::envoy;
use testbed::serde_json::{Value, json};

/// The source of evenkeel's signals or endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A real Prometheus, which scrapes the backends.
    Prometheus,
    /// A fake Prometheus that gives prescribed answers.
    FalsePrometheus,
    /// A fake admin interface that gives prescribed answers.
    FalseAdmin,
    /// Envoy's admin interface.
    Admin,
}

/// The settings of a world.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Requests per second at each listener.
    pub rate: f64,
    /// The path of requests.
    pub path: String,
    /// The program to run as the first endpoint, in a process of its own; `None` puts that endpoint behind a relay.
    pub process: Option<PathBuf>,
    /// Whether Envoy speaks HTTP/2 to the backends.
    pub http2: bool,
    /// The source of evenkeel's signals or endpoints, if any.
    pub source: Option<Source>,
    /// Members of evenkeel's configuration beside `upstreams` and `status`.
    pub plugin: Value,
    /// Members of its upstream beside `cluster` and `endpoints`.
    pub upstream: Value,
    /// Whether evenkeel runs as a native module instead of the filter.
    pub module: bool,
    /// Members of both clusters.
    pub cluster: Value,
    /// The rest of Envoy's configuration.
    pub proxy: envoy::Config,
    /// Whether a request with many headers traps the filter's VM.
    pub fuse: bool,
    /// Whether Envoy's wall clock can be set.
    pub clock: bool,
    /// The overload action that is triggered from a pressure of 0.9 on; the pressure is set through a file.
    pub overload: Option<&'static str>,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            rate: 100.0,
            path: "/".to_owned(),
            process: None,
            http2: false,
            source: None,
            plugin: json!({}),
            upstream: json!({}),
            module: false,
            cluster: Value::Null,
            proxy: envoy::Config { route_timeout: Duration::from_secs(1), ..envoy::Config::default() },
            fuse: false,
            clock: false,
            overload: None,
        }
    }
}
