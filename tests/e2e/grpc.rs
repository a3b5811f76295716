//! gRPC calls that fail within HTTP 200: the gRPC status counts, in the headers or in the trailers.

use testbed::anyhow::Result;
use testbed::backend::Behaviour;
use testbed::serde_json::json;
use testbed::tokio;

use crate::scene::{Scene, Stage};

/// Five endpoints that answer calls at once, under a policy that is blind to latency, so that only the gRPC status can
/// keep traffic away.
async fn answering_calls() -> Result<Scene> {
    let mut stage = Stage { http2: true, ..Stage::default() };
    stage.upstream = json!({ "policy": "least_request", "health": { "ejection": "3s" } });
    stage.backend.behaviour = Behaviour::Grpc { status: 0, in_trailers: true };
    stage.open().await
}

async fn avoids_the_failing(in_trailers: bool) -> Result<()> {
    let scene = answering_calls().await?;
    let before = scene.wave(2.0).await?;
    assert!(before.spread(), "{:?}", before.received);

    scene.backends[0].set(Behaviour::Grpc { status: 14, in_trailers });
    let learning = scene.wave(2.0).await?;
    let avoiding = scene.wave(3.0).await?;
    // By HTTP status every call succeeds.
    assert_eq!(learning.summary.failed + avoiding.summary.failed, 0, "{:?}", learning.summary.statuses);
    assert!(avoiding.share(0) < 0.03, "{:?}", avoiding.received);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn unavailable_in_the_headers() -> Result<()> {
    avoids_the_failing(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn unavailable_in_the_trailers() -> Result<()> {
    avoids_the_failing(true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_caller_did_wrong_is_not_held_against_the_endpoint() -> Result<()> {
    let scene = answering_calls().await?;
    // NOT_FOUND.
    scene.backends[0].set(Behaviour::Grpc { status: 5, in_trailers: true });
    let wave = scene.wave(3.0).await?;
    assert!(wave.share(0) > 0.08, "{:?}", wave.received);
    Ok(())
}
