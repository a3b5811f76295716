//! The worker in time: which ticks skip the engine, how far apart ticks are, when it is idle, and what ends a rest.

use core::time::Duration;

use super::Worker;
use super::tick_period::{self, Requests};
use crate::sharing::lease;
use engine::time::Time;

/// Time without a request after which a worker is idle, seconds.
const IDLE_AFTER_S: f64 = 2.0;
/// The interval at which lease, registry, scaling, guard and Envoy stats are maintained, seconds.
const MAINTENANCE_S: f64 = 0.25;

/// When this worker did what, and whether it has requests.
pub(crate) struct Activity {
    pub(super) started: Time,
    pub(crate) ticked: Time,
    /// The latest tick that followed a request; at first the time of configuration.
    used: Time,
    /// When the engine was last ticked.
    pub(super) refreshed: Time,
    pub(super) maintained: Time,
    /// Whether requests came since the last tick.
    pub(crate) busy: bool,
    /// Ticks in a row without a request.
    idle_ticks: u32,
    /// Whether ticks are rare until a request comes.
    pub(super) rests: bool,
}

impl Activity {
    pub(super) fn new(now: Time) -> Activity {
        Activity {
            started: now,
            ticked: now,
            used: now,
            refreshed: Time::ZERO,
            maintained: Time::ZERO,
            busy: false,
            idle_ticks: 0,
            rests: false,
        }
    }

    /// Begins a tick at `now`; returns whether the clock has stepped back since the one before.
    pub(super) fn tick(&mut self, now: Time) -> bool {
        self.idle_ticks = if core::mem::take(&mut self.busy) { 0 } else { self.idle_ticks.saturating_add(1) };
        let stepped_back = now < core::mem::replace(&mut self.ticked, now);
        if stepped_back {
            self.started = self.started.min(now);
            self.used = self.used.min(now);
        }
        if self.idle_ticks == 0 {
            self.used = now;
        }
        stepped_back
    }

    /// Whether maintenance is due now; if so, it counts as done.
    pub(super) fn maintenance_is_due(&mut self, now: Time) -> bool {
        let is_due = now.seconds_since(self.maintained) >= MAINTENANCE_S || now < self.maintained;
        if is_due {
            self.maintained = now;
        }
        is_due
    }

    /// Whether this worker has been without a request for a while.
    pub(super) fn is_idle(&self) -> bool {
        self.ticked.seconds_since(self.used) >= IDLE_AFTER_S
    }
}

impl Worker {
    /// Whether the engine is due for a tick although nothing has happened, because some conclusions depend on time.
    pub(super) fn refresh_is_due(&self, now: Time) -> bool {
        let most_s = if self.has_none_in_flight() { tick_period::IDLE_S } else { tick_period::SILENT_S };
        now.seconds_since(self.activity.refreshed) >= most_s || now < self.activity.refreshed
    }

    /// Milliseconds until the next tick.
    pub fn tick_period_ms(&self) -> u64 {
        let endpoints = self.engine.upstreams().iter().map(|u| u.fleet().len()).sum();
        if self.activity.rests {
            return tick_period::rest_ms(endpoints, self.poll_interval_ms(false));
        }
        // A worker that waits for responses ticks often: a missing one may be a failure that the other workers need to
        // know.
        let requests = Requests {
            typical_s: self.engine.longest_typical(),
            pace: if self.has_none_in_flight() { self.engine.pace() } else { f64::INFINITY },
            in_flight: self.engine.in_flight(),
        };
        tick_period::pause_ms(endpoints, requests, self.activity.idle_ticks, self.poll_interval_ms(true))
    }

    /// Whether a request has just ended the process's rest, so that a tick is wanted at once; true only once.
    pub fn wakes(&mut self) -> bool {
        self.activity.busy && core::mem::take(&mut self.activity.rests)
    }

    /// The shortest poll interval of the leader, milliseconds, [`u64::MAX`] if it does not poll; `None` of a worker that
    /// does not lead. With `probes` also the shortest interval of out-of-band probes, of any worker.
    fn poll_interval_ms(&self, probes: bool) -> Option<u64> {
        let is_leader = self.membership.lease != lease::Holder::Another;
        let mut shortest = Duration::MAX;
        for upstream in &self.config.upstreams {
            if is_leader && upstream.autoscale.is_some() {
                // Autoscaling is assessed whether there are requests or not.
                shortest = Duration::ZERO;
            }
            if is_leader && let Some(admin) = &upstream.endpoints.envoy_admin {
                shortest = shortest.min(admin.interval);
            }
            if probes && let Some(probe) = &upstream.health.probe {
                shortest = shortest.min(probe.interval);
            }
        }
        if is_leader && let Some(prometheus) = &self.config.prometheus {
            shortest = shortest.min(prometheus.interval);
        }
        if shortest == Duration::MAX { is_leader.then_some(u64::MAX) } else { Some(milliseconds(shortest)) }
    }

    /// Whether this worker has no requests in flight.
    fn has_none_in_flight(&self) -> bool {
        self.engine.upstreams().iter().all(|upstream| upstream.rests())
    }

    /// Whether no request is to be expected that a tick would be of use to: the whole process has been idle for a while,
    /// as far as this worker knows, or this worker gets none, as Envoy's main thread.
    pub(super) fn may_rest(&self) -> bool {
        let process_is_idle = self.membership.shard.workers <= 1;
        // The leader judges guards at the pace of its ticks.
        let assesses_guards =
            || self.is_leader() && self.engine.upstreams().iter().any(|u| u.arms().is_some());
        let decides_nothing = || !self.membership.carries_traffic && !assesses_guards();
        self.activity.is_idle() && (process_is_idle || decides_nothing()) && self.has_none_in_flight()
    }
}

#[inline(never)]
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
