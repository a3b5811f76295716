//! Envoy's configuration as files.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::policy::STEERING_HEADER;
use super::{Cluster, Config, EndpointState, Filter, Policy};

/// The directory of the files and the addresses in them.
pub(super) struct Files {
    directory: PathBuf,
    listener: SocketAddr,
    admin: SocketAddr,
}

impl Files {
    pub(super) fn new(directory: &Path, listener: SocketAddr, admin: SocketAddr) -> Self {
        Self { directory: directory.to_owned(), listener, admin }
    }

    /// Writes all files; returns the path of the bootstrap.
    pub(super) fn write(&self, config: &Config, beside: SocketAddr) -> Result<PathBuf> {
        let mut clusters: Vec<Value> =
            config.clusters.iter().map(|cluster| self.cluster(cluster, config)).collect();
        for cluster in &config.clusters {
            if let Policy::ClusterHeader { .. } = cluster.policy {
                clusters.extend(cluster.endpoints.iter().map(|address| self.lone(cluster, *address, config)));
            }
        }
        clusters.extend(config.services.iter().map(|(name, address)| service(name, *address)));
        if config.admin_cluster {
            clusters.push(service("envoy_admin", self.admin));
        }
        let listeners: Vec<Value> = self.beside(config, beside).into_iter().collect();
        let mut bootstrap = json!({
            "node": { "id": "testbed", "cluster": "testbed" },
            "admin": { "address": socket(self.admin) },
            "static_resources": { "clusters": clusters, "listeners": listeners },
        });
        if config.discovered_filters {
            for filter in &config.filters {
                self.write_filter(filter)?;
            }
        }
        if config.dynamic {
            self.write_listener(config)?;
            for cluster in &config.clusters {
                self.write_endpoints(cluster)?;
            }
            merge(
                &mut bootstrap,
                &json!({ "dynamic_resources": { "lds_config": self.source("listeners.json") } }),
            );
        } else {
            let all: Vec<Value> = listeners.into_iter().chain([self.listener(config)]).collect();
            merge(&mut bootstrap, &json!({ "static_resources": { "listeners": all } }));
        }
        merge(&mut bootstrap, &config.extra);
        self.put("envoy.json", &bootstrap)
    }

    /// The second listener, which has no filters and never changes.
    fn beside(&self, config: &Config, address: SocketAddr) -> Option<Value> {
        let named = config.clusters.iter().find(|cluster| config.beside.as_ref() == Some(&cluster.name))?;
        let only = Cluster { prefix: "/".to_owned(), ..named.clone() };
        let config = Config { filters: Vec::new(), clusters: vec![only], ..config.clone() };
        let mut listener = Self::new(&self.directory, address, self.admin).listener(&config);
        merge(&mut listener, &json!({ "name": "beside" }));
        Some(listener)
    }

    pub(super) fn write_listener(&self, config: &Config) -> Result<PathBuf> {
        let mut listener = self.listener(config);
        merge(&mut listener, &json!({ "@type": "type.googleapis.com/envoy.config.listener.v3.Listener" }));
        self.put("listeners.json", &json!({ "resources": [listener] }))
    }

    pub(super) fn write_filter(&self, filter: &Filter) -> Result<PathBuf> {
        let kind = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
        let mut resource = filter.0.clone();
        merge(&mut resource, &json!({ "@type": kind }));
        self.put(&filter_file(filter), &json!({ "resources": [resource] }))
    }

    /// The filter for the chain: its configuration, or where Envoy discovers it.
    fn placed(&self, filter: &Filter, config: &Config) -> Value {
        if !config.discovered_filters {
            return filter.0.clone();
        }
        json!({
            "name": filter.name(),
            "config_discovery": {
                "config_source": self.source(&filter_file(filter)),
                "type_urls": [filter.0["typed_config"]["@type"]],
            },
        })
    }

    pub(super) fn write_endpoints(&self, cluster: &Cluster) -> Result<PathBuf> {
        let members: Vec<EndpointState> = cluster.endpoints.iter().copied().map(EndpointState::new).collect();
        self.write_members(&cluster.name, &members)
    }

