//! A proxy's configuration as Istio and Envoy Gateway make it, reduced to what the manifests affect.

use std::net::SocketAddr;

use serde_json::{Value, json};
use testbed::anyhow::{Context, Result, ensure};

use super::Shipped;
use crate::envoy;

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
pub const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// Addresses and files of the set-up.
#[derive(Clone, Debug)]
pub struct Place {
    pub ingress: SocketAddr,
    pub admin: SocketAddr,
    pub endpoints: Vec<SocketAddr>,
    pub prometheus: SocketAddr,
}

impl Default for Place {
    /// Values that are good enough for loading; nothing listens there.
    fn default() -> Self {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Place {
            ingress: at(15001),
            admin: at(15000),
            endpoints: vec![at(8080), at(8081)],
            prometheus: at(9090),
        }
    }
}

pub fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

/// A cluster with static members, in place of one whose members come from the control plane.
pub fn cluster(name: &str, members: &[SocketAddr]) -> Value {
    let members: Vec<Value> =
        members.iter().map(|member| json!({ "endpoint": { "address": socket(*member) } })).collect();
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": members }] }
    })
}

/// A proxy with one route to `web`, these clusters and these HTTP filters before the router.
pub fn bootstrap(place: &Place, route: &Value, filters: &[Value], clusters: &[Value]) -> Value {
    let mut filters = filters.to_vec();
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" }
    }));
    json!({
        "admin": { "address": socket(place.admin) },
        "static_resources": {
            "listeners": [{
                "name": "listener",
                "address": socket(place.ingress),
                "filter_chains": [{ "filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": HCM,
                        "stat_prefix": "http",
                        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
                        "http_filters": filters
                    }
                }] }]
            }],
            "clusters": clusters
        }
    })
}

/// The plugin's filter, loaded from a file instead of a registry.
pub fn plugin(name: &str, root_id: &str, vm_id: &str, configuration: &Value, failure_policy: &str) -> Value {
    json!({
        "@type": WASM,
        "config": {
            "name": name,
            "root_id": root_id,
            "failure_policy": failure_policy,
            "vm_config": {
                "vm_id": vm_id,
                "runtime": "envoy.wasm.runtime.v8",
                "code": { "local": { "filename": envoy::IN_CONTAINER } }
            },
            "configuration": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": configuration.to_string()
            }
        }
    })
}

/// Asserts that the real Envoy loads the file's proxy configuration, including the filter, without a warning.
pub fn loads(file: &Shipped, config: &Value) -> Result<()> {
    let said = envoy::validate(&config.to_string()).with_context(|| file.name())?;
    ensure!(said.contains("OK") && !said.to_lowercase().contains("deprecated"), "{}: {said}", file.name());
    Ok(())
}
