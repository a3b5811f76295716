//! Regression tests for two ways in which a worker's VM once trapped: a gRPC call that fails in its trailers while
//! failures are logged, and polls of a cluster that has evenkeel among its upstream filters, which Envoy runs in the
//! middle of the tick.

use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::{self, Backend, Behaviour};
use testbed::envoy::{Cluster, Filter, Policy};
use testbed::serde_json::json;
use testbed::{tokio, wait};

use crate::scene::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_fail_in_trailers_are_logged() -> Result<()> {
    let mut stage = Stage { http2: true, follow: true, ..Stage::default() };
    stage.plugin = json!({ "log": { "failures": true }, "debug": { "when": "always" } });
    stage.upstream = json!({ "policy": "round_robin", "health": { "max_ejected_percent": 0 } });
    stage.backend.behaviour = Behaviour::Grpc { status: 0, in_trailers: true };
    let scene = stage.open().await?;
    for status in [14, 2, 4, 8, 13, 15] {
        scene.backends[0].set(Behaviour::Grpc { status, in_trailers: true });
        let wave = scene.wave(1.0).await?;
        assert_eq!(wave.summary.failed, 0, "grpc-status {status}: {:?}", wave.summary.statuses);
        assert!(wave.received[0] > 0, "{:?}", wave.received);
    }
    scene.envoy().wait_for_log("; grpc_status", Duration::from_secs(30)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polled_cluster_may_have_the_filter_among_its_upstream_filters() -> Result<()> {
    // Its answers hold no samples; the test only needs it to be polled.
    let polled = Backend::start(backend::Config::default()).await?;
    let mut stage = Stage { follow: true, ..Stage::default() };
    stage.plugin = json!({ "prometheus": { "cluster": "prometheus", "interval": "1s", "timeout": "500ms" } });
    stage.upstream = json!({ "signals": [{ "name": "q", "query": "q" }] });
    let mut cluster = Cluster::new("prometheus", vec![polled.address()], Policy::RoundRobin);
    cluster.prefix = "/none-of-the-requests".to_owned();
    cluster.upstream_filters = vec![Filter::evenkeel_upstream()?];
    stage.proxy.clusters.push(cluster);
    let scene = stage.open().await?;
    wait::until("five polls", Duration::from_secs(60), || async {
        let wave = scene.wave(1.0).await.ok()?;
        assert_eq!(wave.summary.failed, 0, "{:?}", wave.summary.statuses);
        (polled.counts().received >= 5).then_some(())
    })
    .await?;
    Ok(())
}
