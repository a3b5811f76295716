//! The Envoy of a scenario.

use std::net::SocketAddr;
use std::time::Duration;

use simulator::scenario::Scenario;
use testbed::anyhow::Result;
use testbed::envoy::{Config, Filter, Policy};
use testbed::prometheus::Prometheus;
use testbed::serde_json::{Value, json};

use crate::fleet::seconds;

/// The configuration under `policy`; `extra` has members for evenkeel's upstream.
pub fn config(
    scenario: &Scenario,
    policy: &str,
    extra: &Value,
    addresses: &[SocketAddr],
    prometheus: Option<&Prometheus>,
) -> Result<Config> {
    let balance = Policy::named(policy)?;
    let mut config = Config::single(addresses.to_vec(), balance.clone());
    config.concurrency = u32::try_from(scenario.workers)?;
    config.route_timeout = if scenario.long.is_some() { Duration::ZERO } else { all_attempts(scenario) };
    if scenario.retries > 0 {
        config.retry(scenario.retries);
    }
    config.retry_policy["per_try_timeout"] = json!(format!("{:.3}s", scenario.timeout));
    if !scenario.weights.is_empty() {
        config.clusters[0].extra = weighted(addresses, &scenario.weights);
    }
    if balance == Policy::evenkeel() {
        let weights = scenario.weights.iter().copied().chain(std::iter::repeat(1.0));
        let endpoint = |(address, weight)| json!({ "address": address, "weight": weight });
        let endpoints: Vec<Value> = addresses.iter().zip(weights).map(endpoint).collect();
        let mut upstream = json!({ "cluster": "web", "endpoints": { "static": endpoints } });
        let mut plugin = json!({});
        if let Some(signal) = scenario.signal {
            let query = match scenario.asynchronous {
                Some(_) => "task_queue_depth",
                None => "http_inflight_requests",
            };
            upstream["signals"] = json!([{ "name": "queue", "query": query }]);
            if let Some(max) = signal.max {
                upstream["signals"][0]["max"] = json!(max);
            }
            let interval = format!("{}ms", seconds(signal.poll).as_millis());
            plugin["prometheus"] =
                json!({ "cluster": "prometheus", "interval": interval, "timeout": "500ms" });
        }
        if let Some((_, name)) = policy.split_once(':') {
            upstream["policy"] = json!(name);
        }
        for (name, value) in extra.as_object().into_iter().flatten() {
            upstream[name] = value.clone();
        }
        plugin["upstreams"] = json!([upstream]);
        config.filters = vec![Filter::evenkeel(&plugin)?];
    }
    config.services = prometheus.map(|p| ("prometheus".to_owned(), p.address())).into_iter().collect();
    Ok(config)
}

/// The cluster's endpoints with weights for Envoy's own policies.
fn weighted(addresses: &[SocketAddr], weights: &[f64]) -> Value {
    let endpoint = |(address, weight): (&SocketAddr, &f64)| {
        json!({
            "endpoint": { "address": { "socket_address": {
                "address": address.ip().to_string(), "port_value": address.port(),
            }}},
            "load_balancing_weight": weight.round() as u64,
        })
    };
    let endpoints: Vec<Value> = addresses.iter().zip(weights).map(endpoint).collect();
    json!({ "load_assignment": { "cluster_name": "web", "endpoints": [{ "lb_endpoints": endpoints }] } })
}

/// The time that all attempts of a request may take.
pub fn all_attempts(scenario: &Scenario) -> Duration {
    seconds(scenario.timeout * f64::from(scenario.retries + 1))
}
