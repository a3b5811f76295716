//! A refused configuration with `EVENKEEL_ON_REFUSED_CONFIGURATION=stand_aside`: an Envoy that starts with it serves,
//! and a running one keeps the previous configuration.

use std::time::Duration;

use testbed::anyhow::Result;
use testbed::envoy::{self, Filter};
use testbed::serde_json::{Value, json};
use testbed::{http, tokio, wait};

use crate::scene::{Scene, Stage};

const GAUGE: &str = "wasmcustom.evenkeel.fleet_configuration_refused";
const FAULTY: &str = r#"{ "mode": "enforced", "status": { "path": "/_evenkeel" }, "upstreams": [] }"#;

/// Adds the environment variable by which the filter stands aside.
fn aside(mut filter: Filter) -> Filter {
    filter.0["typed_config"]["config"]["vm_config"]["environment_variables"] =
        json!({ "key_values": { "EVENKEEL_ON_REFUSED_CONFIGURATION": "stand_aside" } });
    filter
}

fn dynamic() -> Stage {
    let proxy = envoy::Config { dynamic: true, ..envoy::Config::default() };
    Stage {
        bare: true,
        strangers: 1,
        plugin: json!({ "status": { "path": "/_evenkeel" } }),
        proxy,
        ..Stage::default()
    }
}

async fn configured(scene: &mut Scene, configuration: &Value) -> Result<()> {
    scene.envoy_mut().reload(vec![aside(Filter::evenkeel(configuration)?)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_starts_with_it_serves() -> Result<()> {
    let mut stage = dynamic();
    stage.proxy.filters.push(aside(Filter::evenkeel_text(FAULTY)?));
    let mut scene = stage.open().await?;
    let wave = scene.wave(2.0).await?;
    assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
    assert!(wave.strangers > 0, "nothing is steered");
    assert_eq!(scene.envoy().stat(GAUGE).await?, 1);
    let page = http::get(scene.envoy().address(), "/_evenkeel").await?;
    assert!(page.status == 503 && page.text().contains("$.mode"), "{}", page.text());
    // The corrected configuration takes effect at once.
    let good = dynamic().configuration(&scene.backends, &Value::Null);
    configured(&mut scene, &good).await?;
    let wave = scene.wave(2.0).await?;
    assert_eq!((wave.summary.failed, wave.strangers), (0, 0), "{:?}", wave.summary.statuses);
    assert_eq!(scene.envoy().stat(GAUGE).await?, 0);
    scene.envoy().wait_for_log("configuration refused: $.mode: ", Duration::from_secs(30)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_runs_keeps_the_one_before() -> Result<()> {
    let mut scene = dynamic().open().await?;
    let good = dynamic().configuration(&scene.backends, &Value::Null);
    configured(&mut scene, &good).await?;
    assert_eq!(scene.wave(1.0).await?.strangers, 0, "steered");
    let load = scene.load(60.0).start().await?;
    scene.envoy_mut().reload(vec![aside(Filter::evenkeel_text(FAULTY)?)]).await?;
    // New connections, hence requests under the refused configuration.
    let wave = scene.wave(2.0).await?;
    assert_eq!((wave.summary.failed, wave.strangers), (0, 0), "{:?}", wave.summary.statuses);
    let shown = wait::until("the page to say it", Duration::from_secs(20), || async {
        let status = http::get(scene.envoy().address(), "/_evenkeel/status.json").await.ok()?.json().ok()?;
        (!status["configuration_refused"].is_null()).then_some(status)
    })
    .await?;
    assert_eq!(shown["configuration_refused"][0], "$.mode", "{shown}");
    assert_eq!(scene.envoy().stat(GAUGE).await?, 1);
    let summary = load.report().summary();
    drop(load);
    assert_eq!(summary.failed, 0, "{:?}", summary.statuses);
    Ok(())
}
