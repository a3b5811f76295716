//! Idle workers: which ticks skip the engine, how far apart ticks are, and what ends a rest.

use core::time::Duration;

use super::{IDLE_AFTER_TICKS, Worker, tick_period};
use engine::time::Time;

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
            return tick_period::rest_ms(endpoints, self.polls_every_ms());
        }
        // A worker that waits for responses ticks often: a missing one may be a failure that the other workers need to
        // know.
        let pace = if self.awaits_nothing() { self.engine.pace() } else { f64::INFINITY };
        tick_period::pause_ms(endpoints, (self.engine.longest_typical(), pace), self.idle_ticks)
    }

    /// Whether a request has just ended the process's rest, so that a tick is wanted at once; true only once.
    pub fn wakes(&mut self) -> bool {
        self.busy && core::mem::take(&mut self.rests)
    }

    /// The shortest poll interval of this worker, milliseconds; `None` if it does not poll.
    fn polls_every_ms(&self) -> Option<u64> {
        if !self.is_leader() {
            return None;
        }
        let upstreams = &self.config.upstreams;
        // Autoscaling is assessed whether there are requests or not.
        let scales = upstreams.iter().any(|upstream| upstream.autoscale.is_some());
        let admin =
            upstreams.iter().filter_map(|upstream| Some(upstream.endpoints.envoy_admin.as_ref()?.interval));
        let prometheus = self.config.prometheus.iter().map(|prometheus| prometheus.interval);
        let shortest = admin.chain(prometheus).chain(scales.then_some(Duration::ZERO)).min()?;
        Some(u64::try_from(shortest.as_millis()).unwrap_or(u64::MAX))
    }

    /// Whether this worker has no requests in flight.
    fn awaits_nothing(&self) -> bool {
        self.engine.upstreams().iter().all(|upstream| upstream.rests())
    }

    /// Whether the whole process has been idle for a while, as far as this worker knows.
    pub(super) fn may_rest(&self) -> bool {
        self.idle_ticks >= IDLE_AFTER_TICKS && self.shard.workers <= 1 && self.awaits_nothing()
    }
}
