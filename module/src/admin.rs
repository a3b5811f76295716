//! Envoy's admin interface, which no listener exposes: the resources of each plugin's status page, whether or not its
//! configuration has a `status` path. Envoy sends all of them as plain text, so in place of the page is an index.

use std::sync::Arc;

use evenkeel::discovery::percent::encode;
use evenkeel::telemetry::status::Route;

use crate::abi::ExtensionHandle;
use crate::host::{self, Reader};
use crate::plugin::Plugin;
use crate::registry;

/// Envoy answers this path with any query, and no path below it.
const PATH: &str = "/evenkeel";
const HELP: &str = "evenkeel: endpoints, configuration and metrics of each plugin";
/// Values of the query's `format`.
const FORMATS: [(&str, Route); 3] =
    [("json", Route::Json), ("config", Route::Config), ("prometheus", Route::Metrics)];

/// The extension's own configuration, which has no members.
pub fn configure(text: &[u8]) {
    if !text.is_empty() {
        host::log(log::Level::Warn, "evenkeel: extension_config of the bootstrap extension is ignored");
    }
}

/// Asks for requests, once Envoy's admin interface is there.
pub fn register(extension: ExtensionHandle) {
    if !extension.answer_admin(PATH, HELP) {
        host::log(
            log::Level::Warn,
            "evenkeel: nothing at /evenkeel of Envoy's admin interface: there is none, or the path is taken",
        );
    }
}

/// The status and the body for a request.
pub fn answer(method: &[u8], path: &[u8]) -> (u32, Vec<u8>) {
    let fault = |status: u32, what: &str| (status, format!("{what}\n").into_bytes());
    if !matches!(method, b"GET" | b"HEAD") {
        return fault(405, "only GET and HEAD");
    }
    let query = path.split(|byte| *byte == b'?').nth(1).unwrap_or_default();
    let of = |name: &[u8]| query.split(|byte| *byte == b'&').find_map(|part| part.strip_prefix(name));
    let plugins = registry::in_use();
    let Some(format) = of(b"format=") else { return (200, index(&plugins).into_bytes()) };
    let Some((_, route)) = FORMATS.iter().find(|(name, _)| name.as_bytes() == format) else {
        return fault(400, "unknown format, allowed: json, config, prometheus");
    };
    let is = |given: Option<&[u8]>, own: &str| given.is_none_or(|given| given == encode(own).as_bytes());
    let (name, cluster) = (of(b"plugin="), of(b"cluster="));
    let mut found = plugins.iter().filter(|plugin| is(name, &plugin.name));
    let latest = found.clone().next();
    let several = found.clone().any(|plugin| latest.is_none_or(|latest| plugin.name != latest.name));
    let plugin = found.find(|plugin| cluster.is_none() || plugin.clusters().any(|own| is(cluster, own)));
    match plugin.filter(|_| !several).map(|plugin| plugin.status(&Reader, *route)) {
        Some(Some(answer)) => (answer.status, answer.body),
        Some(None) => fault(503, "the plugin stands aside, see Envoy's log"),
        None => fault(404, "no such plugin, or several: /evenkeel lists them"),
    }
}

/// What can be asked for; plugins of one name are told apart by a cluster.
fn index(plugins: &[Arc<Plugin>]) -> String {
    let mut index = String::new();
    for (at, plugin) in plugins.iter().enumerate() {
        let alone = plugins.iter().filter(|other| other.name == plugin.name).count() == 1;
        let later = || plugins.iter().take(at).filter(|later| later.name == plugin.name);
        let own = |cluster: &&str| !later().any(|later| later.clusters().any(|other| other == *cluster));
        let cluster = plugin.clusters().find(own).filter(|_| !alone);
        let cluster = cluster.map(|cluster| format!("&cluster={}", encode(cluster))).unwrap_or_default();
        let name = encode(&plugin.name);
        for (format, _) in FORMATS {
            index += &format!("{PATH}?format={format}&plugin={name}{cluster}\n");
        }
    }
    index
}
