//! New configurations over LDS and ECDS: invalid ones are refused and change nothing, valid ones lose no request and no
//! state.

use std::time::Duration;

use testbed::anyhow::{Context, Result};
use testbed::backend::Behaviour;
use testbed::envoy::Filter;
use testbed::serde_json::{self, Value, json};
use testbed::{envoy, tokio, wait};

use crate::malformed;
use crate::scene::{Scene, Stage, received};

fn stage() -> Stage {
    Stage {
        strangers: 1,
        proxy: envoy::Config { dynamic: true, ..envoy::Config::default() },
        ..Stage::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_configurations_are_refused_and_the_old_one_serves_on() -> Result<()> {
    let mut scene = stage().open().await?;
    let cases = malformed::all();
    assert!(cases.len() >= 48, "{}", cases.len());
    let load = scene.load(120.0).start().await?;
    for (path, configuration) in &cases {
        let filter = Filter::evenkeel_text(configuration)?;
        let refusal = match scene.envoy_mut().reload(vec![filter]).await {
            Ok(()) => panic!("accepted: {configuration}"),
            Err(error) => format!("{error:#}"),
        };
        let named = |line: &str| line.contains(&format!("configuration refused: {path}: "));
        assert!(refusal.lines().any(named), "{path} is not named for {configuration}:\n{refusal}");
    }
    let summary = load.report().summary();
    drop(load);
    assert_eq!(summary.failed, 0, "{:?}", summary.statuses);
    assert!(summary.requests > 100);
    assert_eq!(scene.envoy().stat("listener_manager.lds.update_rejected").await?, cases.len() as u64);
    let wave = scene.wave(1.0).await?;
    assert_eq!((wave.summary.failed, wave.strangers), (0, 0), "still steered");
    Ok(())
}

/// Configurations that are refused at different stages: not JSON, not an object, an invalid field.
#[tokio::test(flavor = "multi_thread")]
async fn the_filter_alone_is_updated_and_a_malformed_update_changes_nothing() -> Result<()> {
    let mut stage = self::stage();
    stage.proxy.concurrency = 4;
    stage.proxy.discovered_filters = true;
    let mut scene = stage.open().await?;
    for slow in &scene.backends[..2] {
        slow.set(Behaviour::Slow(20.0));
    }
    scene.wave(7.0).await?;
    let load = scene.load(120.0).start().await?;
    for (path, configuration) in malformed::all().into_iter().step_by(8) {
        let refusal = match scene.envoy_mut().update_filter(Filter::evenkeel_text(&configuration)?).await {
            Ok(()) => panic!("accepted: {configuration}"),
            Err(error) => format!("{error:#}"),
        };
        assert!(refusal.contains(&format!("configuration refused: {path}: ")), "{path}: {refusal}");
    }
    let (before, begun) = (received(&scene.backends), testbed::clock::now());
    for slow_start in ["10s", "11s", "12s"] {
        let upstream = json!({ "slow_start": slow_start });
        let configuration = self::stage().configuration(&scene.backends, &upstream);
        scene.envoy_mut().update_filter(Filter::evenkeel(&configuration)?).await?;
        requests_more(&scene, 80).await?;
    }
    let summary = load.report().summary();
    assert_eq!(summary.failed, 0, "{:?}", summary.statuses);
    let met: Vec<u64> = received(&scene.backends).iter().zip(before).map(|(now, then)| now - then).collect();
    assert!(met[0] + met[1] <= explored_within(begun.elapsed()), "slow ones were met: {met:?}");
    assert_eq!(scene.strangers[0].counts().received, 0, "all were steered");

    // An endpoint that is not in the new list gets no more requests, even on existing connections.
    let shorter = self::stage().configuration(&scene.backends[..3], &json!(null));
    scene.envoy_mut().update_filter(Filter::evenkeel(&shorter)?).await?;
    wait::until("requests for those that are left only", Duration::from_secs(20), || async {
        let before = received(&scene.backends);
        requests_more(&scene, 60).await.ok()?;
        let after = received(&scene.backends);
        (before[3..] == after[3..]).then_some(())
    })
    .await?;
    let summary = load.report().summary();
    assert_eq!((summary.failed, scene.strangers[0].counts().received), (0, 0), "{:?}", summary.statuses);
    Ok(())
}

/// Maximum number of requests to two slow endpoints within `time`, which may be long on a busy machine: each is
/// explored every 2.5 s at most, and again where it looked well. A worker that lost its state would add 24: one of each
/// per reload.
fn explored_within(time: Duration) -> u64 {
    8 + (2.0 * time.as_secs_f64()) as u64
}

async fn reload(scene: &mut Scene, slow_start: &str) -> Result<()> {
    let configuration = stage().configuration(&scene.backends, &json!({ "slow_start": slow_start }));
    scene.envoy_mut().reload(vec![Filter::evenkeel(&configuration)?]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_fails_nothing_and_forgets_nothing() -> Result<()> {
    let mut stage = stage();
    stage.proxy.concurrency = 4;
    let mut scene = stage.open().await?;
    for slow in &scene.backends[..2] {
        slow.set(Behaviour::Slow(20.0));
    }
    scene.wave(7.0).await?;
    let load = scene.load(60.0).start().await?;
    let (mut met, begun) = (0, testbed::clock::now());
    for slow_start in ["10s", "11s", "12s"] {
        reload(&mut scene, slow_start).await?;
        // New connections, hence requests under the new configuration in its first second.
        let fresh = scene.wave(1.0).await?;
        assert_eq!((fresh.summary.failed, fresh.strangers), (0, 0), "{:?}", fresh.summary.statuses);
        met += fresh.received[0] + fresh.received[1];
    }
    let summary = load.report().summary();
    assert_eq!(summary.failed, 0, "{:?}", summary.statuses);
    assert!(met <= explored_within(begun.elapsed()), "slow ones were met {met} times");
    Ok(())
}

/// Bytes allocated by Envoy, and its process' resident memory in kB, which includes V8's.
async fn memory(scene: &mut Scene) -> Result<(u64, u64)> {
    let answer: Value = serde_json::from_str(&scene.envoy().admin_get("/memory").await?)?;
    let allocated = answer["allocated"].as_str().and_then(|bytes| bytes.parse().ok());
    let id = scene.envoy_mut().process().id();
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok());
    Ok((allocated.context("bytes")?, resident.context("kilobytes")?))
}

/// Waits for `count` more requests, whichever endpoint serves them.
async fn requests_more(scene: &Scene, count: u64) -> Result<()> {
    let sum = || received(&scene.backends).iter().sum::<u64>();
    let before = sum();
    wait::until("more requests", Duration::from_secs(60), || {
        let done = sum() >= before + count;
        async move { done.then_some(()) }
    })
    .await
}

/// The way in which the trial changes the configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Channel {
    /// A new listener, over LDS.
    Lds,
    /// The filter's configuration alone, over ECDS.
    Ecds,
}

/// Five hundred configurations, each of which serves requests; nothing fails, and memory stays within 5 %.
async fn five_hundred(channel: Channel) -> Result<()> {
    let mut stage = stage();
    stage.proxy.discovered_filters = channel == Channel::Ecds;
    // Old filter chains live on while they drain.
    stage.proxy.drain = Some(Duration::from_secs(2));
    let mut scene = stage.open().await?;
    let load = scene.load(3600.0).start().await?;
    let mut samples = Vec::new();
    for round in 0..500 {
        let upstream = json!({ "slow_start": format!("{}ms", 10_000 + round) });
        let filter = Filter::evenkeel(&self::stage().configuration(&scene.backends, &upstream))?;
        match channel {
            Channel::Lds => scene.envoy_mut().reload(vec![filter]).await?,
            Channel::Ecds => scene.envoy_mut().update_filter(filter).await?,
        }
        // All sixteen connections are replaced meanwhile, so that the last of these requests use the new configuration.
        requests_more(&scene, 40).await?;
        samples.push(memory(&mut scene).await?);
        if round % 50 == 49 {
            println!("{}: {:?}", round + 1, samples.last());
        }
    }
    let summary = load.report().summary();
    drop(load);
    println!("{channel:?}: {} requests, {} failed", summary.requests, summary.failed);
    assert_eq!(summary.failed, 0, "{:?}", summary.statuses);
    let median = |part: &[(u64, u64)], of: fn(&(u64, u64)) -> u64| {
        let mut values: Vec<u64> = part.iter().map(of).collect();
        values.sort_unstable();
        values[values.len() / 2] as f64
    };
    let growth = |what: &str, of: fn(&(u64, u64)) -> u64| {
        let (early, late) = (median(&samples[50..100], of), median(&samples[450..], of));
        let growth = (late / early - 1.0) * 100.0;
        println!("{what}: {early} after 75 reloads, {late} after 475, {growth:+.1} %");
        growth
    };
    let (allocated, resident) =
        (growth("allocated", |memory| memory.0), growth("resident", |memory| memory.1));
    assert!(allocated <= 5.0 && resident <= 5.0, "memory grew");
    Ok(())
}

/// `make reload-trial`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn five_hundred_listeners_under_load_lose_nothing() -> Result<()> {
    five_hundred(Channel::Lds).await
}

/// `make reload-trial`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn five_hundred_filters_under_load_lose_nothing() -> Result<()> {
    five_hundred(Channel::Ecds).await
}
