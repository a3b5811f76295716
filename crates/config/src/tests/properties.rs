//! Properties: for any input there is no panic, faults are printable lines without secrets, and what is accepted keeps
//! the documented ranges.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::Value;

use super::places::places;
use super::*;
use crate::{Via, effective};
use engine::settings::{NoneEligible, Policy};
use testkit::arbitrary;

fn check(json: &[u8]) -> Result<(), TestCaseError> {
    match parse(json) {
        Ok(config) => check_promises(&config).and_then(|()| check_effective(&config)),
        Err(faults) => {
            prop_assert!((1..=101).contains(&faults.len()));
            for line in lines(&faults) {
                prop_assert!(line.starts_with('$'), "{line}");
                prop_assert!(line.len() < 2000, "{line}");
                prop_assert!(!line.contains(char::is_control), "{line:?}");
                prop_assert!(!line.contains("S3CR3T"), "{line}");
            }
            Ok(())
        }
    }
}

/// The effective configuration reads back as the same configuration, with secrets masked.
fn check_effective(config: &Config) -> Result<(), TestCaseError> {
    let written = serde_json::to_string(&effective(config)).unwrap();
    prop_assert!(!written.contains("S3CR3T"), "{written}");
    let read = parse(written.as_bytes());
    let mut expected = config.clone();
    if let Some(asking) = expected.debug.as_mut().and_then(|debug| debug.asking.as_mut()) {
        "(not shown)".clone_into(&mut asking.secret);
    }
    for (_, value) in expected.prometheus.iter_mut().flat_map(|prometheus| &mut prometheus.headers) {
        match value {
            crate::HeaderValue::Given(value) => "(not shown)".clone_into(value),
            crate::HeaderValue::Environment { prefix, .. } if prefix == "Bearer " || prefix.is_empty() => {}
            crate::HeaderValue::Environment { prefix, .. } => "(not shown)".clone_into(prefix),
        }
    }
    for (_, value) in expected.prometheus.iter_mut().flat_map(|prometheus| &mut prometheus.parameters) {
        "(not shown)".clone_into(value);
    }
    prop_assert_eq!(read, Ok(expected), "{}", written);
    Ok(())
}

/// The ranges in the documentation of the configuration's types.
fn check_promises(config: &Config) -> Result<(), TestCaseError> {
    prop_assert!(!config.upstreams.is_empty());
    prop_assert!((1..=8).contains(&config.steering.candidates));
    prop_assert!(config.steering.candidates == 1 || config.steering.via == Via::OverrideHost);
    prop_assert_eq!(&config.steering.header, &config.steering.header.to_lowercase());
    if let Some(prometheus) = &config.prometheus {
        prop_assert!(prometheus.timeout <= prometheus.interval && !prometheus.timeout.is_zero());
        prop_assert!(prometheus.path_prefix.is_empty() || prometheus.path_prefix.starts_with('/'));
        prop_assert!(!prometheus.path_prefix.ends_with('/'));
    }
    for upstream in &config.upstreams {
        let endpoints = &upstream.endpoints;
        prop_assert!(
            !endpoints.fixed.is_empty() || endpoints.prometheus.is_some() || endpoints.envoy_admin.is_some()
        );
        prop_assert!(
            config.prometheus.is_some() || (upstream.signals.is_empty() && endpoints.prometheus.is_none())
        );
        for endpoint in &endpoints.fixed {
            prop_assert!(endpoint.weight > 0.0 && endpoint.weight <= 1000.0 && endpoint.priority <= 128);
            prop_assert!(endpoint.address.port() > 0 && !endpoint.address.ip().is_unspecified());
        }
        for signal in &upstream.signals {
            prop_assert!((0.0..=100.0).contains(&signal.weight) && signal.max.is_none_or(|max| max > 0.0));
            prop_assert!(signal.smoothing > 0.0 && signal.smoothing <= 1.0);
        }
        if let Policy::LeastSignal { signal } = &upstream.policy {
            prop_assert!(upstream.signals.iter().any(|known| known.name == *signal));
        }
        prop_assert!(!matches!(upstream.policy, Policy::ConsistentHash(_)) || upstream.affinity.is_some());
        prop_assert!(upstream.health.suspect_after <= upstream.health.fail_after);
        if let NoneEligible::SafeEndpoint(address) = &upstream.failover.none_eligible {
            prop_assert!(address.port() > 0);
        }
        prop_assert!(upstream.split.iter().all(|(version, share)| !version.is_empty() && *share > 0.0));
        prop_assert!(upstream.autoscale.as_ref().is_none_or(|autoscale| autoscale.min <= autoscale.max));
        prop_assert!(!upstream.pressure.is_empty());
        prop_assert!(upstream.pressure.iter().all(|t| t.weight > 0.0 && t.full > 0.0 && t.most > 0.0));
    }
    Ok(())
}

