//! `upstreams[].affinity`: the source of the key for hashing policies and traffic splits.

use super::node::Node;
use super::tree::Tree;
use super::{Steering, cookie};
use crate::constraints::Constraint;
use engine::settings::Affinity;

const FIELDS: &[&str] = &["header", "cookie", "query", "query_parameter", "source_ip"];
const ALLOWED: &str = "exactly one of header, cookie, query (or query_parameter), source_ip";

#[inline(never)]
pub(super) fn read(node: &Node, steering: &Steering) -> Option<Affinity> {
    let fields = node.fields(FIELDS);
    let given: Vec<(&str, Node)> =
        FIELDS.iter().filter_map(|name| Some((*name, fields.get(name)?))).collect();
    match given.as_slice() {
        [] => {
            if matches!(node.tree(), Tree::Object(_)) {
                node.refuse(ALLOWED, None);
            }
            None
        }
        [first] => one(first, steering),
        [first, others @ ..] => {
            one(first, steering);
            for (_, value) in others {
                value.refuse(ALLOWED, None);
            }
            None
        }
    }
}

#[inline(never)]
fn one((name, value): &(&str, Node), steering: &Steering) -> Option<Affinity> {
    match *name {
        "header" => header(value, steering).map(Affinity::Header),
        "cookie" => cookie::read(value).map(Affinity::Cookie),
        "source_ip" => source_ip(value),
        _ => value.text_that("the name of a query parameter", is_parameter).map(Affinity::Query),
    }
}

fn header(node: &Node, steering: &Steering) -> Option<String> {
    let name = node.header_name()?;
    if name == steering.header {
        node.refuse("another header than $.steering.header, which is removed from every request", None);
    }
    Some(name)
}

fn source_ip(node: &Node) -> Option<Affinity> {
    node.ask(|| Constraint::True);
    match node.tree() {
        Tree::Boolean(true) => return Some(Affinity::SourceIp),
        Tree::Boolean(false) => node.refuse("true, or no source_ip at all", None),
        _ => node.mistyped("true", None),
    }
    None
}

/// Whether `text` can be a parameter's name in the raw query string, so without its separators.
fn is_parameter(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"&=#?".contains(&byte))
}
