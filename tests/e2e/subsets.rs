//! A cluster whose hosts Envoy chooses by subsets: no request reaches another subset's endpoints.

use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::{self, Backend};
use testbed::envoy::{self, Cluster, Envoy, Filter, Policy};
use testbed::load::Load;
use testbed::serde_json::{Value, json};
use testbed::{tokio, wait};

use crate::scene::received;

const HEADER: &str = "x-evenkeel-endpoint";
/// The endpoints of the subset that every request is for, of four.
const OURS: usize = 2;

/// The cluster's members: each endpoint with its version, and requests for the first version.
fn members(backends: &[Backend]) -> Value {
    let endpoint = |(at, backend): (usize, &Backend)| {
        let address = backend.address();
        json!({
            "endpoint": { "address": { "socket_address":
                { "address": address.ip().to_string(), "port_value": address.port() } } },
            "metadata": { "filter_metadata": { "envoy.lb": { "version": if at < OURS { "1" } else { "2" } } } },
        })
    };
    let endpoints: Vec<Value> = backends.iter().enumerate().map(endpoint).collect();
    json!({
        "load_assignment": { "cluster_name": "web", "endpoints": [{ "lb_endpoints": endpoints }] },
        "lb_subset_config": {
            "fallback_policy": "DEFAULT_SUBSET",
            "default_subset": { "version": "1" },
            "subset_selectors": [{ "keys": ["version"] }],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_subsets_is_left_to_envoy() -> Result<()> {
    let backends = Backend::start_many(4, backend::Config::default()).await?;
    let policy = Policy::StatefulSession { header: HEADER.into() };
    let addresses = backends.iter().map(Backend::address).collect();
    let cluster = Cluster { extra: members(&backends), ..Cluster::new("web", addresses, policy) };
    let plugin = json!({
        "steering": { "via": "stateful_session" },
        "upstreams": [{
            "cluster": "web",
            "endpoints": { "envoy_admin": { "cluster": "envoy_admin", "interval": "1s" } },
        }],
    });
    let envoy = Envoy::start(envoy::Config {
        clusters: vec![cluster],
        filters: vec![Filter::evenkeel(&plugin)?, Filter::stateful_session(HEADER)],
        admin_cluster: true,
        ..envoy::Config::default()
    })
    .await?;
    let load = Load {
        target: envoy.address(),
        rate: 80.0,
        duration: Duration::from_secs(120),
        connections: 8,
        ..Load::default()
    };
    let load = load.start().await?;
    envoy.wait_for_log("divides its hosts into subsets by metadata", Duration::from_secs(60)).await?;
    wait::until("requests for their own subset only", Duration::from_secs(30), || async {
        let before = received(&backends);
        let more = wait::until("more requests", Duration::from_secs(20), || {
            let more = received(&backends).iter().sum::<u64>() > before.iter().sum::<u64>() + 60;
            async move { more.then_some(()) }
        });
        more.await.ok()?;
        (before[OURS..] == received(&backends)[OURS..]).then_some(())
    })
    .await?;
    let summary = load.report().summary();
    assert_eq!(summary.failed, 0, "{:?}", summary.statuses);
    Ok(())
}
