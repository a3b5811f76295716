//! Envoy's retries go to the next of the ranked candidates.

use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::Behaviour;
use testbed::load::Load;
use testbed::serde_json::json;
use testbed::{envoy, http, tokio, wait};

use crate::scene::{Scene, Stage};

async fn retried() -> Result<Scene> {
    let retries = Some((1, "connect-failure,reset,5xx".to_owned()));
    Stage {
        strangers: 1,
        // A policy blind to latency: a request that was retried elsewhere also looks slow, by the retry's back-off.
        upstream: json!({ "policy": "least_request" }),
        plugin: json!({ "steering": { "candidates": 2 } }),
        proxy: envoy::Config { retries, ..envoy::Config::default() },
        ..Stage::default()
    }
    .open()
    .await
}

async fn fails_no_request(sick: Behaviour) -> Result<()> {
    let scene = retried().await?;
    let before = scene.wave(1.5).await?;
    assert_eq!(before.summary.failed, 0, "{:?}", before.summary.statuses);
    scene.backends[0].set(sick);
    let during = scene.wave(4.0).await?;
    assert_eq!(during.summary.failed, 0, "{sick}: {:?}", during.summary.statuses);
    // The retries went to other endpoints that evenkeel had named.
    let retries = scene.envoy().stat("cluster.web.upstream_rq_retry_success").await?;
    assert!(retries >= 1, "{sick}: nobody met the sick endpoint");
    assert_eq!(before.strangers + during.strangers, 0, "{sick}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_fails_no_request() -> Result<()> {
    fails_no_request(Behaviour::Refuse).await
}

#[tokio::test(flavor = "multi_thread")]
async fn fast_errors_fail_no_request() -> Result<()> {
    fails_no_request(Behaviour::FAIL_FAST).await
}

/// The failure counts against the endpoint that failed, not against the one that served the retry.
#[tokio::test(flavor = "multi_thread")]
async fn the_one_that_failed_is_avoided() -> Result<()> {
    let scene = retried().await?;
    scene.backends[0].set(Behaviour::FAIL_FAST);
    scene.wave(3.0).await?;
    let avoiding = scene.wave(3.0).await?;
    assert!(avoiding.share(0) < 0.03, "{:?}", avoiding.received);
    assert!((1..5).all(|index| avoiding.share(index) > 0.1), "{:?}", avoiding.received);
    Ok(())
}

/// Three candidates, two retries, and evenkeel also as an upstream filter.
async fn followed(per_try: &str) -> Result<Scene> {
    let retries = Some((2, "connect-failure,reset,5xx".to_owned()));
    let retry_policy = match per_try {
        "" => json!({}),
        time => json!({ "per_try_timeout": time }),
    };
    Stage {
        strangers: 1,
        follow: true,
        upstream: json!({ "policy": "least_request", "health": { "ejection": "3s" } }),
        plugin: json!({ "steering": { "candidates": 3 } }),
        proxy: envoy::Config { retries, retry_policy, ..envoy::Config::default() },
        ..Stage::default()
    }
    .open()
    .await
}

/// Two endpoints fail at once, in any way: no client notices, both are ejected, and no other is.
async fn both_are_left(per_try: &str, sick: [Behaviour; 2]) -> Result<()> {
    let scene = followed(per_try).await?;
    assert_eq!(scene.wave(1.0).await?.summary.failed, 0);
    for (backend, behaviour) in scene.backends.iter().zip(sick) {
        backend.set(behaviour);
    }
    let learning = scene.wave(2.5).await?;
    let avoiding = scene.wave(2.5).await?;
    let failed = learning.summary.failed + avoiding.summary.failed;
    assert_eq!(failed, 0, "{sick:?}: {:?}, {:?}", learning.summary.statuses, avoiding.summary.statuses);
    assert_eq!(learning.strangers + avoiding.strangers, 0, "the retries went where evenkeel named");
    // A black hole and a reset connection count requests that arrive.
    assert!(avoiding.share(0) < 0.03 && avoiding.share(1) < 0.03, "{sick:?}: {:?}", avoiding.received);
    assert!((2..5).all(|index| avoiding.share(index) > 0.15), "{sick:?}: {:?}", avoiding.received);
    for backend in &scene.backends {
        let seen = backend.requests();
        assert!(seen.iter().all(|request| !request.headers.keys().any(|name| name.contains("evenkeel"))));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn followed_attempts_find_two_that_fail_at_once() -> Result<()> {
    both_are_left("", [Behaviour::FAIL_FAST, Behaviour::Reset]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn followed_attempts_find_two_that_hang_or_crash() -> Result<()> {
    both_are_left("0.25s", [Behaviour::BlackHole, Behaviour::Refuse]).await
}

/// A try that takes too long goes on beside the next one, and may even win: one request, two endpoints, and each is
/// given back what it had, whichever filter counts.
async fn hedged(follow: bool) -> Result<()> {
    let scene = Stage {
        strangers: 1,
        follow,
        upstream: json!({ "policy": "least_request", "health": { "ejection": "3s" } }),
        plugin: json!({ "steering": { "candidates": 3 }, "status": { "path": "/_evenkeel" } }),
        proxy: envoy::Config {
            retries: Some((2, "5xx,reset,connect-failure".to_owned())),
            retry_policy: json!({ "per_try_timeout": "0.2s" }),
            hedged: true,
            // Attempts at the black hole last as long as their requests.
            route_timeout: Duration::from_secs(10),
            ..envoy::Config::default()
        },
        ..Stage::default()
    }
    .open()
    .await?;
    assert_eq!(scene.wave(1.0).await?.summary.failed, 0);
    scene.backends[0].set(Behaviour::BlackHole);
    let learning = scene.wave(1.5).await?;
    scene.backends[0].set(Behaviour::Healthy);
    let healed = scene.wave(1.5).await?;
    let failed = learning.summary.failed + healed.summary.failed;
    assert_eq!(failed, 0, "{:?}, {:?}", learning.summary.statuses, healed.summary.statuses);
    assert_eq!(learning.strangers + healed.strangers, 0, "the hedges went where evenkeel named");
    let hedges = scene.envoy().stat("cluster.web.upstream_rq_retry").await?;
    assert!(hedges >= 1, "nobody met the black hole");
    wait::until("everything to be given back", Duration::from_secs(20), || async {
        let status = http::get(scene.envoy().address(), "/_evenkeel/status.json").await.ok()?.json().ok()?;
        let endpoints = status["upstreams"][0]["endpoints"].as_array()?.clone();
        endpoints.iter().all(|endpoint| endpoint["in_flight"] == 0).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn hedged_requests_blame_no_endpoint_and_return_in_flight() -> Result<()> {
    hedged(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn hedged_requests_return_in_flight_with_attempts() -> Result<()> {
    hedged(true).await
}

/// Runs the shipped retry policy for idempotent methods at 600 requests/s, with a crash of one of ten endpoints.
/// Returns the number of requests and of those that a retry saved.
async fn one_of_ten_crashes(which: usize) -> Result<(u64, u64)> {
    let retries = Some((2, "connect-failure,refused-stream,reset,retriable-status-codes".to_owned()));
    let retry_policy = json!({
        "retriable_status_codes": [502, 503],
        "retry_back_off": { "base_interval": "0.01s", "max_interval": "0.1s" },
    });
    let scene = Stage {
        backends: 10,
        plugin: json!({ "steering": { "candidates": 3 } }),
        proxy: envoy::Config { retries, retry_policy, ..envoy::Config::default() },
        ..Stage::default()
    }
    .open()
    .await?;
    let load = Load { rate: 600.0, ..scene.load(6.0) }.start().await?;
    wait::until("some traffic", Duration::from_secs(10), || async {
        (load.report().records.len() > 900).then_some(())
    })
    .await?;
    scene.backends[which].set(Behaviour::Refuse);
    let summary = load.finish().await.summary();
    let retried = scene.envoy().stat("cluster.web.upstream_rq_retry_success").await?;
    println!("{} requests, {} failed, {retried} retries helped", summary.requests, summary.failed);
    assert_eq!(summary.failed, 0, "{:?}", summary.statuses);
    Ok((summary.requests, retried))
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_of_one_of_ten_under_load_fails_no_request() -> Result<()> {
    let (_, retried) = one_of_ten_crashes(3).await?;
    assert!(retried >= 1, "nobody was on the way there");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn twenty_crashes_fail_no_request() -> Result<()> {
    let mut sum = (0, 0);
    for crash in 0..20 {
        let (requests, retried) = one_of_ten_crashes(crash % 10).await?;
        sum = (sum.0 + requests, sum.1 + retried);
    }
    println!("{} requests in 20 crashes, 0 failed, {} retries helped", sum.0, sum.1);
    Ok(())
}
