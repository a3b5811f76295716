//! Envoy follows evenkeel's choice, whatever the number of workers and whichever way the choice is passed to it.

use testbed::anyhow::Result;
use testbed::envoy::{self, Filter, Policy};
use testbed::serde_json::{Value, json};
use testbed::tokio;

use crate::raw;
use crate::scene::{Scene, Stage};

/// A filter behind evenkeel that copies the steering header to another name, which backends see.
fn witness() -> Filter {
    Filter(json!({
        "name": "envoy.filters.http.header_mutation",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": { "request_mutations": [{ "append": {
                "header": { "key": "x-witness", "value": "%REQ(x-evenkeel-endpoint)%" },
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            } }] },
        },
    }))
}

fn steered(concurrency: u32) -> Stage {
    let proxy = envoy::Config { concurrency, filters: vec![witness()], ..envoy::Config::default() };
    Stage { strangers: 1, proxy, ..Stage::default() }
}

/// Asserts that every request reached the first endpoint of its steering header and arrived without that header.
fn assert_followed(scene: &Scene) {
    for backend in &scene.backends {
        let own = backend.address().to_string();
        for request in backend.requests() {
            let named = request.headers.get("x-witness").map_or("", String::as_str);
            assert_eq!(named.split(',').next(), Some(own.as_str()), "{request:?}");
            assert!(!request.headers.contains_key("x-evenkeel-endpoint"), "{request:?}");
        }
    }
}

async fn follows_with(concurrency: u32) -> Result<()> {
    let scene = steered(concurrency).open().await?;
    let wave = scene.wave(3.0).await?;
    assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
    assert_eq!(wave.strangers, 0, "unsteered");
    assert!(wave.spread() && !wave.received.contains(&0), "spread over all: {:?}", wave.received);
    assert_followed(&scene);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_steers() -> Result<()> {
    follows_with(1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_steer() -> Result<()> {
    follows_with(2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn four_workers_steer() -> Result<()> {
    follows_with(4).await
}

#[tokio::test(flavor = "multi_thread")]
async fn stateful_session_is_steered_and_its_header_stays_inside() -> Result<()> {
    let header = "x-evenkeel-endpoint";
    let proxy = envoy::Config { filters: vec![Filter::stateful_session(header)], ..envoy::Config::default() };
    let scene = Stage {
        strangers: 1,
        policy: Policy::StatefulSession { header: header.into() },
        plugin: json!({ "steering": { "via": "stateful_session" } }),
        proxy,
        ..Stage::default()
    }
    .open()
    .await?;
    let wave = scene.wave(3.0).await?;
    assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
    assert_eq!(wave.strangers, 0, "unsteered");
    assert!(wave.spread() && !wave.received.contains(&0), "spread over all: {:?}", wave.received);
    let seen = scene.backends.iter().flat_map(|backend| backend.requests());
    assert!(seen.into_iter().all(|request| !request.headers.contains_key(header)));
    for _ in 0..10 {
        let head = raw::get(scene.envoy().address(), "/", &[]).await?;
        assert_eq!((head.status(), head.header(header)), (200, None));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn observing_sets_no_header() -> Result<()> {
    let scene = Stage { plugin: json!({ "mode": "observe" }), ..steered(2) }.open().await?;
    scene.backends[0].set(testbed::backend::Behaviour::Slow(5.0));
    let wave = scene.wave(4.0).await?;
    assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
    // Envoy's own policy balances over six endpoints, and does not see that one is slow as long as it has few requests.
    assert!(wave.strangers as f64 > 0.08 * wave.summary.requests as f64, "{}", wave.strangers);
    assert!(wave.share(0) > 0.05, "{:?}", wave.received);
    for request in scene.backends.iter().flat_map(|backend| backend.requests()) {
        let named = request.headers.get("x-witness").map_or("", String::as_str);
        assert!(named.is_empty() || named == "-", "{request:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_is_not_balanced_is_left_alone() -> Result<()> {
    let mut stage = steered(2);
    stage.upstream = Value::Null;
    let other = testbed::backend::Backend::start(stage.backend.clone()).await?;
    let mut cluster = envoy::Cluster::new("other", vec![other.address()], Policy::RoundRobin);
    cluster.prefix = "/other".into();
    stage.proxy.clusters.push(cluster);
    let scene = stage.open().await?;
    let wave = scene.wave_of(testbed::load::Load { path: "/other".into(), ..scene.load(1.0) }).await?;
    assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
    assert_eq!(other.counts().received, wave.summary.requests);
    assert_eq!(wave.received.iter().sum::<u64>() + wave.strangers, 0);
    Ok(())
}

/// Asserts that every endpoint gets traffic, no request fails, no client sees the header, and a client cannot choose an
/// endpoint by sending it.
async fn steers_by(via: &str, policy: Policy, header: &str, proxy: envoy::Config) -> Result<()> {
    let plugin = json!({ "steering": { "via": via } });
    let scene = Stage { backends: 4, policy, plugin, proxy, ..Stage::default() }.open().await?;
    let wave = scene.wave(3.0).await?;
    assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
    assert!(wave.spread() && !wave.received.contains(&0), "spread over all: {:?}", wave.received);
    scene.backends[0].set(testbed::backend::Behaviour::FAIL_FAST);
    scene.wave(2.0).await?;
    let avoiding = scene.wave(3.0).await?;
    assert!(avoiding.share(0) < 0.03, "{:?}", avoiding.received);
    let named = scene.backends[0].address();
    let before = scene.backends[0].counts().received;
    for _ in 0..40 {
        raw::get(scene.envoy().address(), "/", &[format!("{header}: {named}")]).await?;
    }
    let obeyed = scene.backends[0].counts().received - before;
    assert!(obeyed < 5, "{obeyed} of 40");
    let seen = scene.backends.iter().flat_map(|backend| backend.requests());
    assert!(seen.into_iter().all(|request| !request.headers.contains_key(header)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn original_dst_is_steered_and_its_header_stays_inside() -> Result<()> {
    let header = "x-envoy-original-dst-host";
    let policy = Policy::OriginalDst { header: header.into() };
    steers_by("original_dst", policy, header, envoy::Config::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_for_each_endpoint_is_steered_and_the_header_stays_inside() -> Result<()> {
    let header = "x-evenkeel-endpoint";
    let policy = Policy::ClusterHeader { header: header.into() };
    let proxy = envoy::Config { stripped: vec![header.into()], ..envoy::Config::default() };
    steers_by("cluster_header", policy, header, proxy).await
}
