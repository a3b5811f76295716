//! The load-balancing face in a real Envoy: where retries go, what Envoy's health, priorities and endpoints that come and go do to that,
//! and clusters that the engine does not balance.

use std::collections::BTreeSet;
use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::{Backend, Behaviour};
use testbed::envoy::{self, Cluster, EndpointState, Policy};
use testbed::serde_json::{Value, json};
use testbed::tokio;
use testbed::wait::until;

use crate::scene::{Scene, Stage, received};

const DEADLINE: Duration = Duration::from_secs(20);
/// A failing endpoint stays in traffic, so that there is something to retry.
fn kept() -> Value {
    json!({ "policy": "random", "health": { "max_ejected_percent": 0 } })
}

fn proxy() -> envoy::Config {
    let mut config = envoy::Config::default();
    config.retry(2);
    config
}

fn stage() -> Stage {
    Stage {
        policy: Policy::Module { filter: "evenkeel".into() },
        upstream: kept(),
        proxy: proxy(),
        ..Stage::with_status()
    }
}

/// The requests that this backend has seen, by Envoy's number.
fn seen(backend: &Backend) -> BTreeSet<String> {
    let ids =
        backend.requests().into_iter().filter_map(|request| request.headers.get("x-request-id").cloned());
    ids.collect()
}

async fn retries(scene: &Scene) -> Result<u64> {
    scene.envoy().stat("cluster.web.upstream_rq_retry").await
}

/// With a random policy a third of the first attempts meets the failing one, and half of the retries the slow one. With one that looks at
/// latency, retries avoid the slow one as all other requests do. (The adaptive policy leaves next to nothing to be retried.) Envoy's
/// own policy is there for comparison.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn retries_go_where_the_engine_says() -> Result<()> {
    let mut parts = Vec::new();
    for (policy, of_cluster) in
        [("random", stage().policy), ("peak_ewma", stage().policy), ("peak_ewma", Policy::LeastRequest)]
    {
        let mut upstream = kept();
        upstream["policy"] = json!(policy);
        let asks = of_cluster != Policy::LeastRequest;
        let scene = Stage { upstream, policy: of_cluster, ..stage() }.open().await?;
        scene.backends[1].set(Behaviour::Slow(5.0));
        scene.wave(3.0).await?;
        scene.backends[0].set(Behaviour::FAIL_FAST);
        let wave = scene.wave(6.0).await?;
        let all = retries(&scene).await?;
        let again: Vec<BTreeSet<String>> = scene.backends.iter().map(seen).collect();
        let to = |backend: usize| again[0].intersection(&again[backend]).count();
        let (slow, good) = (to(1), to(2));
        eprintln!(
            "{policy}, asked at retries: {asks}: {all} retries, {slow} to the slow one, {good} to the good one"
        );
        if asks {
            assert_eq!(wave.summary.failed, 0, "{policy}: {:?}", wave.summary.statuses);
            assert_eq!(scene.choices("engine").await?, all, "each retry, and nothing else, is asked for");
            assert_eq!((slow + good) as u64, all, "{policy}: none came back to the one that had failed");
        }
        parts.push((all, slow as f64 / all.max(1) as f64));
    }
    assert!(parts.iter().all(|(all, _)| *all > 100), "{parts:?}");
    let [(_, random), (_, latency), _] = parts[..] else { panic!("{parts:?}") };
    assert!(random > 0.3 && latency < 0.5 * random, "{parts:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn a_refused_connection_is_retried_elsewhere() -> Result<()> {
    let scene = stage().open().await?;
    scene.backends[0].set(Behaviour::Refuse);
    scene.backends[1].set(Behaviour::Slow(5.0));
    let wave = scene.wave(4.0).await?;
    assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
    let all = retries(&scene).await?;
    assert!(all > 50, "{all} retries");
    assert_eq!(scene.choices("engine").await?, all);
    Ok(())
}

