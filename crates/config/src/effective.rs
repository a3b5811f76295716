//! The configuration in force as JSON, with all defaults and without secrets.
//!
//! Structs are destructured field by field, so that the compiler demands every new setting here.

use core::net::SocketAddr;
use core::time::Duration;

use serde::ser::{Serialize, Serializer};
use serde_json::Number;

use super::kinds::duration_shown;
use super::tree::Tree;
use super::*;
use engine::settings::*;

/// The text in place of secrets.
const NOT_SHOWN: &str = "(not shown)";

/// A configuration as JSON, in the order of the documentation.
#[derive(Clone, Debug)]
pub struct Effective(Tree);

impl Serialize for Effective {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(output)
    }
}

/// `config` with every default filled in. [`parse`] reads it back as the same `config`, except that the values of
/// `prometheus.headers`, `prometheus.parameters` and `debug.secret` are masked.
///
/// ```
/// use config::{effective, parse};
/// let config = parse(br#"{ "upstreams": [{ "cluster": "web", "endpoints": { "static": ["10.0.0.1:80"] } }] }"#).unwrap();
/// let json = serde_json::to_string(&effective(&config)).unwrap();
/// assert!(json.contains(r#""slow_start":"30s""#));
/// assert_eq!(parse(json.as_bytes()).unwrap(), config);
/// ```
pub fn effective(config: &Config) -> Effective {
    let Config { mode, steering, prometheus, upstreams, status, envoy_stats, debug, attributes, log } =
        config;
    let written = Object::default()
        .with("mode", name_of(root::MODES, mode))
        .with("steering", write_steering(steering))
        .with_some("prometheus", prometheus.as_ref().map(write_prometheus))
        .with("upstreams", upstreams.iter().map(write_upstream).collect::<Tree>())
        .with_some("status", status.as_ref().map(|Status { path }| Object::default().with("path", path)))
        .with("envoy_stats", Tree::Boolean(*envoy_stats))
        .with_some("debug", debug.as_ref().map(write_debug))
        .with(
            "attributes",
            attributes.iter().map(|a| Tree::from(name_of(log::ATTRIBUTES, a))).collect::<Tree>(),
        )
        .with("log", write_log(log));
    Effective(written.into())
}

fn write_debug(DebugHeader { header, asking }: &DebugHeader) -> Object {
    let written =
        Object::default().with("header", header).with("when", name_of(debug::WHEN, &asking.is_none()));
    match asking {
        Some(Asking { header, secret: _ }) => written.with("ask", header).with("secret", NOT_SHOWN),
        None => written,
    }
}

fn write_log(Log { format, failures, sample_percent }: &Log) -> Object {
    Object::default()
        .with("format", name_of(log::FORMATS, format))
        .with("failures", Tree::Boolean(*failures))
        .with("sample_percent", *sample_percent)
}

fn write_steering(Steering { via, header, candidates }: &Steering) -> Object {
    Object::default()
        .with("via", name_of(steering::VIA, via))
        .with("header", header)
        .with("candidates", *candidates as f64)
}

fn write_prometheus(prometheus: &Prometheus) -> Object {
    let Prometheus { cluster, authority, path_prefix, interval, timeout, method, headers, parameters } =
        prometheus;
    let written = headers.iter().fold(Object::default(), |all, (name, value)| match value {
        HeaderValue::Given(_) => all.with(name, NOT_SHOWN),
        HeaderValue::Environment { variable, prefix } => {
            let from = Object::default().with("env", variable);
            // A prefix is no secret if it is only a scheme.
            let prefix = if is_scheme(prefix) { prefix.as_str() } else { NOT_SHOWN };
            all.with(name, from.with_some("prefix", (!prefix.is_empty()).then_some(prefix)))
        }
    });
    let masked = parameters.iter().fold(Object::default(), |all, (name, _)| all.with(name, NOT_SHOWN));
    Object::default()
        .with("cluster", cluster)
        .with("authority", authority)
        .with("path_prefix", path_prefix)
        .with("interval", *interval)
        .with("timeout", *timeout)
        .with("method", name_of(prometheus::METHODS, method))
        .with("headers", written)
        .with("parameters", masked)
}

