//! The query for the latency that all proxies together have measured, from the metrics that each of them exports.

use engine::settings::Builtin;

/// The number of requests with average latency that are added to each endpoint: few requests prove little, and an
/// endpoint without requests approaches the average. A proxy's latency is weighted with its requests to the endpoint in
/// the last minute; if a minute has fewer than two scrapes, in the last five.
const PRIOR_REQUESTS: u32 = 10;

/// The query that yields `builtin` for each endpoint of `cluster`.
#[inline(never)]
pub fn fleet_query(builtin: Builtin, cluster: &str) -> String {
    let Builtin::FleetLatency = builtin;
    let of = format!("{{upstream=\"{}\"}}", quoted(cluster));
    let latency = format!("evenkeel_endpoint_latency_seconds{of}");
    let total = format!("evenkeel_endpoint_requests_total{of}");
    let asked = format!("((increase({total}[1m]) or increase({total}[5m])) and {latency})");
    format!(
        "(sum by (endpoint) ({latency} * {asked}) + {PRIOR_REQUESTS} * scalar(sum({latency} * {asked}) / sum({asked}))) \
         / (sum by (endpoint) ({asked}) + {PRIOR_REQUESTS})"
    )
}

/// `value` as the content of a quoted PromQL string.
fn quoted(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_cluster_cannot_end_its_label() {
        assert_eq!(quoted("a\"} or up{b=\"\\\n"), "a\\\"} or up{b=\\\"\\\\\\u000a");
        let query = fleet_query(Builtin::FleetLatency, "outbound|80||a\"b");
        assert_eq!(query.matches("{upstream=\"outbound|80||a\\\"b\"}").count(), query.matches('{').count());
    }

    #[test]
    fn it_is_the_one_in_the_documents() {
        let query = fleet_query(Builtin::FleetLatency, "web");
        assert!(include_str!("../../../docs/configuration.md").lines().any(|line| line == query), "{query}");
        assert_eq!(query.matches('(').count(), query.matches(')').count());
        assert!(query.len() < 2048, "{}", query.len());
    }
}
