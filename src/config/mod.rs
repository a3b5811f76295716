//! What the operator asked for: plugin JSON in, a checked [`Config`] or every fault with its JSON path out.
//!
//! The types here are plain data that the rest of the crate reads; [`parse`] is the only way to make them from
//! JSON. Everything is strict: an unknown field, a wrong type, a number out of range and a contradiction are
//! faults, and all of them are reported, not only the first.

mod affinity;
mod asked;
mod autoscale;
mod cookie;
mod debug;
mod effective;
mod endpoints;
mod failover;
mod failures;
mod fault;
mod form;
mod health;
mod inert;
mod kinds;
mod log;
mod nearest;
mod node;
mod policy;
mod prometheus;
mod root;
mod rules;
mod signals;
mod split;
mod steering;
mod tree;
mod upstream;

#[cfg(test)]
mod tests;

use core::time::Duration;

pub use asked::Question;
#[cfg(not(target_family = "wasm"))]
pub use asked::questions;
pub use effective::{Effective, effective};
pub use endpoints::MOST_ENDPOINTS;
pub use failures::{Counted, Failures};
pub use fault::Fault;
pub use inert::without_effect;
pub use kinds::Bounds;
pub use prometheus::is_header_value;
pub use root::{Legible, legible, parse, parse_upstream, role};

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
    /// Who is told a request's decision in a response header, if anybody.
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

/// One balanced cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// The route's Envoy cluster, or `*` for every route that no other entry names.
    pub cluster: String,
    /// Where the endpoints come from; at least one source.
    pub endpoints: Endpoints,
    /// How an endpoint is chosen.
    pub policy: Policy,
    /// PromQL in, one number an endpoint out.
    pub signals: Vec<Signal>,
    /// Thresholds on what is measured and on signals.
    pub rules: Vec<Rule>,
    /// When an endpoint is taken out and how it returns.
    pub health: Health,
    /// How long a newcomer or a recovered endpoint takes to reach its full share.
    pub slow_start: Duration,
    /// What happens when nobody is eligible.
    pub failover: Failover,
    /// Zone awareness, if any.
    pub zone: Option<Zone>,
    /// Where the key for the hashing policies comes from.
    pub affinity: Option<Affinity>,
    /// Shares by endpoint version, each > 0; empty when unused. A version that is not named gets nothing.
    pub split: Vec<(String, f64)>,
    /// What pressure is made of; never empty.
    pub pressure: Vec<PressureTerm>,
    /// How pressure becomes a desired number of replicas.
    pub autoscale: Option<Autoscale>,
}

/// Where the endpoints come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Endpoints {
    /// Named in the configuration.
    pub fixed: Vec<StaticEndpoint>,
    /// Found in the labels of a query's answer.
    pub prometheus: Option<EndpointQuery>,
    /// Read from Envoy's admin interface.
    pub envoy_admin: Option<EnvoyAdmin>,
}

/// An endpoint named in the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct StaticEndpoint {
    /// `ip:port`, IPv6 in brackets; unique within the upstream.
    pub address: core::net::SocketAddr,
    /// Relative capacity, > 0, at most 1000; 1 by default.
    pub weight: f64,
    /// The zone, empty if not given.
    pub zone: String,
    /// 0 is used first; at most 128.
    pub priority: u32,
    /// The version, empty if not given.
    pub version: String,
}

/// Endpoints from the labels of a PromQL answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointQuery {
    /// PromQL.
    pub query: String,
    /// The label with the address; `instance` by default.
    pub address_label: String,
    /// The serving port, where it differs from the scraped one.
    pub port: Option<u16>,
    /// The label with the zone; `zone` by default.
    pub zone_label: String,
    /// The label with the version; `version` by default.
    pub version_label: String,
    /// The label with the weight; `weight` by default.
    pub weight_label: String,
}

