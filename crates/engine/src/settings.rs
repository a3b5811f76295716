//! Settings of the balancer, with units and ranges. Plain data: the crate `config` reads it from JSON, tests and the
//! simulator build it.

mod failures;

use core::time::Duration;

pub use failures::{CODES, Counted, Failures};

/// Settings of a balancer.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// One entry per balanced cluster.
    pub upstreams: &'a [Upstream],
    /// Interval between polls of the signals, if they are polled.
    pub poll_interval: Option<Duration>,
}

/// Settings of one cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// The name of the Envoy cluster, or `*` for all that no other entry names.
    pub cluster: String,
    /// Sources of endpoints, at least one.
    pub endpoints: Endpoints,
    /// How an endpoint is chosen.
    pub policy: Policy,
    /// Signals: one value per endpoint.
    pub signals: Vec<Signal>,
    /// Threshold rules on measurements and signals.
    pub rules: Vec<Rule>,
    /// Ejection and recovery of endpoints.
    pub health: Health,
    /// Time that a new endpoint takes to reach its full share; a recovered one takes a tenth of it.
    pub slow_start: Duration,
    /// What happens when too few endpoints are eligible, or none.
    pub failover: Failover,
    /// Zone awareness, if any.
    pub zone: Option<Zone>,
    /// Source of the key for hashing policies.
    pub affinity: Option<Affinity>,
    /// Shares by version, each > 0; empty if unused. A version that is not named gets nothing.
    pub split: Vec<(String, f64)>,
    /// Terms of the pressure; never empty.
    pub pressure: Vec<PressureTerm>,
    /// Scaling by pressure, if any.
    pub autoscale: Option<Autoscale>,
    /// Comparison with Envoy's own policy, if any.
    pub guard: Option<Guard>,
}

/// Comparison with Envoy's own policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guard {
    /// Percentage of the requests that is left to Envoy's own policy, 0.1..=50; 1 by default.
    pub holdout_percent: f64,
    /// Whether requests with a key are drawn as well, for policies of Envoy that keep a key on its endpoint; false by
    /// default.
    pub include_keyed: bool,
    /// Length of the first pause after harm was found, 1 s to 6 h; 10 min by default.
    pub pause: Duration,
}

/// Sources of endpoints.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Endpoints {
    /// Endpoints named in the configuration.
    pub fixed: Vec<StaticEndpoint>,
    /// Endpoints from the labels of a query's answer.
    pub prometheus: Option<EndpointQuery>,
    /// Endpoints from Envoy's admin interface.
    pub envoy_admin: Option<EnvoyAdmin>,
}

/// An endpoint named in the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct StaticEndpoint {
    /// `ip:port`, IPv6 in brackets; unique within the cluster.
    pub address: core::net::SocketAddr,
    /// Relative capacity, > 0, at most 1000; 1 by default.
    pub weight: f64,
    /// Zone, empty if not given.
    pub zone: String,
    /// Priority, at most 128; 0 is used first.
    pub priority: u32,
    /// Version, empty if not given.
    pub version: String,
}

/// Endpoints from the labels of a PromQL answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointQuery {
    /// The query in PromQL.
    pub query: String,
    /// Label with the address; `instance` by default.
    pub address_label: String,
    /// Serving port, if it differs from the scraped one.
    pub port: Option<u16>,
    /// Label with the zone; `zone` by default.
    pub zone_label: String,
    /// Label with the version; `version` by default.
    pub version_label: String,
    /// Label with the weight; `weight` by default.
    pub weight_label: String,
}

/// Endpoints from Envoy's own admin interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvoyAdmin {
    /// The Envoy cluster that points at the admin listener.
    pub cluster: String,
    /// Interval between polls.
    pub interval: Duration,
    /// Whether requests are divided by Envoy's locality weights.
    pub locality_weights: bool,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// The lowest expected cost among a few endpoints; the default.
    Adaptive,
    /// Linkerd's policy: latency (peak EWMA) × in-flight.
    PeakEwma,
    /// The fewest requests in flight of two random choices.
    LeastRequest,
    /// Weighted sum of normalized requests in flight and latency.
    WeightedScore(WeightedScore),
    /// The lowest value of one signal.
    LeastSignal {
        /// Name of the signal; by default the only one.
        signal: String,
    },
    /// Smooth weighted round robin.
    WeightedRoundRobin,
    /// Each endpoint in turn.
    RoundRobin,
    /// Random, by weight.
    Random,
    /// Hash of the client's address.
    IpHash,
    /// Hash of the affinity key, with bounded load.
    ConsistentHash(LoadBound),
}