/// The engine goes on to name an endpoint that Envoy's health checks have taken out: it does not see them.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn what_fails_envoys_health_checks_is_passed_over() -> Result<()> {
    /// The first endpoint is checked at the spare backend's port.
    fn checked(cluster: &mut Cluster, backends: &[Backend]) {
        let at = |of: &Backend| json!({ "socket_address": { "address": of.address().ip(), "port_value": of.address().port() } });
        let mut endpoints: Vec<Value> =
            backends.iter().take(3).map(|b| json!({ "endpoint": { "address": at(b) } })).collect();
        endpoints[0]["endpoint"]["health_check_config"] =
            json!({ "port_value": backends[3].address().port() });
        cluster.extra = json!({
            "load_assignment": { "cluster_name": "web", "endpoints": [{ "lb_endpoints": endpoints }] },
            "health_checks": [{
                "timeout": "0.3s", "interval": "0.1s", "unhealthy_threshold": 1, "healthy_threshold": 1,
                "no_traffic_interval": "0.1s",
                "http_health_check": { "path": "/healthz" },
            }],
        });
    }
    let scene = Stage { spare: 1, adjust: checked, ..stage() }.open().await?;
    let healthy = async |count: u64| {
        until("the health checks", DEADLINE, async || {
            let now = scene.envoy().stat("cluster.web.membership_healthy").await.ok()?;
            (now == count).then_some(())
        })
        .await
    };
    healthy(3).await?;
    let load = scene.load(60.0).start().await?;
    scene.backends[3].set(Behaviour::FAIL_FAST);
    healthy(2).await?;
    let paths = |backend: &Backend| backend.requests().iter().filter(|seen| seen.path != "/healthz").count();
    let known = until("every worker to know it", DEADLINE, async || {
        let before = paths(&scene.backends[0]);
        scene.wave(0.3).await.ok()?;
        (paths(&scene.backends[0]) == before).then_some(before)
    });
    let (nothing, others, chosen) = (known.await?, paths(&scene.backends[1]), scene.choices("engine").await?);
    let wave = scene.wave(2.0).await?;
    assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
    assert_eq!(paths(&scene.backends[0]), nothing, "it gets nothing");
    assert!(paths(&scene.backends[1]) > others + 50);
    let chosen = scene.choices("engine").await? - chosen;
    assert!(chosen > 60, "the engine names another where it named this one: {chosen} times");
    scene.backends[3].set(Behaviour::Healthy);
    healthy(3).await?;
    let back =
        until("requests to it", DEADLINE, async || (paths(&scene.backends[0]) > nothing + 10).then_some(()));
    back.await?;
    let summary = load.report().summary();
    drop(load);
    assert_eq!(summary.failed, 0, "{:?}", summary.statuses);
    Ok(())
}

/// One endpoint fails all the while; the others change their places, their health and their priorities.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn endpoints_come_and_go_while_retries_run() -> Result<()> {
    let mut proxy = proxy();
    proxy.admin_cluster = true;
    let mut upstream = kept();
    upstream["endpoints"] = json!({ "envoy_admin": { "cluster": "envoy_admin", "interval": "200ms" } });
    let mut scene = Stage { dynamic: true, spare: 3, upstream, proxy, ..stage() }.open().await?;
    scene.backends[0].set(Behaviour::FAIL_FAST);
    let load = scene.load(120.0).start().await?;
    let at: Vec<_> = scene.backends.iter().map(Backend::address).collect();
    for round in 0..12 {
        let mut members: Vec<EndpointState> = vec![EndpointState::new(at[0])];
        for nth in 0..3 {
            members.push(EndpointState::new(at[1 + (round + nth) % 5]));
        }
        match round % 4 {
            1 => members.reverse(),
            2 => members[1].health = "UNHEALTHY",
            3 => members[3].priority = 1,
            _ => members[2].weight = 5,
        }
        scene.envoy_mut().set_members("web", members).await?;
        let wave = scene.wave(0.4).await?;
        assert_eq!(wave.summary.failed, 0, "round {round}: {:?}", wave.summary.statuses);
    }
    let summary = load.report().summary();
    drop(load);
    assert_eq!(summary.failed, 0, "{:?} of {}", summary.statuses, summary.requests);
    let (all, by_engine) = (retries(&scene).await?, scene.choices("engine").await?);
    let refused = scene.choices("fallback_refused").await?;
    eprintln!(
        "{} requests, {all} retries: {by_engine} hosts by the engine, {refused} drawn",
        summary.requests
    );
    assert!(all > 100 && by_engine > all / 2, "{all} retries, {by_engine} by the engine, {refused} refused");
    assert_eq!(scene.choices("no_healthy_host").await?, 0);
    Ok(())
}

