//! Idle workers: which ticks skip the engine, how far apart ticks are, and what ends a rest.

use core::time::Duration;

use super::Worker;
use super::tick_period::{self, Requests};
use crate::sharing::lease;
use engine::time::Time;

/// Time without a request after which a worker is idle, seconds.
const IDLE_AFTER_S: f64 = 2.0;

impl Worker {
    /// Whether the engine is due for a tick although nothing has happened, because some conclusions depend on time.
    pub(super) fn refresh_is_due(&self, now: Time) -> bool {
        let most_s = if self.awaits_nothing() { tick_period::IDLE_S } else { tick_period::SILENT_S };
        now.seconds_since(self.refreshed) >= most_s || now < self.refreshed
    }

    /// Milliseconds until the next tick.
    pub fn tick_period_ms(&self) -> u64 {
        let endpoints = self.engine.upstreams().iter().map(|u| u.fleet().len()).sum();
        if self.rests {
            return tick_period::rest_ms(endpoints, self.asks_every_ms(false));
        }
        // A worker that waits for responses ticks often: a missing one may be a failure that the other workers need to
        // know.
        let requests = Requests {
            typical_s: self.engine.longest_typical(),
            pace: if self.awaits_nothing() { self.engine.pace() } else { f64::INFINITY },
            in_flight: self.engine.in_flight(),
        };
        tick_period::pause_ms(endpoints, requests, self.idle_ticks, self.asks_every_ms(true))
    }

    /// Whether a request has just ended the process's rest, so that a tick is wanted at once; true only once.
    pub fn wakes(&mut self) -> bool {
        self.busy && core::mem::take(&mut self.rests)
    }

    /// The shortest poll interval of the leader, milliseconds, [`u64::MAX`] if it does not poll; `None` of a worker that
    /// does not lead. With `probes` also the shortest interval of out-of-band probes, of any worker.
    fn asks_every_ms(&self, probes: bool) -> Option<u64> {
        let leads = self.lease != lease::Holder::Another;
        let mut shortest = Duration::MAX;
        for upstream in &self.config.upstreams {
            if leads && upstream.autoscale.is_some() {
                // Autoscaling is assessed whether there are requests or not.
                shortest = Duration::ZERO;
            }
            if leads && let Some(admin) = &upstream.endpoints.envoy_admin {
                shortest = shortest.min(admin.interval);
            }
            if probes && let Some(probe) = &upstream.health.probe {
                shortest = shortest.min(probe.interval);
            }
        }
        if leads && let Some(prometheus) = &self.config.prometheus {
            shortest = shortest.min(prometheus.interval);
        }
        if shortest == Duration::MAX { leads.then_some(u64::MAX) } else { Some(milliseconds(shortest)) }
    }

    /// Whether this worker has no requests in flight.
    fn awaits_nothing(&self) -> bool {
        self.engine.upstreams().iter().all(|upstream| upstream.rests())
    }

    /// Whether this worker has been without a request for a while.
    pub(super) fn is_idle(&self) -> bool {
        self.ticked.seconds_since(self.used) >= IDLE_AFTER_S
    }

    /// Whether no request is to be expected that a tick would be of use to: the whole process has been idle for a while,
    /// as far as this worker knows, or this worker gets none, as Envoy's main thread.
    pub(super) fn may_rest(&self) -> bool {
        let process_is_idle = self.shard.workers <= 1;
        // The leader judges guards at the pace of its ticks.
        let judges = || self.is_leader() && self.engine.upstreams().iter().any(|u| u.arms().is_some());
        let decides_nothing = || !self.carries_traffic && !judges();
        self.is_idle() && (process_is_idle || decides_nothing()) && self.awaits_nothing()
    }
}

#[inline(never)]
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
