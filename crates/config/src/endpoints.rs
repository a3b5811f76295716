//! `upstreams[].endpoints`: one or more sources of endpoints.

use core::net::SocketAddr;

use hashbrown::HashMap;

use super::kinds::Bounds;
use super::node::{Fields, Node};
use super::prometheus::{DEFAULT_INTERVAL, interval};
use super::tree::Tree;
use super::upstream::Around;
use engine::settings::{EndpointQuery, Endpoints, EnvoyAdmin, StaticEndpoint};

/// The highest number of endpoints of an upstream, over all sources.
pub const MAX_ENDPOINTS: usize = 10_000;
const SOURCES: &[&str] = &["static", "prometheus", "envoy_admin"];
const QUERY: &[&str] = &["query", "address_label", "port", "zone_label", "version_label", "weight_label"];
const ALLOWED: &str = "at least one source: static, prometheus, envoy_admin";

#[inline(never)]
pub(super) fn read(parent: &Fields, around: &Around) -> Endpoints {
    let Some(node) = parent.require("endpoints", ALLOWED) else { return Endpoints::default() };
    let fields = node.fields(SOURCES);
    let endpoints = Endpoints {
        fixed: fields.get("static").map(|node| fixed(&node)).unwrap_or_default(),
        prometheus: fields.get("prometheus").map(|node| query(&node, around)),
        envoy_admin: fields.get("envoy_admin").map(|node| envoy_admin(&node, parent)),
    };
    if endpoints.prometheus.is_none() && endpoints.envoy_admin.is_none() {
        match fields.get("static") {
            None if matches!(node.tree(), Tree::Object(_)) => node.refuse(ALLOWED, None),
            Some(node) if matches!(node.tree(), Tree::Array(items) if items.is_empty()) => {
                node.refuse("at least one endpoint, or another source", None);
            }
            _ => {}
        }
    }
    endpoints
}

#[inline(never)]
fn fixed(node: &Node) -> Vec<StaticEndpoint> {
    // Positions in `paths`: this kind of map is in the filter anyway.
    let mut seen: HashMap<SocketAddr, usize> = HashMap::new();
    let mut paths: Vec<String> = Vec::new();
    let mut endpoints = Vec::new();
    for item in node.items(MAX_ENDPOINTS, "endpoints") {
        let Some((endpoint, address_at)) = endpoint(&item) else { continue };
        match seen.get(&endpoint.address).and_then(|at| paths.get(*at)) {
            Some(first) => address_at.refuse(&format!("each address once; it is also at {first}"), None),
            None => {
                seen.insert(endpoint.address, paths.len());
                paths.push(address_at.path().into());
            }
        }
        endpoints.push(endpoint);
    }
    endpoints
}

/// Reads an endpoint; also returns the node of its address.
#[inline(never)]
fn endpoint<'t>(node: &Node<'t>) -> Option<(StaticEndpoint, Node<'t>)> {
    let plain = |address| StaticEndpoint {
        address,
        weight: 1.0,
        zone: String::new(),
        priority: 0,
        version: String::new(),
    };
    match node.tree() {
        Tree::Text(_) => Some((plain(node.address()?), node.clone())),
        Tree::Object(_) => {
            let fields = node.fields(&["address", "weight", "zone", "priority", "version"]);
            let address_at = fields.require("address", "ip:port");
            let address = address_at.as_ref().and_then(Node::address);
            let weight = fields.read("weight", |node| node.number(Bounds::AboveUpTo(0.0, 1000.0)));
            let zone = fields.read("zone", Node::name_or_empty);
            let priority = fields.read("priority", |node| node.whole(0..=128));
            let version = fields.read("version", Node::name_or_empty);
            let endpoint = StaticEndpoint {
                weight: weight.unwrap_or(1.0),
                zone: zone.unwrap_or_default(),
                priority: priority.unwrap_or(0),
                version: version.unwrap_or_default(),
                ..plain(address?)
            };
            Some((endpoint, address_at?))
        }
        _ => {
            node.mistyped("\"ip:port\", or an object with \"address\"", None);
            None
        }
    }
}

#[inline(never)]
fn query(node: &Node, around: &Around) -> EndpointQuery {
    around.check_prometheus(node);
    let fields = node.fields(QUERY);
    let label = |name: &str, default: &str| fields.read(name, Node::label).unwrap_or_else(|| default.into());
    let query = fields.require("query", "PromQL whose answer has one sample an endpoint");
    EndpointQuery {
        query: query.and_then(|node| node.promql()).unwrap_or_default(),
        address_label: label("address_label", "instance"),
        port: fields.read("port", Node::port),
        zone_label: label("zone_label", "zone"),
        version_label: label("version_label", "version"),
        weight_label: label("weight_label", "weight"),
    }
}

#[inline(never)]
fn envoy_admin(node: &Node, upstream: &Fields) -> EnvoyAdmin {
    let of = upstream.get("cluster");
    if of.is_some_and(|cluster| matches!(cluster.tree(), Tree::Text(name) if name == "*")) {
        node.refuse("only where \"cluster\" names one: Envoy lists endpoints cluster by cluster", None);
    }
    let fields = node.fields(&["cluster", "interval", "locality_weights"]);
    let cluster = fields.require("cluster", "the name of the Envoy cluster that reaches the admin listener");
    EnvoyAdmin {
        cluster: cluster.and_then(|node| node.single_cluster()).unwrap_or_default(),
        interval: fields.read("interval", interval).unwrap_or(DEFAULT_INTERVAL),
        locality_weights: fields.read("locality_weights", Node::boolean).unwrap_or(true),
    }
}