/// A number that survives formatting and parsing; some differ in their last bit.
fn exact() -> impl Strategy<Value = f64> {
    let is_exact =
        |number: &f64| serde_json::from_str(&number.to_string()).is_ok_and(|read: f64| read == *number);
    any::<f64>().prop_filter("exact", is_exact)
}

/// Values that mean something in some field find more than noise.
fn leaf() -> impl Strategy<Value = Value> {
    let meaningful = prop::sample::select(vec![
        "",
        "*",
        "web",
        "5s",
        "0s",
        "1h",
        "10.0.0.1:80",
        "[::1]:80",
        "host:80",
        "adaptive",
        "least_signal",
        "ip_hash",
        "consistent_hash",
        "original_dst",
        "safe_endpoint",
        "reject",
        "host",
        "/",
        "/x",
        "\r\n",
        "\u{202e}",
    ]);
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        exact().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..10u8).prop_map(Value::from),
        meaningful.prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ]
}

fn key() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "upstreams",
        "cluster",
        "endpoints",
        "static",
        "address",
        "policy",
        "name",
        "signal",
        "signals",
        "query",
        "prometheus",
        "headers",
        "health",
        "fail_after",
        "split",
        "affinity",
        "header",
        "steering",
        "via",
        "guard",
        "holdout_percent",
    ]);
    prop_oneof![4 => known.prop_map(str::to_owned), 1 => any::<String>()]
}

fn json() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            btree_map(key(), inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// The complete configuration with the value at one place replaced or removed.
fn mutated(place: prop::sample::Index, replacement: Option<Value>) -> Value {
    let mut config: Value = serde_json::from_str(COMPLETE).unwrap();
    let mut found = Vec::new();
    places(&config, "", &mut found);
    let place = place.get(&found);
    match replacement {
        Some(value) => *config.pointer_mut(place).unwrap() = value,
        None => {
            let (parent, name) = place.rsplit_once('/').unwrap_or(("", ""));
            match config.pointer_mut(parent) {
                Some(Value::Object(fields)) => drop(fields.remove(name)),
                Some(Value::Array(items)) => drop(items.pop()),
                _ => {}
            }
        }
    }
    config
}

proptest! {
    #![proptest_config(arbitrary::cases())]

    #[test]
    fn arbitrary_bytes(bytes in vec(any::<u8>(), 0..300)) {
        check(&bytes)?;
    }

    #[test]
    fn arbitrary_json(value in json()) {
        check(value.to_string().as_bytes())?;
    }

    #[test]
    fn a_valid_configuration_with_one_value_replaced(place: prop::sample::Index, value in json()) {
        check(mutated(place, Some(value)).to_string().as_bytes())?;
    }

    #[test]
    fn a_valid_configuration_with_one_leaf_replaced(place: prop::sample::Index, value in leaf()) {
        check(mutated(place, Some(value)).to_string().as_bytes())?;
    }

    #[test]
    fn a_valid_configuration_with_one_value_removed(place: prop::sample::Index) {
        check(mutated(place, None).to_string().as_bytes())?;
    }

    #[test]
    fn a_valid_configuration_with_one_byte_changed(at: prop::sample::Index, byte: u8) {
        let mut bytes = COMPLETE.as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        check(&bytes)?;
    }

    #[test]
    fn a_valid_configuration_cut_short(at: prop::sample::Index) {
        check(&COMPLETE.as_bytes()[..at.index(COMPLETE.len())])?;
    }
}
