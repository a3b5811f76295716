//! Arbitrary JSON, and the settings of property tests that use it.

use proptest::collection::{hash_map, vec};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::Value;

/// Five hundred cases, the same in every run.
pub fn cases() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(7),
        ..ProptestConfig::with_cases(500)
    }
}

/// Values of any shape: objects with some members named as in `keys`, and strings of which some are from `texts`.
pub fn value(keys: &'static [&'static str], texts: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(texts).prop_map(Value::from),
        any::<String>().prop_map(Value::from)
    ];
    leaf.prop_recursive(6, 48, 5, move |inner| {
        let key = prop::sample::select(keys).prop_map(str::to_owned);
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            hash_map(key, inner, 0..5).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}
