//! What is accepted, what is refused and how, and that nothing at all makes the reader panic.

mod accepted;
mod malformed;
mod malformed_upstream;
#[cfg(not(target_family = "wasm"))]
mod properties;

use super::{Config, Fault, parse};

/// Every field there is, as the documentation shows it.
const COMPLETE: &str = r#"{
  "mode": "enforce",
  "steering": { "via": "override_host", "header": "x-evenkeel-endpoint", "candidates": 2 },
  "prometheus": {
    "cluster": "prometheus", "authority": "prometheus:9090", "path_prefix": "/mimir/prometheus",
    "interval": "5s", "timeout": "2s",
    "headers": { "authorization": "Bearer S3CR3T-S3CR3T-S3CR3T", "X-Scope-OrgID": "S3CR3T" }
  },
  "upstreams": [{
    "cluster": "web",
    "endpoints": {
      "static": ["10.0.0.1:8080", { "address": "10.0.0.2:8080", "weight": 2, "zone": "a", "priority": 0, "version": "v2" }],
      "prometheus": { "query": "up{job=\"web\"} == 1", "address_label": "instance", "port": 8080 },
      "envoy_admin": { "cluster": "envoy_admin", "interval": "5s" }
    },
    "policy": { "name": "adaptive" },
    "signals": [
      { "name": "queue_depth", "query": "task_queue_depth{job=\"web\"}", "weight": 1.0, "max": 100,
        "smoothing": 0.3, "address_label": "instance", "port": 8080 }
    ],
    "health": { "suspect_after": 1, "fail_after": 3, "recover_after": 3, "ejection": "30s", "max_ejected_percent": 50 },
    "slow_start": "30s",
    "failover": { "none_eligible": "envoy", "safe_endpoint": null, "panic_percent": 50 },
    "zone": { "local": "a", "spill_over_percent": 70 },
    "affinity": { "header": "x-user" },
    "split": { "v1": 80, "v2": 20 },
    "autoscale": { "target_pressure": 0.8, "min": 2, "max": 20, "for": 2 }
  }],
  "status": { "path": "/_evenkeel" }
}"#;

fn accepted(json: &str) -> Config {
    parse(json.as_bytes()).unwrap_or_else(|faults| panic!("{json}\n{}", lines(&faults).join("\n")))
}

fn refused(json: impl AsRef<[u8]>) -> Vec<Fault> {
    parse(json.as_ref()).expect_err("a refusal")
}

fn lines(faults: &[Fault]) -> Vec<String> {
    faults.iter().map(Fault::to_string).collect()
}

/// The least there can be, and `more` in its only upstream.
fn upstream_with(more: &str) -> String {
    let comma = if more.is_empty() { "" } else { "," };
    format!(r#"{{"upstreams":[{{"cluster":"web","endpoints":{{"static":["10.0.0.1:80"]}}{comma}{more}}}]}}"#)
}

/// The least there can be, and `more` beside its upstreams.
fn root_with(more: &str) -> String {
    format!(r#"{{{more},"upstreams":[{{"cluster":"web","endpoints":{{"static":["10.0.0.1:80"]}}}}]}}"#)
}
