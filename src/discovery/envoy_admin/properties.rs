//! Properties: arbitrary bytes become endpoints or an error.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use testkit::arbitrary;

fn check(status: u32, body: &[u8]) -> Result<(), TestCaseError> {
    match parse(status, &body, &["web"]).and_then(|mut listing| listing.clusters.remove(0)) {
        Ok(ClusterHosts { finding, .. }) => {
            let usable = |f: &crate::discovery::found::Found| {
                f.address.port() != 0 && !f.address.ip().is_unspecified()
            };
            prop_assert!(finding.found.iter().all(usable));
            prop_assert!(finding.found.iter().all(|f| f.weight.is_none_or(|w| w.is_finite() && w > 0.0)));
            prop_assert!(
                finding.found.iter().all(|f| f.zone.len() <= 128 && !f.zone.contains(char::is_control))
            );
        }
        Err(unusable) => {
            let line = unusable.to_string();
            prop_assert!(!line.contains(char::is_control) && line.len() < 5000, "{line:?}");
        }
    }
    let _any_bytes_are_taken = parse_localities(status, &body, &["web"]);
    Ok(())
}

fn host(ip: &str, port: u32, zone: &str) -> Value {
    json!({
        "address": { "socket_address": { "address": ip, "port_value": port } },
        "stats": [{ "name": "rq_total", "value": "7" }],
        "health_status": { "eds_health_status": "HEALTHY" },
        "weight": 2,
        "locality": { "zone": zone },
    })
}

fn clusters(hosts: &[Value]) -> Value {
    json!({ "cluster_statuses": [{ "name": "web", "host_statuses": hosts }] })
}

fn json_value() -> impl Strategy<Value = Value> {
    const KEYS: &[&str] = &[
        "cluster_statuses",
        "name",
        "host_statuses",
        "address",
        "socket_address",
        "port_value",
        "health_status",
        "eds_health_status",
        "failed_outlier_check",
        "weight",
        "priority",
        "locality",
        "zone",
    ];
    arbitrary::value(KEYS, &["web", "10.0.0.1", "DRAINING", "::1"])
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
        check(200, clusters(&[value]).to_string().as_bytes())?;
    }

    #[test]
    fn an_answer_with_one_byte_changed(at: prop::sample::Index, byte: u8) {
        let mut bytes = clusters(&[host("10.0.0.1", 80, "a"), host("::1", 81, "b")]).to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        check(200, &bytes)?;
    }

    #[test]
    fn arbitrary_hosts(hosts in vec((any::<std::net::IpAddr>(), any::<u32>(), any::<String>()), 0..20)) {
        let values: Vec<Value> = hosts.iter().map(|(ip, port, zone)| host(&ip.to_string(), *port, zone)).collect();
        check(200, clusters(&values).to_string().as_bytes())?;
    }

    /// For any cluster name the path is a valid URL whose expression matches that name and no other.
    #[test]
    fn a_question_is_a_url(name: String) {
        let path = clusters_path(&[&name]);
        prop_assert!(path.bytes().all(|byte| byte.is_ascii_graphic()));
        let expression = path.strip_prefix("/clusters?format=json&filter=%5E").expect("the beginning");
        let expression = expression.strip_suffix("%24").expect("the end");
        let mut bytes = Vec::new();
        let mut rest = expression.as_bytes();
        while let [first, after @ ..] = rest {
            rest = after;
            let hex = (*first == b'%').then(|| core::str::from_utf8(&after[..2]).expect("digits"));
            bytes.push(hex.map_or(*first, |hex| u8::from_str_radix(hex, 16).expect("hexadecimal")));
            rest = if hex.is_some() { &rest[2..] } else { rest };
        }
        let mut literal = String::new();
        let mut chars = core::str::from_utf8(&bytes).expect("text").chars();
        while let Some(c) = chars.next() {
            let plain = c == '_' || !c.is_ascii() || c.is_ascii_alphanumeric();
            prop_assert!(plain || c == '\\');
            literal.push(if plain { c } else { chars.next().expect("what is escaped") });
        }
        prop_assert_eq!(literal, name);
    }
}