/// Whether this is empty, or the name of an authentication scheme and a blank.
fn is_scheme(prefix: &str) -> bool {
    prefix.is_empty() || ["bearer ", "basic ", "token "].contains(&prefix.to_ascii_lowercase().as_str())
}

fn write_upstream(upstream: &Upstream) -> Object {
    let Upstream {
        cluster,
        endpoints,
        policy,
        signals,
        rules,
        health,
        slow_start,
        failover,
        zone,
        affinity,
        split,
        pressure,
        autoscale,
        guard,
    } = upstream;
    Object::default()
        .with("cluster", cluster)
        .with("endpoints", write_endpoints(endpoints))
        .with("policy", write_policy(policy))
        .with("signals", signals.iter().filter(|s| s.report.is_none()).map(write_signal).collect::<Tree>())
        .with("load_reports", signals.iter().filter_map(write_load_report).collect::<Tree>())
        .with("rules", rules.iter().map(|rule| write_rule(rule, signals)).collect::<Tree>())
        .with("health", write_health(health))
        .with("slow_start", *slow_start)
        .with("failover", write_failover(failover))
        .with_some("zone", zone.as_ref().map(write_zone))
        .with_some("affinity", affinity.as_ref().map(write_affinity))
        .with_some("split", (!split.is_empty()).then(|| write_split(split)))
        .with_some("autoscale", autoscale.as_ref().map(|scaled| write_autoscale(scaled, pressure, signals)))
        .with_some(
            "guard",
            guard.map(|Guard { holdout_percent, include_keyed, pause }| {
                Object::default()
                    .with("holdout_percent", holdout_percent)
                    .with("include_keyed", Tree::Boolean(include_keyed))
                    .with("pause", pause)
            }),
        )
}

fn write_endpoints(Endpoints { fixed, prometheus, envoy_admin }: &Endpoints) -> Object {
    Object::default()
        .with_some("static", (!fixed.is_empty()).then(|| fixed.iter().map(write_endpoint).collect::<Tree>()))
        .with_some("prometheus", prometheus.as_ref().map(write_query))
        .with_some("envoy_admin", envoy_admin.as_ref().map(write_envoy_admin))
}

fn write_endpoint(StaticEndpoint { address, weight, zone, priority, version }: &StaticEndpoint) -> Object {
    Object::default()
        .with("address", *address)
        .with("weight", *weight)
        .with("zone", zone)
        .with("priority", *priority)
        .with("version", version)
}

fn write_query(endpoints: &EndpointQuery) -> Object {
    let EndpointQuery { query, address_label, port, zone_label, version_label, weight_label } = endpoints;
    Object::default()
        .with("query", query)
        .with("address_label", address_label)
        .with_some("port", port.map(f64::from))
        .with("zone_label", zone_label)
        .with("version_label", version_label)
        .with("weight_label", weight_label)
}

fn write_envoy_admin(EnvoyAdmin { cluster, interval, locality_weights }: &EnvoyAdmin) -> Object {
    Object::default()
        .with("cluster", cluster)
        .with("interval", *interval)
        .with("locality_weights", Tree::Boolean(*locality_weights))
}

fn write_policy(policy: &Policy) -> Object {
    let named = |name: &str| Object::default().with("name", name);
    match policy {
        Policy::Adaptive => named("adaptive"),
        Policy::PeakEwma => named("peak_ewma"),
        Policy::LeastRequest => named("least_request"),
        Policy::WeightedScore(WeightedScore {
            in_flight_weight,
            in_flight_max,
            latency_weight,
            latency_max_ms,
        }) => named("weighted_score")
            .with("in_flight_weight", *in_flight_weight)
            .with("in_flight_max", *in_flight_max)
            .with("latency_weight", *latency_weight)
            .with("latency_max_ms", *latency_max_ms),
        Policy::LeastSignal { signal } => named("least_signal").with("signal", signal),
        Policy::WeightedRoundRobin => named("weighted_round_robin"),
        Policy::RoundRobin => named("round_robin"),
        Policy::Random => named("random"),
        Policy::IpHash => named("ip_hash"),
        Policy::ConsistentHash(LoadBound { bounded, factor, floor }) => named("consistent_hash")
            .with("bounded", Tree::Boolean(*bounded))
            .with("load_factor", *factor)
            .with("load_floor", *floor),
    }
}

