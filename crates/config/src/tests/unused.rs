//! Settings that are accepted, have no effect and are named.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

fn without_effect(fields: &str) -> Vec<String> {
    crate::without_effect(&accepted(&format!(
        r#"{{"prometheus":{{"cluster":"p"}},"upstreams":[{{"cluster":"web","endpoints":{{"static":["10.0.0.1:80"]}},{fields}}}]}}"#
    )))
}

/// A key goes to its endpoint whatever that one's share.
#[test]
fn what_changes_shares_has_no_effect_under_policies_that_hash() {
    let settings = r#""slow_start":"1m",
        "signals":[{"name":"depth","query":"d","max":9},{"name":"cpu","query":"c"},{"name":"shown","query":"s","weight":0}],
        "load_reports":[{"name":"load","header":"x-load"}],
        "rules":[{"when":"cpu","above":1,"then":"eject"},{"when":"depth","above":1,"then":"down_weight"}]"#;
    let idle = ["rules[1]", "signals[0].weight", "load_reports[0].weight", "slow_start"];
    let idle = idle.map(|field| format!("$.upstreams[0].{field}"));
    for policy in [r#""ip_hash""#, r#""consistent_hash","affinity":{"header":"x"}"#] {
        assert_eq!(without_effect(&format!(r#""policy":{policy},{settings}"#)), idle, "{policy}");
        for without in [r#""slow_start":"30s""#, r#""slow_start":"0s""#] {
            assert_eq!(without_effect(&format!(r#""policy":{policy},{without}"#)), [""; 0], "{policy}");
        }
        // The pressure reads a signal with a maximum.
        let scaled = without_effect(&format!(r#""policy":{policy},"autoscale":{{}},{settings}"#));
        assert_eq!(scaled, [&idle[..1], &idle[2..]].concat(), "{policy}");
    }
    assert_eq!(without_effect(&format!(r#""policy":"least_request",{settings}"#)), [""; 0]);
}

#[test]
fn rule_that_ejects_has_no_effect_where_none_may_be_ejected() {
    let rules = r#""rules":[{"when":"latency_ms","above":9,"then":"flag"},{"when":"in_flight","above":9,"then":"eject"}]"#;
    let none = without_effect(&format!(r#""health":{{"max_ejected_percent":0}},{rules}"#));
    assert_eq!(none, ["$.upstreams[0].rules[1]"]);
    assert_eq!(without_effect(rules), [""; 0]);
}

/// Browsers drop such a cookie (RFC 6265bis, 4.1.3), so that a client is given a new one with each answer.
#[test]
fn cookie_that_browsers_drop_is_named() {
    let given = |cookie: &str| {
        without_effect(&format!(r#""policy":"consistent_hash","affinity":{{"cookie":{cookie}}}"#))
    };
    for cookie in [
        r#""__Host-seat""#,
        r#"{"name":"__secure-seat"}"#,
        r#"{"name":"__Host-seat","secure":true,"path":"/shop"}"#,
    ] {
        assert_eq!(given(cookie), ["$.upstreams[0].affinity.cookie.set"], "{cookie}");
    }
    for cookie in [
        r#""seat""#,
        r#"{"name":"__Host-seat","set":false}"#,
        r#"{"name":"__Host-seat","secure":true}"#,
        r#"{"name":"__Secure-seat","secure":true,"path":"/shop"}"#,
    ] {
        assert_eq!(given(cookie), [""; 0], "{cookie}");
    }
}

#[test]
fn zone_that_no_endpoint_is_in_is_named() {
    let of = |local: &str, more: &str| {
        let json = format!(
            r#"{{"prometheus":{{"cluster":"p"}},"upstreams":[{{"cluster":"web","zone":{{"local":"{local}"}},
                 "endpoints":{{"static":[{{"address":"10.0.0.1:80","zone":"eu-1a"}},"10.0.0.2:80"]{more}}}}}]}}"#
        );
        crate::without_effect(&accepted(&json))
    };
    assert_eq!(of("eu-1", ""), ["$.upstreams[0].zone"]);
    for (local, more) in [
        ("eu-1a", ""),
        ("node", ""),
        ("eu-1", r#","envoy_admin":{"cluster":"a"}"#),
        ("eu-1", r#","prometheus":{"query":"up"}"#),
    ] {
        assert_eq!(of(local, more), [""; 0], "{local} {more}");
    }
}
