//! Instant queries as HTTP requests.

use core::time::Duration;

use crate::discovery::percent::encode;
use config::{Prometheus, QueryMethod};

/// The longest path that is sent with GET, bytes: some servers and proxies accept no more (nginx takes 8 KiB for the
/// whole request line).
const MAX_PATH: usize = 4096;

/// A query as an HTTP request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The `:path`, parameters included.
    pub path: String,
    /// The form of a POST; `None` for a GET.
    pub form: Option<String>,
}

/// The request that sends `query` to the server.
pub fn request(server: &Prometheus, query: &str) -> Request {
    let Prometheus { path_prefix, timeout, method, parameters, .. } = server;
    let own: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    let own = own.join("&");
    let path = request_path(path_prefix, query, *timeout);
    let path = if own.is_empty() { path } else { format!("{path}&{own}") };
    let posted = match method {
        QueryMethod::Auto => path.len() > MAX_PATH,
        QueryMethod::Get => false,
        QueryMethod::Post => true,
    };
    match path.split_once('?').filter(|_| posted) {
        // The server's own parameters stay in the path: proxies that choose a tenant look there.
        Some((to, _)) if own.is_empty() => Request { path: to.into(), form: Some(fields(query, *timeout)) },
        Some((to, _)) => Request { path: format!("{to}?{own}"), form: Some(fields(query, *timeout)) },
        None => Request { path, form: None },
    }
}

fn fields(query: &str, timeout: Duration) -> String {
    format!("query={}&timeout={}ms", encode(query), timeout.as_millis().max(1))
}

/// `{prefix}/api/v1/query?query=…&timeout=…`, for a GET.
///
/// With `timeout`, Prometheus stops computing a result that is no longer waited for.
pub fn request_path(prefix: &str, query: &str, timeout: Duration) -> String {
    format!("{prefix}/api/v1/query?{}", fields(query, timeout))
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
    fn further_parameters_stand_in_the_address_whatever_the_method() {
        let server = |more: &str| {
            let json = format!(
                r#"{{"prometheus":{{"cluster":"p"{more}}},"upstreams":[{{"cluster":"web","endpoints":{{"static":["10.0.0.1:80"]}}}}]}}"#
            );
            config::parse(json.as_bytes()).unwrap().prometheus.unwrap()
        };
        let own = r#","parameters":{"dedup":"true","x-scope":"a b&c"}"#;
        assert_eq!(
            request(&server(own), "up"),
            Request {
                path: "/api/v1/query?query=up&timeout=2000ms&dedup=true&x-scope=a%20b%26c".into(),
                form: None
            }
        );
        assert_eq!(
            request(&server(&format!(r#"{own},"method":"POST""#)), "up"),
            Request {
                path: "/api/v1/query?dedup=true&x-scope=a%20b%26c".into(),
                form: Some("query=up&timeout=2000ms".into())
            }
        );
        let long = "x".repeat(4096);
        let posted = request(&server(""), &long);
        assert_eq!((posted.path.as_str(), posted.form.unwrap().len()), ("/api/v1/query", 4096 + 21));
        assert_eq!(request(&server(r#","method":"GET""#), &long).form, None);
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
