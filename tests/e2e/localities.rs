//! Weights of a cluster's localities, which Envoy's configuration dump tells: a canary keeps its part, also over new
//! configurations of the filter.

use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::{self, Backend};
use testbed::envoy::{self, Cluster, Envoy, Filter, Policy};
use testbed::load::Load;
use testbed::serde_json::{Value, json};
use testbed::{http, tokio, wait};

use crate::scene::received;

const HEADER: &str = "x-evenkeel-endpoint";
/// The canary's weight; that of all localities is 100.
const CANARY: f64 = 2.0;
const RATE: f64 = 300.0;

/// Two endpoints in a locality of weight 98, and one, the last, in the canary's.
fn members(backends: &[Backend]) -> Value {
    let endpoint = |backend: &Backend| {
        let address = backend.address();
        json!({ "endpoint": { "address": { "socket_address":
            { "address": address.ip().to_string(), "port_value": address.port() } } } })
    };
    let locality = |zone: &str, weight: f64, backends: &[Backend]| {
        json!({
            "locality": { "zone": zone },
            "load_balancing_weight": weight as u32,
            "lb_endpoints": backends.iter().map(endpoint).collect::<Vec<_>>(),
        })
    };
    let (stable, canary) = backends.split_at(2);
    let only = |name: &str, mut config: Value| {
        let place = "type.googleapis.com/envoy.extensions.load_balancing_policies";
        config["@type"] = json!(format!("{place}.{name}"));
        json!({ "policies": [{ "typed_extension_config": { "name": name, "typed_config": config } }] })
    };
    let blind = only(
        "least_request.v3.LeastRequest",
        json!({ "locality_lb_config": { "locality_weighted_lb_config": {} } }),
    );
    let steered = json!({ "override_host_sources": [{ "header": HEADER }], "fallback_policy": blind });
    json!({
        "load_balancing_policy": only("override_host.v3.OverrideHost", steered),
        "load_assignment": {
            "cluster_name": "web",
            "endpoints": [locality("stable", 100.0 - CANARY, stable), locality("canary", CANARY, canary)],
        },
    })
}

fn plugin(slow_start: &str) -> Result<Filter> {
    Filter::evenkeel(&json!({
        "status": { "path": "/_evenkeel" },
        "upstreams": [{
            "cluster": "web",
            "slow_start": slow_start,
            "endpoints": { "envoy_admin": { "cluster": "envoy_admin", "interval": "1s" } },
        }],
    }))
}

/// More than this many of `of` requests are the canary's once in a million times.
fn at_most(of: u64) -> u64 {
    let mean = of as f64 * CANARY / 100.0;
    (mean + 5.0 * mean.sqrt() + 3.0) as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_keeps_its_part_over_new_configurations() -> Result<()> {
    let backends = Backend::start_many(3, backend::Config::default()).await?;
    let addresses = backends.iter().map(Backend::address).collect();
    let cluster = Cluster { extra: members(&backends), ..Cluster::new("web", addresses, Policy::Custom) };
    let mut envoy = Envoy::start(envoy::Config {
        clusters: vec![cluster],
        filters: vec![plugin("30s")?],
        discovered_filters: true,
        admin_cluster: true,
        concurrency: 2,
        ..envoy::Config::default()
    })
    .await?;
    let load = Load {
        target: envoy.address(),
        rate: RATE,
        duration: Duration::from_secs(120),
        connections: 8,
        ..Load::default()
    };
    let load = load.start().await?;
    let since = |before: &[u64]| -> Vec<u64> {
        received(&backends).iter().zip(before).map(|(now, then)| now - then).collect()
    };
    let more = |count: u64| {
        let before = received(&backends);
        async move {
            wait::until("more requests", Duration::from_secs(30), || {
                let met = since(&before);
                async move { (met.iter().sum::<u64>() >= count).then_some(met) }
            })
            .await
        }
    };
    // Until the endpoints are known, Envoy's own policy divides the requests.
    wait::until("the endpoints to be known", Duration::from_secs(30), || async {
        let status = http::get(envoy.address(), "/_evenkeel/status.json").await.ok()?.json().ok()?;
        (status["upstreams"][0]["endpoints"].as_array()?.len() == backends.len()).then_some(())
    })
    .await?;
    more(300).await?;
    for slow_start in ["31s", "32s", "33s", "34s"] {
        envoy.update_filter(plugin(slow_start)?).await?;
        let met = more(300).await?;
        let all = met.iter().sum();
        assert!(
            met[2] <= at_most(all),
            "after the update {slow_start}: {met:?}, of the canary at most {}",
            at_most(all)
        );
    }
    let summary = load.report().summary();
    assert_eq!(summary.failed, 0, "{:?}", summary.statuses);
    Ok(())
}
