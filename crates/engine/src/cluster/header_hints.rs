//! What endpoints say about themselves in response headers: degraded, to be taken out, or in need of a pause.
//!
//! An endpoint can only harm itself by that: it is ejected within `max_ejected_percent` as for any other reason, and
//! for no longer than an ejection lasts.
//!
//! Many services limit a client and tell it when to come again, which says nothing of the endpoint. A pause is granted in
//! so far as the endpoint's other answers bear it out: after n good ones since it last asked, for 1/(n + 1) of the time.
//! Pauses that most endpoints ask for do not tell them apart, and none gets one then.

use hashbrown::HashMap;

use super::Cluster;
use super::table::EndpointTable;
use crate::endpoint::{EndpointRef, Hints};
use crate::health::{FailureEvent, State};
use crate::time::Time;

/// What the headers of one answer say about the endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HeaderHints {
    /// `x-envoy-degraded`: it serves, but other endpoints serve better.
    pub degraded: bool,
    /// `x-envoy-immediate-health-check-fail`: it is to be ejected at once.
    pub failing: bool,
    /// `retry-after` beside a 429 or 503: requested pause, seconds.
    pub hold_s: f64,
}

/// The shortest pause that is granted, seconds: a shorter one ends with the next tick.
const MIN_PAUSE_S: f64 = 0.25;

/// Until when each statement of an endpoint is in force.
#[derive(Clone, Copy, Debug, Default)]
struct Until {
    degraded: Time,
    /// The pause that it asked for.
    asked: Time,
    /// The pause that it gets.
    held: Time,
    /// The number of its good answers when it last asked for a pause.
    good: u32,
}

impl Until {
    /// Takes a request for a pause of `asked_s` from an endpoint with so many good answers; returns whether it is granted.
    fn ask(&mut self, asked_s: f64, good: u32, now: Time) -> bool {
        let between = good.saturating_sub(core::mem::replace(&mut self.good, good));
        self.asked = self.asked.max(now.after_secs(asked_s));
        let granted_s = asked_s / (1.0 + f64::from(between));
        let granted = granted_s >= MIN_PAUSE_S;
        if granted {
            self.held = self.held.max(now.after_secs(granted_s));
        }
        granted
    }

    fn not_after(&mut self, latest: Time) {
        for time in [&mut self.degraded, &mut self.asked, &mut self.held] {
            *time = (*time).min(latest);
        }
    }
}

/// Statements in force, by endpoint index; most endpoints make none.
#[derive(Debug, Default)]
pub(super) struct HintTable {
    until: HashMap<u32, Until>,
    /// Until when no pause is granted, because most endpoints asked for one.
    all_ask: Time,
}

impl HintTable {
    /// Resets the slot at `index` for another endpoint.
    pub fn forget(&mut self, index: u32) {
        self.until.remove(&index);
    }

    /// Notes whether more than half of `endpoints` ask for a pause now.
    fn compare(&mut self, endpoints: usize, now: Time) {
        let asking = self.until.values().map(|until| until.asked).filter(|asked| now < *asked);
        if 2 * asking.clone().count() > endpoints {
            self.all_ask = asking.fold(self.all_ask, Time::max);
        }
    }
}

impl Cluster {
    /// Processes the statements in an answer to a request that was sent at `started`.
    pub fn take_hints(&mut self, endpoint: EndpointRef, started: Time, hints: HeaderHints, now: Time) {
        if !self.endpoints.set.is_current(endpoint) {
            return;
        }
        let index = endpoint.index;
        let nothing = HeaderHints::default() == hints;
        let health = &self.config.health;
        let longest = health.ejection.as_secs_f64();
        let Some(state) = self.endpoints.states.get_mut(index as usize) else { return };
        if nothing && !state.constraints.hints.degraded() {
            return;
        }
        let all_ask = now < self.endpoints.hints.all_ask;
        let until = self.endpoints.hints.until.entry(index).or_default();
        until.degraded = if hints.degraded { now.after_secs(longest) } else { Time::ZERO };
        // This answer counts among the failures already, and not among the requests that have ended.
        let good = (state.counters.requests + 1).saturating_sub(state.counters.failures);
        // Written so that NaN requests no pause.
        let granted = hints.hold_s > 0.0 && until.ask(hints.hold_s.min(longest), good, now);
        let held = granted && !all_ask;
        state.constraints.hints = Hints::of(hints.degraded, held || state.constraints.hints.held());
        if hints.failing {
            let failure_event = FailureEvent { weight: health.fail_after, broke: None };
            state.health.failure(started.min(now), now, failure_event);
            self.assess_now(index, now);
        }
        if held {
            self.stand_back(index);
        }
    }

    /// Ejects an endpoint that asked for a pause, if one more may be ejected.
    fn stand_back(&mut self, index: u32) {
        let tier = self.subset_of(index).map(|g| g.tier);
        let may_leave = tier.is_some_and(|tier| self.may_leave(tier));
        let Some(endpoint) = self.endpoints.states.get_mut(index as usize) else { return };
        if endpoint.eligible && may_leave && endpoint.health.state() == State::Healthy {
            endpoint.eligible = false;
            self.ejection.out += 1;
            if let Some(tier) = tier.and_then(|tier| self.subsets.tiers.get_mut(tier)) {
                tier.eligible = tier.eligible.saturating_sub(1);
            }
        }
    }

    /// Drops statements that have expired. None lasts longer than an ejection, even if the clock stepped back.
    #[inline(never)]
    pub(super) fn heed(&mut self, now: Time) {
        let longest = now.after_secs(self.config.health.ejection.as_secs_f64());
        let EndpointTable { states, set, hints, .. } = &mut self.endpoints;
        hints.until.values_mut().for_each(|until| until.not_after(longest));
        hints.all_ask = hints.all_ask.min(longest);
        hints.compare(set.len(), now);
        let all_ask = now < hints.all_ask;
        hints.until.retain(|index, until| {
            let Some(endpoint) = states.get_mut(*index as usize) else { return false };
            endpoint.constraints.hints = Hints::of(now < until.degraded, now < until.held && !all_ask);
            now < until.degraded.max(until.asked)
        });
    }
}
