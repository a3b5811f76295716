//! An endpoint that misbehaves is avoided, costs next to nothing, and gets its traffic back once it is well.

use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::Behaviour;
use testbed::{clock, envoy, tokio};

use crate::scene::{Scene, Stage};

/// How long a healed endpoint may stay away.
const RETURN: Duration = Duration::from_secs(30);
/// The share of one of five that counts as being back: fair is 0.2.
const BACK: f64 = 0.1;

/// Makes the first of five endpoints sick, and well again.
///
/// Learning may cost `failures` failed requests; afterwards the sick one receives less than 3 %.
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

/// What one worker learns the others know: four of them pay no more than two.
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

#[tokio::test(flavor = "multi_thread")]
async fn resetting_connections() -> Result<()> {
    avoided_and_back(Stage::default(), Behaviour::Reset, 12).await.map(drop)
}
