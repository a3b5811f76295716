//! Invalid upstreams: each with the path and a part of its fault.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::malformed::{Case, check};
use super::*;

fn in_upstream(more: &str, path: &'static str, part: &'static str) -> Case {
    (upstream_with(more), path, part)
}

fn endpoints(json: &str, path: &'static str, part: &'static str) -> Case {
    (format!(r#"{{"upstreams":[{{"cluster":"web","endpoints":{json}}}]}}"#), path, part)
}

/// One static endpoint.
fn endpoint(json: &str, path: &'static str, part: &'static str) -> Case {
    endpoints(&format!(r#"{{"static":[{json}]}}"#), path, part)
}

/// An upstream beside a `prometheus` block.
pub(super) fn with_prometheus(more: &str, path: &'static str, part: &'static str) -> Case {
    let upstream = upstream_with(more);
    (upstream.replacen('{', r#"{"prometheus":{"cluster":"p"},"#, 1), path, part)
}

/// A signal with name, query and `more`.
fn signal(more: &str, path: &'static str, part: &'static str) -> Case {
    with_prometheus(&format!(r#""signals":[{{"name":"depth","query":"depth",{more}}}]"#), path, part)
}

#[test]
fn sources_of_endpoints() {
    check(&[
        (r#"{"upstreams":[{"cluster":"web"}]}"#.into(), "$.upstreams[0].endpoints", "missing"),
        (
            r#"{"upstreams":[{"endpoints":{"static":["10.0.0.1:80"]}}]}"#.into(),
            "$.upstreams[0].cluster",
            "missing",
        ),
        endpoints("{}", "$.upstreams[0].endpoints", "at least one source"),
        endpoints("[]", "$.upstreams[0].endpoints", "found an empty array, allowed: an object"),
        endpoints(r#"{"static":[]}"#, "$.upstreams[0].endpoints.static", "found an empty array"),
        endpoints(r#"{"static":"10.0.0.1:80"}"#, "$.upstreams[0].endpoints.static", "allowed: an array"),
        endpoints(
            r#"{"prometheus":{"query":"up"}}"#,
            "$.upstreams[0].endpoints.prometheus",
            "only with a $.prometheus block",
        ),
        endpoints(r#"{"envoy_admin":{}}"#, "$.upstreams[0].endpoints.envoy_admin.cluster", "missing"),
        endpoints(
            r#"{"envoy_admin":{"cluster":"*"}}"#,
            "$.upstreams[0].endpoints.envoy_admin.cluster",
            "one Envoy cluster",
        ),
        (
            r#"{"upstreams":[{"cluster":"*","endpoints":{"envoy_admin":{"cluster":"a"}}}]}"#.into(),
            "$.upstreams[0].endpoints.envoy_admin",
            "only where \"cluster\" names one",
        ),
        endpoints(
            r#"{"envoy_admin":{"cluster":"a","interval":"1ms"}}"#,
            "$.upstreams[0].endpoints.envoy_admin.interval",
            "from 100ms to 1h",
        ),
    ]);
}

#[test]
fn static_endpoints() {
    const FIRST: &str = "$.upstreams[0].endpoints.static[0]";
    const ADDRESS: &str = "$.upstreams[0].endpoints.static[0].address";
    check(&[
        endpoint("8080", FIRST, "found 8080 (a number), allowed: \"ip:port\", or an object"),
        endpoint("null", FIRST, "found null"),
        endpoint("{}", ADDRESS, "missing"),
        endpoint(r#""10.0.0.1""#, FIRST, "the port is missing"),
        endpoint(r#""10.0.0.1:""#, FIRST, "the port is a number from 1 to 65535"),
        endpoint(r#""10.0.0.1:0""#, FIRST, "nothing listens on port 0"),
        endpoint(r#""10.0.0.1:65536""#, FIRST, "the port is a number from 1 to 65535"),
        endpoint(r#""0.0.0.0:80""#, FIRST, "unspecified address"),
        endpoint(r#""[::]:80""#, FIRST, "unspecified address"),
        endpoint(r#""224.0.0.1:80""#, FIRST, "multicast"),
        endpoint(r#""[fe80::1%2]:80""#, FIRST, "no scope"),
        endpoint(r#""::1:8080""#, FIRST, "did you mean \"[::1]:8080\"?"),
        endpoint(r#""http://10.0.0.1:80/""#, FIRST, "did you mean \"10.0.0.1:80\"?"),
        endpoint(r#""web.default.svc:80""#, FIRST, "Envoy's override_host takes ip:port only"),
        endpoint(r#""localhost""#, FIRST, "Envoy's override_host takes ip:port only"),
        endpoint(
            r#"{"address":"10.0.0.1:80","wieght":2}"#,
            "$.upstreams[0].endpoints.static[0].wieght",
            "did you mean \"weight\"?",
        ),
        endpoint(
            r#"{"address":"10.0.0.1:80","weight":0}"#,
            "$.upstreams[0].endpoints.static[0].weight",
            "a number above 0, at most 1000",
        ),
        endpoint(
            r#"{"address":"10.0.0.1:80","weight":1001}"#,
            "$.upstreams[0].endpoints.static[0].weight",
            "found 1001",
        ),
        endpoint(
            r#"{"address":"10.0.0.1:80","weight":"2"}"#,
            "$.upstreams[0].endpoints.static[0].weight",
            "did you mean 2?",
        ),
        endpoint(
            r#"{"address":"10.0.0.1:80","priority":129}"#,
            "$.upstreams[0].endpoints.static[0].priority",
            "a whole number from 0 to 128",
        ),
        endpoint(
            r#"{"address":"10.0.0.1:80","zone":1}"#,
            "$.upstreams[0].endpoints.static[0].zone",
            "did you mean \"1\"?",
        ),
        endpoint(
            r#"{"address":"10.0.0.1:80","version":" v1"}"#,
            "$.upstreams[0].endpoints.static[0].version",
            "blanks",
        ),
        endpoints(
            r#"{"static":["10.0.0.1:80",{"address":"10.0.0.1:80"}]}"#,
            "$.upstreams[0].endpoints.static[1].address",
            "it is also at $.upstreams[0].endpoints.static[0]",
        ),
    ]);
}

#[test]
fn upstreams_among_each_other() {
    let two = |first: &str, second: &str| {
        let upstream = |name| format!(r#"{{"cluster":"{name}","endpoints":{{"static":["10.0.0.1:80"]}}}}"#);
        format!(r#"{{"upstreams":[{},{}]}}"#, upstream(first), upstream(second))
    };
    check(&[
        (two("web", "web"), "$.upstreams[1].cluster", "it is also at $.upstreams[0].cluster"),
        (two("*", "*"), "$.upstreams[1].cluster", "found \"*\", allowed: each cluster once"),
        in_upstream(r#""polcy":"random""#, "$.upstreams[0].polcy", "did you mean \"policy\"?"),
        in_upstream(r#""slow_start":30"#, "$.upstreams[0].slow_start", "did you mean \"30s\"?"),
        in_upstream(r#""slow_start":"2h""#, "$.upstreams[0].slow_start", "from 0s to 1h"),
    ]);
    let many = format!(r#"{{"upstreams":[{}]}}"#, vec!["{}"; 65].join(","));
    check(&[(many, "$.upstreams", "found 65 upstreams, allowed: an array of at most 64 upstreams")]);
}

#[test]
fn policies() {
    const POLICY: &str = "$.upstreams[0].policy";
    check(&[
        in_upstream(r#""policy":"round-robin""#, POLICY, "did you mean \"round_robin\"?"),
        in_upstream(r#""policy":7"#, POLICY, "a policy's name, or an object with \"name\""),
        in_upstream(
            r#""policy":{"name":"maglev"}"#,
            "$.upstreams[0].policy.name",
            "found \"maglev\", allowed: \"adaptive\"",
        ),
        in_upstream(r#""policy":{"nam":"random"}"#, "$.upstreams[0].policy.nam", "did you mean \"name\"?"),
        in_upstream(
            r#""policy":{"name":"random","signal":"depth"}"#,
            "$.upstreams[0].policy.signal",
            "beside $.upstreams[0].policy.name \"least_signal\" only",
        ),
        in_upstream(
            r#""policy":{"name":"weighted_score","in_flight_max":0}"#,
            "$.upstreams[0].policy.in_flight_max",
            "above 0",
        ),
        in_upstream(
            r#""policy":{"name":"weighted_score","in_flight_weight":0,"latency_weight":0}"#,
            "$.upstreams[0].policy.in_flight_weight",
            "latency_weight is 0",
        ),
        in_upstream(r#""policy":"least_signal""#, POLICY, "in $.upstreams[0].signals"),
        in_upstream(
            r#""policy":"consistent_hash""#,
            "$.upstreams[0].affinity",
            "missing, allowed: a key to hash, as $.upstreams[0].policy",
        ),
        in_upstream(
            r#""policy":"ip_hash","affinity":{"header":"x-user"}"#,
            "$.upstreams[0].affinity",
            "$.upstreams[0].policy is \"ip_hash\"",
        ),
        with_prometheus(
            r#""policy":{"name":"least_signal","signal":"deph"},"signals":[{"name":"depth","query":"d"}]"#,
            "$.upstreams[0].policy.signal",
            "allowed: a name from $.upstreams[0].signals; did you mean \"depth\"?",
        ),
        with_prometheus(
            r#""policy":"least_signal","signals":[{"name":"a","query":"a"},{"name":"b","query":"b"}]"#,
            POLICY,
            "$.upstreams[0].signals has several",
        ),
    ]);
}

#[test]
fn signals() {
    const SIGNAL: &str = "$.upstreams[0].signals[0]";
    check(&[
        in_upstream(
            r#""signals":[{"name":"a","query":"a"}]"#,
            "$.upstreams[0].signals",
            "only with a $.prometheus block",
        ),
        in_upstream(
            r#""load_reports":[{"name":"a","header":"x"},{"name":"a","header":"y"}]"#,
            "$.upstreams[0].load_reports[1].name",
            "a name that no signal and no other load report has",
        ),
        in_upstream(r#""load_reports":[{"name":"a"}]"#, "$.upstreams[0].load_reports[0].header", "missing"),
        in_upstream(
            r#""load_reports":[{"name":"a","header":"x","metric":"cpu"}]"#,
            "$.upstreams[0].load_reports[0].metric",
            "a value of an ORCA load report",
        ),
        in_upstream(
            r#""load_reports":[{"name":"a","header":":status"}]"#,
            "$.upstreams[0].load_reports[0].header",
            "a header name",
        ),
        with_prometheus(r#""signals":{}"#, "$.upstreams[0].signals", "allowed: an array"),
        with_prometheus(r#""signals":["up"]"#, SIGNAL, "allowed: an object"),
        with_prometheus(r#""signals":[{"query":"a"}]"#, "$.upstreams[0].signals[0].name", "missing"),
        with_prometheus(r#""signals":[{"name":"a"}]"#, "$.upstreams[0].signals[0].query", "missing"),
        with_prometheus(
            r#""signals":[{"name":"Depth","query":"a"}]"#,
            "$.upstreams[0].signals[0].name",
            "[a-z_][a-z0-9_]*",
        ),
        with_prometheus(
            r#""signals":[{"name":"a","query":" "}]"#,
            "$.upstreams[0].signals[0].query",
            "PromQL of 1 to 8192 bytes",
        ),
        with_prometheus(
            r#""signals":[{"name":"a","query":"a"},{"name":"a","query":"b"}]"#,
            "$.upstreams[0].signals[1].name",
            "it is also at $.upstreams[0].signals[0].name",
        ),
        signal(r#""weight":-1"#, "$.upstreams[0].signals[0].weight", "a number from 0 to 100"),
        signal(r#""max":0"#, "$.upstreams[0].signals[0].max", "a number above 0"),
        signal(r#""max":null"#, "$.upstreams[0].signals[0].max", "found null"),
        signal(r#""smoothing":0"#, "$.upstreams[0].signals[0].smoothing", "a number above 0, at most 1"),
        signal(r#""smoothing":1.5"#, "$.upstreams[0].signals[0].smoothing", "found 1.5"),
        signal(r#""address_label":"pod-ip""#, "$.upstreams[0].signals[0].address_label", "a label name"),
        signal(r#""port":0"#, "$.upstreams[0].signals[0].port", "a whole number from 1 to 65535"),
        signal(r#""port":"8080""#, "$.upstreams[0].signals[0].port", "did you mean 8080?"),
        signal(r#""labels":{}"#, "$.upstreams[0].signals[0].labels", "unknown field"),
    ]);
    let long = "x".repeat(8193);
    check(&[with_prometheus(
        &format!(r#""signals":[{{"name":"a","query":"{long}"}}]"#),
        "$.upstreams[0].signals[0].query",
        "PromQL of 1 to 8192 bytes",
    )]);
    let many = vec![r#"{"name":"a","query":"a"}"#; 33].join(",");
    check(&[with_prometheus(
        &format!(r#""signals":[{many}]"#),
        "$.upstreams[0].signals",
        "found 33 signals",
    )]);
}

#[test]
fn health_and_failover() {
    check(&[
        in_upstream(
            r#""health":{"fail_after":"3"}"#,
            "$.upstreams[0].health.fail_after",
            "found \"3\" (a string), allowed: a whole number from 1 to 1000; did you mean 3?",
        ),
        in_upstream(r#""health":{"fail_after":0}"#, "$.upstreams[0].health.fail_after", "found 0"),
        in_upstream(
            r#""health":{"suspect_after":4,"fail_after":3}"#,
            "$.upstreams[0].health.fail_after",
            "not below $.upstreams[0].health.suspect_after (4)",
        ),
        in_upstream(
            r#""health":{"recover_after":1e10}"#,
            "$.upstreams[0].health.recover_after",
            "found 10000000000",
        ),
        in_upstream(r#""health":{"failures":[]}"#, "$.upstreams[0].health.failures", "found an empty array"),
        in_upstream(r#""health":{"failures":["6xx"]}"#, "$.upstreams[0].health.failures[0]", "found \"6xx\""),
        in_upstream(
            r#""health":{"failures":["5xx","503-500"]}"#,
            "$.upstreams[0].health.failures[1]",
            "found",
        ),
        in_upstream(r#""health":{"failures":[600]}"#, "$.upstreams[0].health.failures[0]", "found 600"),
        in_upstream(
            r#""health":{"failures":["UNAVAILABL"]}"#,
            "$.upstreams[0].health.failures[0]",
            "did you mean \"UNAVAILABLE\"?",
        ),
        in_upstream(
            r#""policy":{"name":"ip_hash","load_floor":3}"#,
            "$.upstreams[0].policy.load_floor",
            "consistent_hash",
        ),
        in_upstream(r#""health":{"ejection":"1d"}"#, "$.upstreams[0].health.ejection", "found \"1d\""),
        in_upstream(
            r#""health":{"max_ejected_percent":101}"#,
            "$.upstreams[0].health.max_ejected_percent",
            "a number from 0 to 100",
        ),
        in_upstream(
            r#""health":{"max_ejected_percent":"50%"}"#,
            "$.upstreams[0].health.max_ejected_percent",
            "did you mean 50?",
        ),
        in_upstream(
            r#""failover":{"panic_percent":-0.5}"#,
            "$.upstreams[0].failover.panic_percent",
            "found -0.5",
        ),
        in_upstream(
            r#""failover":{"none_eligible":"rejct"}"#,
            "$.upstreams[0].failover.none_eligible",
            "did you mean \"reject\"?",
        ),
        in_upstream(
            r#""failover":{"none_eligible":"safe_endpoint"}"#,
            "$.upstreams[0].failover.safe_endpoint",
            "missing",
        ),
        in_upstream(
            r#""failover":{"none_eligible":"safe_endpoint","safe_endpoint":null}"#,
            "$.upstreams[0].failover.safe_endpoint",
            "missing",
        ),
        in_upstream(
            r#""failover":{"safe_endpoint":"10.0.0.9:80"}"#,
            "$.upstreams[0].failover.safe_endpoint",
            "beside $.upstreams[0].failover.none_eligible \"safe_endpoint\" only",
        ),
        in_upstream(
            r#""failover":{"none_eligible":"safe_endpoint","safe_endpoint":"backup:80"}"#,
            "$.upstreams[0].failover.safe_endpoint",
            "ip:port only",
        ),
    ]);
}

#[test]
fn zone_affinity_split_and_autoscale() {
    let split = |split: &str, path, part| {
        let json = format!(
            r#"{{"upstreams":[{{"cluster":"web","split":{split},
                 "endpoints":{{"static":[{{"address":"10.0.0.1:80","version":"v1"}}]}}}}]}}"#
        );
        (json, path, part)
    };
    check(&[
        in_upstream(r#""zone":"a""#, "$.upstreams[0].zone", "allowed: an object"),
        in_upstream(r#""zone":{}"#, "$.upstreams[0].zone.local", "missing"),
        in_upstream(
            r#""zone":{"local":"a","spill_over_percent":170}"#,
            "$.upstreams[0].zone.spill_over_percent",
            "found 170",
        ),
        in_upstream(r#""affinity":{}"#, "$.upstreams[0].affinity", "exactly one of"),
        in_upstream(r#""affinity":"source_ip""#, "$.upstreams[0].affinity", "allowed: an object"),
        in_upstream(
            r#""affinity":{"header":"a","cookie":"b"}"#,
            "$.upstreams[0].affinity.cookie",
            "exactly one of",
        ),
        in_upstream(r#""affinity":{"source_ip":false}"#, "$.upstreams[0].affinity.source_ip", "found false"),
        in_upstream(r#""affinity":{"cookie":"a b"}"#, "$.upstreams[0].affinity.cookie", "a cookie's name"),
        in_upstream(r#""affinity":{"cookie":{}}"#, "$.upstreams[0].affinity.cookie.name", "missing"),
        in_upstream(
            r#""affinity":{"cookie":{"name":"a","path":"/a; Domain=b"}}"#,
            "$.upstreams[0].affinity.cookie.path",
            "without blanks",
        ),
        in_upstream(
            r#""affinity":{"cookie":{"name":"a","same_site":"none"}}"#,
            "$.upstreams[0].affinity.cookie.same_site",
            "cookie.secure true",
        ),
        in_upstream(r#""affinity":{"query":"a&b"}"#, "$.upstreams[0].affinity.query", "a query parameter"),
        in_upstream(
            r#""affinity":{"header":"X-Evenkeel-Endpoint"}"#,
            "$.upstreams[0].affinity.header",
            "$.steering.header",
        ),
        split(r#"{"v1":80,"v2":20}"#, "$.upstreams[0].split.v2", "did you mean \"v1\"?"),
        split(r#"{"v1":-1}"#, "$.upstreams[0].split.v1", "found -1"),
        split(r#"{"v1":0}"#, "$.upstreams[0].split", "at least one share above 0"),
        split(r#"{"v1":"80%"}"#, "$.upstreams[0].split.v1", "did you mean 80?"),
        split(r#"{"v1":1,"v1":2}"#, "$.upstreams[0].split.v1", "duplicate key"),
        split(r#"["v1"]"#, "$.upstreams[0].split", "an object from version to share"),
        in_upstream(
            r#""autoscale":{"min":5,"max":3}"#,
            "$.upstreams[0].autoscale.min",
            "not above $.upstreams[0].autoscale.max (3)",
        ),
        in_upstream(
            r#""guard":{"holdout_percent":60}"#,
            "$.upstreams[0].guard.holdout_percent",
            "a number from 0.1 to 50",
        ),
        in_upstream(r#""guard":{"pause":"7h"}"#, "$.upstreams[0].guard.pause", "from 1s to 6h"),
        in_upstream(
            r#""guard":{"holdout_precent":1}"#,
            "$.upstreams[0].guard.holdout_precent",
            "did you mean",
        ),
        in_upstream(
            r#""autoscale":{"min":0}"#,
            "$.upstreams[0].autoscale.min",
            "a whole number from 1 to 10000",
        ),
        in_upstream(
            r#""autoscale":{"target_pressure":80}"#,
            "$.upstreams[0].autoscale.target_pressure",
            "found 80",
        ),
        in_upstream(r#""autoscale":{"for":"2"}"#, "$.upstreams[0].autoscale.for", "did you mean 2?"),
    ]);
}

#[test]
fn autoscale_and_what_pressure_is_made_of() {
    let autoscale =
        |json: &str, path: &'static str, part| in_upstream(&format!(r#""autoscale":{{{json}}}"#), path, part);
    check(&[
        autoscale(r#""period":30"#, "$.upstreams[0].autoscale.period", "did you mean \"30s\"?"),
        autoscale(r#""period":"10ms""#, "$.upstreams[0].autoscale.period", "from 1s to 1h"),
        autoscale(r#""cool_down":"2d""#, "$.upstreams[0].autoscale.cool_down", "from 0s to 24h"),
        autoscale(r#""tolerance_percent":0.1e3"#, "$.upstreams[0].autoscale.tolerance_percent", "found 100"),
        autoscale(
            r#""look_ahed":"1m""#,
            "$.upstreams[0].autoscale.look_ahed",
            "did you mean \"look_ahead\"?",
        ),
        autoscale(r#""pressure":[]"#, "$.upstreams[0].autoscale.pressure", "at least one term"),
        autoscale(r#""pressure":{}"#, "$.upstreams[0].autoscale.pressure", "allowed: an array"),
        autoscale(r#""pressure":[{}]"#, "$.upstreams[0].autoscale.pressure[0].signal", "missing"),
        autoscale(
            r#""pressure":[{"signal":"ocupancy"}]"#,
            "$.upstreams[0].autoscale.pressure[0].signal",
            "did you mean \"occupancy\"?",
        ),
        autoscale(
            r#""pressure":[{"signal":"in_flight"}]"#,
            "$.upstreams[0].autoscale.pressure[0].at",
            "missing",
        ),
        autoscale(
            r#""pressure":[{"signal":"in_flight","at":0}]"#,
            "$.upstreams[0].autoscale.pressure[0].at",
            "found 0",
        ),
        autoscale(
            r#""pressure":[{"signal":"occupancy","weight":0}]"#,
            "$.upstreams[0].autoscale.pressure[0].weight",
            "found 0",
        ),
        autoscale(
            r#""pressure":[{"signal":"occupancy","most":"2"}]"#,
            "$.upstreams[0].autoscale.pressure[0].most",
            "did you mean 2?",
        ),
    ]);
}

#[test]
fn rules() {
    let rule = |json: &str, path, part| in_upstream(&format!(r#""rules":[{json}]"#), path, part);
    check(&[
        rule(
            r#"{"when":"eror_percent","above":5,"then":"eject"}"#,
            "$.upstreams[0].rules[0].when",
            "did you mean",
        ),
        rule(r#"{"when":"cpu","above":5,"then":"eject"}"#, "$.upstreams[0].rules[0].when", "in_flight"),
        rule(r#"{"when":"in_flight","above":-1,"then":"eject"}"#, "$.upstreams[0].rules[0].above", "-1"),
        rule(
            r#"{"when":"in_flight","above":5,"then":"reject"}"#,
            "$.upstreams[0].rules[0].then",
            "down_weight",
        ),
        rule(r#"{"when":"in_flight","above":5}"#, "$.upstreams[0].rules[0].then", "missing"),
        rule(r#"{"when":"in_flight","above":5,"then":"flag","for":5}"#, "$.upstreams[0].rules[0].for", "5"),
        in_upstream(r#""rules":{}"#, "$.upstreams[0].rules", "allowed: an array"),
    ]);
}
