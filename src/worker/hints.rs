//! Hints on the configuration around the filter, from the counts of an upstream: a log line now and then that says what
//! to check.

use super::Worker;
use crate::discovery::source::Origin;
use crate::host::Host;
use crate::host::event::{Event, Field};
use config::Via;
use engine::Totals;
use engine::time::Time;

/// The minimum count for a hint. Fewer may be chance: an endpoint that has just left, a route that has just changed.
const MIN_COUNT: u64 = 5;
/// Steered requests that were not followed are logged if they are at least one in this many.
const ONE_IN: u64 = 20;
/// The number of steered requests after which the comparison starts anew.
const MAX_STEERED: u64 = 1000;
/// The interval at which a process repeats a hint on the same upstream, seconds.
const REPEAT_S: f64 = 3600.0;

/// The time after which Envoy's list is no longer waited for, seconds: it may not answer.
const LISTS_WITHIN_S: f64 = 60.0;

/// The totals of one upstream at the last comparison.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compared {
    not_followed: Totals,
    rerouted: Totals,
    strays: Strays,
}

/// The number of Envoy's lists, one after the other, between which requests are not followed though the addresses stay.
/// Fewer may be chance: endpoints that leave and come back between two lists.
const LISTS: u8 = 3;

/// What is known of requests that were not followed. Until Envoy's list has been read anew, the endpoints may have left
/// Envoy's cluster, and nothing is wrong.
#[derive(Clone, Copy, Debug, Default)]
enum Strays {
    #[default]
    None,
    /// Since then they are too many, after so many lists with the same addresses.
    Noticed(Time, u8),
}

impl Worker {
    /// Marks decisions as evenkeel's from now on if other plugins of it may see the request, too.
    pub fn mark_decisions(&mut self, others: bool) {
        self.steer.marks |= others;
    }

    /// Logs what this worker's counts show since the last comparison.
    #[inline(never)]
    pub(super) fn hint(&mut self, host: &dyn Host, now: Time) {
        self.hints.resize(self.engine.upstreams().len(), Compared::default());
        for at in 0..self.engine.upstreams().len() {
            let Some(totals) = self.engine.upstream(at).map(|u| u.totals()) else { continue };
            let Some(compared) = self.hints.get_mut(at) else { continue };
            let steered = |t: &Totals| t.policy + t.probes;
            let since = compared.not_followed;
            let all = steered(&totals).saturating_sub(steered(&since));
            let lost = totals.astray.not_followed.saturating_sub(since.astray.not_followed);
            // Perhaps a filter of another plugin took the header for the client's.
            self.steer.marks |= lost > 0;
            let rerouted = totals.astray.rerouted.saturating_sub(compared.rerouted.astray.rerouted);
            let strays = lost >= MIN_COUNT && lost * ONE_IN >= all;
            // Without such a source the list is fixed, or Prometheus' own.
            let listed = self.discovery.source(at, Origin::Envoy).map(|source| source.last_success);
            let reports = match (compared.strays, listed) {
                (_, None) => strays,
                (Strays::None, Some(_)) => {
                    if strays {
                        compared.strays = Strays::Noticed(now, 0);
                    }
                    false
                }
                (Strays::Noticed(since, lists), Some(listed)) => {
                    let is_read = listed > since || now.seconds_since(since) >= LISTS_WITHIN_S;
                    if is_read && strays {
                        compared.strays = Strays::Noticed(now, lists + 1);
                        compared.not_followed = totals;
                    }
                    is_read && strays && lists + 1 >= LISTS
                }
            };
            if reports || (all >= MAX_STEERED && !strays) {
                (compared.strays, compared.not_followed) = (Strays::None, totals);
            }
            if rerouted >= MIN_COUNT {
                compared.rerouted = totals;
            }
            if reports {
                self.log_not_followed(host, at, (lost, all), now);
            }
            if rerouted >= MIN_COUNT {
                self.log_rerouted(host, at, now);
            }
        }
    }

    /// The addresses of an upstream have changed: what was not followed before is explained.
    pub(super) fn addresses_changed(&mut self, upstream: usize) {
        let totals = self.engine.upstream(upstream).map(|u| u.totals());
        if let (Some(totals), Some(compared)) = (totals, self.hints.get_mut(upstream)) {
            (compared.strays, compared.not_followed) = (Strays::None, totals);
        }
    }

    #[inline(never)]
    fn log_not_followed(&self, host: &dyn Host, at: usize, (lost, all): (u64, u64), now: Time) {
        let Some(upstream) = self.engine.upstream(at) else { return };
        if !self.may_log(host, ("not_followed", upstream.hash()), now) {
            return;
        }
        let header = &self.config.steering.header;
        let cause = match self.config.steering.via {
            Via::OverrideHost => {
                format!("the cluster's load-balancing policy is not override_host with header {header}")
            }
            Via::StatefulSession => {
                format!("stateful_session with header {header} does not come after this filter")
            }
            Via::OriginalDst => format!("the cluster is not ORIGINAL_DST with header {header}"),
            Via::ClusterHeader => format!("the route does not take its cluster from header {header}"),
        };
        let cluster = upstream.cluster();
        host.log_event(&Event {
            level: log::Level::Warn,
            name: "not_followed",
            message: &format!(
                "steering: cluster={cluster}: not followed: {lost} of the latest {all} requests were answered by another \
                 endpoint than the chosen one, without a retry: {cause}, or the addresses are not in the cluster, or Envoy \
                 considers them unhealthy"
            ),
            fields: &[
                ("upstream", Field::Text(cluster)),
                ("not_followed", Field::Whole(lost)),
                ("requests", Field::Whole(all)),
            ],
        });
    }

    #[inline(never)]
    fn log_rerouted(&self, host: &dyn Host, at: usize, now: Time) {
        let Some(upstream) = self.engine.upstream(at) else { return };
        if !self.may_log(host, ("rerouted", upstream.hash()), now) {
            return;
        }
        let cluster = upstream.cluster();
        host.log_event(&Event {
            level: log::Level::Warn,
            name: "rerouted",
            message: &format!(
                "steering: cluster={cluster}: requests are not steered: their route changed after evenkeel, because a later filter \
                 (jwt_authn, ext_proc, ext_authz, Lua, a transcoder) clears the route cache; put evenkeel behind that filter"
            ),
            fields: &[("upstream", Field::Text(cluster))],
        });
    }

    /// Whether no worker of the process has logged this about this upstream within [`REPEAT_S`].
    fn may_log(&self, host: &dyn Host, (what, upstream): (&str, u64), now: Time) -> bool {
        let key = format!("{}/{what}/{upstream:x}", self.keys.hints);
        let logged =
            host.shared_get(&key).and_then(|(bytes, _)| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
        if logged.is_some_and(|logged| now.0 >= logged && now.seconds_since(Time(logged)) < REPEAT_S) {
            return false;
        }
        let _another_worker_logs_it_too = host.shared_set(&key, &now.0.to_le_bytes(), None);
        true
    }
}

/// The state of the hints at the start.
pub(super) fn none(upstreams: usize) -> Vec<Compared> {
    vec![Compared::default(); upstreams]
}

/// Warns of a setting that is accepted but has no effect.
pub(super) fn without_effect(host: &dyn Host, path: &str) {
    host.log_event(&Event {
        level: log::Level::Warn,
        name: "without_effect",
        message: &format!("configuration: {path} is accepted but has no effect with these settings"),
        fields: &[("path", Field::Text(path))],
    });
}
