//! The root of the configuration, and the entry points of the crate.

use super::fault::{Fault, Faults};
use super::node::{Fields, Node};
use super::tree::Tree;
use super::{
    Config, DebugHeader, Mode, Role, Status, Steering, Via, debug, form, guard, log, prometheus, steering,
    upstream,
};
use engine::settings::Upstream;

const MAX_UPSTREAMS: usize = 64;

const FIELDS: &[&str] = &[
    "role",
    "mode",
    "steering",
    "prometheus",
    "upstreams",
    "guard",
    "status",
    "envoy_stats",
    "debug",
    "attributes",
    "log",
];
const ROLES: &[(&str, Role)] = &[("downstream", Role::Downstream), ("upstream", Role::Upstream)];
pub(super) const MODES: &[(&str, Mode)] = &[("enforce", Mode::Enforce), ("observe", Mode::Observe)];

/// Reads `json` into a checked configuration, or returns all of its faults (the first hundred, then the number of the
/// others). Never panics, whatever the bytes are.
///
/// ```
/// let faults = config::parse(br#"{ "upstreams": [{ "cluster": "web", "polcy": "random" }] }"#).unwrap_err();
/// assert_eq!(faults[0].path, "$.upstreams[0].polcy");
/// assert_eq!(faults[0].hint.as_deref(), Some(r#"did you mean "policy"?"#));
/// assert_eq!(faults[1].path, "$.upstreams[0].endpoints");
/// ```
pub fn parse(json: &[u8]) -> Result<Config, Vec<Fault>> {
    let tree = form::read(json).map_err(|fault| vec![fault])?;
    let faults = Faults::default();
    let config = read(&Node::root(&tree, &faults));
    let list = faults.into_list();
    if list.is_empty() { Ok(config) } else { Err(list) }
}

/// The role of the filter in this configuration, before anything else in it is checked.
pub fn role(json: &[u8]) -> Role {
    let of = |tree: Tree| {
        let Tree::Object(members) = tree else { return None };
        let (_, role) = members.into_iter().find(|(name, _)| name == "role")?;
        matches!(role, Tree::Text(text) if text == "upstream").then_some(Role::Upstream)
    };
    form::read(json).ok().and_then(of).unwrap_or(Role::Downstream)
}

/// The parts of a refused configuration that have to work without it, as far as they can be read: the steering header,
/// the status page, and which clusters it is for.
pub fn legible(json: &[u8]) -> Legible {
    let Ok(tree) = form::read(json) else { return Legible::default() };
    let faults = Faults::default();
    let root = Node::root(&tree, &faults);
    if !matches!(root.tree(), Tree::Object(_)) {
        return Legible::default();
    }
    let fields = root.fields(FIELDS);
    let steering = fields.get("steering").map(|_| steering::read(&fields).header);
    let status = fields.read("status", read_status).filter(|status| status.path.len() > 1);
    let clusters = fields.get("upstreams").map(|node| clusters(node.tree())).unwrap_or_default();
    Legible { steering_header: steering, header_named: steering::names_header(&fields), status, clusters }
}

/// The clusters of the entries that say which.
fn clusters(upstreams: &Tree) -> Vec<String> {
    let Tree::Array(entries) = upstreams else { return Vec::new() };
    let members = entries.iter().filter_map(|entry| match entry {
        Tree::Object(members) => members.iter().find(|(name, _)| name == "cluster"),
        _ => None,
    });
    let named = members.filter_map(|(_, cluster)| match cluster {
        Tree::Text(text) => Some(text.clone()),
        _ => None,
    });
    named.take(MAX_UPSTREAMS).collect()
}

/// The readable parts of a refused configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Legible {
    /// The steering header, if `steering` is given.
    pub steering_header: Option<String>,
    /// Whether `steering.header` is given: the native module then writes that header instead of naming the endpoint by
    /// a call.
    pub header_named: bool,
    /// The status page.
    pub status: Option<Status>,
    /// The clusters and patterns of `upstreams`.
    pub clusters: Vec<String>,
}

