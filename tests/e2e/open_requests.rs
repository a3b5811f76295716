//! Open requests at an endpoint that hangs: bidirectional streams without messages, and stalled uploads. No answer is
//! due to them yet, but the endpoint must get no more of them.

use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::Behaviour;
use testbed::http::{self, Method};
use testbed::serde_json::json;
use testbed::tokio::task::JoinSet;
use testbed::{envoy, http2, tokio, wait};

use crate::scene::{Scene, Stage, received};

const PATIENCE: Duration = Duration::from_secs(60);

/// Four endpoints under round robin, which is blind to latency, without a route timeout.
async fn in_turn(http2: bool, follow: bool) -> Result<Scene> {
    Stage {
        backends: 4,
        http2,
        follow,
        plugin: json!({ "status": { "path": "/_evenkeel" } }),
        upstream: json!({ "policy": "round_robin" }),
        proxy: envoy::Config { route_timeout: Duration::ZERO, ..envoy::Config::default() },
        ..Stage::default()
    }
    .open()
    .await
}

/// Number of requests per batch.
const MORE: u64 = 24;
/// Maximum number of a batch's requests to an endpoint that is left alone, as probes; a fair share would be six.
const LOOKS: u64 = 2;

/// Asserts that a hanging first endpoint is left alone; `begin` begins requests one after the other until then.
async fn is_left_alone(scene: &Scene, mut begin: impl FnMut()) -> Result<()> {
    let hung = &scene.backends[0];
    (0..MORE).for_each(|_| begin());
    wait::until("requests at every endpoint", PATIENCE, || async {
        received(&scene.backends).iter().all(|count| *count >= 3).then_some(())
    })
    .await?;
    hung.set(Behaviour::BlackHole);
    let mut polls = 0;
    wait::until("it to be left alone", PATIENCE, || {
        polls += 1;
        if polls % 4 == 0 {
            begin();
        }
        async {
            let status =
                http::get(scene.envoy().address(), "/_evenkeel/status.json").await.ok()?.json().ok()?;
            (status["upstreams"][0]["endpoints"][0]["eligible"] == false).then_some(())
        }
    })
    .await?;
    // Each worker notices it by its own requests.
    wait::until("every worker to leave it alone", PATIENCE, || {
        let before = received(&scene.backends);
        (0..MORE).for_each(|_| begin());
        async move {
            let since =
                || received(&scene.backends).into_iter().zip(&before).map(|(now, before)| now - before);
            let all = || async { (since().sum::<u64>() >= MORE).then_some(()) };
            wait::until("the rest", PATIENCE, all).await.ok()?;
            (since().next()? <= LOOKS).then_some(())
        }
    })
    .await
}

async fn streams_leave_it(follow: bool) -> Result<()> {
    let scene = in_turn(true, follow).await?;
    let client = http2::Client::open(scene.envoy().address()).await?;
    let mut streams = JoinSet::new();
    let begin = || {
        let client = client.clone();
        streams.spawn(async move {
            let mut call = client.call("/chat", b"hello").await?;
            call.next().await?;
            call.finish().await
        });
    };
    is_left_alone(&scene, begin).await
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoint_with_silent_streams_is_avoided() -> Result<()> {
    streams_leave_it(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoint_with_silent_streams_is_avoided_with_attempts() -> Result<()> {
    streams_leave_it(true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_at_which_uploads_stand_still_is_left_alone() -> Result<()> {
    /// More than all buffers on the way hold, bytes.
    const SIZE: usize = 16 << 20;
    let scene = in_turn(false, false).await?;
    let (at, body) = (scene.envoy().address(), std::sync::Arc::new("x".repeat(SIZE)));
    let mut uploads = JoinSet::new();
    let begin = || {
        let body = body.clone();
        uploads.spawn(async move { http::send(at, Method::POST, "/", &[], &body).await });
    };
    is_left_alone(&scene, begin).await
}
