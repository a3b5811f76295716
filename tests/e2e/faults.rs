//! A misbehaving endpoint is avoided at the cost of few failed requests, and gets its traffic back once it has
//! recovered.

use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::Behaviour;
use testbed::serde_json::json;
use testbed::{clock, envoy, tokio, wait};

use crate::raw;
use crate::scene::{Scene, Stage};

/// Maximum time until a recovered endpoint is back in traffic.
const RETURN: Duration = Duration::from_secs(30);
/// Share of one of five endpoints above which it counts as back; a fair share is 0.2.
const BACK: f64 = 0.1;

/// Makes the first of five endpoints misbehave, then recover.
///
/// At most `failures` requests may fail until it is detected; afterwards it receives less than 3 %.
async fn avoided_and_back(stage: Stage, sick: Behaviour, failures: u64) -> Result<Scene> {
    let scene = stage.open().await?;
    let well = scene.backends[0].behaviour();
    let before = scene.wave(2.0).await?;
    assert_eq!(before.summary.failed, 0, "{:?}", before.summary.statuses);
    assert!(before.spread() && !before.received.contains(&0), "{:?}", before.received);

    scene.backends[0].set(sick);
    let learning = scene.wave(2.0).await?;
    let avoiding = scene.wave(4.0).await?;
    let failed = learning.summary.failed + avoiding.summary.failed;
    assert!(failed <= failures, "{sick}: {failed} failed, {:?}", learning.summary.statuses);
    assert!(avoiding.share(0) < 0.03, "{sick}: {:?}", avoiding.received);

    scene.backends[0].set(well);
    let deadline = clock::now() + RETURN;
    loop {
        let wave = scene.wave(1.0).await?;
        if wave.share(0) > BACK {
            break;
        }
        assert!(clock::now() < deadline, "{sick}: healed, but not back: {:?}", wave.received);
    }
    Ok(scene)
}

#[tokio::test(flavor = "multi_thread")]
async fn slow() -> Result<()> {
    avoided_and_back(Stage::default(), Behaviour::Slow(20.0), 0).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_fast() -> Result<()> {
    avoided_and_back(Stage::default(), Behaviour::FAIL_FAST, 12).await.map(drop)
}

/// Workers share their evidence: four of them see no more failures than two.
#[tokio::test(flavor = "multi_thread")]
async fn failing_fast_before_four_workers() -> Result<()> {
    let proxy = envoy::Config { concurrency: 4, ..envoy::Config::default() };
    avoided_and_back(Stage { proxy, ..Stage::default() }, Behaviour::FAIL_FAST, 12).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole() -> Result<()> {
    let proxy = envoy::Config { route_timeout: Duration::from_secs(1), ..envoy::Config::default() };
    avoided_and_back(Stage { proxy, ..Stage::default() }, Behaviour::BlackHole, 15).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn crashed() -> Result<()> {
    avoided_and_back(Stage::default(), Behaviour::Refuse, 12).await.map(drop)
}

/// Number of requests that fail after an endpoint dies, with ejection after three failures and two requests in flight.
async fn fail_after_a_crash(http2: bool) -> Result<usize> {
    let scene = Stage {
        backends: 3,
        upstream: json!({ "policy": "round_robin", "health": { "suspect_after": 3, "fail_after": 3 } }),
        proxy: envoy::Config { concurrency: 1, ..envoy::Config::default() },
        http2,
        ..Stage::default()
    }
    .open()
    .await?;
    let at = scene.envoy().address();
    let dying = &scene.backends[0];
    dying.set(Behaviour::BlackHole);
    let before = dying.counts().received;
    let asked: Vec<_> = (0..6).map(|_| tokio::spawn(raw::get(at, "/", &[]))).collect();
    wait::until("two requests that wait", Duration::from_secs(5), || async {
        (dying.counts().received == before + 2).then_some(())
    })
    .await?;
    dying.set(Behaviour::Refuse);
    let mut failed = 0;
    for answer in asked {
        failed += u32::from(answer.await??.status() == 503);
    }
    assert_eq!(failed, 2);
    let mut more = 0;
    for _ in 0..30 {
        more += usize::from(raw::get(at, "/", &[]).await?.status() == 503);
    }
    Ok(more)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_together_are_a_crash() -> Result<()> {
    assert_eq!(fail_after_a_crash(false).await?, 0);
    Ok(())
}

/// A refused connection counts twice, the broken connection once.
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_break_with_their_connection_are_one_failure() -> Result<()> {
    assert_eq!(fail_after_a_crash(true).await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn resetting_connections() -> Result<()> {
    avoided_and_back(Stage::default(), Behaviour::Reset, 12).await.map(drop)
}

/// An endpoint that serves well, but asks in every response to be ejected.
async fn telling_to_fail(follow: bool) -> Result<()> {
    let upstream = json!({ "policy": "round_robin", "health": { "ejection": "10s" } });
    let stage = Stage { backends: 3, upstream, follow, ..Stage::default() };
    let scene = stage.open().await?;
    scene.backends[0].set(Behaviour::TellsToFail);
    scene.wave(1.0).await?;
    let out = scene.wave(6.0).await?;
    assert_eq!(out.summary.failed, 0, "{:?}", out.summary.statuses);
    assert!(out.share(0) < 0.03, "{:?}", out.received);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoint_that_reports_failing_in_every_answer_stays_ejected() -> Result<()> {
    telling_to_fail(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoint_that_reports_failing_stays_ejected_with_attempts() -> Result<()> {
    telling_to_fail(true).await
}