/// Bound from which an endpoint gets no more of its own keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadBound {
    /// Whether there is a bound; true by default.
    pub bounded: bool,
    /// Maximum requests in flight relative to its fair part, at least 1; 1.25 by default.
    pub factor: f64,
    /// Number of requests in flight that is always allowed; 2 by default.
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
    /// Weight of the requests in flight; 0.6 by default.
    pub in_flight_weight: f64,
    /// Requests in flight that count as 1; 1000 by default.
    pub in_flight_max: f64,
    /// Weight of latency; 0.4 by default.
    pub latency_weight: f64,
    /// Latency that counts as 1, milliseconds; 500 by default.
    pub latency_max_ms: f64,
}

/// A signal: one value per endpoint, from PromQL or from reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// Name, unique within the cluster; `[a-z_][a-z0-9_]*`, at most 64 bytes.
    pub name: String,
    /// The query in PromQL; empty if endpoints report the value, or the filter writes the query.
    pub query: String,
    /// The meaning of a value that the filter itself exports; `None` for the operator's own.
    pub builtin: Option<Builtin>,
    /// Where answers report the value, if they do.
    pub report: Option<LoadReport>,
    /// Weight, 0..=100; 0 shows the signal without using it; 1 by default.
    pub weight: f64,
    /// Whether the weight follows the completeness and punctuality of the signal; false by default.
    pub learn: bool,
    /// The value that counts as full; without it, values are compared with those of the other endpoints.
    pub max: Option<f64>,
    /// EWMA factor of a new sample, > 0, ≤ 1; 0.3 by default, 1 disables smoothing.
    pub smoothing: f64,
    /// Label that names the endpoint; `instance` by default.
    pub address_label: String,
    /// Serving port, if it differs from the scraped one.
    pub port: Option<u16>,
    /// PromQL query for the time at which each value was measured, seconds since 1970.
    pub timestamp_query: Option<String>,
}

/// A signal with a known meaning, from metrics that every proxy exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// The latency of an endpoint as measured by all proxies together, seconds.
    FleetLatency,
}

/// Where an endpoint's answers report its load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadReport {
    /// Name of the response header or trailer, in lower case.
    pub header: String,
    /// The value of an ORCA report, such as `application_utilization` or `named_metrics.queue`; empty if the header is
    /// a plain number.
    pub metric: String,
}

/// A threshold rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// The value that is compared.
    pub value: RuleValue,
    /// The threshold; the rule is released at 90 % of it.
    pub above: f64,
    /// Time that the value has to stay above the threshold; zero by default.
    pub lasting: Duration,
    /// Action of the rule.
    pub action: RuleAction,
}

/// The value that a [`Rule`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleValue {
    /// Failures among the latest answers, percent.
    ErrorPercent,
    /// Typical latency to response headers, milliseconds.
    LatencyMs,
    /// Requests in flight of all workers.
    InFlight,
    /// The signal at this index.
    Signal(usize),
}

/// Action of a [`Rule`], in rising order of strictness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleAction {
    /// Show and log it.
    Flag,
    /// Reduce the endpoint's share to a quarter.
    DownWeight,
    /// Eject the endpoint, within `max_ejected_percent`.
    Eject,
}

/// Ejection and recovery of endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// Consecutive failures that make an endpoint suspect; 1 by default.
    pub suspect_after: u32,
    /// Consecutive failures that eject it; 3 by default, never below `suspect_after`.
    pub fail_after: u32,
    /// Consecutive good answers that bring it back; 3 by default.
    pub recover_after: u32,
    /// Maximum wait between half-open probes of a failed endpoint; 30 s by default.
    pub ejection: Duration,
    /// Maximum percentage of ejected endpoints; 50 by default.
    pub max_ejected_percent: f64,
    /// What counts as a failure; by default statuses of 5xx and gRPC codes that Envoy treats as such.
    pub failures: Failures,
    /// Whether an attempt that Envoy retried elsewhere for an unknown reason counts against its endpoint; true by
    /// default.
    pub blame_retried: bool,
    /// Whether statements of endpoints in response headers are heeded; true by default.
    pub heed_headers: bool,
    /// Out-of-band probes, if any.
    pub probe: Option<Probe>,
}

