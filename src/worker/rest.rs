//! When there is nothing to do: which ticks draw no conclusions, how far apart they are, and what ends a rest.

use core::time::Duration;

use super::{IDLE_AFTER_TICKS, Worker, tick_period};
use engine::time::Time;

impl Worker {
    /// Whether conclusions are drawn anew though nothing has happened: time changes some.
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
        // What it awaits may tell of a fault, which the others are to know.
        let pace = if self.awaits_nothing() { self.engine.pace() } else { f64::INFINITY };
        tick_period::pause_ms(endpoints, (self.engine.longest_typical(), pace), self.idle_ticks)
    }

    /// Whether a request has just ended the process's rest, so that the next tick is wanted at once. Only once.
    pub fn wakes(&mut self) -> bool {
        self.busy && core::mem::take(&mut self.rests)
    }

    /// The shortest interval at which this worker asks for all; without polls of its own none.
    fn polls_every_ms(&self) -> Option<u64> {
        if !self.is_leader() {
            return None;
        }
        let upstreams = &self.config.upstreams;
        // Pressure is looked at whether there are requests or not.
        let scales = upstreams.iter().any(|upstream| upstream.autoscale.is_some());
        let admin =
            upstreams.iter().filter_map(|upstream| Some(upstream.endpoints.envoy_admin.as_ref()?.interval));
        let prometheus = self.config.prometheus.iter().map(|prometheus| prometheus.interval);
        let shortest = admin.chain(prometheus).chain(scales.then_some(Duration::ZERO)).min()?;
        Some(u64::try_from(shortest.as_millis()).unwrap_or(u64::MAX))
    }

    /// Whether none of this worker's requests is on its way.
    fn awaits_nothing(&self) -> bool {
        self.engine.upstreams().iter().all(|upstream| upstream.rests())
    }

    /// Whether nothing has been going on in the process for a while, as far as this worker knows.
    pub(super) fn may_rest(&self) -> bool {
        self.idle_ticks >= IDLE_AFTER_TICKS && self.shard.workers <= 1 && self.awaits_nothing()
    }
}
