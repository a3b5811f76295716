//! `upstreams[].affinity.cookie`: a name, or an object that also says how the cookie is set.

use core::time::Duration;

use super::kinds::is_token;
use super::node::Node;
use super::tree::Tree;
use engine::settings::{Cookie, SameSite};

const FIELDS: &[&str] = &["name", "set", "ttl", "path", "secure", "same_site"];
pub(super) const SAME_SITES: &[(&str, SameSite)] =
    &[("strict", SameSite::Strict), ("lax", SameSite::Lax), ("none", SameSite::None)];
/// The longest lifetime of a cookie: browsers shorten it to this (RFC 6265bis, 5.5).
const MAX_TTL: Duration = Duration::from_secs(400 * 86_400);
const MAX_PATH: usize = 256;

#[inline(never)]
pub(super) fn read(node: &Node) -> Option<Cookie> {
    if !matches!(node.tree(), Tree::Object(_)) {
        return name(node).map(|name| Cookie::named(&name));
    }
    let fields = node.fields(FIELDS);
    let name = fields.require("name", "a cookie's name").and_then(|node| name(&node));
    let default = Cookie::named(&name.unwrap_or_default());
    let cookie = Cookie {
        set: fields.read("set", Node::boolean).unwrap_or(true),
        ttl: fields.read("ttl", |node| node.duration(Duration::ZERO..=MAX_TTL)).unwrap_or_default(),
        path: fields.read("path", path).unwrap_or(default.path),
        secure: fields.read("secure", Node::boolean).unwrap_or(false),
        same_site: fields.read("same_site", |node| node.one_of(SAME_SITES)),
        name: default.name,
    };
    if cookie.same_site == Some(SameSite::None)
        && !cookie.secure
        && let Some(node) = fields.get("same_site")
    {
        node.refuse(
            &format!("\"none\" only with {} true: browsers drop it otherwise", fields.path_of("secure")),
            None,
        );
    }
    Some(cookie)
}

fn name(node: &Node) -> Option<String> {
    node.text_that("a cookie's name", is_token)
}

/// Reads the value of a `Path` attribute (RFC 6265, 4.1.1), which browsers want to begin with `/`.
fn path(node: &Node) -> Option<String> {
    let plain = |byte: u8| (b'!'..=b'~').contains(&byte) && byte != b';' && byte != b',';
    node.text_that("a path such as \"/\", without blanks, commas and semicolons", |text| {
        text.starts_with('/') && text.len() <= MAX_PATH && text.bytes().all(plain)
    })
}