/// Endpoints from Envoy's own admin interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvoyAdmin {
    /// The Envoy cluster that points at the admin listener.
    pub cluster: String,
    /// Time between polls.
    pub interval: Duration,
    /// Whether requests are divided by the weights of Envoy's localities.
    pub locality_weights: bool,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// The cheapest of a few by what is measured; the default.
    Adaptive,
    /// Linkerd's: latency (peak-sensitive EWMA) × in-flight.
    PeakEwma,
    /// Fewest in flight, over two random choices.
    LeastRequest,
    /// Normalised in-flight and latency, weighted.
    WeightedScore(WeightedScore),
    /// The lowest value of one signal.
    LeastSignal {
        /// The signal's name; the upstream's only one where not given.
        signal: String,
    },
    /// Smooth interleaving by weight.
    WeightedRoundRobin,
    /// Each in turn.
    RoundRobin,
    /// Weighted chance.
    Random,
    /// Hash of the client's address.
    IpHash,
    /// Hash of the affinity key, with bounded load.
    ConsistentHash(LoadBound),
}

/// From when on an endpoint is too busy for more of its own keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadBound {
    /// Whether it ever is; yes by default.
    pub bounded: bool,
    /// How much more than its part of all requests in flight it takes; 1.25 by default, at least 1.
    pub factor: f64,
    /// So many it takes in any case; 2 by default.
    pub floor: u32,
}

impl Default for LoadBound {
    fn default() -> LoadBound {
        LoadBound { bounded: true, factor: 1.25, floor: 2 }
    }
}

/// `in_flight_weight · in_flight / in_flight_max + latency_weight · latency_ms / latency_max_ms`.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedScore {
    /// Weight of in-flight; 0.6 by default.
    pub in_flight_weight: f64,
    /// In-flight that counts as 1; 1000 by default.
    pub in_flight_max: f64,
    /// Weight of latency; 0.4 by default.
    pub latency_weight: f64,
    /// Milliseconds that count as 1; 500 by default.
    pub latency_max_ms: f64,
}

/// A PromQL query that yields one number an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// Unique within the upstream; `[a-z_][a-z0-9_]*`, at most 64 bytes.
    pub name: String,
    /// PromQL.
    pub query: String,
    /// How much it counts; 0 shows it without using it. 0..=100, 1 by default.
    pub weight: f64,
    /// Whether the weight follows how completely and punctually the signal reports; no by default.
    pub learn: bool,
    /// The value that counts as full; where absent, the signal is judged against the fleet.
    pub max: Option<f64>,
    /// EWMA factor for a new sample, > 0, ≤ 1; 0.3 by default, 1 takes each sample as it is.
    pub smoothing: f64,
    /// The label that names the endpoint; `instance` by default.
    pub address_label: String,
    /// The serving port, where it differs from the scraped one.
    pub port: Option<u16>,
    /// PromQL for when each value was measured, seconds since 1970.
    pub timestamp_query: Option<String>,
}

/// A threshold, and what follows when an endpoint is above it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// What is compared.
    pub value: RuleValue,
    /// The threshold; at 90 % of it the rule lets go again.
    pub above: f64,
    /// For how long without a break, before something follows; zero by default.
    pub lasting: Duration,
    /// What follows.
    pub action: RuleAction,
}

/// What a [`Rule`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleValue {
    /// Failures among the endpoint's latest answers, percent.
    ErrorPercent,
    /// The endpoint's typical latency to response headers, milliseconds.
    LatencyMs,
    /// Requests in flight, all workers together.
    InFlight,
    /// The signal at this position.
    Signal(usize),
}

/// What follows from a [`Rule`], in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleAction {
    /// It is shown and logged.
    Flag,
    /// Its share falls to a quarter.
    DownWeight,
    /// It gets no traffic, within `max_ejected_percent`.
    Eject,
}

/// When an endpoint is taken out and how it returns.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// Failures in a row that make it suspect; 1 by default.
    pub suspect_after: u32,
    /// Failures in a row that eject it; 3 by default, never below `suspect_after`.
    pub fail_after: u32,
    /// Good answers in a row that bring it back; 3 by default.
    pub recover_after: u32,
    /// The longest wait between half-open probes of a failed endpoint; 30 s by default.
    pub ejection: Duration,
    /// At most this share of the fleet is out at a time; 50 by default.
    pub max_ejected_percent: f64,
    /// What counts as a failure; by default what blames the server.
    pub failures: Failures,
    /// Whether an endpoint is blamed for a request that Envoy tried again elsewhere for a reason that is not seen; yes by
    /// default.
    pub blame_retried: bool,
    /// Whether what an endpoint says of itself in its responses' headers is heeded; yes by default.
    pub heed_headers: bool,
}

