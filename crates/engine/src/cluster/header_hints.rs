//! What endpoints say about themselves in response headers: degraded, to be taken out, or in need of a pause.
//!
//! An endpoint can only harm itself by that: it is ejected within `max_ejected_percent` as for any other reason, and
//! for no longer than an ejection lasts.

use hashbrown::HashMap;

use super::Cluster;
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

/// Until when each statement of an endpoint is in force.
#[derive(Clone, Copy, Debug, Default)]
struct Until {
    degraded: Time,
    held: Time,
}

/// Statements in force, by endpoint index; most endpoints make none.
#[derive(Debug, Default)]
pub(super) struct HintTable(HashMap<u32, Until>);

impl HintTable {
    /// Resets the slot at `index` for another endpoint.
    pub fn forget(&mut self, index: u32) {
        self.0.remove(&index);
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
        let until = self.endpoints.hints.0.entry(index).or_default();
        until.degraded = if hints.degraded { now.after_secs(longest) } else { Time::ZERO };
        // Written so that NaN requests no pause.
        let held = hints.hold_s > 0.0;
        if held {
            until.held = until.held.max(now.after_secs(hints.hold_s.min(longest)));
        }
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
        let endpoints = &mut self.endpoints.states;
        self.endpoints.hints.0.retain(|index, until| {
            let Some(endpoint) = endpoints.get_mut(*index as usize) else { return false };
            until.degraded = until.degraded.min(longest);
            until.held = until.held.min(longest);
            endpoint.constraints.hints = Hints::of(now < until.degraded, now < until.held);
            endpoint.constraints.hints != Hints::default()
        });
    }
}
