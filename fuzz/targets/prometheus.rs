//! Answers of Prometheus: samples, endpoints, and the assignment of samples to endpoints. The first byte selects a
//! status.

use core::net::SocketAddr;

use engine::settings::EndpointQuery;
use evenkeel::discovery::prometheus::{EndpointIndex, endpoints, parse_with, serving_address};

use super::input::{Input, is_line, within};

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let status = input.of(&[200, 200, 200, 200, 400, 422, 503, 0]);
    let body = input.0;
    match within(body.len(), 60, || parse_with(status, body, "instance", &["zone"])) {
        Ok(answer) => {
            assert!(answer.samples.iter().all(|sample| sample.value.is_none_or(f64::is_finite)));
            assert!(answer.samples.iter().all(|sample| sample.at.is_none_or(f64::is_finite)));
            assert!(answer.samples.iter().all(|sample| sample.address.len() <= 512));
            is_line(&answer.labels_instead);
            let fleet = [SocketAddr::from(([10, 0, 0, 1], 80)), SocketAddr::from(([10, 0, 0, 1], 81))];
            for port in [None, Some(80)] {
                let got = EndpointIndex::new(fleet).assign(&answer.samples, port);
                assert_eq!(got.matched + got.unknown + got.unmatched, answer.samples.len());
                assert_eq!(got.values.len(), fleet.len());
                assert!(got.values.iter().all(|value| value.is_none_or(f64::is_finite)));
            }
            for sample in &answer.samples {
                let Some(address) = serving_address(&sample.address, None) else { continue };
                assert_eq!(serving_address(&address.to_string(), None), Some(address), "read back");
            }
        }
        Err(unusable) => is_line(&unusable.to_string()),
    }
    let query = EndpointQuery {
        query: "up".into(),
        address_label: "instance".into(),
        port: None,
        zone_label: "zone".into(),
        version_label: "version".into(),
        weight_label: "weight".into(),
    };
    if let Ok(finding) = endpoints(status, body, &query) {
        super::zones::usable(&finding);
    }
}