/// What happens when nobody is eligible.
#[derive(Clone, Debug, PartialEq)]
pub struct Failover {
    /// The last resort.
    pub none_eligible: NoneEligible,
    /// Below this share of eligible endpoints health is ignored; 50 by default, 0 never.
    pub panic_percent: f64,
}

/// The last resort when nobody is eligible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoneEligible {
    /// The header stays unset: Envoy's fallback policy decides.
    Envoy,
    /// 503 with `x-evenkeel-reason` and `retry-after`.
    Reject,
    /// This endpoint.
    SafeEndpoint(core::net::SocketAddr),
}

/// Zone awareness.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    /// This proxy's zone.
    pub local: String,
    /// Pressure (percent of capacity) of the local zone beyond which traffic leaves it; 70 by default.
    pub spill_over_percent: f64,
}

/// Where the key for the hashing policies comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// A request header, in lower case.
    Header(String),
    /// A cookie.
    Cookie(Cookie),
    /// A query parameter.
    Query(String),
    /// The client's address.
    SourceIp,
}

/// A cookie to stick to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// Whether a client that has none is given one; yes by default.
    pub set: bool,
    /// How long a client keeps it; zero, the default, until it closes.
    pub ttl: Duration,
    /// For which paths the client sends it; `/` by default.
    pub path: String,
    /// Whether the client sends it over TLS only; no by default.
    pub secure: bool,
    /// Whether it is sent along from other sites; the client's default if none.
    pub same_site: Option<SameSite>,
}

impl Cookie {
    /// The cookie of this name, everything else by default.
    pub fn named(name: &str) -> Cookie {
        Cookie {
            name: name.into(),
            set: true,
            ttl: Duration::ZERO,
            path: "/".into(),
            secure: false,
            same_site: None,
        }
    }
}

/// Whether a cookie is sent along from other sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Never.
    Strict,
    /// When following a link.
    Lax,
    /// Always; only with `secure`.
    None,
}

/// How pressure becomes a desired number of replicas.
#[derive(Clone, Debug, PartialEq)]
pub struct Autoscale {
    /// Pressure to hold; 0.8 by default.
    pub target_pressure: f64,
    /// Fewest replicas; 2 by default.
    pub min: u32,
    /// Most replicas; not below `min`, 20 by default.
    pub max: u32,
    /// Periods in a row above the target before more are wanted; 2 by default.
    pub periods: u32,
    /// Over how long pressure is averaged before it is judged; 30 s by default.
    pub period: Duration,
    /// For how long fewer must have been enough before fewer are wanted; 5 min by default.
    pub cool_down: Duration,
    /// How far below the target the pressure of fewer replicas would have to stay, 0..=50; 10 by default.
    pub tolerance_percent: f64,
    /// How far a rise is thought on, so that replicas are there when it comes; one period by default.
    pub look_ahead: Duration,
}

/// One term of the pressure figure: weight · min(value / full, most).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PressureTerm {
    /// What is compared.
    pub value: PressureValue,
    /// Relative to the other terms, > 0.
    pub weight: f64,
    /// The value that counts as 1, > 0.
    pub full: f64,
    /// The most it counts, > 0; 2 by default.
    pub most: f64,
}

/// What a [`PressureTerm`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PressureValue {
    /// The signal at this position.
    Signal(usize),
    /// Requests in flight over as many as an endpoint works on at a time, which is learnt.
    Occupancy,
    /// Requests in flight over the endpoint's weight, all workers together.
    InFlight,
    /// The endpoint's typical latency to response headers, milliseconds.
    LatencyMs,
    /// Failures among the endpoint's latest answers, percent.
    ErrorPercent,
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
    /// How a client asks for it; with none everybody is told.
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
    /// Who decided.
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