    pub(super) fn write_members(&self, cluster: &str, members: &[EndpointState]) -> Result<PathBuf> {
        let mut localities: BTreeMap<(u32, &str), Vec<Value>> = BTreeMap::new();
        for member in members {
            localities.entry((member.priority, &member.zone)).or_default().push(json!({
                "endpoint": { "address": socket(member.address) },
                "health_status": member.health,
                "load_balancing_weight": member.weight,
            }));
        }
        let locality = |((priority, zone), endpoints): (&(u32, &str), &Vec<Value>)| json!({ "priority": priority, "locality": { "zone": zone }, "lb_endpoints": endpoints });
        let localities: Vec<Value> = localities.iter().map(locality).collect();
        let mut assignment = json!({ "cluster_name": cluster, "endpoints": localities });
        let kind = json!({ "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment" });
        merge(&mut assignment, &kind);
        self.put(&endpoints_file(cluster), &json!({ "resources": [assignment] }))
    }

    /// Writes a file and moves it into place: Envoy reloads a watched file only when it is replaced by a move.
    fn put(&self, name: &str, value: &Value) -> Result<PathBuf> {
        let (path, draft) = (self.directory.join(name), self.directory.join(format!("{name}.draft")));
        fs::write(&draft, serde_json::to_vec_pretty(value)?)?;
        fs::rename(&draft, &path)?;
        Ok(path)
    }

    fn source(&self, file: &str) -> Value {
        json!({
            "resource_api_version": "V3",
            "path_config_source": { "path": self.directory.join(file) },
        })
    }

    fn listener(&self, config: &Config) -> Value {
        let mut filters: Vec<Value> =
            config.filters.iter().map(|filter| self.placed(filter, config)).collect();
        filters.push(json!({
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }));
        // The first matching prefix wins, so the longest come first.
        let mut clusters: Vec<&Cluster> = config.clusters.iter().collect();
        clusters.sort_by_key(|cluster| std::cmp::Reverse(cluster.prefix.len()));
        let routes: Vec<Value> = clusters.into_iter().flat_map(|cluster| routes(cluster, config)).collect();
        let early: Vec<Value> = config.stripped.iter().map(|header| json!({ "remove": header })).collect();
        let early = json!([{
            "name": "envoy.http.early_header_mutation.header_mutation",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.http.early_header_mutation\
                          .header_mutation.v3.HeaderMutation",
                "mutations": early,
            },
        }]);
        json!({
            "name": "ingress",
            "address": socket(self.listener),
            "filter_chains": [{ "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network\
                              .http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "ingress",
                    "codec_type": "AUTO",
                    "early_header_mutation_extensions": if config.stripped.is_empty() { json!([]) } else { early },
                    "access_log": if config.access_log.is_array() { config.access_log.clone() } else { json!([]) },
                    "upgrade_configs": [{ "upgrade_type": "websocket" }],
                    "route_config": {
                        "name": "routes",
                        "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }],
                    },
                    "http_filters": filters,
                },
            }] }],
        })
    }

    /// The cluster of a single endpoint, named by its address.
    fn lone(&self, cluster: &Cluster, address: SocketAddr, config: &Config) -> Value {
        let lone = Cluster { name: address.to_string(), endpoints: vec![address], ..cluster.clone() };
        self.cluster(&lone, &Config { dynamic: false, ..config.clone() })
    }

    fn cluster(&self, cluster: &Cluster, config: &Config) -> Value {
        let many = json!({ "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000,
                           "max_retries": 1_000 });
        let mut value = json!({
            "name": cluster.name,
            "connect_timeout": seconds(cluster.connect_timeout),
            "circuit_breakers": { "thresholds": [many] },
        });
        let discovery = if let Policy::OriginalDst { .. } = cluster.policy {
            json!({ "type": "ORIGINAL_DST" })
        } else if config.dynamic {
            json!({ "type": "EDS", "eds_cluster_config": { "eds_config": self.source(&endpoints_file(&cluster.name)) } })
        } else {
            json!({ "type": "STATIC", "load_assignment": assignment(&cluster.name, &cluster.endpoints) })
        };
        merge(&mut value, &discovery);
        merge(&mut value, &cluster.policy.members());
        merge(&mut value, &protocol(cluster));
        if let Some(path) = &cluster.health_check {
            merge(
                &mut value,
                &json!({ "health_checks": [{
                "timeout": "1s", "interval": "1s", "unhealthy_threshold": 3, "healthy_threshold": 1,
                "http_health_check": { "path": path },
            }] }),
            );
        }
        merge(&mut value, &cluster.extra);
        value
    }
}

