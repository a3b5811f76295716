//! The zone of this proxy, and the settings that depend on it.

use crate::host::Host;
use crate::host::event::{Event, Field};
use config::{Config, Via};

/// The name in the configuration that stands for the zone of the proxy's own node.
const OF_THE_NODE: &str = "node";

/// Replaces `node` by the zone of the proxy's node, and logs what stays unknown about localities.
#[inline(never)]
pub(super) fn resolve(host: &dyn Host, config: &mut Config) {
    let mut unknown = false;
    for upstream in &mut config.upstreams {
        let Some(zone) = upstream.zone.as_mut().filter(|zone| zone.local == OF_THE_NODE) else { continue };
        match host.node_zone() {
            Some(local) => zone.local = local,
            None => {
                upstream.zone = None;
                unknown = true;
            }
        }
    }
    if unknown {
        host.log_event(&Event {
            level: log::Level::Warn,
            name: "node_zone_unknown",
            message: "configuration: zone.local is \"node\", but the proxy's node.locality has no zone: zones are not used",
            fields: &[],
        });
    }
    log_unweighted(host, config);
}

/// Logs which upstreams' locality weights are unknown: only Envoy's admin interface tells them.
#[inline(never)]
fn log_unweighted(host: &dyn Host, config: &Config) {
    if !matches!(config.steering.via, Via::OverrideHost | Via::StatefulSession) {
        return;
    }
    let unasked = config.upstreams.iter().filter(|u| u.endpoints.envoy_admin.is_none());
    let names: Vec<String> = unasked.take(4).map(|u| format!("{:?}", u.cluster)).collect();
    if let Some((first, rest)) = names.split_first() {
        let mut names = first.clone();
        rest.iter().take(2).for_each(|name| names = format!("{names}, {name}"));
        if rest.len() > 2 {
            names.push_str(", …");
        }
        host.log_event(&Event {
            level: log::Level::Info,
            name: "locality_weights_not_asked",
            message: &format!(
                "discovery: upstreams {names} have no endpoints.envoy_admin: locality weights of their clusters, such as a \
                 canary's, are unknown and ignored"
            ),
            fields: &[("upstreams", Field::Text(&names))],
        });
    }
}
