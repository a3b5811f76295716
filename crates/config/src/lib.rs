//! evenkeel's configuration: the plugin's JSON in, a checked [`Config`] or every fault with its JSON path out.
//!
//! Everything is strict: an unknown field, a wrong type, a number out of range and a contradiction are faults, and all
//! of them are reported, not only the first.
//!
//! A configuration passes through here in four steps. [`parse`] turns bytes into a tree that keeps duplicate keys; a
//! node knows its path and reports what is wrong with it; one file for each object of the configuration reads its
//! fields into plain data (what concerns one cluster are the engine's [settings](engine::settings), the rest is defined
//! here); [`effective`] writes the whole back with every default filled in. `constraints` records what is
//! asked of each value, from which the JSON Schema is made.

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
pub use engine::settings::{Counted, Failures};
pub use fault::Fault;
pub use kinds::Bounds;
pub use prometheus::is_header_value;
pub use root::{Legible, legible, parse, parse_upstream, role};
pub use unused::without_effect;

/// The whole plugin configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Whether decisions reach the request.
    pub mode: Mode,
    /// How a decision is told to Envoy.
    pub steering: Steering,
    /// Where signals are read from, if anywhere.
    pub prometheus: Option<Prometheus>,
    /// One entry for each cluster that is balanced; never empty.
    pub upstreams: Vec<Upstream>,
    /// Where the status page is served, if anywhere.
    pub status: Option<Status>,
    /// Whether the fleet's figures are among Envoy's own stats, too; yes by default.
    pub envoy_stats: bool,
    /// Whether a request's decision is told in a response header, and to which clients.
    pub debug: Option<DebugHeader>,
    /// What of a request's decision other parts of Envoy can read; each once.
    pub attributes: Vec<Attribute>,
    /// What is logged, and how.
    pub log: Log,
}

/// Which part the filter plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Among the listener's filters: it steers, and measures what it sees.
    Downstream,
    /// Among a cluster's upstream filters: it sees each attempt, and reports to the filter that steers.
    Upstream,
}

/// Whether decisions reach the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Decide and set the steering header.
    Enforce,
    /// Decide, count and show, but set no header.
    Observe,
}

/// How a decision is told to Envoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steering {
    /// The Envoy mechanism that follows the header.
    pub via: Via,
    /// The request header that names the endpoint, in lower case.
    pub header: String,
    /// How many endpoints are named, best first: 1..=8. Always 1 unless `via` is [`Via::OverrideHost`].
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
    /// A route with `cluster_header`, one cluster an endpoint.
    ClusterHeader,
}

/// How Prometheus is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct Prometheus {
    /// The Envoy cluster that reaches it.
    pub cluster: String,
    /// The `:authority` of its requests.
    pub authority: String,
    /// What stands before `/api/v1/query`; empty or starting with `/`, not ending with one.
    pub path_prefix: String,
    /// Time between polls.
    pub interval: Duration,
    /// How long an answer is waited for; never longer than `interval`.
    pub timeout: Duration,
    /// Whether the query goes into the address or into the body.
    pub method: QueryMethod,
    /// Further request headers. Their values are secrets.
    pub headers: Vec<(String, HeaderValue)>,
    /// Further query parameters. Their values may be secrets.
    pub parameters: Vec<(String, String)>,
}

/// How a query is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueryMethod {
    /// GET, and POST where the address would get long; the default.
    #[default]
    Auto,
    /// Always GET.
    Get,
    /// Always POST.
    Post,
}

/// Where the value of a header comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum HeaderValue {
    /// The configuration.
    Given(String),
    /// Envoy's environment, as far as it is shown to the plugin.
    Environment {
        /// The variable.
        variable: String,
        /// What stands before its value, such as `Bearer `.
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

/// Where the status page is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Path prefix, starting with `/`, not ending with one.
    pub path: String,
}

/// A response header that tells a request's decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugHeader {
    /// The response header, in lower case; `x-evenkeel-decision` by default.
    pub header: String,
    /// How a client asks for it; with none every client is told.
    pub asking: Option<Asking>,
}

/// What a request has to carry to be told its decision.
#[derive(Clone, PartialEq, Eq)]
pub struct Asking {
    /// The request header, in lower case; `x-evenkeel-debug` by default. It is taken off every request.
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

/// What of a request's decision other parts of Envoy can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// The endpoint that was named.
    Endpoint,
    /// What decided.
    Reason,
    /// What the endpoint was expected to cost.
    Cost,
    /// All of it, as in the debug header.
    Decision,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Log {
    /// Sentences or JSON objects.
    pub format: LogFormat,
    /// Whether requests that an endpoint fails are logged; no by default.
    pub failures: bool,
    /// How many of the others are, percent; 0 by default.
    pub sample_percent: f64,
}

/// The form of a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A sentence.
    Text,
    /// A JSON object.
    Json,
}

/// What the engine needs of the whole.
impl<'a> From<&'a Config> for engine::settings::Settings<'a> {
    fn from(config: &'a Config) -> Self {
        engine::settings::Settings {
            upstreams: &config.upstreams,
            poll_interval: config.prometheus.as_ref().map(|prometheus| prometheus.interval),
        }
    }
}
