//! The schema and the parser agree: the schema accepts whatever the parser accepts.

use std::path::{Path, PathBuf};

use config::parse;
use evenkeel_cli::{find, schema};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};

#[path = "../../crates/config/src/tests/places.rs"]
mod places;

use places::places;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn validator() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(&schema::text().unwrap()).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

#[test]
fn the_file_is_up_to_date() {
    let kept = std::fs::read_to_string(root().join(schema::FILE)).unwrap_or_default();
    assert!(
        kept == schema::text().unwrap(),
        "{} is not what the reader asks for (any more): run `make schema` and commit the file",
        schema::FILE
    );
}

#[test]
fn the_tables_of_the_documentation_are_up_to_date() {
    let kept = std::fs::read_to_string(root().join(schema::reference::FILE)).unwrap();
    let written = schema::reference::text(&kept).unwrap();
    assert!(kept == written, "{}: run `make schema` and commit the file", schema::reference::FILE);
}

/// A configuration with every field, so that mutations reach it: the parser tests' complete one, with the alternatives
/// that exclude some of its fields.
fn complete() -> Value {
    let mut complete: Value =
        serde_json::from_str(include_str!("../../crates/config/src/tests/complete.json")).unwrap();
    let upstream = &mut complete["upstreams"][0];
    for label in ["zone", "version", "weight"] {
        upstream["endpoints"]["prometheus"][format!("{label}_label")] = json!(label);
    }
    upstream["policy"] = json!({
        "name": "weighted_score", "in_flight_weight": 1, "in_flight_max": 10, "latency_weight": 1, "latency_max_ms": 5
    });
    upstream["signals"][0]["learn"] = json!(false);
    upstream["rules"] = json!([{ "when": "queue_depth", "above": 85, "for": "5s", "then": "eject" }]);
    upstream["failover"] =
        json!({ "none_eligible": "safe_endpoint", "safe_endpoint": "[::1]:80", "panic_percent": 50 });
    complete
}

/// Every configuration shown or shipped in this repository: in the docs, in `envoy/`, in the parser's own tests.
fn shown() -> Vec<(PathBuf, String)> {
    let mut shown = Vec::new();
    let root = root();
    collect(&root.join("envoy"), &mut shown);
    collect(&root.join("docs"), &mut shown);
    collect(&root.join("README.md"), &mut shown);
    collect(&root.join("crates/config/src/tests"), &mut shown);
    shown
}

fn collect(path: &Path, shown: &mut Vec<(PathBuf, String)>) {
    if path.is_dir() {
        let mut entries: Vec<PathBuf> = path.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| collect(entry, shown));
        return;
    }
    let Ok(text) = std::fs::read_to_string(path) else { return };
    let configurations: Vec<String> = match path.extension().and_then(|ending| ending.to_str()) {
        Some("yaml" | "yml" | "json") => find::plugins(text.as_bytes())
            .unwrap_or_default()
            .plugins
            .into_iter()
            .filter_map(|plugin| String::from_utf8(plugin.json).ok())
            .collect(),
        Some("md") => text
            .split("```json plugin\n")
            .skip(1)
            .filter_map(|block| block.split("```").next())
            .map(str::to_owned)
            .collect(),
        // Raw strings with whole configurations.
        Some("rs") => text
            .split("r#\"")
            .skip(1)
            .filter_map(|rest| rest.split("\"#").next())
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    };
    shown.extend(configurations.into_iter().map(|text| (path.to_owned(), text)));
}