/// HTTP version, and the upstream filter that removes the steering header.
fn protocol(cluster: &Cluster) -> Value {
    let version = if cluster.http2 { "http2_protocol_options" } else { "http_protocol_options" };
    let mut options = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { version: {} },
    });
    let mut filters: Vec<Value> = cluster.upstream_filters.iter().map(|filter| filter.0.clone()).collect();
    if let Some(header) = cluster.policy.hidden_header() {
        filters.push(json!({
            "name": "envoy.filters.http.header_mutation",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
                "mutations": { "request_mutations": [{ "remove": header }] },
            },
        }));
    }
    if !filters.is_empty() {
        filters.push(json!({
            "name": "envoy.filters.http.upstream_codec",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
            },
        }));
        merge(&mut options, &json!({ "http_filters": filters }));
    }
    json!({ "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options,
    } })
}

fn route(cluster: &Cluster, config: &Config) -> Value {
    let mut action = json!({ "cluster": cluster.name, "timeout": seconds(config.route_timeout) });
    if let Some((count, reasons)) = &config.retries {
        merge(&mut action, &json!({ "retry_policy": { "num_retries": count, "retry_on": reasons } }));
        merge(&mut action, &json!({ "retry_policy": config.retry_policy }));
    }
    if config.hedged {
        merge(&mut action, &json!({ "hedge_policy": { "hedge_on_per_try_timeout": true } }));
    }
    let mut route = json!({ "match": { "prefix": cluster.prefix }, "route": action });
    if let Policy::StatefulSession { header } = &cluster.policy {
        // The filter adds its header to a response if the host differs; clients need not see it.
        merge(&mut route, &json!({ "response_headers_to_remove": [header] }));
    } else {
        merge(&mut route, &json!({ "response_headers_to_remove": [STEERING_HEADER] }));
    }
    route
}

/// The routes of a cluster; for `cluster_header` the one that follows the header comes first.
fn routes(cluster: &Cluster, config: &Config) -> Vec<Value> {
    let plain = route(cluster, config);
    let Policy::ClusterHeader { header } = &cluster.policy else { return vec![plain] };
    let mut steered = plain.clone();
    steered["match"]["headers"] = json!([{ "name": header, "present_match": true }]);
    steered["route"]["cluster_header"] = json!(header);
    if let Some(action) = steered["route"].as_object_mut() {
        action.remove("cluster");
    }
    vec![steered, plain]
}

fn service(name: &str, address: SocketAddr) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": assignment(name, &[address]),
    })
}

fn assignment(cluster: &str, endpoints: &[SocketAddr]) -> Value {
    let endpoints: Vec<Value> =
        endpoints.iter().map(|&address| json!({ "endpoint": { "address": socket(address) } })).collect();
    json!({ "cluster_name": cluster, "endpoints": [{ "lb_endpoints": endpoints }] })
}

fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}s", duration.as_secs_f64())
}

fn filter_file(filter: &Filter) -> String {
    format!("filter-{}.json", filter.name())
}

fn endpoints_file(cluster: &str) -> String {
    format!("endpoints-{cluster}.json")
}

/// Merges objects member by member; other values replace what was there.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (into, from) => *into = from.clone(),
    }
}
