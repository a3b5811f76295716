//! The module in a real Envoy, in front of backends that misbehave. What the engine decides is the behaviour suite's
//! and the filter's end-to-end tests' matter; here it is what the carrier carries.

mod attempts;
mod scene;

use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::Behaviour;
use testbed::envoy::{Filter, Policy};
use testbed::http::{self, Method};
use testbed::serde_json::{Value, json};
use testbed::wait::until;
use testbed::{envoy, tokio};

use scene::{Stage, received};

const DEADLINE: Duration = Duration::from_secs(20);
const HEADER: &str = "x-evenkeel-endpoint";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn a_slow_one_of_three_is_avoided_and_no_endpoint_sees_a_header() -> Result<()> {
    // Something about steering, and not the header.
    let plugin = json!({ "steering": { "candidates": 3 }, "status": { "path": "/_evenkeel" } });
    let scene = Stage { plugin, ..Stage::default() }.open().await?;
    scene.backends[0].set(Behaviour::Slow(20.0));
    scene.wave(3.0).await?;
    let wave = scene.wave(4.0).await?;
    assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
    assert!(wave.share(0) < 0.1, "a fair share would be a third: {:?}", wave.received);
    let status: Value = http::get(scene.envoy().address(), "/_evenkeel/status.json").await?.json()?;
    assert_eq!(status["upstreams"][0]["not_followed"], 0, "{status}");
    let spoofed =
        http::send(scene.envoy().address(), Method::GET, "/spoofed", &[(HEADER, "127.0.0.1:1")], "");
    assert_eq!(spoofed.await?.status, 200);
    let seen = scene.backends.iter().flat_map(|backend| backend.requests());
    assert!(
        seen.into_iter().all(|request| !request.headers.contains_key(HEADER)),
        "nothing is told by a header"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn a_refused_configuration_is_told_in_the_same_words_and_the_old_one_serves_on() -> Result<()> {
    let mut scene = Stage { dynamic: true, ..Stage::default() }.open().await?;
    let load = scene.load(60.0).start().await?;
    let endpoints = r#""endpoints":{"static":["127.0.0.1:80"]}"#;
    for (path, configuration) in [
        ("$", "{".to_owned()),
        ("$.upstreams", "{}".to_owned()),
        ("$.mod", format!(r#"{{"mod":"observe","upstreams":[{{"cluster":"web",{endpoints}}}]}}"#)),
        (
            "$.upstreams[0].polcy",
            format!(r#"{{"upstreams":[{{"cluster":"web","polcy":"adaptive",{endpoints}}}]}}"#),
        ),
        ("$.role", r#"{"role":"upstream"}"#.to_owned()),
    ] {
        let told = config::parse(configuration.as_bytes()).err().into_iter().flatten();
        let mut lines: Vec<String> = told.map(|fault| format!("configuration refused: {fault}")).collect();
        if path == "$.role" {
            lines = vec!["configuration refused: $.role: found \"upstream\"".into()];
        }
        let refusal = match scene.envoy_mut().reload(vec![Filter::module(&configuration)]).await {
            Ok(()) => panic!("accepted: {configuration}"),
            Err(error) => format!("{error:#}"),
        };
        assert!(!lines.is_empty() && lines[0].contains(path), "{path}: {lines:?}");
        assert!(lines.iter().all(|line| refusal.contains(line)), "{lines:#?} are not all in\n{refusal}");
    }
    let summary = load.report().summary();
    drop(load);
    assert_eq!(summary.failed, 0, "{:?}", summary.statuses);
    assert_eq!(scene.wave(1.0).await?.summary.failed, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn where_it_is_asked_to_it_stands_aside_from_a_refused_configuration() -> Result<()> {
    let stage = Stage {
        plugin: json!({ "mod": "observe", "status": { "path": "/_evenkeel" } }),
        environment: vec![("EVENKEEL_ON_REFUSED_CONFIGURATION".into(), "stand_aside".into())],
        ..Stage::default()
    };
    let scene = stage.open().await?;
    let wave = scene.wave(1.0).await?;
    assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
    let status = http::get(scene.envoy().address(), "/_evenkeel/status.json").await?;
    assert!(status.text().contains(r#""configuration_refused":["$.mod"]"#), "{}", status.text());
    let spoofed = http::send(scene.envoy().address(), Method::GET, "/", &[(HEADER, "127.0.0.1:1")], "");
    assert_eq!(spoofed.await?.status, 200);
    let seen = scene.backends.iter().flat_map(|backend| backend.requests());
    assert!(seen.into_iter().all(|request| !request.headers.contains_key(HEADER)));
    Ok(())
}

/// Five panics, each in a request that goes on.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn a_panic_costs_no_request_and_after_several_it_stands_aside() -> Result<()> {
    let scene = Stage { may_panic: true, ..Stage::with_status() }.open().await?;
    let at = scene.envoy().address();
    let load = scene.load(60.0).start().await?;
    for nth in 1..=5 {
        let provoked = [("x-evenkeel-test-panic", "please"), (HEADER, "127.0.0.1:1")];
        let answer = http::send(at, Method::GET, "/provoked", &provoked, "").await?;
        assert_eq!(answer.status, 200, "panic {nth}");
        if nth < 5 {
            assert_eq!(
                http::get(at, "/_evenkeel/status.json").await?.status,
                200,
                "the worker is there again"
            );
        }
    }
    scene.envoy().wait_for_log("panicked, 4 of 5 times", DEADLINE).await?;
    scene.envoy().wait_for_log("panicked 5 times: requests pass unbalanced", DEADLINE).await?;
    let answer = http::get(at, "/_evenkeel/status.json").await?.text();
    assert!(!answer.contains("version"), "a backend answers, the module does nothing any more: {answer}");
    let summary = load.report().summary();
    drop(load);
    assert_eq!(summary.failed, 0, "{:?}", summary.statuses);
    let spoofed = http::send(at, Method::GET, "/", &[(HEADER, "127.0.0.1:1")], "").await?;
    assert_eq!(spoofed.status, 200);
    let seen = scene.backends.iter().flat_map(|backend| backend.requests());
    assert!(seen.into_iter().all(|request| !request.headers.contains_key(HEADER)));
    let panics = until("the panics to be counted", DEADLINE, async || {
        let stats = scene.envoy().admin_get("/stats").await.ok()?;
        stats.lines().any(|line| line.ends_with("fleet_panics_total: 5")).then_some(())
    });
    panics.await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn the_page_and_envoys_stats_count_what_the_backends_count() -> Result<()> {
    let scene = Stage::with_status().open().await?;
    let wave = scene.wave(2.0).await?;
    assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
    let at = scene.envoy().address();
    let status: Value = http::get(at, "/_evenkeel/status.json").await?.json()?;
    let endpoints = status["upstreams"][0]["endpoints"].as_array().cloned().unwrap_or_default();
    let requests: Vec<u64> = endpoints.iter().filter_map(|e| e["requests"].as_u64()).collect();
    // At once, without waiting for a tick: all threads count in one place.
    assert_eq!(requests, received(&scene.backends));
    assert!(endpoints.iter().all(|endpoint| endpoint["in_flight"] == 0), "{endpoints:?}");

    let page = http::get(at, "/_evenkeel").await?;
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{page:?}");
    let metrics = http::get(at, "/_evenkeel/metrics").await?.text();
    assert!(metrics.contains("evenkeel_build_info"), "{metrics}");
    assert_eq!(http::get(at, "/_evenkeel/nothing").await?.status, 404);
    assert_eq!(http::post(at, "/_evenkeel", "").await?.status, 405);

    let all: u64 = received(&scene.backends).iter().sum();
    let counted = until("as many decisions as requests", DEADLINE, async || {
        let stats = scene.envoy().admin_get("/stats/prometheus").await.ok()?;
        let decisions = stats.lines().filter(|line| {
            line.contains("evenkeel_fleet_decisions_total{") && line.contains("upstream=\"web\",reason=\"")
        });
        let decided: u64 = decisions.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum();
        (decided == all).then_some(())
    });
    counted.await
}

/// No `status` is configured, so the listener's clients see nothing.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn envoys_admin_interface_shows_what_the_backends_count() -> Result<()> {
    let extension = json!({
        "name": "envoy.bootstrap.dynamic_modules",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.bootstrap.dynamic_modules.v3.DynamicModuleBootstrapExtension",
            "dynamic_module_config": { "name": "evenkeel", "do_not_close": true },
            "extension_name": "evenkeel",
        },
    });
    let proxy =
        envoy::Config { extra: json!({ "bootstrap_extensions": [extension] }), ..envoy::Config::default() };
    let scene = Stage { proxy, ..Stage::default() }.open().await?;
    let wave = scene.wave(2.0).await?;
    let envoy = scene.envoy();
    let status: Value = testbed::serde_json::from_str(&envoy.admin_get("/evenkeel?format=json").await?)?;
    let endpoints = status["upstreams"][0]["endpoints"].as_array().cloned().unwrap_or_default();
    let counted: Vec<u64> = endpoints.iter().filter_map(|one| one["requests"].as_u64()).collect();
    assert_eq!(counted, wave.received, "{status}");
    let metrics = envoy.admin_get("/evenkeel?format=prometheus").await?;
    assert!(metrics.contains("\nevenkeel_upstream_decisions_total{"), "{metrics}");
    assert!(envoy.admin_get("/help").await?.contains("/evenkeel: evenkeel"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn a_retry_leaves_the_one_that_failed_and_that_one_is_avoided() -> Result<()> {
    let stage = Stage {
        upstream: json!({ "policy": "least_request", "health": { "ejection": "3s" } }),
        proxy: envoy::Config {
            retries: Some((1, "connect-failure,reset,5xx".to_owned())),
            retry_policy: envoy::elsewhere(),
            ..envoy::Config::default()
        },
        ..Stage::default()
    };
    let scene = stage.open().await?;
    scene.backends[0].set(Behaviour::FAIL_FAST);
    let first = scene.wave(3.0).await?;
    assert_eq!(first.summary.failed, 0, "{:?}", first.summary.statuses);
    let retries = scene.envoy().stat("cluster.web.upstream_rq_retry_success").await?;
    assert!(retries >= 1, "nothing met the sick endpoint");
    let avoiding = scene.wave(3.0).await?;
    assert_eq!(avoiding.summary.failed, 0, "{:?}", avoiding.summary.statuses);
    assert!(avoiding.share(0) < 0.1, "{:?}", avoiding.received);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn a_reload_fails_nothing_and_forgets_nothing() -> Result<()> {
    let mut scene = Stage { dynamic: true, ..Stage::with_status() }.open().await?;
    scene.backends[0].set(Behaviour::Slow(20.0));
    scene.wave(4.0).await?;
    let load = scene.load(60.0).start().await?;
    let met = received(&scene.backends)[0];
    for slow_start in ["10s", "11s", "12s"] {
        let configuration = scene.configuration(&json!({ "slow_start": slow_start }));
        scene.envoy_mut().reload(vec![Filter::module(&configuration.to_string())]).await?;
        let fresh = scene.wave(1.0).await?;
        assert_eq!(fresh.summary.failed, 0, "{:?}", fresh.summary.statuses);
    }
    let summary = load.report().summary();
    drop(load);
    assert_eq!(summary.failed, 0, "{:?}", summary.statuses);
    let (slow, all) = (received(&scene.backends)[0] - met, summary.requests);
    assert!(slow * 10 < all, "the slow one got {slow} of {all}: what was learnt is gone");
    Ok(())
}

/// Endpoints from Envoy's own admin interface, a signal from a real Prometheus: both are calls from the main thread.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn endpoints_come_from_envoy_and_signals_from_prometheus() -> Result<()> {
    let stage = Stage {
        upstream: json!({
            "endpoints": { "envoy_admin": { "cluster": "envoy_admin", "interval": "500ms" } },
            "signals": [{ "name": "in_flight", "query": "http_inflight_requests" }],
        }),
        plugin: json!({
            "status": { "path": "/_evenkeel" },
            "prometheus": { "cluster": "prometheus", "interval": "1s", "timeout": "500ms" },
        }),
        scraped: true,
        proxy: envoy::Config { admin_cluster: true, ..envoy::Config::default() },
        ..Stage::default()
    };
    let scene = stage.open().await?;
    let load = scene.load(60.0).start().await?;
    let known = until("endpoints with a signal", DEADLINE, async || {
        let status: Value =
            http::get(scene.envoy().address(), "/_evenkeel/status.json").await.ok()?.json().ok()?;
        let endpoints = status["upstreams"][0]["endpoints"].as_array()?.clone();
        let informed = endpoints.iter().filter(|e| e["signals"]["in_flight"]["value"].is_number()).count();
        (informed == 3).then_some(status)
    });
    let status = known.await?;
    let summary = load.report().summary();
    drop(load);
    assert_eq!(summary.failed, 0, "{:?}", summary.statuses);
    assert_eq!(status["prometheus"]["failures"], 0, "{status}");
    Ok(())
}

/// Bodies and their trailers, both ways, and a client that leaves.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn bodies_pass_and_nothing_stays_in_flight() -> Result<()> {
    let scene = Stage::with_status().open().await?;
    let at = scene.envoy().address();
    let large = "x".repeat(300_000);
    for _ in 0..20 {
        assert_eq!(http::post(at, "/upload", &large).await?.status, 200);
    }
    scene.backends[0].set(Behaviour::BlackHole);
    let impatient = testbed::load::Load { timeout: Duration::from_millis(200), ..scene.load(2.0) };
    impatient.run().await?;
    scene.backends[0].set(Behaviour::Healthy);
    let empty = until("nothing in flight", DEADLINE, async || {
        let status: Value = http::get(at, "/_evenkeel/status.json").await.ok()?.json().ok()?;
        (status["upstreams"][0]["in_flight"] == 0).then_some(())
    });
    empty.await
}

/// The last configuration that has the plugin goes, and another one comes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn the_end_is_clean() -> Result<()> {
    let mut scene = Stage { dynamic: true, ..Stage::with_status() }.open().await?;
    scene.wave(0.5).await?;
    scene.envoy_mut().reload(vec![]).await?;
    let wave = scene.wave(1.0).await?;
    assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
    let back = scene.configuration(&json!({}));
    scene.envoy_mut().reload(vec![Filter::module(&back.to_string())]).await?;
    let wave = scene.wave(1.0).await?;
    assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn a_hot_restart_fails_nothing() -> Result<()> {
    let mut stage = Stage::with_status();
    stage.proxy.drain = Some(Duration::from_secs(2));
    stage.proxy.hot_restart = true;
    let mut scene = stage.open().await?;
    let load = scene.load(60.0).start().await?;
    scene.envoy_mut().hot_restart().await?;
    scene.envoy_mut().parents_gone().await?;
    let summary = load.report().summary();
    drop(load);
    assert_eq!(summary.failed, 0, "{:?}", summary.statuses);
    let wave = scene.wave(1.0).await?;
    assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
    Ok(())
}

/// Only where the configuration names the header: then the cluster's policy follows it, retries and all.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn a_header_that_is_asked_for_is_written_and_followed() -> Result<()> {
    let stage = Stage {
        plugin: json!({ "steering": { "header": HEADER, "candidates": 2 }, "status": { "path": "/_evenkeel" } }),
        policy: Policy::evenkeel(),
        proxy: envoy::Config {
            retries: Some((1, "connect-failure,reset,5xx".to_owned())),
            ..envoy::Config::default()
        },
        ..Stage::default()
    };
    let scene = stage.open().await?;
    scene.backends[0].set(Behaviour::FAIL_FAST);
    let wave = scene.wave(3.0).await?;
    assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
    let status: Value = http::get(scene.envoy().address(), "/_evenkeel/status.json").await?.json()?;
    assert_eq!(status["upstreams"][0]["not_followed"], 0, "{status}");
    assert!(status["upstreams"][0]["decisions"]["policy"].as_u64() > Some(100), "{status}");
    Ok(())
}

/// What is held out is chosen by the cluster's own policy, and both arms are counted over the threads.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a trial: make trials"]
async fn the_guard_compares_with_the_clusters_own_policy() -> Result<()> {
    let guard = json!({ "guard": { "holdout_percent": 20 } });
    let scene = Stage { upstream: guard, ..Stage::with_status() }.open().await?;
    let wave = scene.wave(4.0).await?;
    assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
    let counted = until("both arms", DEADLINE, async || {
        let status: Value =
            http::get(scene.envoy().address(), "/_evenkeel/status.json").await.ok()?.json().ok()?;
        let of = status["upstreams"][0].clone();
        let compared = |arm: &str| of["guard"]["today"][arm].as_u64();
        (compared("held_out")? > 40 && compared("steered")? > 200).then_some(of)
    });
    let of = counted.await?;
    let held_out = of["decisions"]["held_out"].as_u64();
    // Four standard deviations of Binomial(600, 0.2).
    assert!(held_out.is_some_and(|held_out| held_out.abs_diff(120) < 40), "{of}");
    assert_eq!(of["guard"]["aside"], json!(false), "{of}");
    Ok(())
}
