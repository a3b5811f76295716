//! Responses of all kinds, as servers with a Prometheus API send them.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

fn result(kind: &str, result: &str) -> String {
    format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}}}"#)
}

fn samples(body: &str) -> Vec<(String, Option<f64>)> {
    let answer = parse(200, body.as_bytes(), "instance").unwrap();
    answer.samples.into_iter().map(|sample| (sample.address, sample.value)).collect()
}

fn unusable(status: u32, body: &str) -> Unusable {
    parse(status, body.as_bytes(), "instance").unwrap_err()
}

#[test]
fn a_vector_has_one_sample_a_series() {
    let body = result(
        "vector",
        r#"[{"metric":{"__name__":"queue","instance":"10.0.0.1:80","job":"web"},"value":[1731.781,"17.5"]},
            {"value":[1731,"NaN"],"metric":{"instance":"10.0.0.2:80"}},
            {"metric":{"instance":"10.0.0.3:80"},"value":[1731,"+Inf"]},
            {"metric":{"instance":"10.0.0.4:80"},"value":[1731,"-Inf"]},
            {"metric":{"instance":"10.0.0.5:80"},"value":[1731,"-1e-3"]},
            {"metric":{"instance":"10.0.0.6:80"},"histogram":[1731,{"count":"7","sum":"3","buckets":[[0,"1","2","7"]]}]},
            {"metric":{"instance":"10.0.0.7:80"},"value":[1731,"many"]},
            {"metric":{"\u0069nstance":"10.0.0.8\u003a80"},"value":[1731,3]}]"#,
    );
    let expected = [Some(17.5), None, None, None, Some(-1e-3), None, None, Some(3.0)];
    let expected: Vec<_> =
        expected.into_iter().zip(1..).map(|(value, host)| (format!("10.0.0.{host}:80"), value)).collect();
    assert_eq!(samples(&body), expected);
}

#[test]
fn a_matrix_counts_with_its_last_point() {
    let body = result(
        "matrix",
        r#"[{"metric":{"instance":"a"},"values":[[1,"1"],[2,"2"],[3,"5"]]},
            {"metric":{"instance":"b"},"values":[[1,"1"],[2,"NaN"]]},
            {"metric":{"instance":"c"},"values":[]}]"#,
    );
    assert_eq!(samples(&body), [("a".into(), Some(5.0)), ("b".into(), None), ("c".into(), None)]);
}

#[test]
fn the_address_label_is_whichever_is_asked_for() {
    let body = result(
        "vector",
        r#"[{"metric":{"instance":"a","pod_ip":"b"},"value":[1,"2"]},{"metric":{},"value":[1,"2"]}]"#,
    );
    let answer = parse(200, body.as_bytes(), "pod_ip").unwrap();
    assert_eq!(
        answer.samples,
        [Sample { address: "b".into(), value: Some(2.0), at: Some(1.0), ..Sample::default() }]
    );
    assert_eq!(answer.unnamed, 1);
}

#[test]
fn nothing_found_is_an_answer() {
    for body in [result("vector", "[]"), result("vector", "null"), result("matrix", "[]")] {
        assert_eq!(samples(&body), []);
    }
}

#[test]
fn the_order_of_fields_does_not_matter_and_warnings_do_no_harm() {
    let body = r#"{"infos":["i"],"warnings":["w","x"],"data":{"result":[{"metric":{"instance":"a"},"value":[1,"2"]}],
                   "stats":{"timings":{}},"resultType":"vector"},"status":"success"}"#;
    let answer = parse(200, body.as_bytes(), "instance").unwrap();
    assert_eq!((answer.samples.len(), answer.warnings), (1, 2));
}

/// Servers with a Prometheus API, each with the fields that only it adds.
#[test]
fn the_answers_of_mimir_thanos_and_victoria_metrics_are_read() {
    let series = r#"{"metric":{"__name__":"up","instance":"10.0.0.1:80","replica":"a"},"value":[1731.781,"1"]},
                    {"metric":{"instance":"10.0.0.2:80"},"value":[1731.781,"0.25"]}"#;
    let data = format!(r#""resultType":"vector","result":[{series}]"#);
    for (server, body) in [
        (
            "Mimir",
            format!(r#"{{"status":"success","data":{{{data}}},"infos":["metric might not be a counter"]}}"#),
        ),
        (
            "Thanos",
            format!(
                r#"{{"status":"success","data":{{{data},"analysis":{{"name":"[vectorSelector]","children":[]}}}},
                    "warnings":["receive series from store: rpc error: code = Unavailable"]}}"#
            ),
        ),
        (
            "VictoriaMetrics",
            format!(
                r#"{{"status":"success","isPartial":true,"data":{{{data}}},
                    "stats":{{"seriesFetched":"2","executionTimeMsec":3}},"trace":{{"duration_msec":0.1}}}}"#
            ),
        ),
        (
            "Prometheus",
            format!(r#"{{"status":"success","data":{{{data},"stats":{{"samples":{{"peakSamples":2}}}}}}}}"#),
        ),
    ] {
        let expected = [("10.0.0.1:80".into(), Some(1.0)), ("10.0.0.2:80".into(), Some(0.25))];
        assert_eq!(samples(&body), expected, "{server}");
    }
    // A missing tenant, a tenant's limit, and a part of a cluster that does not respond.
    assert_eq!(unusable(401, "no org id\n"), Unusable::Status(401, "no org id".into()));
    let refused =
        r#"{"status":"error","errorType":"too_many_requests","error":"the request has been rejected"}"#;
    assert!(unusable(429, refused).to_string().contains("too_many_requests"));
    let refused = r#"{"status":"error","errorType":"422","error":"cannot execute query"}"#;
    assert!(unusable(422, refused).to_string().contains("cannot execute query"));
}

