//! What a cluster's own policy does and steering bypasses: hosts chosen by a route's metadata, and the proxy's own zone
//! first. Envoy's stats show both. Requests to a cluster with subsets are left to Envoy: one for a version, or for a tenant,
//! must not reach another's endpoints. The preference for a zone is lost, and the log and the status page say so.

use core::time::Duration;

use super::pace::Pace;
use super::{AdminTarget, MAX_PATH, Poll};
use crate::discovery::envoy_admin;
use crate::discovery::found::Found;
use crate::discovery::sources::Discovery;
use crate::host::event::{Event, Field};
use crate::host::{Body, Host};
use engine::time::Time;
use engine::{order, rng};

/// The interval between polls, seconds. A cluster's policy rarely changes.
const EVERY_S: f64 = 300.0;
/// The pause after a poll that says nothing of a cluster, seconds; it doubles up to [`EVERY_S`].
const RETRY_S: f64 = 5.0;
/// The highest number of clusters in one poll.
const CLUSTERS_AT_A_TIME: usize = 500;
/// The number of answers in a row without subsets after which a cluster that had some is steered again.
const BELIEVED_AFTER: u32 = 2;
/// The longest answer that is read, bytes; four short lines for each cluster are expected.
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

/// The polls for the policies of a target's clusters.
pub(super) struct PolicyPolls {
    pub poll: Poll,
    pace: Pace,
    /// Whether the last one failed, which has been logged.
    failing: bool,
    /// Whether it has been logged that stats are missing.
    missing: bool,
}

impl PolicyPolls {
    pub fn new(now: Time) -> PolicyPolls {
        PolicyPolls {
            poll: Poll::new(now),
            pace: Pace::at(Duration::from_secs_f64(EVERY_S)),
            failing: false,
            missing: false,
        }
    }
}

/// What polls have said of one cluster.
pub(super) struct Reading {
    /// When to ask again.
    pub due: Time,
    /// The last pause, if nothing has been said since.
    pause_s: f64,
    /// The number of answers in a row without subsets, in a cluster that had some.
    none: u32,
    /// The latest counters of zones.
    zones: Option<(u64, u64)>,
    /// Whether Envoy prefers its own zone, as far as is known.
    zone_aware: Option<bool>,
}

impl Reading {
    pub fn new(now: Time) -> Reading {
        Reading { due: now, pause_s: 0.0, none: 0, zones: None, zone_aware: None }
    }

    /// Notes that the cluster had this number of hosts, and has that now.
    pub fn hosts(&mut self, before: usize, hosts: usize, now: Time) {
        if before == 0 && hosts > 0 {
            self.due = now;
        }
        if hosts == 0 {
            self.none = 0;
        }
    }

    fn asks(&mut self, now: Time) {
        self.pause_s = (2.0 * self.pause_s).clamp(RETRY_S, EVERY_S);
        self.due = now.after_secs(self.pause_s);
    }

    /// Whether the cluster has subsets. A cluster that had some is believed to have none only when it has hosts and says
    /// so twice.
    fn subsets(&mut self, said: Option<bool>, (before, hosts): (bool, usize), now: Time) -> bool {
        let Some(said) = said else { return before };
        (self.pause_s, self.due) = (0.0, now.after_secs(EVERY_S));
        if said || !before {
            self.none = 0;
            return said;
        }
        self.none = if hosts > 0 { self.none + 1 } else { 0 };
        let believed = self.none >= BELIEVED_AFTER;
        if !believed {
            self.due = now.after_secs(RETRY_S);
        }
        !believed
    }

