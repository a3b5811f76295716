//! `upstreams[].health.probe`: the filter's own requests to suspect, ejected, slow and silent endpoints.

use core::time::Duration;

use super::Via;
use super::kinds::duration_shown;
use super::node::{Fields, Node};
use engine::pattern;
use engine::settings::Probe;

const FIELDS: &[&str] = &["path", "authority", "interval", "timeout"];
const MIN_INTERVAL: Duration = Duration::from_millis(100);
const MAX_INTERVAL: Duration = Duration::from_secs(3600);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
const MIN_TIMEOUT: Duration = Duration::from_millis(10);
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
const PATH: &str = "the path of a GET, from \"/\" on, at most 1024 visible ASCII characters";
const MAX_PATH: usize = 1024;

/// The probed cluster, and how its requests are steered.
pub(super) struct Probed<'a> {
    pub cluster: &'a str,
    pub via: Via,
    /// Whether each cluster that a pattern matches becomes an upstream of its own.
    pub expands: bool,
}

#[inline(never)]
pub(super) fn read(node: &Node, Probed { cluster, via, expands }: Probed) -> Option<Probe> {
    if via == Via::StatefulSession {
        let hint = "a probe names its endpoint in the steering header, which the cluster does not read there";
        node.refuse("no probe with $.steering.via \"stateful_session\"", Some(hint.into()));
    } else if (cluster == "*" || pattern::is_pattern(cluster)) && !expands && via != Via::ClusterHeader {
        let hint = "probes need the name of one cluster; with endpoints.envoy_admin, each matching cluster gets its own";
        node.refuse("no probe for a pattern of clusters", Some(hint.into()));
    }
    let fields = node.fields(FIELDS);
    let path = fields.require("path", PATH);
    let interval = fields.read("interval", |node| node.duration(MIN_INTERVAL..=MAX_INTERVAL));
    let interval = interval.unwrap_or(DEFAULT_INTERVAL);
    Some(Probe {
        path: path.and_then(|node| node.text_that(PATH, is_path)).unwrap_or_default(),
        authority: fields.read("authority", authority),
        timeout: timeout(&fields, interval),
        interval,
    })
}

fn is_path(text: &str) -> bool {
    text.len() <= MAX_PATH && text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn authority(node: &Node) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(&byte);
    node.text_that("host or host:port, at most 255 characters", |text| {
        (1..=255).contains(&text.len()) && text.bytes().all(plain)
    })
}

fn timeout(fields: &Fields, interval: Duration) -> Duration {
    let Some(node) = fields.get("timeout") else { return DEFAULT_TIMEOUT.min(interval) };
    let timeout = node.duration(MIN_TIMEOUT..=MAX_TIMEOUT).unwrap_or(DEFAULT_TIMEOUT.min(interval));
    if timeout > interval {
        let longest = duration_shown(interval);
        node.refuse(&format!("at most {} ({longest})", fields.path_of("interval")), None);
    }
    timeout
}
