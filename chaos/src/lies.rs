//! False answers of Prometheus and the admin interface.

use testbed::liar::{Lie, endless, http, json, raw};
use testbed::lies;

/// Values that are implausible, impossible or false.
pub fn numbers(endpoints: &[String]) -> Vec<Lie> {
    let every =
        |value: &str| lies::vector(&endpoints.iter().map(|name| (name.as_str(), value)).collect::<Vec<_>>());
    let but_first = |first: &str, rest: &str| {
        let value = |index: usize| if index == 0 { first } else { rest };
        let each: Vec<(&str, &str)> =
            endpoints.iter().enumerate().map(|(index, name)| (name.as_str(), value(index))).collect();
        lies::vector(&each)
    };
    vec![
        json(every("NaN")),
        json(every("-1")),
        json(but_first("-1e300", "0")),
        json(every("1e308")),
        json(but_first("0", "1e9")),
        json(every("+Inf")),
        json(but_first("100000", "0")),
        json(lies::vector(&[("10.255.255.1:80", "1"), ("no address", "2"), ("", "3")])),
        json(every("99.999")),
    ]
}

/// The largest answer that is read, and one that is larger.
pub fn large(endpoints: &[String]) -> Vec<Lie> {
    let padded = |size: usize| {
        let answer = lies::vector(&[(endpoints[0].as_str(), "1")]);
        json(format!("{}{answer}", " ".repeat(size.saturating_sub(answer.len()))))
    };
    let strangers: Vec<String> = (0..100_000).map(|n| format!("10.{}.{}.1:80", n / 256, n % 256)).collect();
    let strangers: Vec<(&str, &str)> = strangers.iter().map(|name| (name.as_str(), "1")).collect();
    vec![padded(8 << 20), json(lies::vector(&strangers)), padded(9 << 20)]
}

/// An answer that does not end.
pub fn without_end() -> Vec<Lie> {
    vec![endless(r#"{"status":"success","data":{"resultType":"vector","result":["#)]
}

/// Answers that no admin interface gives.
pub fn admin(honest: &str) -> Vec<Lie> {
    let half = honest.get(..honest.len() / 2).unwrap_or_default();
    let stranger = r#"{"cluster_statuses":[{"name":"web","host_statuses":[{"address":{"socket_address":
        {"address":"10.255.255.1","port_value":1}},"health_status":{"eds_health_status":"HEALTHY"}}]}]}"#;
    vec![
        http("200 OK", "text/html", "<!doctype html><title>Login</title>"),
        json(half),
        json(r#"{"cluster_statuses":[]}"#),
        json(stranger),
        http("500 Internal Server Error", "text/plain", "oops"),
        json("[".repeat(1_000_000)),
        raw("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{}"),
        raw([0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x28]),
        endless(r#"{"cluster_statuses":["#),
        json("null"),
        Lie::Silence,
    ]
}
