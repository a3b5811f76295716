//! Envoy's retries take the next of the ranked candidates.

use testbed::anyhow::Result;
use testbed::backend::Behaviour;
use testbed::serde_json::json;
use testbed::{envoy, tokio};

use crate::scene::{Scene, Stage};

async fn retried() -> Result<Scene> {
    let retries = Some((1, "connect-failure,reset,5xx".to_owned()));
    Stage {
        strangers: 1,
        // Blind to latency: who had to be helped out also looks slow, by the retry's back-off.
        upstream: json!({ "policy": "least_request" }),
        plugin: json!({ "steering": { "candidates": 2 } }),
        proxy: envoy::Config { retries, ..envoy::Config::default() },
        ..Stage::default()
    }
    .open()
    .await
}

async fn costs_nobody_anything(sick: Behaviour) -> Result<()> {
    let scene = retried().await?;
    let before = scene.wave(1.5).await?;
    assert_eq!(before.summary.failed, 0, "{:?}", before.summary.statuses);
    scene.backends[0].set(sick);
    let during = scene.wave(4.0).await?;
    assert_eq!(during.summary.failed, 0, "{sick}: {:?}", during.summary.statuses);
    // The retries went to other endpoints, and to ones that evenkeel named.
    let retries = scene.envoy().stat("cluster.web.upstream_rq_retry_success").await?;
    assert!(retries >= 1, "{sick}: nobody met the sick endpoint");
    assert_eq!(before.strangers + during.strangers, 0, "{sick}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_costs_nobody_anything() -> Result<()> {
    costs_nobody_anything(Behaviour::Refuse).await
}

#[tokio::test(flavor = "multi_thread")]
async fn fast_errors_cost_nobody_anything() -> Result<()> {
    costs_nobody_anything(Behaviour::FAIL_FAST).await
}

/// The endpoint that failed is blamed, not the one that helped out.
#[tokio::test(flavor = "multi_thread")]
async fn the_one_that_failed_is_avoided() -> Result<()> {
    let scene = retried().await?;
    scene.backends[0].set(Behaviour::FAIL_FAST);
    scene.wave(3.0).await?;
    let avoiding = scene.wave(3.0).await?;
    assert!(avoiding.share(0) < 0.03, "{:?}", avoiding.received);
    assert!((1..5).all(|index| avoiding.share(index) > 0.1), "{:?}", avoiding.received);
    Ok(())
}
