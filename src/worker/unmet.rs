//! Warnings of upstreams without any request while there is traffic: most often the cluster has another name in Envoy.

use super::Worker;
use crate::host::Host;
use crate::host::event::{Event, Field};
use crate::sharing::retired_counters;
use engine::time::Time;

/// Time from the first request to the warning, seconds.
const AFTER_S: f64 = 300.0;
/// The interval at which the counts of all workers are gathered, seconds.
const EVERY_S: f64 = 30.0;

/// The state of these warnings.
#[derive(Debug, Default)]
pub(super) struct Unmet {
    looked: Time,
    traffic_since: Option<Time>,
    said: Vec<usize>,
}

impl Worker {
    /// Logs the upstreams without requests. Runs in the leader, for the whole process.
    #[inline(never)]
    pub(super) fn tell_unmet(&mut self, host: &dyn Host, now: Time) {
        if now >= self.unmet.looked && now.seconds_since(self.unmet.looked) < EVERY_S {
            return;
        }
        self.unmet.looked = now;
        let counts = retired_counters::gather(host, &self.keys.shared, self.id, now).counts;
        let met: Vec<u64> = self
            .engine
            .upstreams()
            .iter()
            .map(|u| counts.upstream(u.hash()).map_or(0, |c| c.totals.decisions()))
            .collect();
        if met.iter().all(|decisions| *decisions == 0) && counts.unmatched() == 0 {
            return;
        }
        let since = *self.unmet.traffic_since.get_or_insert(now);
        if now.seconds_since(since) < AFTER_S {
            return;
        }
        for (at, upstream) in self.engine.upstreams().iter().enumerate() {
            if met.get(at) != Some(&0) || self.unmet.said.contains(&at) {
                continue;
            }
            self.unmet.said.push(at);
            let cluster = upstream.cluster();
            host.tell(&Event {
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
}