#[test]
fn a_value_without_labels_names_no_endpoint() {
    for body in [
        result("scalar", r#"[1731.781,"1"]"#),
        result("string", r#"[1731.781,"web"]"#),
        result("vector", r#"[1731,"1"]"#),
    ] {
        assert_eq!(unusable(200, &body), Unusable::NamesNoEndpoint, "{body}");
    }
}

#[test]
fn refused_query_shows_the_error_of_prometheus() {
    let body = r#"{"status":"error","errorType":"bad_data","error":"1:4: parse error:\nunexpected \"}\""}"#;
    let expected = r#"Prometheus refused the query: bad_data: 1:4: parse error:\nunexpected \"}\""#;
    assert_eq!(unusable(400, body).to_string(), expected);
    let long = format!(r#"{{"status":"error","error":"{}","data":null}}"#, "x".repeat(10_000));
    let line = unusable(503, &long).to_string();
    assert!(line.contains("unknown: xxx") && line.len() < 300, "{line}");
}

#[test]
fn whatever_else_comes_back_is_named() {
    assert_eq!(unusable(502, "<html>Bad gateway</html>"), Unusable::Status(502, String::new()));
    assert_eq!(unusable(0, ""), Unusable::Status(0, String::new()));
    assert_eq!(unusable(500, &result("vector", "[]")), Unusable::Status(500, String::new()));
    for body in [
        "",
        "null",
        "[]",
        "<html>",
        "{}",
        r#"{"status":"success"}"#,
        r#"{"status":"success","data":null}"#,
        r#"{"status":"success","data":{"resultType":"streams","result":[]}}"#,
        r#"{"status":"success","data":{"result":[]}}"#,
        &result("vector", r#"[{"metric":{"instance":7},"value":[1,"2"]}]"#),
        &result("vector", r#"[{"metric":{"instance":"a"},"value":[1]}]"#),
        &result("vector", r#"[{"metric":{"instance":"a"},"value":"2"}]"#),
        &result("vector", "[null]"),
        &result("vector", "{}"),
        &(result("vector", "[]") + "{}"),
        &result("vector", &"[".repeat(10_000)),
    ] {
        assert!(matches!(unusable(200, body), Unusable::Malformed(_)), "{body}");
    }
    let large = vec![b' '; MAX_BYTES + 1];
    assert_eq!(parse(200, &large, "instance"), Err(Unusable::TooLarge));
}

#[test]
fn only_a_success_is_an_answer() {
    let whole = result("vector", r#"[{"metric":{"instance":"10.0.0.1:80"},"value":[1,"2"]}]"#);
    for status in [199, 300, 301, 404, 500] {
        assert!(
            matches!(unusable(status, &whole), Unusable::Status(found, _) if found == status),
            "{status}"
        );
    }
    for status in [200, 204, 299] {
        assert!(parse(status, whole.as_bytes(), "instance").is_ok(), "{status}");
    }
    for other in ["", "\"status\":\"partial\",", "\"status\":\"Success\","] {
        let body = format!(r#"{{{other}"data":{{"resultType":"vector","result":[]}}}}"#);
        assert!(matches!(unusable(200, &body), Unusable::Malformed(_)), "{body}");
    }
}

#[test]
fn a_label_that_is_longer_than_any_address_is_none() {
    let named = |length: usize| {
        let series = format!(r#"[{{"metric":{{"instance":"{}"}},"value":[1,"2"]}}]"#, "x".repeat(length));
        let answer = parse(200, result("vector", &series).as_bytes(), "instance").unwrap();
        (answer.samples.len(), answer.unnamed)
    };
    assert_eq!((named(MAX_LABEL), named(MAX_LABEL + 1), named(0)), ((1, 0), (0, 1), (0, 1)));
}

#[test]
fn of_series_without_the_label_the_first_is_an_example() {
    let series = r#"[{"metric":{"job":"a"},"value":[1,"2"]},{"metric":{"pod":"b"},"value":[1,"2"]}]"#;
    let answer = parse(200, result("vector", series).as_bytes(), "instance").unwrap();
    assert_eq!((answer.unnamed, answer.labels_instead.as_str()), (2, "job"));
}
