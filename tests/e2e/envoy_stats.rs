//! The fleet's metrics in Envoy's own stats, with the labels that the shipped configurations extract from the stat
//! names.

use std::fs;
use std::time::Duration;

use testbed::anyhow::{Context, Result};
use testbed::serde_json::{Value, json};
use testbed::wait::until;
use testbed::{envoy, tokio, tools};

use crate::scene::{Scene, Stage, received};

/// The shipped `stats_config`.
fn shipped() -> Result<Value> {
    let file = tools::root().join("envoy/envoy.yaml");
    let yaml: Value = serde_saphyr::from_str(&fs::read_to_string(file)?)?;
    Ok(yaml["stats_config"].clone())
}

/// Sum of a metric's samples that have all of these labels.
fn sum(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let samples = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?.strip_prefix('{')?;
        let (found, value) = rest.rsplit_once("} ")?;
        let all = labels.iter().all(|label| found.split(',').any(|one| one == *label));
        all.then(|| value.parse::<f64>().ok()).flatten()
    });
    samples.reduce(|a, b| a + b)
}

async fn text(scene: &Scene) -> Result<String> {
    scene.envoy().admin_get("/stats/prometheus").await
}

#[tokio::test(flavor = "multi_thread")]
async fn envoys_own_stats_have_the_fleets_figures_with_labels() -> Result<()> {
    let mut stage = Stage {
        plugin: json!({ "prometheus": { "cluster": "prometheus", "interval": "1s", "timeout": "500ms" } }),
        proxy: envoy::Config {
            // Histograms are merged when stats are flushed.
            extra: json!({ "stats_config": shipped()?, "stats_flush_interval": "0.5s" }),
            ..envoy::Config::default()
        },
        scraped: true,
        ..Stage::default()
    };
    stage.upstream["signals"] = json!([{ "name": "in_flight", "query": "http_inflight_requests" }]);
    let scene = stage.open().await?;
    let wave = scene.wave(1.5).await?;
    assert_eq!((wave.summary.failed, wave.strangers), (0, 0));
    let requests: u64 = received(&scene.backends).iter().sum();
    let counted = until("as many decisions as requests", Duration::from_secs(15), async || {
        let text = text(&scene).await.ok()?;
        let decisions = sum(&text, "evenkeel_fleet_decisions_total", &[r#"upstream="web""#]);
        (decisions == Some(requests as f64)).then_some(())
    });
    counted.await.with_context(|| format!("{requests} requests"))?;
    // Values that need an answer from Prometheus, or a flush of the stats.
    for (name, labels) in [
        ("evenkeel_fleet_decisions_total", &[r#"upstream="web""#, r#"reason="policy""#][..]),
        ("evenkeel_fleet_eligible_endpoints", &[r#"upstream="web""#]),
        ("evenkeel_fleet_decision_nanoseconds_count", &[r#"upstream="web""#]),
        ("evenkeel_fleet_polls_total", &[]),
    ] {
        let known = until(name, Duration::from_secs(15), async || {
            sum(&text(&scene).await.ok()?, name, labels).filter(|value| *value > 0.0)
        });
        known.await?;
    }
    let age = until("the signal's age", Duration::from_secs(15), async || {
        let labels = [r#"upstream="web""#, r#"signal="in_flight""#];
        sum(&text(&scene).await.ok()?, "evenkeel_fleet_signal_age_seconds", &labels)
    });
    assert!(age.await? < 60.0);
    let text = text(&scene).await?;
    let ours: Vec<&str> = text.lines().filter(|line| line.contains("evenkeel")).collect();
    for (name, labels) in [
        ("evenkeel_fleet_state_changes_total", &[r#"upstream="web""#, r#"state="failed""#][..]),
        ("evenkeel_fleet_ejections_total", &[r#"upstream="web""#]),
        ("evenkeel_fleet_decisions_total", &[r#"upstream="web""#, r#"reason="fallback""#]),
        ("evenkeel_fleet_endpoints", &[r#"upstream="web""#]),
        ("evenkeel_fleet_last_poll_success_age_seconds", &[]),
    ] {
        assert!(sum(&text, name, labels).is_some(), "{name} {labels:?}:\n{}", ours.join("\n"));
    }
    assert!(!ours.iter().any(|line| line.contains("=.=") || line.contains("___")), "{ours:#?}");
    if std::env::var_os("SHOW_STATS").is_some() {
        println!("{}", ours.join("\n"));
    }
    Ok(())
}
