//! Versions, priorities, zones and cookies, through a real Envoy.

use std::time::Duration;

use testbed::anyhow::{Context, Result, ensure};
use testbed::backend::Behaviour;
use testbed::load::{Arrivals, Load};
use testbed::serde_json::{Value, json};
use testbed::{envoy, tokio, wait};

use crate::raw;
use crate::scene::{Scene, Stage, Wave, received};

/// How long a healed part may stay away: probes come after half a second, then half as long again each.
const RETURN: Duration = Duration::from_secs(20);

fn stage(places: Vec<Value>, upstream: Value) -> Stage {
    let proxy = envoy::Config { concurrency: 2, ..envoy::Config::default() };
    Stage { backends: places.len(), places, upstream, proxy, ..Stage::default() }
}

/// The share of the requests that the first `count` backends received.
fn first(wave: &Wave, count: usize) -> f64 {
    (0..count).map(|index| wave.share(index)).sum()
}

/// The first `count` backends get everything, then this happens to them, and within two seconds they get next to
/// nothing; once it is over everything comes back.
async fn lost_and_found(scene: &Scene, count: usize, sick: Behaviour) -> Result<()> {
    let well = scene.backends[0].behaviour();
    let before = scene.wave(1.0).await?;
    assert_eq!((before.summary.failed, first(&before, count)), (0, 1.0), "{:?}", before.received);
    scene.backends[..count].iter().for_each(|backend| backend.set(sick));
    let load = Load { timeout: Duration::from_secs(1), ..scene.load(2.0) };
    let during = scene.wave_of(load.clone()).await?;
    let after = scene.wave_of(Load { duration: Duration::from_secs(1), ..load }).await?;
    assert!(first(&after, count) < 0.05, "{sick:?}: {:?} after {:?}", after.received, during.received);
    // Two seconds are 300 requests: those that were under way, and probes.
    assert!(after.summary.failed < 10, "{sick:?}: {:?}", after.summary.statuses);
    scene.backends[..count].iter().for_each(|backend| backend.set(well));
    wait::until("the way back", RETURN, || async {
        let wave = scene.wave(0.5).await.ok()?;
        (first(&wave, count) == 1.0 && wave.summary.failed == 0).then_some(())
    })
    .await
}

fn zones() -> Stage {
    let place = |zone: &str| json!({ "zone": zone });
    // More than half of the fleet is local, so neither a limit nor panic may keep it in traffic.
    let places = ["a", "a", "a", "b", "b"].map(place).to_vec();
    stage(places, json!({ "zone": { "local": "a" }, "health": { "ejection": "3s" } }))
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_leaves_a_lost_zone_within_two_seconds_and_comes_back() -> Result<()> {
    lost_and_found(&zones().open().await?, 3, Behaviour::Refuse).await
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_leaves_a_zone_that_hangs_within_two_seconds_and_comes_back() -> Result<()> {
    lost_and_found(&zones().open().await?, 3, Behaviour::BlackHole).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_priority_takes_over_and_gives_back() -> Result<()> {
    let places = [0, 0, 1].map(|priority| json!({ "priority": priority })).to_vec();
    let scene = stage(places, json!({ "health": { "ejection": "3s" } })).open().await?;
    lost_and_found(&scene, 2, Behaviour::FAIL_FAST).await
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_get_their_shares_of_two_thousand_requests() -> Result<()> {
    let mut stage =
        stage(["v1", "v1", "v2"].map(|version| json!({ "version": version })).to_vec(), json!({}));
    stage.upstream = json!({ "split": { "v1": 80, "v2": 20 } });
    stage.proxy.concurrency = 4;
    let scene = stage.open().await?;
    let load = Load { rate: 400.0, arrivals: Arrivals::Even, connections: 32, ..scene.load(5.0) };
    let wave = scene.wave_of(load).await?;
    assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
    assert!(wave.summary.requests >= 1_990);
    assert!((wave.share(2) - 0.2).abs() < 0.02, "{:?}", wave.received);
    Ok(())
}

/// Which backend serves a request with this cookie.
async fn seat(scene: &Scene, cookie: &str) -> Result<usize> {
    let before = received(&scene.backends);
    let head = raw::get(scene.envoy().address(), "/", &[format!("Cookie: {cookie}")]).await?;
    ensure!(head.header("set-cookie").is_none(), "it has one already");
    let after = received(&scene.backends);
    let mut grown = (0..after.len()).filter(|i| after[*i] > before[*i]);
    let served = grown.next().context("nobody was asked")?;
    ensure!(grown.next().is_none(), "one only");
    Ok(served)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_is_given_kept_and_falls_over_to_the_next_endpoint_and_back() -> Result<()> {
    let upstream = json!({
        "policy": "consistent_hash",
        "affinity": { "cookie": "seat" },
        "health": { "ejection": "2s", "suspect_after": 3, "recover_after": 1 },
    });
    let scene = stage(vec![Value::Null; 5], upstream).open().await?;
    let head = raw::get(scene.envoy().address(), "/", &[]).await?;
    let given = head.header("set-cookie").context("a client without it is given one")?.to_owned();
    let cookie = given.split(';').next().unwrap_or_default();
    assert!(cookie.starts_with("seat=") && given.ends_with("; Path=/; HttpOnly"), "{given}");
    let home = seat(&scene, cookie).await?;
    for _ in 0..5 {
        assert_eq!(seat(&scene, cookie).await?, home);
    }
    scene.backends[home].set(Behaviour::FAIL_FAST);
    let next = wait::until("the next endpoint", RETURN, || async {
        seat(&scene, cookie).await.ok().filter(|served| *served != home)
    })
    .await?;
    scene.backends[home].set(Behaviour::Healthy);
    assert_ne!(next, home);
    wait::until("the way back home", RETURN, || async {
        let (once, twice) = (seat(&scene, cookie).await.ok()?, seat(&scene, cookie).await.ok()?);
        ([once, twice] == [home; 2]).then_some(())
    })
    .await
}