fn write_signal(signal: &Signal) -> Object {
    let Signal {
        name,
        query,
        builtin,
        report: _,
        weight,
        learn,
        max,
        smoothing,
        address_label,
        port,
        timestamp_query,
    } = signal;
    Object::default()
        .with("name", name)
        .with_some("query", (!query.is_empty()).then_some(query))
        .with_some("builtin", builtin.as_ref().map(|builtin| name_of(signals::BUILTINS, builtin)))
        .with("weight", *weight)
        .with_some("learn", builtin.is_none().then_some(Tree::Boolean(*learn)))
        .with_some("max", *max)
        .with("smoothing", *smoothing)
        .with("address_label", address_label)
        .with_some("port", port.map(f64::from))
        .with_some("timestamp_query", timestamp_query.as_ref())
}

fn write_load_report(signal: &Signal) -> Option<Object> {
    let LoadReport { header, metric } = signal.report.as_ref()?;
    let written = Object::default()
        .with("name", &signal.name)
        .with("header", header)
        .with_some("metric", (!metric.is_empty()).then_some(metric))
        .with("weight", signal.weight)
        .with_some("max", signal.max)
        .with("smoothing", signal.smoothing);
    Some(written)
}

fn write_rule(Rule { value, above, lasting, action }: &Rule, signals: &[Signal]) -> Object {
    let when = match value {
        RuleValue::Signal(at) => signals.get(*at).map_or("", |signal| signal.name.as_str()),
        measured => name_of(rules::MEASURED, measured),
    };
    Object::default()
        .with("when", when)
        .with("above", *above)
        .with("for", *lasting)
        .with("then", name_of(rules::ACTIONS, action))
}

fn write_health(health: &Health) -> Object {
    let Health {
        suspect_after,
        fail_after,
        recover_after,
        ejection,
        max_ejected_percent,
        failures,
        blame_retried,
        heed_headers,
        probe,
    } = health;
    let failures: Tree = failures.listed().iter().map(|counted| Tree::Text(counted.to_string())).collect();
    Object::default()
        .with("suspect_after", *suspect_after)
        .with("fail_after", *fail_after)
        .with("recover_after", *recover_after)
        .with("ejection", *ejection)
        .with("max_ejected_percent", *max_ejected_percent)
        .with("failures", failures)
        .with("blame_retried", Tree::Boolean(*blame_retried))
        .with("heed_headers", Tree::Boolean(*heed_headers))
        .with_some("probe", probe.as_ref().map(write_probe))
}

fn write_probe(Probe { path, authority, interval, timeout }: &Probe) -> Object {
    Object::default()
        .with("path", path)
        .with_some("authority", authority.as_deref())
        .with("interval", *interval)
        .with("timeout", *timeout)
}

fn write_failover(Failover { none_eligible, panic_percent }: &Failover) -> Object {
    let (choice, safe) = match none_eligible {
        NoneEligible::Envoy => ("envoy", None),
        NoneEligible::Reject => ("reject", None),
        NoneEligible::SafeEndpoint(address) => ("safe_endpoint", Some(*address)),
    };
    Object::default()
        .with("none_eligible", choice)
        .with_some("safe_endpoint", safe)
        .with("panic_percent", *panic_percent)
}

fn write_zone(Zone { local, spill_over_percent }: &Zone) -> Object {
    Object::default().with("local", local).with("spill_over_percent", *spill_over_percent)
}

