//! evenkeel's configuration: reads the plugin's JSON into a checked [`Config`], or returns every fault with its JSON
//! path.
//!
//! Reading is strict: an unknown field, a wrong type, a number out of range and a contradiction are faults, and all of
//! them are reported, not only the first.
//!
//! It takes four steps. [`parse`] turns bytes into a tree that keeps duplicate keys; a node knows its path and reports
//! its faults; one file for each object of the configuration reads the fields into plain data (for a cluster the
//! engine's [settings](engine::settings), for the rest the types below); [`effective()`] writes it back with all
//! defaults. `constraints` records what the reader demands of each value, from which the JSON Schema is made. Start
//! with `root`.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::unreachable
    )
)]

mod affinity;
mod autoscale;
mod constraints;
mod cookie;
mod debug;
mod effective;
mod endpoints;
mod failover;
mod failures;
mod fault;
mod form;
mod guard;
mod health;
mod kinds;
mod load_reports;
mod log;
mod node;
mod policy;
pub mod printable;
mod probe;
mod prometheus;
mod root;
mod rules;
pub mod search;
mod signals;
mod split;
mod steering;
mod suggest;
mod tree;
mod unused;
mod upstream;

#[cfg(test)]
mod tests;

use core::time::Duration;

use engine::settings::Upstream;

pub use constraints::Constraint;
#[cfg(not(target_family = "wasm"))]
pub use constraints::questions;
pub use effective::{Effective, effective};
pub use endpoints::MAX_ENDPOINTS;
pub use engine::settings::{Counted, Failures, NoneEligible};
pub use fault::Fault;
pub use kinds::Bounds;
pub use prometheus::is_header_value;
pub use root::{Legible, legible, parse, parse_upstream, role};
pub use unused::without_effect;

/// The whole plugin configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Whether decisions are applied.
    pub mode: Mode,
    /// How decisions are passed to Envoy.
    pub steering: Steering,
    /// How Prometheus is queried; `None` without it.
    pub prometheus: Option<Prometheus>,
    /// One entry per balanced cluster or pattern; never empty.
    pub upstreams: Vec<Upstream>,
    /// The status page; `None` without one.
    pub status: Option<Status>,
    /// Whether evenkeel's metrics are also among Envoy's own stats; true by default.
    pub envoy_stats: bool,
    /// The response header with a request's decision, and which clients get it; `None` without one.
    pub debug: Option<DebugHeader>,
    /// The attributes set on each request for other parts of Envoy; each once.
    pub attributes: Vec<Attribute>,
    /// Format and content of the log.
    pub log: Log,
}

/// The role of the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Among the listener's filters: it steers, and measures what it sees.
    Downstream,
    /// Among a cluster's upstream filters: it sees each attempt, and reports to the filter that steers.
    Upstream,
}

/// Whether decisions are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Decide and set the steering header.
    Enforce,
    /// Decide, count and show, but set no header.
    Observe,
}

/// How decisions are passed to Envoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steering {
    /// The Envoy mechanism that follows the header.
    pub via: Via,
    /// The request header that names the endpoint, in lower case.
    pub header: String,
    /// The number of endpoints named, best first: 1..=8, and always 1 unless `via` is [`Via::OverrideHost`].
    pub candidates: usize,
}

/// The Envoy mechanism that follows the steering header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The load-balancing policy `envoy.load_balancing_policies.override_host`.
    OverrideHost,
    /// The HTTP filter `envoy.filters.http.stateful_session` with its header extension.
    StatefulSession,
    /// An `ORIGINAL_DST` cluster with `use_http_header`.
    OriginalDst,
    /// A route with `cluster_header`, and one cluster per endpoint.
    ClusterHeader,
}

/// How Prometheus is queried.
#[derive(Clone, PartialEq, Eq)]
pub struct Prometheus {
    /// The Envoy cluster that reaches it.
    pub cluster: String,
    /// The `:authority` of its requests.
    pub authority: String,
    /// The path before `/api/v1/query`: empty, or beginning with `/` and not ending with it.
    pub path_prefix: String,
    /// The interval between polls.
    pub interval: Duration,
    /// The timeout of a poll; at most `interval`.
    pub timeout: Duration,
    /// Whether queries are sent in the URL or in the body.
    pub method: QueryMethod,
    /// Further request headers. Their values are secrets.
    pub headers: Vec<(String, HeaderValue)>,
    /// Further query parameters. Their values may be secrets.
    pub parameters: Vec<(String, String)>,
}

/// How a query is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueryMethod {
    /// GET, or POST if the URL would be too long; the default.
    #[default]
    Auto,
    /// Always GET.
    Get,
    /// Always POST.
    Post,
}

/// The source of a header's value.
#[derive(Clone, PartialEq, Eq)]
pub enum HeaderValue {
    /// The configuration.
    Given(String),
    /// An environment variable of Envoy that is passed to the plugin.
    Environment {
        /// The variable's name.
        variable: String,
        /// Text before its value, such as `Bearer `.
        prefix: String,
    },
}

impl core::fmt::Debug for HeaderValue {
    /// Leaves the value out: it is a secret.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            HeaderValue::Given(_) => f.write_str("Given"),
            HeaderValue::Environment { variable, .. } => {
                f.debug_tuple("Environment").field(variable).finish()
            }
        }
    }
}

impl core::fmt::Debug for Prometheus {
    /// Leaves the header values out: they are secrets.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Prometheus")
            .field("cluster", &self.cluster)
            .field("authority", &self.authority)
            .field("path_prefix", &self.path_prefix)
            .field("interval", &self.interval)
            .field("timeout", &self.timeout)
            .field("method", &self.method)
            .field("headers", &self.headers)
            .field("parameters", &self.parameters.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .finish()
    }
}

/// The status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Path prefix, beginning with `/` and not ending with it.
    pub path: String,
}

/// A response header with the request's decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugHeader {
    /// The response header, in lower case; `x-evenkeel-decision` by default.
    pub header: String,
    /// The header that a client must send to get it; `None` sends it to every client.
    pub asking: Option<Asking>,
}

/// The request header and secret with which a client asks for its decision.
#[derive(Clone, PartialEq, Eq)]
pub struct Asking {
    /// The request header, in lower case; `x-evenkeel-debug` by default. It is removed from every request.
    pub header: String,
    /// Its value, which is a secret.
    pub secret: String,
}

impl core::fmt::Debug for Asking {
    /// Leaves the secret out.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Asking").field("header", &self.header).finish_non_exhaustive()
    }
}

/// An attribute of a request's decision that other parts of Envoy can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// The named endpoint.
    Endpoint,
    /// The reason of the decision.
    Reason,
    /// The expected cost of the named endpoint.
    Cost,
    /// All of it, as in the debug header.
    Decision,
}

/// Format and content of the log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Log {
    /// The format of a line.
    pub format: LogFormat,
    /// Whether requests that an endpoint failed are logged; false by default.
    pub failures: bool,
    /// The percentage of other requests that are logged, 0..=100; 0 by default.
    pub sample_percent: f64,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A sentence.
    Text,
    /// A JSON object.
    Json,
}

/// The parts of the configuration that the engine needs.
impl<'a> From<&'a Config> for engine::settings::Settings<'a> {
    fn from(config: &'a Config) -> Self {
        engine::settings::Settings {
            upstreams: &config.upstreams,
            poll_interval: config.prometheus.as_ref().map(|prometheus| prometheus.interval),
        }
    }
}