#[test]
fn whatever_is_shown_and_accepted_fits_the_schema() {
    let validator = validator();
    let mut fitting = 0;
    for (path, text) in shown() {
        let (Ok(_), Ok(value)) = (parse(text.as_bytes()), serde_json::from_str::<Value>(&text)) else {
            continue;
        };
        let faults: Vec<String> = validator
            .iter_errors(&value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(faults.is_empty(), "{}: {faults:#?}\n{text}", path.display());
        fitting += 1;
    }
    assert!(fitting >= 6, "{fitting}");
    parse(complete().to_string().as_bytes()).unwrap();
    assert!(validator.is_valid(&complete()));
}

/// Minimal configurations, each with one fault that the schema alone can detect.
#[test]
fn faults_that_a_schema_can_see_are_refused() {
    let validator = validator();
    let upstream = |more: &str| {
        format!(
            r#"{{"prometheus":{{"cluster":"p"}},"upstreams":[{{"cluster":"web","endpoints":{{"static":["10.0.0.1:80"]}},{more}}}]}}"#
        )
    };
    let top = |more: &str| {
        format!(r#"{{"upstreams":[{{"cluster":"web","endpoints":{{"static":["10.0.0.1:80"]}}}}],{more}}}"#)
    };
    assert!(validator.is_valid(&serde_json::from_str(&top(r#""mode":"observe""#)).unwrap()));
    let faulty: Vec<String> = [
        r#""mod":"observe""#,
        r#""mode":"observed""#,
        r#""mode":null"#,
        r#""status":{}"#,
        r#""status":{"path":"_evenkeel"}"#,
        r#""status":{"path":"/a/../b"}"#,
        r#""status":{"path":"/"}"#,
        r#""steering":"override_host""#,
        r#""steering":{"candidates":0}"#,
        r#""steering":{"candidates":9}"#,
        r#""steering":{"candidates":2.5}"#,
        r#""steering":{"candidates":"3"}"#,
        r#""steering":{"via":"stateful_session","candidates":2}"#,
        r#""steering":{"header":"x evenkeel"}"#,
        r#""prometheus":{}"#,
        r#""prometheus":{"cluster":""}"#,
        r#""prometheus":{"cluster":"p","interval":5}"#,
        r#""prometheus":{"cluster":"p","interval":"5"}"#,
        r#""prometheus":{"cluster":"p","path_prefix":"mimir"}"#,
        r#""prometheus":{"cluster":"p","headers":["x"]}"#,
        r#""prometheus":{"cluster":"p","headers":{"x":7}}"#,
    ]
    .map(top)
    .into_iter()
    .chain(
        [
            r#""polcy":"random""#,
            r#""policy":"maglev""#,
            r#""policy":{"name":"random","signal":"x"}"#,
            r#""policy":{"name":"weighted_score","in_flight_max":0}"#,
            r#""policy":"consistent_hash""#,
            r#""slow_start":30"#,
            r#""health":{"fail_after":0}"#,
            r#""health":{"max_ejected_percent":101}"#,
            r#""health":{"ejection":30}"#,
            r#""failover":{"none_eligible":"safe_endpoint"}"#,
            r#""failover":{"safe_endpoint":"10.0.0.1:80"}"#,
            r#""affinity":{}"#,
            r#""affinity":{"header":"a","cookie":"b"}"#,
            r#""affinity":{"source_ip":false}"#,
            r#""zone":{}"#,
            r#""signals":[{"name":"x"}]"#,
            r#""signals":[{"name":"X","query":"x"}]"#,
            r#""signals":[{"name":"x","query":"x","max":0}]"#,
            r#""signals":[{"name":"x","query":"x","port":0}]"#,
            r#""rules":[{"when":"in_flight","above":1,"then":"ejct"}]"#,
            r#""split":{"v1":-1}"#,
            r#""autoscale":{"min":0}"#,
        ]
        .map(upstream),
    )
    .chain(
        [
            "{}",
            "[]",
            r#"{"mode":"observe","steering":{"via":"original_dst"},"upstreams":[{"cluster":"web","endpoints":{"static":["10.0.0.1:80"]}}]}"#,
            r#"{"upstreams":[]}"#,
            r#"{"upstreams":[{"endpoints":{"static":["10.0.0.1:80"]}}]}"#,
            r#"{"upstreams":[{"cluster":"web","endpoints":{}}]}"#,
            r#"{"upstreams":[{"cluster":"web","endpoints":{"static":["10.0.0.1"]}}]}"#,
            r#"{"upstreams":[{"cluster":"web","endpoints":{"static":["host:80"]}}]}"#,
            r#"{"upstreams":[{"cluster":"web","endpoints":{"static":[{"weight":1}]}}]}"#,
            r#"{"upstreams":[{"cluster":"web","endpoints":{"prometheus":{"query":"up"}}}]}"#,
        ]
        .map(str::to_owned),
    )
    .collect();
    for text in faulty {
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(parse(text.as_bytes()).is_err(), "the reader accepts {text}");
        assert!(!validator.is_valid(&value), "the schema accepts {text}");
    }
}

#[test]
fn every_field_has_a_description_for_editors() {
    let schema: Value = serde_json::from_str(&schema::text().unwrap()).unwrap();
    let interval = &schema["properties"]["prometheus"]["properties"]["interval"];
    assert_eq!(interval["default"], "5s");
    let description = interval["description"].as_str().unwrap();
    assert!(
        description.contains("between polls") && description.contains("from 100ms to 1h"),
        "{description}"
    );
}

/// Values of every kind, most of which are valid somewhere.
fn value() -> impl Strategy<Value = Value> {
    let meaningful: Vec<Value> = [
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(2.0),
        json!(0.5),
        json!(1e6),
        json!(-1),
        json!([]),
        json!({}),
        json!(""),
        json!("*"),
        json!("web"),
        json!("x y"),
        json!("5s"),
        json!("0s"),
        json!("1.5h"),
        json!("0.25ms"),
        json!("10.0.0.1:80"),
        json!("[fe80::1%0]:080"),
        json!("[::ffff:1.2.3.4]:1"),
        json!("/x"),
        json!("/a/..b"),
        json!("x-user"),
        json!("é"),
        json!("\u{feff}x"),
        json!("a\u{2028}b"),
        json!("adaptive"),
        json!("random"),
        json!("weighted_score"),
        json!("least_signal"),
        json!("consistent_hash"),
        json!("ip_hash"),
        json!("observe"),
        json!("stateful_session"),
        json!("reject"),
        json!("envoy"),
        json!("flag"),
        json!("in_flight"),
        json!({"name": "random"}),
        json!({"cookie": "c"}),
        json!({"source_ip": true}),
        json!(["10.0.0.1:80"]),
        json!({"static": ["1.2.3.4:5"]}),
        json!({"v2": 1}),
        json!({"cluster": "p"}),
        json!({"path": "/x"}),
    ]
    .into();
    prop_oneof![
        8 => prop::sample::select(meaningful),
        1 => any::<String>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => (0..200u32).prop_map(Value::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::with_cases(1) })]

    #[test]
    fn what_the_reader_accepts_the_schema_accepts(mutations in prop::collection::vec((any::<Index>(), prop::option::weighted(0.7, value())), 6000)) {
        let validator = validator();
        let mut accepted = 0;
        let mut config = complete();
        for (place, replacement) in mutations {
            let before = config.clone();
            let mut found = Vec::new();
            places(&config, "", &mut found);
            let place = place.get(&found);
            match (replacement, place.rsplit_once('/')) {
                (Some(value), _) => *config.pointer_mut(place).unwrap() = value,
                (None, Some((parent, name))) => match config.pointer_mut(parent) {
                    Some(Value::Object(fields)) => drop(fields.remove(name)),
                    Some(Value::Array(items)) => drop(items.pop()),
                    _ => {}
                },
                _ => {}
            }
            if parse(config.to_string().as_bytes()).is_ok() {
                prop_assert!(validator.is_valid(&config), "{config}");
                accepted += 1;
                // Continues from a valid configuration, and starts afresh now and then.
                if accepted % 25 == 0 {
                    config = complete();
                }
            } else {
                config = before;
            }
        }
        prop_assert!(accepted > 300, "{accepted}");
    }
}