fn write_affinity(affinity: &Affinity) -> Object {
    match affinity {
        Affinity::Header(name) => Object::default().with("header", name),
        Affinity::Cookie(cookie) => Object::default().with("cookie", Tree::from(write_cookie(cookie))),
        Affinity::Query(name) => Object::default().with("query", name),
        Affinity::SourceIp => Object::default().with("source_ip", Tree::Boolean(true)),
    }
}

fn write_cookie(Cookie { name, set, ttl, path, secure, same_site }: &Cookie) -> Object {
    Object::default()
        .with("name", name)
        .with("set", Tree::Boolean(*set))
        .with("ttl", *ttl)
        .with("path", path)
        .with("secure", Tree::Boolean(*secure))
        .with_some("same_site", same_site.map(|choice| name_of(cookie::SAME_SITES, &choice)))
}

fn write_split(split: &[(String, f64)]) -> Object {
    split.iter().fold(Object::default(), |all, (version, share)| all.with(version, *share))
}

fn write_autoscale(autoscale: &Autoscale, pressure: &[PressureTerm], signals: &[Signal]) -> Object {
    let Autoscale { target_pressure, min, max, periods, period, cool_down, tolerance_percent, look_ahead } =
        autoscale;
    Object::default()
        .with("target_pressure", *target_pressure)
        .with("min", *min)
        .with("max", *max)
        .with("for", *periods)
        .with("period", *period)
        .with("cool_down", *cool_down)
        .with("tolerance_percent", *tolerance_percent)
        .with("look_ahead", *look_ahead)
        .with("pressure", pressure.iter().map(|term| write_term(term, signals)).collect::<Tree>())
}

fn write_term(PressureTerm { value, weight, full, most }: &PressureTerm, signals: &[Signal]) -> Object {
    let signal = match value {
        PressureValue::Signal(at) => signals.get(*at).map_or("", |signal| signal.name.as_str()),
        measured => name_of(autoscale::MEASURED, measured),
    };
    Object::default().with("signal", signal).with("weight", *weight).with("at", *full).with("most", *most)
}

/// The name of `value` in `choices`.
fn name_of<T: PartialEq>(choices: &[(&'static str, T)], value: &T) -> &'static str {
    choices.iter().find(|(_, choice)| choice == value).map_or("", |(name, _)| name)
}

/// An object under construction.
#[derive(Default)]
struct Object(Vec<(String, Tree)>);

impl Object {
    fn with(mut self, name: &str, value: impl Into<Tree>) -> Self {
        self.0.push((name.to_owned(), value.into()));
        self
    }

    fn with_some(self, name: &str, value: Option<impl Into<Tree>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}

impl From<Object> for Tree {
    fn from(object: Object) -> Tree {
        Tree::Object(object.0)
    }
}

impl FromIterator<Tree> for Tree {
    fn from_iter<I: IntoIterator<Item = Tree>>(items: I) -> Tree {
        Tree::Array(items.into_iter().collect())
    }
}

impl FromIterator<Object> for Tree {
    fn from_iter<I: IntoIterator<Item = Object>>(objects: I) -> Tree {
        Tree::Array(objects.into_iter().map(Tree::from).collect())
    }
}

impl From<&str> for Tree {
    fn from(text: &str) -> Tree {
        Tree::Text(text.to_owned())
    }
}

impl From<&String> for Tree {
    fn from(text: &String) -> Tree {
        Tree::Text(text.clone())
    }
}

impl From<SocketAddr> for Tree {
    fn from(address: SocketAddr) -> Tree {
        Tree::Text(address.to_string())
    }
}

impl From<Duration> for Tree {
    fn from(duration: Duration) -> Tree {
        Tree::Text(duration_shown(duration))
    }
}

impl From<u32> for Tree {
    fn from(number: u32) -> Tree {
        Tree::Number(number.into())
    }
}

impl From<f64> for Tree {
    /// Writes 2 instead of 2.0.
    fn from(number: f64) -> Tree {
        let whole = number as u32;
        if f64::from(whole) == number && (whole > 0 || number.is_sign_positive()) {
            return whole.into();
        }
        Number::from_f64(number).map_or(Tree::Null, Tree::Number)
    }
}
