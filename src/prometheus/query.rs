//! The path of an instant query.

use core::time::Duration;

use crate::percent::encode;

/// `{prefix}/api/v1/query?query=…&timeout=…`, for a GET.
///
/// Prometheus gives up by itself after `timeout`, so that nobody computes what nobody waits for any more.
pub fn request_path(prefix: &str, query: &str, timeout: Duration) -> String {
    format!("{prefix}/api/v1/query?query={}&timeout={}ms", encode(query), timeout.as_millis().max(1))
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_query_is_encoded_byte_by_byte() {
        assert_eq!(
            request_path("/mimir", "up{job=\"wéb\"} == 1", Duration::from_millis(1500)),
            "/mimir/api/v1/query?query=up%7Bjob%3D%22w%C3%A9b%22%7D%20%3D%3D%201&timeout=1500ms"
        );
    }

    #[test]
    fn every_servers_path_is_its_prefix() {
        for (prefix, expected) in [
            ("", "/api/v1/query?query=up&timeout=1000ms"),
            ("/prometheus", "/prometheus/api/v1/query?query=up&timeout=1000ms"),
            ("/select/0/prometheus", "/select/0/prometheus/api/v1/query?query=up&timeout=1000ms"),
        ] {
            assert_eq!(request_path(prefix, "up", Duration::from_secs(1)), expected);
        }
    }

    #[test]
    fn no_time_at_all_is_still_a_time_out() {
        assert_eq!(request_path("", "up", Duration::ZERO), "/api/v1/query?query=up&timeout=1ms");
    }

    #[cfg(not(target_family = "wasm"))]
    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config {
            failure_persistence: None,
            rng_seed: proptest::test_runner::RngSeed::Fixed(7),
            ..Default::default()
        })]

        #[test]
        fn decoding_gives_the_query_back(query: String) {
            let path = request_path("", &query, Duration::from_secs(2));
            let encoded = path.strip_prefix("/api/v1/query?query=").unwrap().strip_suffix("&timeout=2000ms").unwrap();
            let mut decoded = Vec::new();
            let mut rest = encoded.as_bytes();
            while let [first, after @ ..] = rest {
                assert!(first.is_ascii_alphanumeric() || b"-._~%".contains(first));
                rest = after;
                if *first == b'%' {
                    let (hex, after) = after.split_at(2);
                    decoded.push(u8::from_str_radix(core::str::from_utf8(hex).unwrap(), 16).unwrap());
                    rest = after;
                } else {
                    decoded.push(*first);
                }
            }
            assert_eq!(decoded, query.as_bytes());
        }
    }
}
