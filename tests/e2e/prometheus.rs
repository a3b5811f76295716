//! Signals from a real Prometheus count; one that is away or gives false answers costs no request.

use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::{self, Behaviour, Kind};
use testbed::liar::{Liar, json as good};
use testbed::load::Load;
use testbed::serde_json::json;
use testbed::{envoy, lies, tokio};

use crate::scene::Stage;

const FAILING: &str = "prometheus poll failed";
const RESUMED: &str = "prometheus poll succeeded again";

/// A stage whose only signal is the queue depth, polled at `interval`.
fn informed(interval: &str, timeout: &str) -> Stage {
    Stage {
        plugin: json!({
            "prometheus": { "cluster": "prometheus", "interval": interval, "timeout": timeout },
        }),
        upstream: json!({ "signals": [{ "name": "depth", "query": "task_queue_depth", "max": 100 }] }),
        ..Stage::default()
    }
}

/// The same stage with a [`Liar`] in place of Prometheus.
async fn misinformed(interval: &str, timeout: &str) -> Result<(Stage, Liar)> {
    let liar = Liar::start().await?;
    let mut stage = informed(interval, timeout);
    stage.proxy.services.push(("prometheus".to_owned(), liar.address()));
    Ok((stage, liar))
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_with_a_long_queue_are_spared() -> Result<()> {
    // Each accepts requests at once, whatever its queue, so only Prometheus can tell them apart. A worker does 20 tasks
    // a second, three times what it gets, so that a busy machine leaves it enough; the slow one does 2, a fifteenth of
    // all, and its fair share of 30 a second is 6, which fills its queue of 40 in ten seconds.
    let scene = Stage {
        scraped: true,
        backend: backend::Config {
            kind: Kind::Worker { queue: 40 },
            slots: 1,
            median: Duration::from_millis(50),
            ..Stage::default().backend
        },
        upstream: json!({ "signals": [{ "name": "depth", "query": "task_queue_depth", "max": 20 }] }),
        ..informed("1s", "900ms")
    }
    .open()
    .await?;
    scene.backends[0].set(Behaviour::Slow(10.0));
    let load = |seconds| Load { rate: 30.0, ..scene.load(seconds) };
    let learning = scene.wave_of(load(6.0)).await?;
    let informed = scene.wave_of(load(12.0)).await?;
    assert_eq!(learning.summary.failed + informed.summary.failed, 0, "{:?}", informed.summary.statuses);
    assert!(informed.share(0) < 0.14, "a fair share would be 0.2: {:?}", informed.received);
    let well_used = (1..5).filter(|index| informed.share(*index) > 0.12).count();
    assert!(well_used >= 3, "{:?}", informed.received);
    assert_eq!(scene.logged(FAILING), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_report_a_long_queue_are_spared_without_prometheus() -> Result<()> {
    // Ten workers of 20 tasks a second get 100 a second; the first is ten times slower and fills up with a fair share.
    let report = json!({ "name": "queue", "header": "endpoint-load-metrics", "metric": "named_metrics.queue", "max": 20 });
    let scene = Stage {
        backends: 10,
        backend: backend::Config {
            kind: Kind::Worker { queue: 40 },
            slots: 1,
            median: Duration::from_millis(50),
            ..Stage::default().backend
        },
        upstream: json!({ "load_reports": [report] }),
        proxy: envoy::Config { concurrency: 2, ..envoy::Config::default() },
        ..Stage::default()
    }
    .open()
    .await?;
    scene.backends[0].set(Behaviour::Slow(10.0));
    let load = |seconds| Load { rate: 100.0, ..scene.load(seconds) };
    let learning = scene.wave_of(load(3.0)).await?;
    let informed = scene.wave_of(load(9.0)).await?;
    assert_eq!(learning.summary.failed + informed.summary.failed, 0, "{:?}", informed.summary.statuses);
    assert!(informed.share(0) < 0.05, "a fair share would be 0.1: {:?}", informed.received);
    assert!(scene.backends[0].counts().queued < 20, "{:?}", scene.backends[0].counts());
    let well_used = (1..10).filter(|index| informed.share(*index) > 0.06).count();
    assert!(well_used >= 8, "{:?}", informed.received);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_that_dies_and_returns_costs_nothing() -> Result<()> {
    let mut scene = Stage { scraped: true, ..informed("500ms", "250ms") }.open().await?;
    let before = scene.wave(3.0).await?;
    scene.prometheus.as_mut().expect("it is scraped").kill();
    let meanwhile = scene.wave(5.0).await?;
    assert_eq!((before.summary.failed, meanwhile.summary.failed), (0, 0));
    assert!(meanwhile.spread(), "{:?}", meanwhile.received);
    scene.envoy().wait_for_log(FAILING, Duration::from_secs(10)).await?;
    assert_eq!((scene.logged(FAILING), scene.logged(RESUMED)), (1, 0));

    scene.prometheus.as_mut().expect("it is scraped").resume().await?;
    scene.envoy().wait_for_log(RESUMED, Duration::from_secs(15)).await?;
    assert_eq!((scene.logged(FAILING), scene.logged(RESUMED)), (1, 1));
    assert_eq!(scene.wave(1.0).await?.summary.failed, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_change_nothing() -> Result<()> {
    let (stage, liar) = misinformed("150ms", "100ms").await?;
    let scene = stage.open().await?;
    let names: Vec<String> = scene.backends.iter().map(|backend| backend.address().to_string()).collect();
    let load = scene.load(120.0).start().await?;
    for (what, lie) in lies::all(&names) {
        liar.tell(what, lie).await?;
    }
    let summary = load.report().summary();
    assert_eq!(summary.failed, 0, "{:?}", summary.statuses);
    for name in &names {
        assert!((0.02..0.45).contains(&summary.share(name)), "{name}: {:?}", summary.by_backend);
    }
    liar.tell("honest again", good(lies::vector(&[(&names[0], "0")]))).await?;
    scene.envoy().wait_for_log(RESUMED, Duration::from_secs(10)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unknown_is_never_the_best() -> Result<()> {
    let (stage, liar) = misinformed("200ms", "100ms").await?;
    let scene = stage.open().await?;
    let names: Vec<String> = scene.backends.iter().map(|backend| backend.address().to_string()).collect();
    for unknown in [Some("NaN"), Some("-Inf"), Some(""), None] {
        let first = unknown.map(|value| (names[0].as_str(), value));
        let busy = names[1..].iter().map(|name| (name.as_str(), "60"));
        let samples: Vec<_> = first.into_iter().chain(busy).collect();
        liar.tell("that only one is not known to be busy", good(lies::vector(&samples))).await?;
        let wave = scene.wave(2.0).await?;
        assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
        assert!(wave.share(0) < 0.4, "{unknown:?}: a fair share would be 0.2: {:?}", wave.received);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_cluster_for_prometheus_fails_no_request() -> Result<()> {
    let mut stage = informed("200ms", "100ms");
    stage.plugin["prometheus"]["cluster"] = json!("nowhere");
    let scene = stage.open().await?;
    let wave = scene.wave(2.0).await?;
    assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
    assert!(wave.spread(), "{:?}", wave.received);
    let line = scene.envoy().wait_for_log(FAILING, Duration::from_secs(10)).await?;
    assert!(line.contains("\"nowhere\" is unknown to Envoy"), "{line}");
    assert_eq!(scene.logged(FAILING), 1, "once, not at every poll");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_asks_for_all() -> Result<()> {
    let (mut stage, liar) = misinformed("200ms", "100ms").await?;
    stage.proxy.concurrency = 4;
    let scene = stage.open().await?;
    // By now a worker holds the lease.
    scene.wave(1.0).await?;
    let before = liar.asked();
    let start = testbed::clock::now();
    scene.wave(5.0).await?;
    let intervals = start.elapsed().as_secs_f64() / 0.2;
    let asked = (liar.asked() - before) as f64;
    assert!((0.5..1.5).contains(&(asked / intervals)), "{asked} queries in {intervals:.0} intervals");
    Ok(())
}
