//! Properties: arbitrary bytes become endpoints or an error.

use core::net::{IpAddr, SocketAddr};

use proptest::collection::{hash_map, vec};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use testkit::arbitrary;

fn check(status: u32, body: &[u8]) -> Result<(), TestCaseError> {
    match parse(status, body, "instance") {
        Ok(answer) => {
            prop_assert!(answer.samples.iter().all(|sample| sample.value.is_none_or(f64::is_finite)));
            let index = EndpointIndex::new([SocketAddr::from(([10, 0, 0, 1], 80))]);
            let assignment = index.assign(&answer.samples, None);
            let counted = assignment.matched + assignment.unknown + assignment.unmatched;
            prop_assert_eq!(counted, answer.samples.len());
        }
        Err(unusable) => {
            let line = unusable.to_string();
            prop_assert!(!line.contains(char::is_control) && line.len() < 5000, "{line:?}");
        }
    }
    Ok(())
}

fn answer(samples: &[(String, f64)]) -> Value {
    let result: Vec<Value> = samples
        .iter()
        .map(|(address, value)| json!({"metric": {"instance": address, "job": "web"}, "value": [1.5, value.to_string()]}))
        .collect();
    json!({"status": "success", "data": {"resultType": "vector", "result": result}})
}

fn json_value() -> impl Strategy<Value = Value> {
    const KEYS: &[&str] = &[
        "status",
        "data",
        "resultType",
        "result",
        "metric",
        "instance",
        "value",
        "values",
        "error",
        "warnings",
    ];
    arbitrary::value(KEYS, &["success", "error", "vector", "matrix", "10.0.0.1:80", "1.5", "NaN"])
}

proptest! {
    #![proptest_config(arbitrary::cases())]

    #[test]
    fn arbitrary_bytes(status in 0..600u32, bytes in vec(any::<u8>(), 0..300)) {
        check(status, &bytes)?;
    }

    #[test]
    fn arbitrary_json(value in json_value()) {
        check(200, value.to_string().as_bytes())?;
    }

    #[test]
    fn an_answer_with_arbitrary_parts(result in json_value(), address: String) {
        let mut answer = answer(&[(address, 1.0)]);
        answer["data"]["result"] = json!([answer["data"]["result"][0], {"metric": {}, "value": result}]);
        check(200, answer.to_string().as_bytes())?;
    }

    #[test]
    fn an_answer_with_one_byte_changed(at: prop::sample::Index, byte: u8) {
        let mut bytes = answer(&[("10.0.0.1:80".into(), 2.5), ("10.0.0.2:80".into(), 0.1)]).to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        check(200, &bytes)?;
    }

    #[test]
    fn arbitrary_labels_lead_nowhere_or_to_an_endpoint(labels in vec(any::<String>(), 0..20), port: Option<u16>) {
        for label in &labels {
            prop_assert!(serving_address(label, port).is_none_or(|address| address.port() != 0));
        }
        let samples: Vec<Sample> = labels
            .into_iter()
            .map(|address| Sample { address, value: Some(1.0), ..Sample::default() })
            .collect();
        let assignment = EndpointIndex::new([]).assign(&samples, port);
        prop_assert_eq!(assignment.unmatched, samples.len());
    }

    /// The value of each endpoint in a response is assigned to it bit for bit, in every spelling of its address.
    #[test]
    fn there_and_back(fleet in hash_map((any::<IpAddr>(), 1..=u16::MAX), any::<f64>(), 1..30), spelling in 0..3) {
        let fleet: Vec<(SocketAddr, f64)> =
            fleet.into_iter().map(|((ip, port), value)| (SocketAddr::new(ip.to_canonical(), port), value)).collect();
        let spell = |address: SocketAddr| match spelling {
            0 => address.to_string(),
            1 => format!("http://{address}/metrics"),
            _ => format!(" {address}"),
        };
        let body = answer(&fleet.iter().map(|(address, value)| (spell(*address), *value)).collect::<Vec<_>>());
        let samples = parse(200, body.to_string().as_bytes(), "instance").unwrap().samples;
        let index = EndpointIndex::new(fleet.iter().map(|(address, _)| *address));
        let expected: Vec<Option<f64>> =
            fleet.iter().map(|(_, value)| Some(*value).filter(|value| value.is_finite())).collect();
        prop_assert_eq!(index.assign(&samples, None).values, expected);
    }
}
