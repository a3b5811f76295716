//! The manifests that scale, against the types of their APIs; and what they ask Prometheus, against promtool.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use testbed::anyhow::{Context, Result, ensure};
use testbed::tools;

use crate::{prometheus, shipped};

/// Every document under `envoy/autoscaling` that is a manifest.
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

/// What is wrong with these manifests, one line a fault.
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
    const SERIES: &str = "evenkeel_upstream_desired_replicas";
    let adapter = shipped::yaml(&shipped::folder().join("autoscaling/prometheus-adapter.yaml"))?;
    let rule = &adapter["externalRules"][0];
    assert_eq!(rule["seriesQuery"], SERIES);
    assert_eq!(
        named("HorizontalPodAutoscaler")?["spec"]["metrics"][0]["external"]["metric"]["name"],
        rule["name"]["as"]
    );
    let template = rule["metricsQuery"].as_str().context("metricsQuery")?;
    let filled = template.replace("<<.Series>>", SERIES).replace("<<.LabelMatchers>>", "upstream=\"web\"");
    let scaled = named("ScaledObject")?;
    let trigger = &scaled["spec"]["triggers"][0]["metadata"];
    let asked = trigger["query"].as_str().context("query")?;
    assert!(asked.contains(SERIES) && trigger["threshold"] == "1");
    prometheus::check_promql(&[filled, asked.to_owned()])
}
