//! Warnings of upstreams without any request while there is traffic (most often the cluster has another name in Envoy), and
//! of upstreams without an eligible endpoint.

use super::Worker;
use crate::host::Host;
use crate::host::event::{Event, Field};
use crate::sharing::retired_counters;
use engine::Cluster;
use engine::endpoint::AnnouncedHealth;
use engine::settings::NoneEligible;
use engine::time::Time;

/// Time from the first request to the warning, seconds.
const AFTER_S: f64 = 300.0;
/// The interval at which the counts of all workers are gathered, seconds.
const EVERY_S: f64 = 30.0;

/// The state of these warnings.
#[derive(Debug, Default)]
pub(super) struct Unmet {
    gathered_at: Time,
    traffic_since: Option<Time>,
    logged: Vec<usize>,
    /// The upstreams of which the log says that no endpoint is eligible.
    unserved: Vec<usize>,
}

impl Worker {
    /// Logs the upstreams without requests. Runs in the leader, for the whole process.
    #[inline(never)]
    pub(super) fn log_unmet(&mut self, host: &dyn Host, now: Time) {
        if now >= self.unmet.gathered_at && now.seconds_since(self.unmet.gathered_at) < EVERY_S {
            return;
        }
        self.unmet.gathered_at = now;
        let counts = retired_counters::gather(host, &self.keys.shared, self.membership.id, now).counts;
        let decisions: Vec<u64> = self
            .engine
            .upstreams()
            .iter()
            .map(|u| counts.upstream(u.hash()).map_or(0, |c| c.totals.decisions()))
            .collect();
        if decisions.iter().all(|count| *count == 0) && counts.unmatched() == 0 {
            return;
        }
        let since = *self.unmet.traffic_since.get_or_insert(now);
        if now.seconds_since(since) < AFTER_S {
            return;
        }
        for (at, upstream) in self.engine.upstreams().iter().enumerate() {
            if decisions.get(at) != Some(&0) || self.unmet.logged.contains(&at) {
                continue;
            }
            self.unmet.logged.push(at);
            let cluster = upstream.cluster();
            host.log_event(&Event {
                level: log::Level::Warn,
                name: "upstream_without_requests",
                message: &format!(
                    "routing: cluster={cluster}: no requests in {:.0} minutes of traffic: check that Envoy has a cluster of this name",
                    now.seconds_since(since) / 60.0
                ),
                fields: &[("upstream", Field::Text(cluster))],
            });
        }
    }

    /// Logs once that no endpoint of an upstream is eligible, and that one is again. Runs in the leader, for the whole
    /// process.
    #[inline(never)]
    pub(super) fn log_unserved(&mut self, host: &dyn Host) {
        for (at, upstream) in self.engine.upstreams().iter().enumerate() {
            let unserved = !upstream.fleet().is_empty() && upstream.eligible() == 0;
            let said = self.unmet.unserved.iter().position(|said| *said == at);
            let (level, name, what) = match said {
                None if unserved => {
                    self.unmet.unserved.push(at);
                    (log::Level::Warn, "none_eligible", unserved_sentence(upstream))
                }
                Some(place) if !unserved => {
                    self.unmet.unserved.swap_remove(place);
                    (log::Level::Info, "eligible_again", "endpoints are eligible again".to_owned())
                }
                _ => continue,
            };
            let cluster = upstream.cluster();
            host.log_event(&Event {
                level,
                name,
                message: &format!("routing: cluster={cluster}: {what}"),
                fields: &[("upstream", Field::Text(cluster))],
            });
        }
    }
}

fn unserved_sentence(upstream: &Cluster) -> String {
    let indices = || upstream.fleet().iter().map(|(index, _)| index);
    let announced = |health| {
        let stands =
            |index: &u32| upstream.endpoint(*index).is_some_and(|e| e.constraints.announced == health);
        indices().filter(stands).count()
    };
    let (draining, unhealthy) = (announced(AnnouncedHealth::Draining), announced(AnnouncedHealth::Unhealthy));
    let meanwhile = match &upstream.config().failover.none_eligible {
        NoneEligible::Envoy => "Envoy's own policy decides".to_owned(),
        NoneEligible::Reject => "requests are answered with 503".to_owned(),
        NoneEligible::SafeEndpoint(address) => format!("requests go to {address}"),
    };
    format!(
        "none of {} endpoints is eligible ({draining} draining, {unhealthy} unhealthy as announced): {meanwhile} (failover.none_eligible)",
        indices().count()
    )
}
