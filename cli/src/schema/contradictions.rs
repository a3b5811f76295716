//! Fields that exclude or require each other, as far as a schema can express it. The reader's own checks are in
//! `crates/config/src`; a test compares both, so that the schema refuses nothing that the reader accepts.

use serde_json::{Value, json};

/// The keywords to add to the object at this path.
pub fn of(path: &str) -> Option<Value> {
    Some(match path {
        "$" => json!({
            // The filter among upstream filters has no other settings; every other configuration has upstreams.
            "required": [],
            "allOf": [{
                "if": { "required": ["role"], "properties": { "role": { "const": "upstream" } } },
                "then": { "maxProperties": 1 },
                "else": { "required": ["upstreams"] }
            }, {
                "if": { "not": { "required": ["prometheus"] } },
                "then": { "properties": { "upstreams": { "items": {
                    "properties": {
                        "signals": { "maxItems": 0 },
                        "endpoints": { "properties": { "prometheus": false } }
                    }
                } } } }
            }, {
                "if": {
                    "required": ["steering"],
                    "properties": { "steering": { "required": ["via"], "properties": { "via": { "const": "original_dst" } } } }
                },
                "then": { "properties": {
                    "mode": { "const": "enforce" },
                    "guard": false,
                    "upstreams": { "items": { "properties": { "guard": false } } }
                } }
            }]
        }),
        "$.steering" => json!({
            "if": { "required": ["via"], "properties": { "via": { "not": { "const": "override_host" } } } },
            "then": { "properties": { "candidates": { "maximum": 1 } } }
        }),
        "$.debug" => json!({
            "if": { "required": ["when"], "properties": { "when": { "const": "always" } } },
            "then": { "properties": { "ask": false, "secret": false } },
            "else": { "required": ["secret"] }
        }),
        "$.upstreams[]" => json!({
            "allOf": [
                {
                    "if": {
                        "required": ["policy"],
                        "properties": { "policy": { "anyOf": [
                            { "const": "consistent_hash" },
                            { "type": "object", "required": ["name"], "properties": { "name": { "const": "consistent_hash" } } }
                        ] } }
                    },
                    "then": { "required": ["affinity"] }
                },
                {
                    "if": { "required": ["cluster"], "properties": { "cluster": { "const": "*" } } },
                    "then": { "properties": { "endpoints": { "properties": { "envoy_admin": false } } } }
                }
            ]
        }),
        "$.upstreams[].affinity" => json!({ "minProperties": 1, "maxProperties": 1 }),
        "$.upstreams[].endpoints" => json!({ "minProperties": 1 }),
        "$.upstreams[].signals[]" => json!({
            "if": { "required": ["builtin"] },
            "then": { "properties": { "learn": false, "max": false } },
            "else": { "required": ["query"] }
        }),
        "$.upstreams[].policy" => json!({
            "allOf": [
                only_beside("weighted_score", &["in_flight_weight", "in_flight_max", "latency_weight", "latency_max_ms"]),
                only_beside("least_signal", &["signal"]),
                only_beside("consistent_hash", &["bounded", "load_factor", "load_floor"])
            ]
        }),
        "$.upstreams[].failover" => json!({
            "if": { "required": ["none_eligible"], "properties": { "none_eligible": { "const": "safe_endpoint" } } },
            "then": { "required": ["safe_endpoint"], "properties": { "safe_endpoint": { "type": "string" } } },
            "else": { "properties": { "safe_endpoint": { "type": "null" } } }
        }),
        _ => return None,
    })
}

/// Allows these fields only with the policy `name`.
fn only_beside(name: &str, fields: &[&str]) -> Value {
    let none: serde_json::Map<String, Value> =
        fields.iter().map(|field| ((*field).to_owned(), json!(false))).collect();
    json!({
        "if": { "not": { "required": ["name"], "properties": { "name": { "const": name } } } },
        "then": { "properties": none }
    })
}
