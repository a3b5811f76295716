//! Endpoints from the labels of a response: every series that names an address is one, whatever its value.

use super::address::serving_address;
use super::answer::{Answer, Unusable, parse_with};
use crate::discovery::found::{Finding, Found};
use engine::settings::EndpointQuery;

/// The largest weight, as in the configuration; a larger one is ignored.
const MAX_WEIGHT: f64 = 1000.0;

/// The endpoints in a response to `query`.
#[inline(never)]
pub fn endpoints(status: u32, body: &[u8], query: &EndpointQuery) -> Result<Finding, Unusable> {
    let further = [query.zone_label.as_str(), &query.version_label, &query.weight_label];
    let answer = parse_with(status, body, &query.address_label, &further)?;
    Ok(read(&answer, query))
}

#[inline(never)]
fn read(answer: &Answer, query: &EndpointQuery) -> Finding {
    let mut finding = Finding::default();
    for sample in &answer.samples {
        let Some(address) = serving_address(&sample.address, query.port) else {
            finding.leave_out(&sample.address, 0.0, 0);
            continue;
        };
        let label = |at: usize| sample.labels.get(at).cloned().flatten();
        let weight = label(2).and_then(|text| text.parse().ok());
        finding.add(Found {
            weight: weight.filter(|weight: &f64| *weight > 0.0 && *weight <= MAX_WEIGHT),
            zone: label(0).unwrap_or_default(),
            version: label(1).unwrap_or_default(),
            ..Found::at(address)
        });
    }
    for _ in 0..answer.unnamed {
        finding.leave_out(&format!("no label {}", query.address_label), 0.0, 0);
    }
    finding
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn query(address_label: &str, port: Option<u16>) -> EndpointQuery {
        EndpointQuery {
            query: "up".into(),
            address_label: address_label.into(),
            port,
            zone_label: "zone".into(),
            version_label: "version".into(),
            weight_label: "weight".into(),
        }
    }

    fn found(series: &str, query: &EndpointQuery) -> Finding {
        let body = format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{series}]}},"infos":["metric might not be a counter"]}}"#
        );
        endpoints(200, body.as_bytes(), query).unwrap()
    }

    #[test]
    fn every_series_with_an_address_is_an_endpoint_whatever_its_value() {
        let series = r#"{"metric":{"__name__":"up","instance":"10.0.0.1:9100","zone":"a","version":"v2","weight":"2.5"},"value":[1,"1"]},
            {"metric":{"instance":"[2001:db8::1]:9100"},"value":[1,"0"]},
            {"metric":{"instance":"web-1:9100"},"value":[1,"1"]},
            {"metric":{"job":"web"},"value":[1,"1"]},
            {"metric":{"instance":"10.0.0.2:9100","weight":"-1","zone":""},"value":[1,"NaN"]},
            {"metric":{"instance":"10.0.0.1:9100","zone":"b"},"value":[1,"1"]}"#;
        let finding = found(series, &query("instance", Some(8080)));
        let addresses: Vec<_> = finding.found.iter().map(|f| f.address.to_string()).collect();
        assert_eq!(addresses, ["10.0.0.1:8080", "[2001:db8::1]:8080", "10.0.0.2:8080"]);
        assert_eq!(finding.skipped, 2, "no address in the label, and no label");
        assert_eq!(finding.examples, ["web-1:9100", "no label instance"]);
        assert_eq!(finding.unsteerable(), 0.0, "only Envoy knows what it gives them");
        let first = &finding.found[0];
        assert_eq!((first.weight, &*first.zone, &*first.version), (Some(2.5), "a", "v2"));
        assert_eq!((finding.found[2].weight, &*finding.found[2].zone), (None, ""), "nonsense is not taken");
    }

    #[test]
    fn one_label_can_be_zone_and_version() {
        let query = EndpointQuery {
            zone_label: "slot".into(),
            version_label: "slot".into(),
            weight_label: "instance".into(),
            ..query("instance", None)
        };
        let series = r#"{"metric":{"instance":"10.0.0.1:80","slot":"blue"},"value":[1,"1"]}"#;
        let first = &found(series, &query).found[0];
        assert_eq!((&*first.zone, &*first.version, first.weight), ("blue", "blue", None));
    }

    #[test]
    fn kubernetes_names_pods_in_a_label_of_its_own() {
        let series = r#"{"metric":{"pod":"web-1","pod_ip":"10.1.2.3","node":"n1","host_network":"false"},"value":[1,"1"]}"#;
        let finding = found(series, &query("pod_ip", Some(8080)));
        assert_eq!(finding.found, [Found::at("10.1.2.3:8080".parse().unwrap())]);
        assert_eq!(found(series, &query("pod_ip", None)).found, [], "an address without any port");
    }
}
