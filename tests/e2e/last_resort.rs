//! The `failover` behaviour when no endpoint is eligible.

use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::Behaviour;
use testbed::serde_json::json;
use testbed::{tokio, wait};

use crate::raw;
use crate::scene::{Scene, Stage};

async fn no_endpoint_eligible(failover: testbed::serde_json::Value, sick: Behaviour) -> Result<Scene> {
    let scene = Stage {
        backends: 3,
        upstream: json!({
            "health": { "ejection": "30s", "max_ejected_percent": 100 },
            "failover": failover,
        }),
        ..Stage::default()
    }
    .open()
    .await?;
    scene.wave(1.0).await?;
    // One after the other: a failure of all at once is held against none.
    for backend in &scene.backends {
        backend.set(sick);
        scene.wave(2.0).await?;
    }
    Ok(scene)
}

#[tokio::test(flavor = "multi_thread")]
async fn rejecting_names_the_reason_and_when_to_return() -> Result<()> {
    let failover = json!({ "none_eligible": "reject", "panic_percent": 0 });
    let scene = no_endpoint_eligible(failover, Behaviour::FAIL_FAST).await?;
    let rejected = || async {
        let head = raw::get(scene.envoy().address(), "/", &[]).await.ok()?;
        head.header("x-evenkeel-reason").is_some().then_some(head)
    };
    let head = wait::until("a rejection", Duration::from_secs(10), rejected).await?;
    assert_eq!(head.status(), 503);
    assert!(head.header("retry-after").is_some_and(|after| after.parse::<u32>().is_ok()));
    let wave = scene.wave(1.0).await?;
    let received: u64 = wave.received.iter().sum();
    assert!(received < wave.summary.requests / 10, "most were spared: {:?}", wave.received);

    // Rejected requests give no evidence, probes do: service returns with the endpoints.
    scene.backends.iter().for_each(|backend| backend.set(Behaviour::Healthy));
    wait::until("service", Duration::from_secs(30), || async {
        let wave = scene.wave(0.5).await.ok()?;
        (wave.summary.failed == 0).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn in_panic_health_is_ignored() -> Result<()> {
    let scene =
        no_endpoint_eligible(json!({ "none_eligible": "reject", "panic_percent": 50 }), Behaviour::FAIL_FAST)
            .await?;
    let wave = scene.wave(2.0).await?;
    let received: u64 = wave.received.iter().sum();
    assert_eq!(received, wave.summary.requests, "every request had its chance");
    Ok(())
}