    /// Whether Envoy prefers its own zone, by what its counters have gone up by; `before`, if that does not tell.
    fn zone_aware(&mut self, said: Option<(u64, u64)>, before: bool) -> bool {
        if let Some((computed, too_small)) = said {
            let was = self.zones.replace((computed, too_small));
            let was = was.filter(|(c, s)| *c <= computed && *s <= too_small);
            let since = was.unwrap_or_default();
            let (more, given_up) = (computed - since.0, too_small - since.1);
            // Zones are computed for each set of hosts, and given up for one with too few.
            if more > 0 && given_up == 0 {
                self.zone_aware = Some(true);
            } else if given_up >= more && (more > 0 || was.is_none()) {
                self.zone_aware = Some(false);
            }
        }
        self.zone_aware.unwrap_or(before)
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
    /// Asks Envoy for the stats of clusters whose hosts are known, as far as that is due. What one poll cannot cover is
    /// asked for when it is answered.
    #[inline(never)]
    pub(super) fn ask_for_policies(&mut self, host: &dyn Host, now: Time) {
        let policies = &mut self.policies;
        if now < policies.poll.sent {
            // The clock stepped back.
            self.clusters.iter_mut().for_each(|of| of.policy.due = of.policy.due.min(now));
        }
        if !policies.poll.is_due(policies.pace.wait().as_secs_f64(), now) {
            return;
        }
        let clusters = self.clusters.iter().enumerate();
        let mut due: Vec<(Time, usize)> = clusters
            .filter(|(_, of)| of.hosts > 0 && of.policy.due <= now)
            .map(|(at, of)| (of.policy.due, at))
            .collect();
        if due.is_empty() {
            return;
        }
        order::sort(&mut due);
        let (mut length, mut covered, mut names) = (0, Vec::new(), Vec::new());
        for (_, at) in due.into_iter().take(CLUSTERS_AT_A_TIME) {
            let Some(of) = self.clusters.get_mut(at) else { continue };
            length += 4 * of.stat_name.len();
            if length > MAX_PATH && !covered.is_empty() {
                break;
            }
            // An answer postpones it further.
            of.policy.asks(now);
            covered.push(at);
            names.push(of.stat_name.clone());
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let path = envoy_admin::policies_path(&names);
        // A target that cannot be asked is logged for its hosts.
        let _sent =
            policies.poll.put(host, &self.cluster, &path, (covered, policies.pace.wait()), (now, now));
    }

    /// Takes Envoy's stats: logs what is bypassed, and publishes it under keys with this prefix. Returns the upstreams whose
    /// requests are left to Envoy from now on, or no longer. What the stats do not say stays as it was.
    #[inline(never)]
    pub(super) fn receive_policies(
        &mut self,
        host: &dyn Host,
        (discovery, prefix): (&mut Discovery, &str),
        (status, body): (Option<u32>, &dyn Body),
    ) -> Vec<usize> {
        let mut changed = Vec::new();
        let moment = host.now();
        let policies = &mut self.policies;
        policies.poll.pending = None;
        policies.poll.rest(moment);
        let covered = core::mem::take(&mut policies.poll.covered);
        let error = match status {
            None | Some(504) => {
                policies.pace.timed_out(covered.len());
                Some("timed out".to_owned())
            }
            Some(200) => (body.size() > MAX_ANSWER).then(|| "the answer is too large".to_owned()),
            Some(status) => Some(format!("HTTP status {status}")),
        };
        let failed_before = core::mem::replace(&mut policies.failing, error.is_some());
        if let Some(error) = error {
            if !failed_before {
                let first = covered.first().and_then(|at| self.clusters.get(*at));
                log_unknown(host, first.map_or("", |of| &of.name), covered.len(), &error);
            }
            return changed;
        }
        policies.pace.answered(policies.poll.took_s(moment), 0);
        let text = body.part(0, body.size());
        let stats = envoy_admin::Policies::read(&text);
        let mut missing = (0, String::new());
        for at in covered {
            let Some(of) = self.clusters.get_mut(at) else { continue };
            let found = stats.of(&of.stat_name);
            if found.subsets.is_none() {
                missing.0 += 1;
                missing.1 = if missing.0 == 1 { of.name.clone() } else { missing.1 };
            }
            let key = key(prefix, rng::hash(of.name.as_bytes()));
            // What another leader has said is not said again.
            let before = host.shared_get(&key).and_then(|(bytes, _)| bytes.first().copied());
            let before = before.map_or_else(Bypassed::default, Bypassed::from_byte);
            let known = (discovery.subsets(of.upstream), of.hosts);
            let zone_aware = of.policy.zone_aware(found.zones, before.zone_aware);
            let now = Bypassed {
                subsets: of.policy.subsets(found.subsets, known, moment),
                zone_aware: zone_aware && of.zones && !of.heeds_zone,
            };
            if discovery.set_subsets(of.upstream, now.subsets) {
                changed.push(of.upstream);
            }
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
        if missing.0 > 0 && !core::mem::replace(&mut self.policies.missing, true) {
            let what = "its stats lb_subsets_* are missing: stats_matcher must admit them";
            log_unknown(host, &missing.1, missing.0, what);
        }
        changed
    }
}

/// Logs that it is unknown whether `clusters`, of which this is the first, have subsets.
#[inline(never)]
fn log_unknown(host: &dyn Host, first: &str, clusters: usize, why: &str) {
    let others = if clusters > 1 { format!(" and {} more", clusters - 1) } else { String::new() };
    host.log_event(&Event {
        level: log::Level::Warn,
        name: "subsets_unknown",
        message: &format!(
            "steering: cluster={first}{others}: whether Envoy has subsets there is unknown: /stats: {why}"
        ),
        fields: &[("upstream", Field::Text(first)), ("error", Field::Text(why))],
    });
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
