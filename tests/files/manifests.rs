//! The autoscaling manifests follow their APIs' types, and their queries are accepted by promtool.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use testbed::anyhow::{Context, Result, ensure};
use testbed::tools;

use crate::{prometheus, shipped};

/// Every manifest under `envoy/autoscaling`.
fn manifests() -> Result<Vec<Value>> {
    let mut found = Vec::new();
    let folder = shipped::folder().join("autoscaling");
    for path in shipped::files(&["yaml"])?.into_iter().filter(|path| path.starts_with(&folder)) {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&shipped::text(&path)?)
            .with_context(|| path.display().to_string())?;
        found.extend(documents.into_iter().filter(|document| document.get("apiVersion").is_some()));
    }
    Ok(found)
}

/// Faults of these manifests, one per line; empty if there are none.
fn faults(manifests: &[Value]) -> Result<String> {
    let script = tools::root().join("scripts/check-manifests.mjs");
    let mut node = Command::new("node")
        .arg(script)
        .arg(tools::crd_schemas()?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("node")?;
    let manifests = serde_json::to_vec(manifests)?;
    node.stdin.take().context("stdin")?.write_all(&manifests)?;
    let output = node.wait_with_output()?;
    let faults = String::from_utf8(output.stdout)?;
    ensure!(output.status.success() || !faults.is_empty(), "node failed");
    Ok(faults)
}

fn named(kind: &str) -> Result<Value> {
    let found = manifests()?.into_iter().find(|manifest| manifest["kind"] == kind);
    found.with_context(|| format!("no {kind}"))
}

#[test]
fn they_are_what_their_apis_take() -> Result<()> {
    assert_eq!(faults(&manifests()?)?, "");
    Ok(())
}

#[test]
fn faults_are_noticed() -> Result<()> {
    let mut scaled = named("ScaledObject")?;
    scaled["spec"]["pollingInterval"] = json!("15s");
    scaled["spec"]["triggers"][0]["metadta"] = json!({});
    let mut autoscaler = named("HorizontalPodAutoscaler")?;
    autoscaler["spec"]["maxReplicas"] = json!("20");
    autoscaler["spec"]["scaleTargetRef"] = json!({ "kind": "Deployment" });
    autoscaler["spec"]["behavior"]["scaleDown"]["polices"] = json!([]);
    let faults = faults(&[scaled, autoscaler])?;
    for fault in [
        r#"/spec/pollingInterval: type {"type":"integer"}"#,
        "/spec/triggers/0/metadta: unknown field",
        r#"/spec/maxReplicas: type {"type":"integer"}"#,
        r#"/spec/scaleTargetRef: required {"missingProperty":"name"}"#,
        "/spec/behavior/scaleDown/polices: unknown field",
    ] {
        assert!(faults.contains(fault), "{fault}: not among\n{faults}");
    }
    Ok(())
}

#[test]
fn what_scales_asks_for_the_number_that_there_is() -> Result<()> {
    let adapter = shipped::yaml(&shipped::folder().join("autoscaling/prometheus-adapter.yaml"))?;
    let rule = &adapter["externalRules"][0];
    let metric = named("HorizontalPodAutoscaler")?["spec"]["metrics"][0]["external"]["metric"].clone();
    assert_eq!(metric["name"], rule["name"]["as"]);
    // Kubernetes refuses a cluster's name as a label value.
    assert!(metric.get("selector").is_none(), "{metric}");
    let scaled = named("ScaledObject")?;
    let trigger = &scaled["spec"]["triggers"][0]["metadata"];
    assert_eq!(trigger["threshold"], "1");
    let adapted = rule["metricsQuery"].as_str().context("metricsQuery")?.to_owned();
    let asked = trigger["query"].as_str().context("query")?.to_owned();
    // Metrics of the status path, and of Envoy's own stats, which is all that a mesh can scrape.
    for series in ["evenkeel_upstream_desired_replicas{", "evenkeel_fleet_desired_replicas{"] {
        assert!(adapted.contains(series) && asked.contains(series), "{series}");
    }
    let found = rule["seriesQuery"].as_str().context("seriesQuery")?.to_owned();
    prometheus::check_promql(&[adapted, asked, found])
}