/// Checks the configuration of the filter among upstream filters, which consists of its role alone.
pub fn parse_upstream(json: &[u8]) -> Result<(), Vec<Fault>> {
    let tree = form::read(json).map_err(|fault| vec![fault])?;
    let faults = Faults::default();
    let root = Node::root(&tree, &faults);
    root.fields(&["role"]).read("role", |node| node.one_of(ROLES));
    let list = faults.into_list();
    if list.is_empty() { Ok(()) } else { Err(list) }
}

#[inline(never)]
pub(super) fn read(node: &Node) -> Config {
    let fields = node.fields(FIELDS);
    fields.read("role", |node| {
        let role = node.one_of(ROLES)?;
        if role == Role::Upstream {
            node.refuse("\"downstream\", or nothing beside it", None);
        }
        Some(role)
    });
    let steering = steering::read(&fields);
    let prometheus = fields.get("prometheus").map(|node| prometheus::read(&node));
    Config {
        mode: fields.read("mode", |node| mode(node, steering.via)).unwrap_or(Mode::Enforce),
        upstreams: read_upstreams(
            &fields,
            &upstream::Around {
                steering: &steering,
                prometheus: prometheus.is_some(),
                guard: fields.get("guard").map(|node| guard::read(&node, steering.via)),
            },
        ),
        status: fields.read("status", read_status),
        envoy_stats: fields.read("envoy_stats", Node::boolean).unwrap_or(true),
        debug: fields.get("debug").and_then(|node| debug_header(&node, &steering)),
        attributes: fields.read("attributes", log::attributes).unwrap_or_default(),
        log: log::read(&fields),
        steering,
        prometheus,
    }
}

#[inline(never)]
fn mode(node: &Node, via: Via) -> Option<Mode> {
    let mode = node.one_of(MODES)?;
    if mode == Mode::Observe && via == Via::OriginalDst {
        let hint = "Envoy answers 503 without the header, so no request can be left to it";
        node.refuse("\"enforce\", as $.steering.via is \"original_dst\"", Some(hint.into()));
    }
    Some(mode)
}

/// Reads the debug header, which must differ from the steering header.
#[inline(never)]
fn debug_header(node: &Node, steering: &Steering) -> Option<DebugHeader> {
    let read = debug::read(node)?;
    let asking = read.asking.as_ref().map(|asking| &asking.header);
    for (field, name) in [("header", Some(&read.header)), ("ask", asking)] {
        if name == Some(&steering.header)
            && let Some(node) = node.child(field)
        {
            node.refuse("another header than $.steering.header", None);
        }
    }
    Some(read)
}

#[inline(never)]
fn read_upstreams(fields: &Fields, around: &upstream::Around) -> Vec<Upstream> {
    let allowed = format!("an array of 1 to {MAX_UPSTREAMS} upstreams");
    let Some(node) = fields.require("upstreams", &allowed) else { return Vec::new() };
    if matches!(node.tree(), Tree::Array(items) if items.is_empty()) {
        node.refuse(&allowed, None);
    }
    let nodes = node.items(MAX_UPSTREAMS, "upstreams");
    let upstreams: Vec<Upstream> = nodes.iter().map(|node| upstream::read(node, around)).collect();
    for (index, upstream) in upstreams.iter().enumerate() {
        let first = upstreams.iter().position(|other| other.cluster == upstream.cluster).unwrap_or(index);
        if first < index
            && !upstream.cluster.is_empty()
            && let Some(cluster) = nodes.get(index).and_then(|node| node.clone().child("cluster"))
        {
            cluster
                .refuse(&format!("each cluster once; it is also at {}[{first}].cluster", node.path()), None);
        }
    }
    upstreams
}

#[inline(never)]
fn read_status(node: &Node) -> Option<Status> {
    let path = node.fields(&["path"]).require("path", "a path such as \"/_evenkeel\"")?;
    Some(Status { path: path.path_prefix()? })
}
