//! `prometheus`: how Prometheus is queried.

use core::time::Duration;

use hashbrown::HashSet;

use super::kinds::{duration_shown, forbidden_to_set, is_token};
use super::node::{Fields, Node};
use super::tree::Tree;
use super::{HeaderValue, Prometheus, QueryMethod};

const FIELDS: &[&str] =
    &["cluster", "authority", "path_prefix", "interval", "timeout", "method", "headers", "parameters"];
pub(super) const METHODS: &[(&str, QueryMethod)] =
    &[("auto", QueryMethod::Auto), ("GET", QueryMethod::Get), ("POST", QueryMethod::Post)];

pub(super) const MIN_INTERVAL: Duration = Duration::from_millis(100);
pub(super) const MAX_INTERVAL: Duration = Duration::from_secs(3600);
pub(super) const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
const MIN_TIMEOUT: Duration = Duration::from_millis(10);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

const MAX_HEADERS: usize = 32;
const MAX_HEADER_VALUE: usize = 8 * 1024;
const MAX_PARAMETERS: usize = 32;
const MAX_PARAMETER: usize = 1024;
const MAX_VARIABLE: usize = 128;
const PARAMETER: &str = "a value of at most 1024 bytes";
const VARIABLE: &str = "the name of an environment variable, [a-zA-Z_][a-zA-Z0-9_]*, at most 128 bytes";
const AUTHORITY: &str = "host or host:port";
const PREFIX: &str = "visible characters, at most 8192 bytes, no line breaks";
const HEADER_VALUE: &str = "visible characters, at most 8192 bytes, no line breaks, no blanks around them";

#[inline(never)]
pub(super) fn read(node: &Node) -> Prometheus {
    let fields = node.fields(FIELDS);
    let cluster = fields.require("cluster", "the name of the Envoy cluster that reaches Prometheus");
    let cluster = cluster.and_then(|node| node.single_cluster()).unwrap_or_default();
    let interval = fields.read("interval", interval).unwrap_or(DEFAULT_INTERVAL);
    Prometheus {
        authority: authority(&fields, &cluster),
        cluster,
        path_prefix: fields.read("path_prefix", Node::path_prefix_or_empty).unwrap_or_default(),
        interval,
        timeout: timeout(&fields, interval),
        method: fields.read("method", |node| node.one_of(METHODS)).unwrap_or_default(),
        headers: fields.get("headers").map(|node| headers(&node.secret())).unwrap_or_default(),
        parameters: fields.get("parameters").map(|node| parameters(&node.secret())).unwrap_or_default(),
    }
}

pub(super) fn interval(node: &Node) -> Option<Duration> {
    node.duration(MIN_INTERVAL..=MAX_INTERVAL)
}

/// The default is half the interval at most, so that a response never delays the next poll.
fn timeout(fields: &Fields, interval: Duration) -> Duration {
    let Some(node) = fields.get("timeout") else { return DEFAULT_TIMEOUT.min(interval / 2) };
    let timeout = node.duration(MIN_TIMEOUT..=MAX_INTERVAL).unwrap_or(DEFAULT_TIMEOUT.min(interval));
    if timeout > interval {
        let longest = duration_shown(interval);
        node.refuse(&format!("at most {} ({longest})", fields.path_of("interval")), None);
    }
    timeout
}

/// The default is the cluster's name, if that can be a host: Envoy's generated names such as
/// `outbound|9090||prometheus.monitoring` cannot, and servers answer 400 to them.
#[inline(never)]
fn authority(fields: &Fields, cluster: &str) -> String {
    let Some(node) = fields.get("authority") else {
        if !cluster.bytes().all(in_a_host_header) {
            fields.report_missing(
                "authority",
                "host or host:port of Prometheus, because the cluster's name is not a host name, and servers answer 400",
            );
        }
        return cluster.to_owned();
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(&byte);
    let fits = |text: &str| (1..=255).contains(&text.len()) && text.bytes().all(plain);
    if matches!(node.tree(), Tree::Text(text) if text.contains('@')) {
        node.clone()
            .secret()
            .refuse(&format!("{AUTHORITY}; credentials go into {}", fields.path_of("headers")), None);
        return String::new();
    }
    node.text_that(AUTHORITY, fits).unwrap_or_default()
}

/// Whether servers accept the byte in a `Host` header (RFC 3986, 3.2.2): unreserved, percent, sub-delims, and the
/// delimiters of IPv6 addresses and ports.
fn in_a_host_header(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}

#[inline(never)]
fn parameters(node: &Node) -> Vec<(String, String)> {
    let mut read = Vec::new();
    for (name, value) in node.entries(MAX_PARAMETERS, "an object from parameter name to value") {
        match name {
            "" => value.refuse("under the name of a parameter", None),
            "query" | "time" | "timeout" => value.refuse("another parameter: evenkeel sets this one", None),
            _ => {}
        }
        let fits = |text: &str| text.len() <= MAX_PARAMETER && !text.chars().any(char::is_control);
        read.push((name.to_owned(), value.text_that(PARAMETER, fits).unwrap_or_default()));
    }
    read
}

#[inline(never)]
fn headers(node: &Node) -> Vec<(String, HeaderValue)> {
    let mut seen = HashSet::new();
    let mut read = Vec::new();
    for (given, value) in node.entries(MAX_HEADERS, "an object from header name to value") {
        let name = given.to_ascii_lowercase();
        if !is_token(&name) {
            value.refuse("under the name of an HTTP header", None);
        } else if !seen.insert(name.clone()) {
            value.refuse("each header once, in whichever case", None);
        } else if let Some(why) = why_not_sent(&name) {
            value.refuse(why, None);
        }
        read.push((name, header_value(&value)));
    }
    read
}

/// Reads a value, or the name of the environment variable that holds it.
#[inline(never)]
fn header_value(node: &Node) -> HeaderValue {
    if !matches!(node.tree(), Tree::Object(_)) {
        return HeaderValue::Given(node.text_that(HEADER_VALUE, is_header_value).unwrap_or_default());
    }
    let fields = node.fields(&["env", "prefix"]);
    let variable = fields.require("env", VARIABLE).and_then(|node| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        node.text_that(VARIABLE, |text| {
            (1..=MAX_VARIABLE).contains(&text.len())
                && text.bytes().all(plain)
                && !text.starts_with(|first: char| first.is_ascii_digit())
        })
    });
    let begins = |text: &str| text.len() <= MAX_HEADER_VALUE && is_header_value(text.trim_end());
    HeaderValue::Environment {
        variable: variable.unwrap_or_default(),
        prefix: fields.read("prefix", |node| node.text_that(PREFIX, begins)).unwrap_or_default(),
    }
}

fn why_not_sent(name: &str) -> Option<&'static str> {
    match name {
        "authorization" | "cookie" | "proxy-authorization" => None,
        "host" => Some("$.prometheus.authority instead"),
        "accept-encoding" => Some("no accept-encoding: compressed answers are not read"),
        _ => forbidden_to_set(name).then_some("a header that does not frame the request"),
    }
}

/// Whether `text` can be the value of a header.
pub fn is_header_value(text: &str) -> bool {
    let allowed = |c: char| !c.is_control() || c == '\t';
    text.len() <= MAX_HEADER_VALUE && text.trim() == text && text.chars().all(allowed)
}
