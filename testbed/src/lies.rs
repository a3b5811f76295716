//! Answers that a broken, hijacked or malicious Prometheus might give.

use crate::liar::{Lie, http, json, raw};

/// A vector with a sample for each of these instances.
pub fn vector(samples: &[(&str, &str)]) -> String {
    let sample = |(instance, value): &(&str, &str)| {
        format!(r#"{{"metric":{{"instance":"{instance}"}},"value":[1700000000,"{value}"]}}"#)
    };
    answer("vector", &format!("[{}]", samples.iter().map(sample).collect::<Vec<_>>().join(",")))
}

fn answer(kind: &str, result: &str) -> String {
    format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}}}"#)
}

/// All of them, for endpoints called `names`. None has a finite number for one of these.
pub fn all(names: &[String]) -> Vec<(&'static str, Lie)> {
    let every = |value: &str| vector(&names.iter().map(|name| (name.as_str(), value)).collect::<Vec<_>>());
    let first = names[0].as_str();
    let labelled = |labels: &str| {
        answer("vector", &format!(r#"[{{"metric":{{{labels}"instance":"{first}"}},"value":[1,"NaN"]}}]"#))
    };
    let many_labels: String = (0..50_000).map(|number| format!(r#""l{number}":"x","#)).collect();
    let strangers: Vec<String> =
        (0..100_000).map(|number| format!("10.{}.{}.1:80", number / 256, number % 256)).collect();
    let strangers: Vec<(&str, &str)> = strangers.iter().map(|name| (name.as_str(), "1")).collect();
    vec![
        ("NaN for everybody", json(every("NaN"))),
        ("NaN for one", json(vector(&[(first, "NaN")]))),
        ("infinities", json(vector(&[(first, "+Inf"), (&names[1], "-Inf")]))),
        ("a number beyond all", json(vector(&[(first, "1e999")]))),
        ("no numbers", json(every("many"))),
        ("an empty value", json(every(""))),
        ("numbers that are not text", json(every("0").replace("\"0\"", "{}"))),
        ("values of the wrong shape", json(every("0").replace("[1700000000,\"0\"]", "[1700000000]"))),
        ("an object for a vector", json(answer("vector", "{}"))),
        ("text for a vector", json(answer("vector", "\"none\""))),
        ("null for a vector", json(answer("vector", "null"))),
        ("nulls in a vector", json(answer("vector", "[null,null]"))),
        ("a scalar", json(answer("scalar", r#"[1700000000,"7"]"#))),
        ("a string", json(answer("string", r#"[1700000000,"7"]"#))),
        ("an unknown type", json(answer("tensor", "[]"))),
        (
            "histograms",
            json(answer(
                "vector",
                &format!(r#"[{{"metric":{{"instance":"{first}"}},"histogram":[1,{{}}]}}]"#),
            )),
        ),
        ("success without data", json(r#"{"status":"success"}"#)),
        ("data without success", json(r#"{"data":{"resultType":"vector","result":[]}}"#)),
        (
            "an error with status 200",
            json(r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#),
        ),
        (
            "a refused query",
            http(
                "422 Unprocessable Entity",
                "application/json",
                r#"{"status":"error","errorType":"execution","error":"many-to-many"}"#,
            ),
        ),
        ("an error of the wrong type", json(r#"{"status":"error","errorType":7,"error":[]}"#)),
        ("a server error", http("500 Internal Server Error", "text/plain", "oops")),
        ("an overload", http("503 Service Unavailable", "text/plain", "")),
        ("a redirect", http("302 Found", "text/html", "")),
        ("HTML", http("200 OK", "text/html", "<!doctype html><title>Login</title><p>Please log in")),
        ("nothing", json("")),
        ("null", json("null")),
        ("an array", json("[]")),
        ("half an answer", json(&every("1")[..60])),
        ("two answers", json(every("NaN").repeat(2))),
        ("bytes that are no text", json([0xff; 1000])),
        ("brackets without end", json("[".repeat(1_000_000))),
        ("objects without end", json(r#"{"data":"#.repeat(200_000))),
        ("labels without end", json(labelled(&many_labels))),
        ("one endless label", json(labelled(&format!(r#""l":"{}","#, "x".repeat(2_000_000))))),
        ("an endless instance", json(vector(&[(&"1".repeat(2_000_000), "1")]))),
        ("a hundred thousand strangers", json(vector(&strangers))),
        ("more than is read", json(" ".repeat(9 << 20))),
        ("less than announced", raw("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{}")),
        ("headers without end", raw(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1_000_000)))),
        ("another protocol", raw("SSH-2.0-OpenSSH_9.2\r\n")),
        ("a closed connection", raw("")),
        ("silence", Lie::Silence),
    ]
}
