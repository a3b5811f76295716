//! The defaults of fields: those of an effective configuration in which all optional fields are absent.

use config::{effective, parse};
use serde_json::{Value, json};

use super::explore::split;

/// A configuration with every optional object, each with only its required fields.
fn least() -> Value {
    json!({
        "prometheus": { "cluster": "p" },
        "upstreams": [{
            "cluster": "web",
            "endpoints": {
                "static": [{ "address": "10.0.0.1:80" }],
                "prometheus": { "query": "up" },
                "envoy_admin": { "cluster": "a" }
            },
            "policy": { "name": "weighted_score" },
            "signals": [{ "name": "x", "query": "x" }],
            "load_reports": [{ "name": "y", "header": "y" }],
            "rules": [{ "when": "x", "above": 1, "then": "flag" }],
            "zone": { "local": "a" },
            "autoscale": {},
            "guard": {},
        }],
        "status": { "path": "/x" },
        "debug": { "secret": "open sesame" }
    })
}

/// The defaults of all fields.
pub struct Defaults {
    given: Value,
    effective: Value,
}

impl Defaults {
    /// Reads the defaults from the effective configuration.
    pub fn new() -> Self {
        let given = least();
        let parsed = parse(given.to_string().as_bytes());
        // A test checks that it is accepted.
        let effective = parsed.map(|config| serde_json::to_value(effective(&config)).unwrap_or_default());
        Defaults { given, effective: effective.unwrap_or_default() }
    }

    /// The default of a field, if it is a plain value that depends on no other field.
    pub fn of(&self, path: &str) -> Option<&Value> {
        let depends = [
            // Depends on the cluster's name.
            "$.prometheus.authority",
            "$.upstreams[].policy.name",
        ];
        let plain = |value: &&Value| !value.is_object() && !value.is_array() && **value != json!("");
        let found = at(&self.effective, path).filter(plain)?;
        (at(&self.given, path).is_none() && !depends.contains(&path)).then_some(found)
    }
}

fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    let Some((parent, step)) = split(path) else { return Some(value) };
    let holder = at(value, parent)?;
    if step == "[]" { holder.get(0) } else { holder.get(step) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_reader() {
        parse(least().to_string().as_bytes()).unwrap();
        let defaults = Defaults::new();
        for (path, default) in [
            ("$.mode", json!("enforce")),
            ("$.prometheus.interval", json!("5s")),
            ("$.upstreams[].health.fail_after", json!(3)),
            ("$.upstreams[].policy.in_flight_weight", json!(0.6)),
            ("$.upstreams[].signals[].address_label", json!("instance")),
        ] {
            assert_eq!(defaults.of(path), Some(&default), "{path}");
        }
        for path in [
            "$.upstreams[].cluster",
            "$.prometheus.cluster",
            "$.prometheus.authority",
            "$.upstreams[].health",
        ] {
            assert_eq!(defaults.of(path), None, "{path}");
        }
    }
}
