//! Invalid configurations: each with the path and a part of its fault.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// A configuration, the path of its fault, and a part of the line.
pub(super) type Case = (String, String, &'static str);

/// Checks that each has exactly this fault.
pub(super) fn check(cases: &[Case]) {
    for (json, path, part) in cases {
        let faults = refused(json);
        let line = faults[0].to_string();
        assert_eq!(faults[0].path, *path, "{json}\n{line}");
        assert!(line.contains(part), "{json}\n{line}\nlacks {part}");
        assert_eq!(faults.len(), 1, "{json}\n{}", lines(&faults).join("\n"));
    }
}

/// A whole configuration.
pub(super) fn whole(json: &str, path: &str, part: &'static str) -> Case {
    (json.to_owned(), path.to_owned(), part)
}

fn at_root(more: &str, path: &str, part: &'static str) -> Case {
    whole(&root_with(more), path, part)
}

/// A configuration with this object, and the path below it.
fn object(name: &str, json: &str, path: &str, part: &'static str) -> Case {
    at_root(&format!(r#""{name}":{{{json}}}"#), &format!("$.{name}.{path}"), part)
}

#[test]
fn what_is_no_configuration_at_all() {
    check(&[
        whole("", "$", "found no configuration, allowed: an object with \"upstreams\""),
        whole(" \n\t ", "$", "found no configuration"),
        whole("null", "$", "found null, allowed: an object"),
        whole("[]", "$", "found an empty array, allowed: an object"),
        whole("\"upstreams\"", "$", "found \"upstreams\" (a string), allowed: an object"),
        whole("7", "$", "found 7 (a number), allowed: an object"),
        whole("{}", "$.upstreams", "missing, allowed: an array of 1 to 64 upstreams"),
        whole("{", "$", "invalid JSON: EOF while parsing an object at line 1 column 1"),
        whole("{\n  \"upstreams\": [,]\n}", "$.upstreams[0]", "at line 2 column 17"),
        whole("{\"mode\": \"enforce\",}", "$", "trailing comma at line 1 column 20"),
        whole("{\"upstreams\": []} {}", "$", "trailing characters at line 1 column 19"),
        whole("{\"mode\": 1e999}", "$.mode", "number out of range"),
        whole("{\"mode\": NaN}", "$.mode", "expected value"),
        whole("{\"upstreams\": [] // none yet\n}", "$", "JSON has no comments"),
        whole(
            "{\"upstreams\": []}",
            "$.upstreams",
            "found an empty array, allowed: an array of 1 to 64 upstreams",
        ),
        whole("{\"upstreams\": {}}", "$.upstreams", "found an object, allowed: an array"),
        whole("{\"upstreams\": [null]}", "$.upstreams[0]", "found null, allowed: an object"),
    ]);
    let deep = "[".repeat(5000);
    assert!(refused(&deep)[0].to_string().contains("recursion limit exceeded"));
    let not_text = refused(b"{\"mode\": \"\xff\xfe\"}");
    assert_eq!(not_text[0].path, "$.mode");
    let large = format!("{{\"mode\": \"{}\"}}", "x".repeat(1024 * 1024));
    assert!(refused(&large)[0].to_string().contains("allowed: at most 1048576"));
}

#[test]
fn the_outermost_fields() {
    let debug = |json: &str, path: &str, part| object("debug", json, path, part);
    let status = |json: &str, path: &str, part| object("status", json, path, part);
    check(&[
        at_root(
            r#""mod":"observe""#,
            "$.mod",
            "unknown field, allowed: role, mode, steering, prometheus, upstreams, guard, status, envoy_stats, debug, attributes, log; did you mean \"mode\"?",
        ),
        at_root(r#""Mode":"observe""#, "$.Mode", "did you mean \"mode\"?"),
        at_root(r#""quux":1"#, "$.quux", "unknown field"),
        at_root(r#""":1"#, "$[\"\"]", "unknown field"),
        at_root(
            r#""mode":"observed""#,
            "$.mode",
            "found \"observed\", allowed: \"enforce\", \"observe\"; did you mean \"observe\"?",
        ),
        at_root(r#""mode":true"#, "$.mode", "found true (a boolean)"),
        at_root(r#""mode":"enforce","mode":"observe""#, "$.mode", "duplicate key"),
        at_root(r#""mode":null"#, "$.mode", "found null"),
        at_root(r#""status":true"#, "$.status", "found true (a boolean), allowed: an object"),
        at_root(r#""envoy_stats":"no""#, "$.envoy_stats", "found \"no\" (a string), allowed: true or false"),
        debug(r#""#, "secret", "missing, allowed: 8 to 256 ASCII characters"),
        debug(r#""#, "secret", "or $.debug.when \"always\""),
        debug(r#""secret":"S3CR3T""#, "secret", "found a string (not shown)"),
        debug(r#""secret":"S3CR3T-S3CR3T\n""#, "secret", "found a string (not shown)"),
        debug(r#""when":"always","secret":"S3CR3T-S3CR3T""#, "secret", "nothing beside"),
        debug(r#""when":"always","ask":"x-ask""#, "ask", "nothing beside"),
        debug(r#""when":"asked!","secret":"S3CR3T-S3CR3T""#, "when", "did you mean \"asked\"?"),
        debug(r#""ask":"cookie","secret":"S3CR3T-S3CR3T""#, "ask", "it is removed from every"),
        debug(r#""header":"content-length","when":"always""#, "header", "nothing else needs"),
        debug(
            r#""header":"x-evenkeel-endpoint","when":"always""#,
            "header",
            "another header than $.steering.header",
        ),
        at_root(r#""attributes":["endpoint","endpoint"]"#, "$.attributes[1]", "each attribute once"),
        at_root(r#""attributes":["endpont"]"#, "$.attributes[0]", "did you mean \"endpoint\"?"),
        at_root(r#""attributes":"endpoint""#, "$.attributes", "an array of at most 4 attributes"),
        object("log", r#""format":"jsn""#, "format", "did you mean \"json\"?"),
        object("log", r#""sample_percent":101"#, "sample_percent", "a number from 0 to 100"),
        status(r#""#, "path", "missing"),
        status(r#""path":"_evenkeel""#, "path", "did you mean \"/_evenkeel\"?"),
        status(r#""path":"/_evenkeel/""#, "path", "did you mean \"/_evenkeel\"?"),
        status(r#""path":"/""#, "path", "found \"/\""),
        status(r#""path":"/a?b""#, "path", "plain characters only"),
        status(r#""path":"/a/../b""#, "path", "found \"/a/../b\""),
        status(r#""path":"/a//b""#, "path", "found \"/a//b\""),
        status(r#""pth":"/a","path":"/a""#, "pth", "did you mean \"path\"?"),
    ]);
}

#[test]
fn steering() {
    let steering = |json: &str, path: &str, part| object("steering", json, path, part);
    check(&[
        at_root(r#""steering":"override_host""#, "$.steering", "allowed: an object"),
        steering(r#""via":"overide_host""#, "via", "did you mean \"override_host\"?"),
        steering(r#""candidates":0"#, "candidates", "found 0, allowed: a whole number from 1 to 8"),
        steering(r#""candidates":9"#, "candidates", "found 9"),
        steering(r#""candidates":2.5"#, "candidates", "found 2.5"),
        steering(r#""candidates":-1"#, "candidates", "found -1"),
        steering(
            r#""candidates":"3""#,
            "candidates",
            "found \"3\" (a string), allowed: a whole number from 1 to 8; did you mean 3?",
        ),
        steering(
            r#""via":"stateful_session","candidates":2"#,
            "candidates",
            "allowed: 1, or $.steering.via \"override_host\"",
        ),
        steering(r#""header":"x evenkeel""#, "header", "a header name"),
        steering(r#""header":"""#, "header", "a header name"),
        steering(r#""header":":authority""#, "header", "pseudo-headers are Envoy's own"),
        steering(r#""header":"Host""#, "header", "removed from every incoming request"),
        steering(r#""header":"content-length""#, "header", "removed from every incoming request"),
        steering(r#""header":"Connection""#, "header", "removed from every incoming request"),
    ]);
}

#[test]
fn prometheus() {
    let block = |more: &str, path: &str, part| {
        at_root(&format!(r#""prometheus":{{"cluster":"p",{more}}}"#), &format!("$.prometheus.{path}"), part)
    };
    check(&[
        at_root(r#""prometheus":{}"#, "$.prometheus.cluster", "missing"),
        at_root(r#""prometheus":"prometheus""#, "$.prometheus", "allowed: an object"),
        at_root(r#""prometheus":{"cluster":""}"#, "$.prometheus.cluster", "found \"\""),
        at_root(r#""prometheus":{"cluster":"*"}"#, "$.prometheus.cluster", "the name of one Envoy cluster"),
        block(r#""intervall":"5s""#, "intervall", "did you mean \"interval\"?"),
        block(
            r#""interval":5"#,
            "interval",
            "found 5 (a number), allowed: a duration such as \"250ms\", \"5s\" or \"2m\", from 100ms to 1h; did you mean \"5s\"?",
        ),
        block(r#""interval":"5""#, "interval", "did you mean \"5s\"?"),
        block(r#""interval":"5 s""#, "interval", "did you mean \"5s\"?"),
        block(r#""interval":"0s""#, "interval", "found \"0s\""),
        block(r#""interval":"2h""#, "interval", "from 100ms to 1h"),
        block(r#""interval":"-5s""#, "interval", "found \"-5s\""),
        block(r#""interval":true"#, "interval", "found true (a boolean)"),
        block(r#""timeout":"6s""#, "timeout", "allowed: at most $.prometheus.interval (5s)"),
        block(r#""interval":"1s","timeout":"2s""#, "timeout", "allowed: at most $.prometheus.interval (1s)"),
        block(r#""authority":"http://prometheus""#, "authority", "host or host:port"),
        block(
            r#""authority":"user:pass@prometheus""#,
            "authority",
            "found a string (not shown), allowed: host or host:port; credentials go into $.prometheus.headers",
        ),
        block(r#""method":"PUT""#, "method", "\"auto\", \"GET\", \"POST\""),
        block(r#""parameters":["x"]"#, "parameters", "an object from parameter name to value"),
        block(r#""parameters":{"query":"x"}"#, "parameters.query", "evenkeel sets this one"),
        block(r#""parameters":{"token":7}"#, "parameters.token", "found a number (not shown)"),
        block(r#""headers":{"x":{}}"#, "headers.x.env", "the name of an environment variable"),
        block(r#""headers":{"x":{"env":"A B"}}"#, "headers.x.env", "(not shown)"),
        block(r#""headers":{"x":{"env":"A","prefix":"a\r\nb"}}"#, "headers.x.prefix", "no line breaks"),
        block(r#""path_prefix":"mimir""#, "path_prefix", "did you mean \"/mimir\"?"),
        block(r#""path_prefix":"/mimir/""#, "path_prefix", "did you mean \"/mimir\"?"),
        block(r#""path_prefix":null"#, "path_prefix", "found null"),
        block(r#""headers":["x"]"#, "headers", "found an array, allowed: an object"),
        block(r#""headers":{"x y":"z"}"#, "headers[\"x\"…]", "the name of an HTTP header"),
        block(r#""headers":{":path":"/"}"#, "headers[\"…\"]", "the name of an HTTP header"),
        block(r#""headers":{"host":"z"}"#, "headers.host", "$.prometheus.authority instead"),
        block(
            r#""headers":{"content-length":"7"}"#,
            "headers[\"content-length\"]",
            "does not frame the request",
        ),
        block(
            r#""headers":{"accept-encoding":"gzip"}"#,
            "headers[\"accept-encoding\"]",
            "compressed answers are not read",
        ),
        block(r#""headers":{"x":"a","X":"b"}"#, "headers.X", "each header once"),
        block(
            r#""headers":{"x":"a\r\nb"}"#,
            "headers.x",
            "found a string (not shown), allowed: visible characters",
        ),
        block(r#""headers":{"x":7}"#, "headers.x", "found a number (not shown)"),
    ]);
}

#[test]
fn all_faults_are_reported_at_once_in_the_order_of_reading() {
    let faults = refused(
        r#"{ "mod": "observe", "steering": { "candidates": "two" },
             "upstreams": [{ "cluster": "web", "endpoints": { "static": ["10.0.0.1", "10.0.0.2:0"] },
                             "health": { "fail_after": 0, "ejection": 30 } },
                           { "cluster": "", "endpoints": {}, "policy": "maglev" }],
             "status": { "path": "" } }"#,
    );
    let paths: Vec<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
    let expected = [
        "$.mod",
        "$.steering.candidates",
        "$.upstreams[0].endpoints.static[0]",
        "$.upstreams[0].endpoints.static[1]",
        "$.upstreams[0].health.fail_after",
        "$.upstreams[0].health.ejection",
        "$.upstreams[1].endpoints",
        "$.upstreams[1].policy",
        "$.upstreams[1].cluster",
        "$.status.path",
    ];
    assert_eq!(paths, expected, "{}", lines(&faults).join("\n"));
}

#[test]
fn faults_are_listed_up_to_a_hundred_and_then_counted() {
    let unknown: Vec<String> = (0..250).map(|index| format!(r#""unknown{index}":0"#)).collect();
    let faults = refused(upstream_with(&unknown.join(",")));
    assert_eq!(faults.len(), 101);
    assert_eq!(faults[100].to_string(), "$: 150 more faults");
}

#[test]
fn a_line_stays_a_short_printable_line_whatever_is_shown() {
    let long = "x".repeat(100_000);
    let nasty = r#"\n\u0000\u001b[31m\u2028\u202e\"\\"#;
    for json in [
        upstream_with(&format!(r#""policy":"{long}""#)),
        upstream_with(&format!(r#""{long}":1"#)),
        upstream_with(&format!(r#""policy":"{nasty}""#)),
        upstream_with(&format!(r#""{nasty}":1"#)),
    ] {
        let line = refused(&json)[0].to_string();
        assert!(line.len() < 600, "{} bytes", line.len());
        let unsafe_in_a_log = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202e}');
        assert!(!line.contains(unsafe_in_a_log), "{line}");
    }
}

#[test]
fn header_values_are_never_shown() {
    for headers in [
        r#""S3CR3T""#,
        r#"["authorization: Bearer S3CR3T"]"#,
        r#"{"authorization: Bearer S3CR3T":""}"#,
        r#"{"authorization":"Bearer S3CR3T\n"}"#,
        r#"{"authorization":{"Bearer":"S3CR3T"}}"#,
        r#"{"authorization":["S3CR3T"]}"#,
        r#"{"host":"S3CR3T"}"#,
        r#"{"authorization":"S3CR3T","authorization":"S3CR3T"}"#,
        r#"{"authorization":"Bearer S3CR3T}"#,
        r#"{"authorization: Bearer S3CR3T" "x"}"#,
        r#"{"authorization: Bearer S3CR3T": x}"#,
    ] {
        let faults = refused(root_with(&format!(r#""prometheus":{{"cluster":"p","headers":{headers}}}"#)));
        let shown = lines(&faults).join("\n");
        assert!(shown.starts_with("$.prometheus"), "{shown}");
        assert!(!shown.contains("S3CR3T"), "{shown}");
    }
}

#[test]
fn the_part_among_upstream_filters_has_no_other_settings() {
    use crate::{Role, parse_upstream, role};
    assert_eq!(role(br#"{ "role": "upstream" }"#), Role::Upstream);
    assert_eq!(parse_upstream(br#"{ "role": "upstream" }"#), Ok(()));
    for downstream in
        [&br#"{ "role": "downstream", "upstreams": [] }"#[..], b"{}", b"[]", b"", br#"{ "role": 1 }"#]
    {
        assert_eq!(role(downstream), Role::Downstream);
    }
    let beside = br#"{ "role": "upstream", "upstreams": [] }"#;
    assert_eq!(role(beside), Role::Upstream);
    assert_eq!(parse_upstream(beside).unwrap_err()[0].path, "$.upstreams");
    assert_eq!(crate::parse(br#"{ "role": "upstrem", "upstreams": [] }"#).unwrap_err()[0].path, "$.role");
}

#[test]
fn cluster_name_that_is_not_a_host_needs_an_authority() {
    let named =
        |cluster: &str, more: &str| root_with(&format!(r#""prometheus":{{"cluster":"{cluster}"{more}}}"#));
    for cluster in
        ["outbound|9090||prometheus.monitoring.svc.cluster.local", "default/prometheus/rule/0", "a b", "ü"]
    {
        let part = "missing, allowed: host or host:port of Prometheus";
        check(&[whole(&named(cluster, ""), "$.prometheus.authority", part)]);
        accepted(&named(cluster, r#","authority":"prometheus:9090""#));
    }
    accepted(&named("prometheus_1.monitoring", ""));
}

#[test]
fn what_may_be_a_password_is_not_shown() {
    for text in ["http://user:s3cr3t@host", "user:s3cr3t@host", "http://a@b:s3cr3t@host"] {
        let line = refused(root_with(&format!(r#""prometheus":{{"cluster":"p","path_prefix":"{text}"}}"#)))
            [0]
        .to_string();
        assert!(!line.contains("s3cr3t") && line.contains("@host"), "{line}");
    }
}

/// Without the header such a cluster answers 503.
#[test]
fn observe_is_refused_where_no_request_can_be_left_to_envoy() {
    let observing = |via: &str| root_with(&format!(r#""mode":"observe","steering":{{"via":"{via}"}}"#));
    let faults = refused(observing("original_dst"));
    assert_eq!((faults.len(), faults[0].path.as_str()), (1, "$.mode"), "{faults:?}");
    assert!(faults[0].to_string().contains("503"), "{}", faults[0]);
    for via in ["override_host", "stateful_session", "cluster_header"] {
        accepted(&observing(via));
    }
}
