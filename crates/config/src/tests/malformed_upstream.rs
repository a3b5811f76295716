//! Invalid upstreams: each with the path and a part of its fault.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::malformed::{Case, check, whole};
use super::*;

/// An upstream with `more`; the path is that below the upstream.
fn in_upstream(more: &str, path: &str, part: &'static str) -> Case {
    whole(&upstream_with(more), &format!("$.upstreams[0].{path}"), part)
}

fn endpoints(json: &str, path: &str, part: &'static str) -> Case {
    let json = format!(r#"{{"upstreams":[{{"cluster":"web","endpoints":{json}}}]}}"#);
    whole(&json, &format!("$.upstreams[0].{path}"), part)
}

/// One static endpoint.
fn endpoint(json: &str, path: &str, part: &'static str) -> Case {
    endpoints(&format!(r#"{{"static":[{json}]}}"#), path, part)
}

/// An upstream with this object, and the path below it.
fn object(name: &str, json: &str, path: &str, part: &'static str) -> Case {
    in_upstream(&format!(r#""{name}":{{{json}}}"#), &format!("{name}.{path}"), part)
}

/// An upstream beside a `prometheus` block.
pub(super) fn with_prometheus(more: &str, path: &str, part: &'static str) -> Case {
    let (upstream, path, part) = in_upstream(more, path, part);
    (upstream.replacen('{', r#"{"prometheus":{"cluster":"p"},"#, 1), path, part)
}

/// A signal with name, query and `more`.
fn signal(more: &str, path: &str, part: &'static str) -> Case {
    with_prometheus(&format!(r#""signals":[{{"name":"depth","query":"depth",{more}}}]"#), path, part)
}

#[test]
fn sources_of_endpoints() {
    check(&[
        whole(r#"{"upstreams":[{"cluster":"web"}]}"#, "$.upstreams[0].endpoints", "missing"),
        whole(
            r#"{"upstreams":[{"endpoints":{"static":["10.0.0.1:80"]}}]}"#,
            "$.upstreams[0].cluster",
            "missing",
        ),
        endpoints("{}", "endpoints", "at least one source"),
        endpoints("[]", "endpoints", "found an empty array, allowed: an object"),
        endpoints(r#"{"static":[]}"#, "endpoints.static", "found an empty array"),
        endpoints(r#"{"static":"10.0.0.1:80"}"#, "endpoints.static", "allowed: an array"),
        endpoints(
            r#"{"prometheus":{"query":"up"}}"#,
            "endpoints.prometheus",
            "only with a $.prometheus block",
        ),
        endpoints(r#"{"envoy_admin":{}}"#, "endpoints.envoy_admin.cluster", "missing"),
        endpoints(r#"{"envoy_admin":{"cluster":"*"}}"#, "endpoints.envoy_admin.cluster", "one Envoy cluster"),
        whole(
            r#"{"upstreams":[{"cluster":"*","endpoints":{"envoy_admin":{"cluster":"a"}}}]}"#,
            "$.upstreams[0].endpoints.envoy_admin",
            "only where \"cluster\" names one",
        ),
        endpoints(
            r#"{"envoy_admin":{"cluster":"a","interval":"1ms"}}"#,
            "endpoints.envoy_admin.interval",
            "from 100ms to 1h",
        ),
    ]);
}

#[test]
fn static_endpoints() {
    const FIRST: &str = "endpoints.static[0]";
    const ADDRESS: &str = "endpoints.static[0].address";
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
        endpoint(r#""http://0.0.0.0:80/""#, FIRST, "; an unspecified address"),
        endpoint(r#""http://10.0.0.1:0""#, FIRST, "; nothing listens on port 0"),
        endpoint(r#""ff02::1:8080""#, FIRST, "; the port is missing"),
        endpoint(r#""web.default.svc:80""#, FIRST, "Envoy's override_host takes ip:port only"),
        endpoint(r#""localhost""#, FIRST, "Envoy's override_host takes ip:port only"),
        endpoint(
            r#"{"address":"10.0.0.1:80","wieght":2}"#,
            "endpoints.static[0].wieght",
            "did you mean \"weight\"?",
        ),
        endpoint(
            r#"{"address":"10.0.0.1:80","weight":0}"#,
            "endpoints.static[0].weight",
            "a number above 0, at most 1000",
        ),
        endpoint(r#"{"address":"10.0.0.1:80","weight":1001}"#, "endpoints.static[0].weight", "found 1001"),
        endpoint(
            r#"{"address":"10.0.0.1:80","weight":"2"}"#,
            "endpoints.static[0].weight",
            "did you mean 2?",
        ),
        endpoint(
            r#"{"address":"10.0.0.1:80","priority":129}"#,
            "endpoints.static[0].priority",
            "a whole number from 0 to 128",
        ),
        endpoint(r#"{"address":"10.0.0.1:80","zone":1}"#, "endpoints.static[0].zone", "did you mean \"1\"?"),
        endpoint(r#"{"address":"10.0.0.1:80","version":" v1"}"#, "endpoints.static[0].version", "blanks"),
        endpoints(
            r#"{"static":["10.0.0.1:80",{"address":"10.0.0.1:80"}]}"#,
            "endpoints.static[1].address",
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
        whole(&two("web", "web"), "$.upstreams[1].cluster", "it is also at $.upstreams[0].cluster"),
        whole(&two("*", "*"), "$.upstreams[1].cluster", "found \"*\", allowed: each cluster once"),
        in_upstream(r#""polcy":"random""#, "polcy", "did you mean \"policy\"?"),
        in_upstream(r#""slow_start":30"#, "slow_start", "did you mean \"30s\"?"),
        in_upstream(r#""slow_start":"2h""#, "slow_start", "from 0s to 1h"),
    ]);
    let many = format!(r#"{{"upstreams":[{}]}}"#, vec!["{}"; 65].join(","));
    check(&[whole(&many, "$.upstreams", "found 65 upstreams, allowed: an array of at most 64 upstreams")]);
}

#[test]
fn policies() {
    const POLICY: &str = "policy";
    check(&[
        in_upstream(r#""policy":"round-robin""#, POLICY, "did you mean \"round_robin\"?"),
        in_upstream(r#""policy":7"#, POLICY, "a policy's name, or an object with \"name\""),
        in_upstream(
            r#""policy":{"name":"maglev"}"#,
            "policy.name",
            "found \"maglev\", allowed: \"adaptive\"",
        ),
        in_upstream(r#""policy":{"nam":"random"}"#, "policy.nam", "did you mean \"name\"?"),
        in_upstream(
            r#""policy":{"name":"random","signal":"depth"}"#,
            "policy.signal",
            "beside $.upstreams[0].policy.name \"least_signal\" only",
        ),
        in_upstream(
            r#""policy":{"name":"weighted_score","in_flight_max":0}"#,
            "policy.in_flight_max",
            "above 0",
        ),
        in_upstream(
            r#""policy":{"name":"weighted_score","in_flight_weight":0,"latency_weight":0}"#,
            "policy.in_flight_weight",
            "latency_weight is 0",
        ),
        in_upstream(r#""policy":"least_signal""#, POLICY, "in $.upstreams[0].signals"),
        in_upstream(
            r#""policy":"consistent_hash""#,
            "affinity",
            "missing, allowed: a key to hash, as $.upstreams[0].policy",
        ),
        in_upstream(
            r#""policy":"ip_hash","affinity":{"header":"x-user"}"#,
            "affinity",
            "$.upstreams[0].policy is \"ip_hash\"",
        ),
        with_prometheus(
            r#""policy":{"name":"least_signal","signal":"deph"},"signals":[{"name":"depth","query":"d"}]"#,
            "policy.signal",
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
    const SIGNAL: &str = "signals[0]";
    check(&[
        in_upstream(r#""signals":[{"name":"a","query":"a"}]"#, "signals", "only with a $.prometheus block"),
        in_upstream(
            r#""load_reports":[{"name":"a","header":"x"},{"name":"a","header":"y"}]"#,
            "load_reports[1].name",
            "a name that no signal and no other load report has",
        ),
        in_upstream(r#""load_reports":[{"name":"a"}]"#, "load_reports[0].header", "missing"),
        in_upstream(
            r#""load_reports":[{"name":"a","header":"x","metric":"cpu"}]"#,
            "load_reports[0].metric",
            "a value of an ORCA load report",
        ),
        in_upstream(
            r#""load_reports":[{"name":"a","header":":status"}]"#,
            "load_reports[0].header",
            "a header name",
        ),
        with_prometheus(r#""signals":{}"#, "signals", "allowed: an array"),
        with_prometheus(r#""signals":["up"]"#, SIGNAL, "allowed: an object"),
        with_prometheus(r#""signals":[{"query":"a"}]"#, "signals[0].name", "missing"),
        with_prometheus(r#""signals":[{"name":"a"}]"#, "signals[0].query", "missing"),
        with_prometheus(r#""signals":[{"name":"Depth","query":"a"}]"#, "signals[0].name", "[a-z_][a-z0-9_]*"),
        with_prometheus(
            r#""signals":[{"name":"a","query":" "}]"#,
            "signals[0].query",
            "PromQL of 1 to 8192 bytes",
        ),
        with_prometheus(
            r#""signals":[{"name":"a","query":"a"},{"name":"a","query":"b"}]"#,
            "signals[1].name",
            "it is also at $.upstreams[0].signals[0].name",
        ),
        signal(r#""weight":-1"#, "signals[0].weight", "a number from 0 to 100"),
        signal(r#""max":0"#, "signals[0].max", "a number above 0"),
        signal(r#""max":null"#, "signals[0].max", "found null"),
        signal(r#""smoothing":0"#, "signals[0].smoothing", "a number above 0, at most 1"),
        signal(r#""smoothing":1.5"#, "signals[0].smoothing", "found 1.5"),
        signal(r#""address_label":"pod-ip""#, "signals[0].address_label", "a label name"),
        signal(r#""port":0"#, "signals[0].port", "a whole number from 1 to 65535"),
        signal(r#""port":"8080""#, "signals[0].port", "did you mean 8080?"),
        signal(r#""labels":{}"#, "signals[0].labels", "unknown field"),
    ]);
    let long = "x".repeat(8193);
    check(&[with_prometheus(
        &format!(r#""signals":[{{"name":"a","query":"{long}"}}]"#),
        "signals[0].query",
        "PromQL of 1 to 8192 bytes",
    )]);
    let many = vec![r#"{"name":"a","query":"a"}"#; 33].join(",");
    check(&[with_prometheus(&format!(r#""signals":[{many}]"#), "signals", "found 33 signals")]);
}

#[test]
fn health_and_failover() {
    let health = |json: &str, path: &str, part| object("health", json, path, part);
    let failover = |json: &str, path: &str, part| object("failover", json, path, part);
    check(&[
        health(
            r#""fail_after":"3""#,
            "fail_after",
            "found \"3\" (a string), allowed: a whole number from 1 to 1000; did you mean 3?",
        ),
        health(r#""fail_after":0"#, "fail_after", "found 0"),
        health(
            r#""suspect_after":4,"fail_after":3"#,
            "fail_after",
            "not below $.upstreams[0].health.suspect_after (4)",
        ),
        health(r#""recover_after":1e10"#, "recover_after", "found 10000000000"),
        health(r#""failures":[]"#, "failures", "found an empty array"),
        health(r#""failures":["6xx"]"#, "failures[0]", "found \"6xx\""),
        health(r#""failures":["5xx","503-500"]"#, "failures[1]", "found"),
        health(r#""failures":[600]"#, "failures[0]", "found 600"),
        health(r#""failures":["UNAVAILABL"]"#, "failures[0]", "did you mean \"UNAVAILABLE\"?"),
        in_upstream(r#""policy":{"name":"ip_hash","load_floor":3}"#, "policy.load_floor", "consistent_hash"),
        health(r#""ejection":"1d""#, "ejection", "found \"1d\""),
        health(r#""max_ejected_percent":101"#, "max_ejected_percent", "a number from 0 to 100"),
        health(r#""max_ejected_percent":"50%""#, "max_ejected_percent", "did you mean 50?"),
        failover(r#""panic_percent":-0.5"#, "panic_percent", "found -0.5"),
        failover(r#""none_eligible":"rejct""#, "none_eligible", "did you mean \"reject\"?"),
        failover(r#""none_eligible":"safe_endpoint""#, "safe_endpoint", "missing"),
        failover(r#""none_eligible":"safe_endpoint","safe_endpoint":null"#, "safe_endpoint", "missing"),
        failover(
            r#""safe_endpoint":"10.0.0.9:80""#,
            "safe_endpoint",
            "beside $.upstreams[0].failover.none_eligible \"safe_endpoint\" only",
        ),
        failover(
            r#""none_eligible":"safe_endpoint","safe_endpoint":"backup:80""#,
            "safe_endpoint",
            "ip:port only",
        ),
    ]);
}

/// Envoy's list has no versions, so that none of these endpoints would be eligible.
#[test]
fn split_over_versions_that_no_source_gives_is_refused() {
    let divided = |endpoints: &str| {
        format!(
            r#"{{"prometheus":{{"cluster":"p"}},"upstreams":[{{"cluster":"web","endpoints":{{{endpoints}}},"split":{{"v1":9,"v2":1}}}}]}}"#
        )
    };
    let admin = r#""envoy_admin":{"cluster":"a"}"#;
    let faults = refused(divided(admin));
    assert_eq!((faults.len(), faults[0].path.as_str()), (1, "$.upstreams[0].split"), "{faults:?}");
    // A version that is still to come leaves its share to the others.
    for others in [r#""prometheus":{"query":"up"}"#, r#""static":[{"address":"10.0.0.1:80","version":"v1"}]"#]
    {
        super::accepted(&divided(&format!("{admin},{others}")));
    }
}

#[test]
fn zone_affinity_split_and_autoscale() {
    let zone = |json: &str, path: &str, part| object("zone", json, path, part);
    let affinity = |json: &str, path: &str, part| object("affinity", json, path, part);
    let split = |split: &str, path: &str, part| {
        let json = format!(
            r#"{{"upstreams":[{{"cluster":"web","split":{split},
                 "endpoints":{{"static":[{{"address":"10.0.0.1:80","version":"v1"}}]}}}}]}}"#
        );
        whole(&json, &format!("$.upstreams[0].{path}"), part)
    };
    check(&[
        in_upstream(r#""zone":"a""#, "zone", "allowed: an object"),
        zone(r#""#, "local", "missing"),
        zone(r#""local":"a","spill_over_percent":170"#, "spill_over_percent", "found 170"),
        in_upstream(r#""affinity":{}"#, "affinity", "exactly one of"),
        in_upstream(r#""affinity":"source_ip""#, "affinity", "allowed: an object"),
        affinity(r#""header":"a","cookie":"b""#, "cookie", "exactly one of"),
        affinity(r#""source_ip":false"#, "source_ip", "found false"),
        affinity(r#""cookie":"a b""#, "cookie", "a cookie's name"),
        affinity(r#""cookie":{}"#, "cookie.name", "missing"),
        affinity(r#""cookie":{"name":"a","path":"/a; Domain=b"}"#, "cookie.path", "without blanks"),
        affinity(r#""cookie":{"name":"a","same_site":"none"}"#, "cookie.same_site", "cookie.secure true"),
        affinity(r#""query":"a&b""#, "query", "a query parameter"),
        affinity(r#""header":"X-Evenkeel-Endpoint""#, "header", "$.steering.header"),
        split(r#"{"v1":80,"v2":20}"#, "split.v2", "did you mean \"v1\"?"),
        split(r#"{"v1":80,"v2":20}"#, "split.v2", "That one has a share already"),
        split(r#"{"v2":20,"v1":80}"#, "split.v2", "That one has a share already"),
        split(r#"{"v1":-1}"#, "split.v1", "found -1"),
        split(r#"{"v1":0}"#, "split", "at least one share above 0"),
        split(r#"{"v1":"80%"}"#, "split.v1", "did you mean 80?"),
        split(r#"{"v1":1,"v1":2}"#, "split.v1", "duplicate key"),
        split(r#"["v1"]"#, "split", "an object from version to share"),
        in_upstream(
            r#""autoscale":{"min":5,"max":3}"#,
            "autoscale.min",
            "not above $.upstreams[0].autoscale.max (3)",
        ),
        in_upstream(r#""guard":{"holdout_percent":60}"#, "guard.holdout_percent", "a number from 0.1 to 50"),
        in_upstream(r#""guard":{"pause":"7h"}"#, "guard.pause", "from 1s to 6h"),
        in_upstream(r#""guard":{"holdout_precent":1}"#, "guard.holdout_precent", "did you mean"),
        in_upstream(r#""autoscale":{"min":0}"#, "autoscale.min", "a whole number from 1 to 10000"),
        in_upstream(r#""autoscale":{"target_pressure":80}"#, "autoscale.target_pressure", "found 80"),
        in_upstream(r#""autoscale":{"for":"2"}"#, "autoscale.for", "did you mean 2?"),
    ]);
}

#[test]
fn autoscale_and_what_pressure_is_made_of() {
    let autoscale = |json: &str, path: &str, part| object("autoscale", json, path, part);
    check(&[
        autoscale(r#""period":30"#, "period", "did you mean \"30s\"?"),
        autoscale(r#""period":"10ms""#, "period", "from 1s to 1h"),
        autoscale(r#""cool_down":"2d""#, "cool_down", "from 0s to 24h"),
        autoscale(r#""tolerance_percent":0.1e3"#, "tolerance_percent", "found 100"),
        autoscale(r#""look_ahed":"1m""#, "look_ahed", "did you mean \"look_ahead\"?"),
        autoscale(r#""pressure":[]"#, "pressure", "at least one term"),
        autoscale(r#""pressure":{}"#, "pressure", "allowed: an array"),
        autoscale(r#""pressure":[{}]"#, "pressure[0].signal", "missing"),
        autoscale(
            r#""pressure":[{"signal":"ocupancy"}]"#,
            "pressure[0].signal",
            "did you mean \"occupancy\"?",
        ),
        autoscale(r#""pressure":[{"signal":"in_flight"}]"#, "pressure[0].at", "missing"),
        autoscale(r#""pressure":[{"signal":"in_flight","at":0}]"#, "pressure[0].at", "found 0"),
        autoscale(r#""pressure":[{"signal":"occupancy","weight":0}]"#, "pressure[0].weight", "found 0"),
        autoscale(r#""pressure":[{"signal":"occupancy","most":"2"}]"#, "pressure[0].most", "did you mean 2?"),
    ]);
}

#[test]
fn rules() {
    let rule = |json: &str, path: &str, part| {
        in_upstream(&format!(r#""rules":[{json}]"#), &format!("rules[0].{path}"), part)
    };
    check(&[
        rule(r#"{"when":"eror_percent","above":5,"then":"eject"}"#, "when", "did you mean"),
        rule(r#"{"when":"cpu","above":5,"then":"eject"}"#, "when", "in_flight"),
        rule(r#"{"when":"in_flight","above":-1,"then":"eject"}"#, "above", "-1"),
        rule(r#"{"when":"in_flight","above":5,"then":"reject"}"#, "then", "down_weight"),
        rule(r#"{"when":"in_flight","above":5}"#, "then", "missing"),
        rule(r#"{"when":"in_flight","above":5,"then":"flag","for":5}"#, "for", "5"),
        in_upstream(r#""rules":{}"#, "rules", "allowed: an array"),
    ]);
}
