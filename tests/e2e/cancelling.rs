//! Requests cancelled by clients leave the in-flight count.

use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::Behaviour;
use testbed::load::Load;
use testbed::serde_json::json;
use testbed::{tokio, wait};

use crate::scene::Stage;

/// With `least_request`, an endpoint whose in-flight count leaks is never chosen again.
#[tokio::test(flavor = "multi_thread")]
async fn endpoint_is_used_after_its_clients_left() -> Result<()> {
    let scene = Stage { upstream: json!({ "policy": "least_request" }), ..Stage::default() }.open().await?;
    scene.backends[0].set(Behaviour::BlackHole);
    let left = scene.wave_of(Load { timeout: Duration::from_millis(200), ..scene.load(4.0) }).await?;
    assert!(left.summary.timeouts > 5, "some met the one that hangs, and left: {:?}", left.received);
    wait::until("Envoy to let go of them", Duration::from_secs(5), || async {
        (scene.envoy().stat("cluster.web.upstream_rq_active").await.ok()? == 0).then_some(())
    })
    .await?;

    scene.backends[0].set(Behaviour::Healthy);
    scene.wave(1.0).await?;
    let after = scene.wave(3.0).await?;
    assert_eq!(after.summary.failed, 0, "{:?}", after.summary.statuses);
    assert!((0.1..0.4).contains(&after.share(0)), "a fair share would be 0.2: {:?}", after.received);
    Ok(())
}
