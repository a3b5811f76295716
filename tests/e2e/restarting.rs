//! Envoy hot-restarted, drained and failing its health check under load: no request fails, and the in-flight counts
//! return to zero.

use std::net::SocketAddr;
use std::time::Duration;

use testbed::anyhow::{Context, Result, ensure};
use testbed::backend::Behaviour;
use testbed::http::{self, Method};
use testbed::serde_json::{self, Value, json};
use testbed::{envoy, tokio, wait};

use crate::raw::Connection;
use crate::scene::{Scene, Stage};

const PATIENCE: Duration = Duration::from_secs(30);

fn stage() -> Stage {
    Stage {
        strangers: 1,
        plugin: json!({ "status": { "path": "/_evenkeel" } }),
        proxy: envoy::Config { drain: Some(Duration::from_secs(2)), ..envoy::Config::default() },
        ..Stage::default()
    }
}

/// In-flight requests per endpoint, from a status.
fn in_flight(status: &Value) -> Result<Vec<i64>> {
    let endpoints = status["upstreams"][0]["endpoints"].as_array().context("endpoints")?;
    endpoints.iter().map(|endpoint| endpoint["in_flight"].as_i64().context("a number")).collect()
}

/// Waits until nothing is in flight, for evenkeel and for Envoy; neither count may ever be negative.
async fn nothing_is_left(scene: &Scene) -> Result<()> {
    let at: SocketAddr = scene.envoy().address();
    wait::until("everything to be given back", PATIENCE, || async {
        let status = http::get(at, "/_evenkeel/status.json").await.ok()?.json().ok()?;
        in_flight(&status).ok()?.iter().all(|count| *count == 0).then_some(())
    })
    .await?;
    nothing_is_negative(scene).await?;
    ensure!(scene.envoy().stat("cluster.web.upstream_rq_active").await? == 0);
    Ok(())
}

/// Fails if a gauge is negative. Envoy's gauges are unsigned, so a negative one reads as an enormous number.
async fn nothing_is_negative(scene: &Scene) -> Result<()> {
    let enormous = |(_, value): &(String, u64)| *value > u64::from(u32::MAX) << 16;
    let negative: Vec<_> = scene.envoy().stats().await?.into_iter().filter(enormous).collect();
    ensure!(negative.is_empty(), "{negative:?}");
    Ok(())
}

/// Waits until `count` more requests of a load have ended.
async fn requests_more(load: &testbed::load::Running, count: usize) -> Result<()> {
    let before = load.report().records.len();
    wait::until("more requests", PATIENCE, || async {
        (load.report().records.len() >= before + count).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_restart_fails_nothing_and_leaves_nothing_negative() -> Result<()> {
    let mut stage = stage();
    stage.proxy.hot_restart = true;
    let mut scene = stage.open().await?;
    let load = scene.load(120.0).start().await?;
    requests_more(&load, 150).await?;
    scene.envoy_mut().hot_restart().await?;
    nothing_is_negative(&scene).await?;
    requests_more(&load, 150).await?;
    scene.envoy_mut().parents_gone().await?;
    requests_more(&load, 150).await?;
    let summary = load.report().summary();
    assert_eq!(summary.failed, 0, "{:?}", summary.statuses);
    drop(load);
    nothing_is_left(&scene).await?;
    assert_eq!(scene.strangers[0].counts().received, 0, "all were steered, from the first one on");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_with_failed_healthcheck_keeps_steering() -> Result<()> {
    let scene = stage().open().await?;
    let admin = scene.envoy().admin();
    let load = scene.load(120.0).start().await?;
    for path in ["/healthcheck/fail", "/healthcheck/ok"] {
        http::send(admin, Method::POST, path, &[], "").await?;
        requests_more(&load, 150).await?;
    }
    let summary = load.report().summary();
    assert_eq!(summary.failed, 0, "{:?}", summary.statuses);
    drop(load);
    nothing_is_left(&scene).await?;
    assert_eq!(scene.strangers[0].counts().received, 0, "all were steered");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_when_listeners_are_drained_ends_well() -> Result<()> {
    let mut stage = stage();
    stage.proxy.concurrency = 1;
    let scene = stage.open().await?;
    let at = scene.envoy().address();
    // An idle connection, kept until the end.
    let mut witness = Connection::open(at).await?;
    let head = witness.ask("/_evenkeel/other", &[]).await?;
    witness.take(head.header("content-length").context("a length")?.parse()?).await?;
    let before = scene.wave(1.0).await?;
    assert_eq!(before.summary.failed, 0, "{:?}", before.summary.statuses);

    scene.backends.iter().for_each(|backend| backend.set(Behaviour::Slow(100.0)));
    let calls: Vec<_> = (0..20).map(|_| tokio::spawn(async move { http::get(at, "/").await })).collect();
    wait::until("requests in flight", PATIENCE, || async {
        let sum: u64 = scene.backends.iter().map(|backend| backend.counts().in_flight).sum();
        (sum == 20).then_some(())
    })
    .await?;
    http::send(scene.envoy().admin(), Method::POST, "/drain_listeners", &[], "").await?;
    for call in calls {
        assert_eq!(call.await??.status, 200);
    }
    wait::until("closed doors", PATIENCE, || async {
        tokio::net::TcpStream::connect(at).await.is_err().then_some(())
    })
    .await?;
    wait::until("Envoy to let go of them", PATIENCE, || async {
        (scene.envoy().stat("cluster.web.upstream_rq_active").await.ok()? == 0).then_some(())
    })
    .await?;
    nothing_is_negative(&scene).await?;
    let head = witness.ask("/_evenkeel/status.json", &[]).await?;
    let length = head.header("content-length").context("a length")?.parse()?;
    let status: Value = serde_json::from_slice(&witness.take(length).await?)?;
    assert_eq!((head.status(), in_flight(&status)?), (200, vec![0; 5]));
    Ok(())
}
