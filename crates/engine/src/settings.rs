//! What can be set of a cluster, with units and ranges. Plain data: the crate `config` makes it from JSON, tests and
//! the simulator make it by hand.

mod failures;

use core::time::Duration;

pub use failures::{CODES, Counted, Failures};

/// What a balancer is made of.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// One entry for each cluster that is balanced.
    pub upstreams: &'a [Upstream],
    /// Time between polls of the signals, if they are polled.
    pub poll_interval: Option<Duration>,
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
    /// What happens when no endpoint is eligible.
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
    /// Whether a part of the requests is left to Envoy's own policy to compare it.
    pub guard: Option<Guard>,
}

/// A comparison with Envoy's own policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guard {
    /// The part of the requests that is left to Envoy's own policy, 0.1..=50; 1 by default.
    pub holdout_percent: f64,
    /// Whether requests with a key are drawn, too: Envoy's own policy keeps a key on its endpoint. False by default.
    pub include_keyed: bool,
    /// For how long nothing is steered after harm was found for the first time, 1 s to 6 h; 10 min by default.
    pub pause: Duration,
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
    /// PromQL; empty where endpoints report the value themselves, and where the filter writes the query.
    pub query: String,
    /// What the value is, where it is one that the filter itself exports; none for the operator's own.
    pub builtin: Option<Builtin>,
    /// Where endpoints report the value themselves, in their answers.
    pub report: Option<LoadReport>,
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

/// A signal whose meaning is known, made of what every proxy exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// The latency of an endpoint as all proxies together measure it, seconds.
    FleetLatency,
}

/// Where an endpoint's answers tell its load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadReport {
    /// The response header or trailer, in lower case.
    pub header: String,
    /// Which value of a report in ORCA's form, such as `application_utilization` or `named_metrics.queue`; empty where
    /// the header is a plain number.
    pub metric: String,
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
    /// Whether an endpoint is blamed for a request that Envoy tried again elsewhere for a reason that is not seen; yes
    /// by default.
    pub blame_retried: bool,
    /// Whether what an endpoint says of itself in its responses' headers is heeded; yes by default.
    pub heed_headers: bool,
    /// Probes out of band, if any.
    pub probe: Option<Probe>,
}

/// Requests of the balancer's own to suspect, ejected, slow and silent endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is asked for, from `/` on.
    pub path: String,
    /// `:authority`; the endpoint's address where not given.
    pub authority: Option<String>,
    /// A worker asks an endpoint no more often, 100 ms to 1 h; 5 s by default.
    pub interval: Duration,
    /// How long an answer is waited for, 10 ms to 60 s; 1 s by default, at most the interval.
    pub timeout: Duration,
}

/// What happens when no endpoint is eligible.
#[derive(Clone, Debug, PartialEq)]
pub struct Failover {
    /// The last resort.
    pub none_eligible: NoneEligible,
    /// Below this share of eligible endpoints health is ignored; 50 by default, 0 never.
    pub panic_percent: f64,
}

/// The last resort when no endpoint is eligible.
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
