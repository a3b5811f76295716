//! The guard leaves a part of the requests to Envoy's own policy; where that does better, it leaves all until a pause
//! is over.

use std::time::Duration;

use testbed::anyhow::{Context, Result};
use testbed::backend::Behaviour;
use testbed::serde_json::{Value, json};
use testbed::wait::until;
use testbed::{http, tokio};

use crate::scene::{Scene, Stage};

const HARM: &str = "steering was significantly worse";

/// The first endpoint has weight `heaviest`, so that it gets nearly all steered requests.
fn stage(percent: f64, heaviest: f64) -> Stage {
    Stage {
        places: vec![json!({ "weight": heaviest })],
        plugin: json!({ "status": { "path": "/_evenkeel" } }),
        upstream: json!({
            "policy": "weighted_round_robin",
            "guard": { "holdout_percent": percent, "pause": "5s" }
        }),
        ..Stage::default()
    }
}

async fn upstream(scene: &Scene) -> Result<Value> {
    let status = http::get(scene.envoy().address(), "/_evenkeel/status.json").await?.json()?;
    Ok(status["upstreams"][0].clone())
}

/// Value of the series of this name.
async fn metric(scene: &Scene, name: &str) -> Result<f64> {
    let text = http::get(scene.envoy().address(), "/_evenkeel/metrics").await?.text();
    let line = text.lines().find(|line| line.starts_with(&format!("evenkeel_upstream_{name}{{")));
    let value = line.and_then(|line| line.split(' ').nth(1)).with_context(|| format!("{name} in {text}"))?;
    Ok(value.parse()?)
}

/// Waits until `lines` lines of Envoy's log contain `text`; Envoy writes its log with a delay.
async fn logged(scene: &Scene, text: &str, lines: usize) -> Result<()> {
    until(text, Duration::from_secs(5), async || (scene.logged(text) == lines).then_some(())).await
}

/// Sends requests until `seen` holds; none of them may fail.
async fn traffic_until(scene: &Scene, what: &str, seen: impl Fn(&Value) -> bool) -> Result<Value> {
    let began = testbed::clock::now();
    loop {
        let wave = scene.wave(1.0).await?;
        assert_eq!((wave.summary.failed, wave.strangers), (0, 0), "{:?}", wave.summary.statuses);
        let upstream = upstream(scene).await?;
        if seen(&upstream) {
            println!("{what} after {:.0} s", began.elapsed().as_secs_f64());
            return Ok(upstream);
        }
        assert!(began.elapsed() < Duration::from_secs(120), "{what}: {}", upstream["guard"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn holdout_is_left_to_envoy_and_reported() -> Result<()> {
    let scene = stage(20.0, 1.0).open().await?;
    let wave = scene.wave(4.0).await?;
    assert_eq!((wave.summary.failed, wave.strangers), (0, 0));
    let counted = until("all counts", Duration::from_secs(15), async || {
        let upstream = upstream(&scene).await.ok()?;
        let decisions = &upstream["decisions"];
        let (held, policy) = (decisions["held_out"].as_u64()?, decisions["policy"].as_u64()?);
        let today = &upstream["guard"]["today"];
        let compared = (today["held_out"].as_u64()?, today["steered"].as_u64()?);
        (held + policy >= 590 && compared.0 > 40 && compared.1 > 200).then_some((held, upstream))
    });
    let (held, upstream) = counted.await?;
    // Four standard deviations of Binomial(600, 0.2).
    assert!(held.abs_diff(120) < 40, "{held}");
    let guard = &upstream["guard"];
    assert_eq!((&guard["aside"], guard["asides"].as_u64()), (&json!(false), Some(0)), "{guard}");
    let sentence = guard["sentence"].as_str().context("a sentence")?;
    assert!(
        sentence.contains("no failures today") && sentence.contains("requests left to Envoy"),
        "{sentence}"
    );
    // The worker that serves the metrics may get the other's report a second later than the one that served the page.
    until("metrics as on the page", Duration::from_secs(5), async || {
        let page = self::upstream(&scene).await.ok()?;
        let today = &page["guard"]["today"];
        let held = metric(&scene, "guard_held_out_today").await.ok()?;
        let steered = metric(&scene, "guard_steered_today").await.ok()?;
        let agree = (today["held_out"].as_f64(), today["steered"].as_f64()) == (Some(held), Some(steered));
        agree.then_some(())
    })
    .await?;
    assert!(metric(&scene, "guard_aside").await?.abs() < 0.5);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_does_harm_is_stepped_aside_from_and_tried_again() -> Result<()> {
    let scene = stage(20.0, 1000.0).open().await?;
    scene.backends[0].set(Behaviour::Slow(5.0));
    let aside = |upstream: &Value| upstream["guard"]["aside"] == json!(true);
    let found = traffic_until(&scene, "aside", aside).await?;
    let sentence = found["guard"]["sentence"].as_str().context("a sentence")?;
    assert!(sentence.starts_with(HARM), "{sentence}");
    assert!(metric(&scene, "guard_aside").await? > 0.5);
    logged(&scene, HARM, 1).await?;
    let left = |upstream: &Value| upstream["decisions"]["guard_aside"].as_u64().unwrap_or(0);
    traffic_until(&scene, "requests left to Envoy", |upstream| left(upstream) > 100).await?;
    // After the pause it steers again, still does harm and steps aside again.
    traffic_until(&scene, "harm again", |upstream| upstream["guard"]["asides"].as_u64() >= Some(2)).await?;
    logged(&scene, HARM, 2).await?;
    logged(&scene, "steering resumed", 1).await?;
    // The fault is over.
    scene.backends[0].set(Behaviour::Healthy);
    let before = upstream(&scene).await?["decisions"]["policy"].as_u64();
    let steers = |upstream: &Value| upstream["decisions"]["policy"].as_u64() > before.map(|n| n + 200);
    let well = traffic_until(&scene, "steered again", steers).await?;
    assert_eq!(well["guard"]["aside"], json!(false), "{}", well["guard"]);
    Ok(())
}
