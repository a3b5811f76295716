//! A decision in Envoy's access log, in the log, and in a response header for authorized clients.

use std::time::Duration;

use testbed::anyhow::{Context, Result};
use testbed::backend::Behaviour;
use testbed::http::{self, Method};
use testbed::serde_json::{Value, from_str, json};
use testbed::wait::until;
use testbed::{envoy, tokio};

use crate::scene::{Scene, Stage};

const SECRET: &str = "open-sesame";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// An access log on Envoy's standard output, one JSON object per request.
fn access_log() -> Value {
    json!([{
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": { "json_format": {
                "accessed": "%REQ(:PATH)%",
                "endpoint": "%FILTER_STATE(wasm.evenkeel.endpoint:PLAIN)%",
                "reason": "%FILTER_STATE(wasm.evenkeel.reason:PLAIN)%",
                "cost_ms": "%FILTER_STATE(wasm.evenkeel.cost:PLAIN)%",
                "decision": "%FILTER_STATE(wasm.evenkeel.decision:PLAIN)%",
                "upstream_host": "%UPSTREAM_HOST%",
            } },
        },
    }])
}

/// The JSON objects in Envoy's output that have this member.
fn objects(scene: &Scene, member: &str) -> Vec<Value> {
    let log = scene.envoy().log();
    let objects = log.lines().filter_map(|line| from_str::<Value>(&line[line.find('{')?..]).ok());
    objects.filter(|object| object.get(member).is_some()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn decision_is_in_access_log_log_and_debug_header() -> Result<()> {
    let scene = Stage {
        backends: 3,
        plugin: json!({
            "debug": { "secret": SECRET },
            "attributes": ["endpoint", "reason", "cost", "decision"],
            "log": { "format": "json", "failures": true },
        }),
        proxy: envoy::Config { access_log: access_log(), ..envoy::Config::default() },
        ..Stage::default()
    }
    .open()
    .await?;
    let at = scene.envoy().address();
    let known: Vec<String> = scene.backends.iter().map(|backend| backend.address().to_string()).collect();
    let asked = http::send(at, Method::GET, "/asked", &[("x-evenkeel-debug", SECRET)], "").await?;
    let said = asked.header("x-evenkeel-decision").context("told")?.to_owned();
    assert!(known.iter().any(|address| said.contains(&format!("endpoint=\"{address}\""))), "{said}");
    assert!(said.contains("runner_up=") && said.contains("why="), "{said}");
    for headers in [&[][..], &[("x-evenkeel-debug", "open-sesam")]] {
        let other = http::send(at, Method::GET, "/other", headers, "").await?;
        assert_eq!(other.header("x-evenkeel-decision"), None, "{headers:?}");
    }
    let accessed = until("three lines of the access log", Duration::from_secs(15), async || {
        Some(objects(&scene, "accessed")).filter(|lines| lines.len() == 3)
    });
    for line in accessed.await? {
        assert_eq!(line["endpoint"], line["upstream_host"], "{line}");
        assert!(line["endpoint"].as_str().is_some_and(|text| known.iter().any(|k| k == text)), "{line}");
        assert!(matches!(line["reason"].as_str(), Some("policy" | "probe")), "{line}");
        assert!(line["cost_ms"].as_str().is_some_and(|cost| cost.parse::<f64>().is_ok()), "{line}");
        assert!(line["decision"].as_str().is_some_and(|text| text.starts_with("by=")), "{line}");
    }
    for backend in &scene.backends {
        backend.set(Behaviour::FailFast { status: 503, after: Duration::from_millis(1) });
    }
    let traceparent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let failed = http::send(at, Method::GET, "/failed", &[("traceparent", &traceparent)], "").await?;
    assert_eq!(failed.status, 503);
    let logged = until("the failure in the log", Duration::from_secs(15), async || {
        objects(&scene, "event").into_iter().find(|event| event["event"] == json!("decision"))
    });
    let logged = logged.await?;
    assert_eq!((&logged["trace_id"], &logged["status"]), (&json!(TRACE), &json!(503)), "{logged}");
    assert_eq!(logged["failure"], json!("status_5xx"), "{logged}");
    assert!(logged["endpoint"].as_str().is_some_and(|text| known.iter().any(|k| k == text)), "{logged}");
    assert!(!scene.envoy().log().contains(SECRET));
    Ok(())
}