/// Out-of-band probes: the balancer's own requests to suspect, ejected, slow and silent endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Request path, from `/` on.
    pub path: String,
    /// `:authority`; by default the endpoint's address.
    pub authority: Option<String>,
    /// Minimum interval between a worker's probes of an endpoint, 100 ms to 1 h; 5 s by default.
    pub interval: Duration,
    /// Timeout of a probe, 10 ms to 60 s, at most the interval; 1 s by default.
    pub timeout: Duration,
}

/// What happens when too few endpoints are eligible, or none.
#[derive(Clone, Debug, PartialEq)]
pub struct Failover {
    /// What happens when none is eligible.
    pub none_eligible: NoneEligible,
    /// Percentage of eligible endpoints below which health is ignored; 50 by default, 0 disables it.
    pub panic_percent: f64,
}

/// What happens when no endpoint is eligible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoneEligible {
    /// The steering header remains unset: Envoy's fallback policy decides.
    Envoy,
    /// Reject with a 503, with `x-evenkeel-reason` and `retry-after`.
    Reject,
    /// Steer to this endpoint.
    SafeEndpoint(core::net::SocketAddr),
}

/// Zone awareness.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    /// This proxy's zone.
    pub local: String,
    /// Pressure of the local zone beyond which traffic leaves it, percent of its capacity; 70 by default.
    pub spill_over_percent: f64,
}

/// Source of the key for hashing policies.
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

/// A cookie that holds the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Name of the cookie.
    pub name: String,
    /// Whether a client without one is given one; true by default.
    pub set: bool,
    /// Lifetime of the cookie; zero, the default, makes it a session cookie.
    pub ttl: Duration,
    /// Path of the cookie; `/` by default.
    pub path: String,
    /// Whether the client sends it over TLS only; false by default.
    pub secure: bool,
    /// `SameSite` attribute; unset if `None`.
    pub same_site: Option<SameSite>,
}

impl Cookie {
    /// A cookie of this name with default settings.
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

/// `SameSite` attribute of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Sent within the same site only.
    Strict,
    /// Sent from other sites when following a link.
    Lax,
    /// Always sent; only with `secure`.
    None,
}

/// Scaling by pressure.
#[derive(Clone, Debug, PartialEq)]
pub struct Autoscale {
    /// Pressure to maintain; 0.8 by default.
    pub target_pressure: f64,
    /// Minimum number of replicas; 2 by default.
    pub min: u32,
    /// Maximum number of replicas, not below `min`; 20 by default.
    pub max: u32,
    /// Consecutive periods above the target before scaling up; 2 by default.
    pub periods: u32,
    /// Period over which pressure is averaged before a decision; 30 s by default.
    pub period: Duration,
    /// Time for which fewer replicas must have been enough before scaling down; 5 min by default.
    pub cool_down: Duration,
    /// Margin below the target that the pressure of fewer replicas must have, percent, 0..=50; 10 by default.
    pub tolerance_percent: f64,
    /// Time by which a rise is extrapolated, so that replicas are ready in time; one period by default.
    pub look_ahead: Duration,
}

/// One term of the pressure: weight · min(value / full, most).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PressureTerm {
    /// The value of the term.
    pub value: PressureValue,
    /// Weight relative to the other terms, > 0.
    pub weight: f64,
    /// The value that counts as 1, > 0.
    pub full: f64,
    /// Upper bound of value / full, > 0; 2 by default.
    pub most: f64,
}

/// The value of a [`PressureTerm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PressureValue {
    /// The signal at this index.
    Signal(usize),
    /// Requests in flight over the learnt number that an endpoint works on at a time.
    Occupancy,
    /// Requests in flight of all workers over the endpoint's weight.
    InFlight,
    /// Typical latency to response headers, milliseconds.
    LatencyMs,
    /// Failures among the latest answers, percent.
    ErrorPercent,
}
