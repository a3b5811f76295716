//! Several filters with different configurations in one Envoy.

use testbed::anyhow::Result;
use testbed::backend::Backend;
use testbed::envoy::{self, Cluster, Filter, Policy};
use testbed::load::Load;
use testbed::serde_json::json;
use testbed::tokio;

use crate::scene::{Stage, received};

/// A filter for the cluster `api`, under this plugin name.
fn for_api(endpoints: &[Backend], name: &str, vm: &str) -> Result<Filter> {
    let addresses: Vec<_> = endpoints.iter().map(Backend::address).collect();
    let mut filter = Filter::evenkeel(
        &json!({ "upstreams": [{ "cluster": "api", "endpoints": { "static": addresses } }] }),
    )?;
    filter.0["name"] = json!("second");
    filter.0["typed_config"]["config"]["name"] = json!(name);
    filter.0["typed_config"]["config"]["vm_config"]["vm_id"] = json!(vm);
    Ok(filter)
}

/// Each of two filters in one chain steers the requests to its own cluster, and takes nothing from the other's.
async fn each_steers_its_own(name: &str, vm: &str) -> Result<()> {
    let api = Backend::start_many(4, testbed::backend::Config::default()).await?;
    // Envoy alone knows the last two.
    let cluster = Cluster {
        prefix: "/api".to_owned(),
        ..Cluster::new("api", api.iter().map(Backend::address).collect(), Policy::evenkeel())
    };
    let scene = Stage {
        backends: 2,
        strangers: 2,
        proxy: envoy::Config {
            clusters: vec![cluster],
            filters: vec![for_api(&api[..2], name, vm)?],
            ..envoy::Config::default()
        },
        ..Stage::default()
    }
    .open()
    .await?;
    // In VMs of their own they learn of each other by the requests that go astray.
    scene.wave(2.0).await?;
    let web = scene.wave(2.0).await?;
    assert_eq!((web.summary.failed, web.strangers), (0, 0), "{:?}", web.received);
    let load = Load { path: "/api/x".to_owned(), ..scene.load(2.0) };
    assert_eq!(load.run().await?.summary().failed, 0);
    assert_eq!(received(&api)[2..], [0, 0], "{:?}", received(&api));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_filters_in_one_chain_each_steer_their_own() -> Result<()> {
    each_steers_its_own("second", "evenkeel").await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_filters_of_one_name_in_one_chain_each_steer_their_own() -> Result<()> {
    each_steers_its_own("evenkeel", "evenkeel").await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_filters_in_vms_of_their_own_each_steer_their_own() -> Result<()> {
    each_steers_its_own("second", "another").await
}
