//! What a cluster's own policy does and steering bypasses: hosts chosen by a route's metadata, and the proxy's own zone
//! first. Envoy's stats show both. Requests to a cluster with subsets are left to Envoy: one for a version, or for a tenant,
//! must not reach another's endpoints. The preference for a zone is lost, and the log and the status page say so.

use core::time::Duration;

use super::{AUTHORITY, AdminTarget, MAX_PATH};
use crate::discovery::envoy_admin;
use crate::discovery::found::Found;
use crate::discovery::sources::Discovery;
use crate::host::event::{Event, Field};
use crate::host::{Body, Call, Host};
use engine::rng;
use engine::time::Time;

/// The interval between polls, seconds. A cluster's policy rarely changes.
const EVERY_S: f64 = 300.0;
/// The timeout of a poll.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The longest answer that is read, bytes; three short lines for each cluster are expected.
const MAX_ANSWER: usize = 256 << 10;

/// What steering bypasses in one cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bypassed {
    /// Subsets of hosts by metadata.
    pub subsets: bool,
    /// Zone-aware routing.
    pub zone_aware: bool,
}

impl Bypassed {
    /// As a byte for shared data.
    pub fn to_byte(self) -> u8 {
        u8::from(self.subsets) | u8::from(self.zone_aware) << 1
    }

    /// From such a byte.
    pub fn from_byte(byte: u8) -> Bypassed {
        Bypassed { subsets: byte & 1 > 0, zone_aware: byte & 2 > 0 }
    }

    /// Names in JSON.
    pub fn names(self) -> Vec<&'static str> {
        let named = [(self.subsets, "subsets"), (self.zone_aware, "zone_aware")];
        named.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect()
    }
}

/// The key under which the lease holder publishes what is bypassed in an upstream.
pub(crate) fn key(prefix: &str, upstream: u64) -> String {
    format!("{prefix}/bypassed/{upstream:x}")
}

/// A cluster's name as stats have it.
pub(super) fn in_stats(name: &str) -> String {
    name.replace(':', "_")
}

/// Whether endpoints of one priority are in several zones.
pub(super) fn are_in_several_zones(found: &[Found]) -> bool {
    let Some(first) = found.first() else { return false };
    found.iter().any(|found| found.zone != first.zone && found.priority == first.priority)
}

impl AdminTarget {
    /// Asks Envoy for the stats of clusters whose hosts are known, if that is due.
    #[inline(never)]
    pub(super) fn ask_for_policies(&mut self, host: &dyn Host, now: Time) {
        let waits_s = TIMEOUT.as_secs_f64();
        if !self.policies.is_due(waits_s, now) {
            return;
        }
        let (mut length, mut covered) = (0, Vec::new());
        for (at, of) in self.clusters.iter().enumerate().filter(|(_, of)| of.hosts > 0) {
            length += 4 * of.stat_name.len();
            if length <= MAX_PATH {
                covered.push(at);
            }
        }
        if covered.is_empty() {
            return;
        }
        let names: Vec<&str> =
            covered.iter().filter_map(|at| Some(self.clusters.get(*at)?.stat_name.as_str())).collect();
        let path = envoy_admin::policies_path(&names);
        (self.policies.sent, self.policies.due) = (now, now.after_secs(EVERY_S));
        self.policies.covered = covered;
        let (cluster, authority) = (&*self.cluster, AUTHORITY);
        let call = Call { cluster, authority, path: &path, headers: &[], form: None, timeout: TIMEOUT };
        // A target that cannot be asked is logged for its hosts.
        self.policies.pending = host.call(&call).ok();
    }

    /// Takes Envoy's stats: logs what is bypassed, and publishes it under keys with this prefix. Returns the upstreams whose
    /// requests are left to Envoy from now on, or no longer.
    #[inline(never)]
    pub(super) fn receive_policies(
        &mut self,
        host: &dyn Host,
        (discovery, prefix): (&mut Discovery, &str),
        (status, body): (Option<u32>, &dyn Body),
    ) -> Vec<usize> {
        let mut changed = Vec::new();
        self.policies.pending = None;
        self.policies.rest(host.now());
        if status != Some(200) || body.size() > MAX_ANSWER {
            return changed;
        }
        let text = body.part(0, body.size());
        let stats = envoy_admin::Policies::read(&text);
        for at in core::mem::take(&mut self.policies.covered) {
            let Some(of) = self.clusters.get_mut(at) else { continue };
            let found = stats.of(&of.stat_name);
            let now = Bypassed {
                subsets: found.subsets,
                zone_aware: found.zone_aware && of.zones && !of.heeds_zone,
            };
            if discovery.set_subsets(of.upstream, now.subsets) {
                changed.push(of.upstream);
            }
            let key = key(prefix, rng::hash(of.name.as_bytes()));
            // What another leader has said is not said again.
            let before = host.shared_get(&key).and_then(|(bytes, _)| bytes.first().copied());
            let before = before.map_or_else(Bypassed::default, Bypassed::from_byte);
            if now == before {
                continue;
            }
            let _the_log_says_it_too = host.shared_set(&key, &[now.to_byte()], None);
            if now.subsets && !before.subsets {
                let what = "Envoy divides its hosts into subsets by metadata, which steering would pass over: its requests are left \
                            to Envoy's own policy; give each subset a cluster of its own";
                log(host, &of.name, "subsets_bypassed", what);
            }
            if now.zone_aware && !before.zone_aware {
                let what = "Envoy prefers its own zone (zone-aware routing), and steering uses all zones alike: set zone.local, \
                            \"node\" for the proxy's own";
                log(host, &of.name, "zone_aware_bypassed", what);
            }
        }
        changed
    }
}

#[inline(never)]
fn log(host: &dyn Host, cluster: &str, name: &'static str, what: &str) {
    host.log_event(&Event {
        level: log::Level::Warn,
        name,
        message: &format!("steering: cluster={cluster}: {what}"),
        fields: &[("upstream", Field::Text(cluster))],
    });
}
