//! `debug`: a response header with the request's decision, for clients that may ask for it.

use super::kinds::forbidden_to_set;
use super::node::{Fields, Node};
use super::{Asking, DebugHeader};

pub(super) const HEADER: &str = "x-evenkeel-decision";
pub(super) const ASK: &str = "x-evenkeel-debug";
pub(super) const WHEN: &[(&str, bool)] = &[("asked", false), ("always", true)];

/// The shortest secret, characters: too long to be guessed by trying.
const MIN_SECRET: usize = 8;
const MAX_SECRET: usize = 256;
const SECRET: &str = "8 to 256 ASCII characters without blanks around them";

#[inline(never)]
pub(super) fn read(node: &Node) -> Option<DebugHeader> {
    let fields = node.fields(&["header", "when", "ask", "secret"]);
    let always = fields.read("when", |node| node.one_of(WHEN)).unwrap_or(false);
    let header = fields.read("header", header).unwrap_or_else(|| HEADER.into());
    let ask = fields.read("ask", header_to_ask).unwrap_or_else(|| ASK.into());
    let secret = fields.get("secret").map(|node| node.secret());
    let read = secret.as_ref().and_then(|node| node.text_that(SECRET, is_secret));
    match (secret, always) {
        (None, false) => {
            let instead = format!("{SECRET}, or {} \"always\"", fields.path_of("when"));
            fields.report_missing("secret", &instead);
        }
        (Some(node), true) => node.refuse(&without(&fields), None),
        _ => {}
    }
    if always && let Some(node) = fields.get("ask") {
        node.refuse(&without(&fields), None);
    }
    Some(DebugHeader {
        header,
        asking: (!always).then(|| Asking { header: ask, secret: read.unwrap_or_default() }),
    })
}

fn without(fields: &Fields) -> String {
    format!("nothing beside {} \"always\"", fields.path_of("when"))
}

fn is_secret(text: &str) -> bool {
    (MIN_SECRET..=MAX_SECRET).contains(&text.len())
        && text.trim() == text
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn header(node: &Node) -> Option<String> {
    let name = node.header_name()?;
    if forbidden_to_set(&name) {
        node.refuse("a header that nothing else needs, such as \"x-evenkeel-decision\"", None);
    }
    Some(name)
}

fn header_to_ask(node: &Node) -> Option<String> {
    let name = node.header_name()?;
    if forbidden_to_set(&name) {
        let why = "it is removed from every incoming request";
        node.refuse("a header that nothing else needs, such as \"x-evenkeel-debug\"", Some(why.into()));
    }
    Some(name)
}