/// The second cluster is none of the filter's, the third asks a filter that does not exist.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn a_cluster_that_the_engine_does_not_balance_is_served_by_the_fallback() -> Result<()> {
    for filter in ["evenkeel", "absent"] {
        let mut scene = Stage { spare: 3, dynamic: true, ..stage() };
        let other = Policy::Module { filter: filter.into() };
        scene.proxy.clusters =
            vec![Cluster { prefix: "/other".into(), ..Cluster::new("other", Vec::new(), other) }];
        let mut scene = scene.open().await?;
        let members = scene.backends[3..].iter().zip([1, 1, 2]);
        let members = members
            .map(|(backend, weight)| EndpointState { weight, ..EndpointState::new(backend.address()) });
        let members: Vec<EndpointState> = members.collect();
        scene.envoy_mut().set_members("other", members).await?;
        scene.backends[3].set(Behaviour::FAIL_FAST);
        let before = received(&scene.backends);
        let load = testbed::load::Load { path: "/other".into(), ..scene.load(4.0) };
        let summary = load.run().await?.summary();
        let after = received(&scene.backends);
        let got: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert_eq!(summary.failed, 0, "{:?}", summary.statuses);
        let kind = if filter == "evenkeel" { "fallback_no_upstream" } else { "fallback_no_plugin" };
        let drawn = scene.choices(kind).await?;
        let attempts = summary.requests + scene.envoy().stat("cluster.other.upstream_rq_retry").await?;
        assert_eq!(drawn, attempts, "{filter}: {got:?}");
        assert!(got[3] > 50 && got[5] as f64 > 1.5 * got[4] as f64, "by weight: {got:?}");
        assert_eq!(got[..3], [0; 3]);
    }
    Ok(())
}

/// What Envoy lets a module choose from is the healthy hosts; its own policies would use all of them then. What the filter names by a
/// call can be taken nevertheless.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn without_a_healthy_host_envoy_offers_none() -> Result<()> {
    for named_ones in [false, true] {
        let mut stage = Stage { dynamic: true, ..stage() };
        if named_ones {
            stage.adjust = |cluster, _| {
                let statuses = json!(["UNKNOWN", "HEALTHY", "DEGRADED", "UNHEALTHY"]);
                cluster.extra =
                    json!({ "common_lb_config": { "override_host_status": { "statuses": statuses } } });
            };
        }
        let mut scene = stage.open().await?;
        assert_eq!(scene.wave(0.5).await?.summary.failed, 0);
        let unhealthy = |backend: &Backend| EndpointState {
            health: "UNHEALTHY",
            ..EndpointState::new(backend.address())
        };
        let members = scene.backends.iter().map(unhealthy).collect();
        scene.envoy_mut().set_members("web", members).await?;
        let settled = until("all to be unhealthy", DEADLINE, async || {
            (scene.envoy().stat("cluster.web.membership_healthy").await.ok()? == 0).then_some(())
        });
        settled.await?;
        let all_the_same = until("all answers to be the same", DEADLINE, async || {
            let summary = scene.wave(0.3).await.ok()?.summary;
            let status = if named_ones { 200 } else { 503 };
            (summary.statuses.get(&status).copied() == Some(summary.requests)).then_some(())
        });
        all_the_same.await?;
        assert_eq!(scene.choices("no_healthy_host").await? == 0, named_ones);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn what_the_guard_holds_out_is_drawn_and_not_asked_of_the_engine() -> Result<()> {
    let upstream = json!({ "guard": { "holdout_percent": 20 } });
    let scene = Stage { upstream, ..stage() }.open().await?;
    let wave = scene.wave(3.0).await?;
    assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
    let drawn = scene.choices("fallback_left").await?;
    let status: Value =
        testbed::http::get(scene.envoy().address(), "/_evenkeel/status.json").await?.json()?;
    let held_out = status["upstreams"][0]["decisions"]["held_out"].as_u64();
    assert_eq!(held_out, Some(drawn), "{status}");
    assert!(drawn > 30, "{drawn}");
    assert_eq!(scene.choices("engine").await?, 0, "nothing was retried");
    Ok(())
}
