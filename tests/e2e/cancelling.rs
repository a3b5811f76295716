//! Clients that go away: what they had in flight is given back, exactly once.

use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::Behaviour;
use testbed::load::Load;
use testbed::serde_json::json;
use testbed::{tokio, wait};

use crate::scene::Stage;

/// Under `least_request` whoever keeps requests in flight that are long gone is never chosen again.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_whose_clients_left_is_used_again() -> Result<()> {
    let stage = Stage { upstream: json!({ "policy": "least_request" }), ..Stage::default() };
    let well = stage.backend.behaviour;
    let scene = stage.open().await?;
    scene.backends.iter().for_each(|backend| backend.set(Behaviour::BlackHole));
    let impatient = Load { timeout: Duration::from_millis(150), rate: 60.0, ..scene.load(3.0) };
    let left = scene.wave_of(impatient).await?;
    assert_eq!(left.summary.timeouts, left.summary.requests, "nobody waited");
    wait::until("Envoy to let go of them", Duration::from_secs(5), || async {
        (scene.envoy().stat("cluster.web.upstream_rq_active").await.ok()? == 0).then_some(())
    })
    .await?;

    // Three are well, two are still away for whoever waits; then all are well.
    scene.backends.iter().for_each(|backend| backend.set(well));
    scene.wave(1.0).await?;
    let after = scene.wave(3.0).await?;
    assert_eq!(after.summary.failed, 0, "{:?}", after.summary.statuses);
    assert!(after.spread(), "{:?}", after.received);
    Ok(())
}

/// The one that hangs is left by its clients; the others never were.
#[tokio::test(flavor = "multi_thread")]
async fn only_one_hangs_and_is_left() -> Result<()> {
    let stage = Stage { upstream: json!({ "policy": "least_request" }), ..Stage::default() };
    let well = stage.backend.behaviour;
    let scene = stage.open().await?;
    scene.backends[0].set(Behaviour::BlackHole);
    let left = scene.wave_of(Load { timeout: Duration::from_millis(300), ..scene.load(3.0) }).await?;
    assert!(left.summary.timeouts > 10, "some met the one that hangs: {:?}", left.received);
    assert_eq!(left.summary.timeouts, left.summary.failed);
    scene.backends[0].set(well);
    scene.wave(1.0).await?;
    let after = scene.wave(3.0).await?;
    assert_eq!(after.summary.failed, 0, "{:?}", after.summary.statuses);
    assert!(after.share(0) > 0.1, "{:?}", after.received);
    Ok(())
}
