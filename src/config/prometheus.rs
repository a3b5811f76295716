//! `prometheus`: how signals are asked for.

use core::time::Duration;

use hashbrown::HashSet;

use super::Prometheus;
use super::kinds::{duration_shown, forbidden_to_set, is_token};
use super::node::{Fields, Node};

const FIELDS: &[&str] = &["cluster", "authority", "path_prefix", "interval", "timeout", "headers"];

pub(super) const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
pub(super) const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);
pub(super) const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(10);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

const MOST_HEADERS: usize = 32;
const LONGEST_HEADER_VALUE: usize = 8 * 1024;
const AUTHORITY: &str = "host or host:port";
const HEADER_VALUE: &str = "visible characters, at most 8192 bytes, no line breaks, no blanks around them";

pub(super) fn read(node: &Node) -> Prometheus {
    let fields = node.fields(FIELDS);
    let cluster = fields.require("cluster", "the name of the Envoy cluster that reaches Prometheus");
    let cluster = cluster.and_then(|node| node.single_cluster()).unwrap_or_default();
    let interval = fields.read("interval", interval).unwrap_or(DEFAULT_INTERVAL);
    Prometheus {
        authority: fields.read("authority", authority).unwrap_or_else(|| cluster.clone()),
        cluster,
        path_prefix: fields.read("path_prefix", Node::path_prefix_or_empty).unwrap_or_default(),
        interval,
        timeout: timeout(&fields, interval),
        headers: fields.get("headers").map(|node| headers(&node.secret())).unwrap_or_default(),
    }
}

pub(super) fn interval(node: &Node) -> Option<Duration> {
    node.duration(SHORTEST_INTERVAL..=LONGEST_INTERVAL)
}

/// Half the interval where that is shorter than the default: an answer then never waits for the next question.
fn timeout(fields: &Fields, interval: Duration) -> Duration {
    let Some(node) = fields.get("timeout") else { return DEFAULT_TIMEOUT.min(interval / 2) };
    let timeout = node.duration(SHORTEST_TIMEOUT..=LONGEST_INTERVAL).unwrap_or(DEFAULT_TIMEOUT.min(interval));
    if timeout > interval {
        let longest = duration_shown(interval);
        node.refuse(&format!("at most {} ({longest})", fields.path_of("interval")), None);
    }
    timeout
}

fn authority(node: &Node) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(&byte);
    node.text_that(AUTHORITY, |text| (1..=255).contains(&text.len()) && text.bytes().all(plain))
}

fn headers(node: &Node) -> Vec<(String, String)> {
    let mut seen = HashSet::new();
    let mut read = Vec::new();
    for (given, value) in node.entries(MOST_HEADERS, "an object from header name to value") {
        let name = given.to_ascii_lowercase();
        if !is_token(&name) {
            value.refuse("under the name of an HTTP header", None);
        } else if !seen.insert(name.clone()) {
            value.refuse("each header once, in whichever case", None);
        } else if let Some(why) = why_not_sent(&name) {
            value.refuse(why, None);
        }
        read.push((name, value.text_that(HEADER_VALUE, is_header_value).unwrap_or_default()));
    }
    read
}

fn why_not_sent(name: &str) -> Option<&'static str> {
    match name {
        "authorization" | "cookie" | "proxy-authorization" => None,
        "host" => Some("$.prometheus.authority instead"),
        "accept-encoding" => Some("no accept-encoding: compressed answers are not read"),
        _ => forbidden_to_set(name).then_some("a header that does not frame the request"),
    }
}

fn is_header_value(text: &str) -> bool {
    let allowed = |c: char| !c.is_control() || c == '\t';
    text.len() <= LONGEST_HEADER_VALUE && text.trim() == text && text.chars().all(allowed)
}
