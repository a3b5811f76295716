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
    /// Whether the answer counts as a failure.
    pub failed: bool,
}

/// The shortest pause that is granted, seconds: a shorter one ends with the next tick.
const MIN_PAUSE_S: f64 = 0.25;

/// Until when each statement of an endpoint is in force.
#[derive(Clone, Copy, Debug, Default)]
struct Until {
    degraded: Time,
    /// The pause that it gets.
    held: Time,
    /// Until when `good` is kept: for an ejection beyond the pause that it asked for.
    remembered: Time,
    /// The number of its good answers when it last asked for a pause.
    good: u32,
}

impl Until {
    /// Takes a request for a pause of `asked_s`; returns whether it is granted. `good` is the number of good answers before
    /// this one, and whether this one will count as such.
    fn ask(&mut self, asked_s: f64, (good, counts): (u32, bool), longest_s: f64, now: Time) -> bool {
        let between = good.saturating_sub(self.good);
        self.good = good.saturating_add(u32::from(counts));
        self.remembered = self.remembered.max(now.after_secs(asked_s + longest_s));
        let granted_s = asked_s / (1.0 + f64::from(between));
        let granted = granted_s >= MIN_PAUSE_S;
        if granted {
            self.held = self.held.max(now.after_secs(granted_s));
        }
        granted
    }

    /// No statement lasts longer than an ejection, even if the clock stepped back.
    fn bound(&mut self, longest_s: f64, now: Time) {
        let latest = now.after_secs(longest_s);
        (self.degraded, self.held) = (self.degraded.min(latest), self.held.min(latest));
        self.remembered = self.remembered.min(latest.after_secs(longest_s));
    }
}

/// Statements in force, by endpoint index; most endpoints make none.
#[derive(Debug, Default)]
pub(super) struct HintTable {
    until: HashMap<u32, Until>,
}

impl HintTable {
    /// Resets the slot at `index` for another endpoint.
    pub fn forget(&mut self, index: u32) {
        self.until.remove(&index);
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
        let tier = self.subsets.list.get(state.subset as usize).and_then(|g| self.subsets.tiers.get(g.tier));
        let all_ask = tier.is_some_and(|tier| now < tier.all_ask);
        let until = self.endpoints.hints.until.entry(index).or_default();
        until.degraded = if hints.degraded { now.after_secs(longest) } else { Time::ZERO };
        // This answer counts among the failures already, and not among the requests that have ended.
        let requests = state.counters.requests.saturating_add(u32::from(hints.failed));
        let good = (requests.saturating_sub(state.counters.failures), !hints.failed);
        // Written so that NaN requests no pause.
        let granted = hints.hold_s > 0.0 && until.ask(hints.hold_s.min(longest), good, longest, now);
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

    /// Drops statements that have expired.
    #[inline(never)]
    pub(super) fn heed(&mut self, now: Time) {
        let longest_s = self.config.health.ejection.as_secs_f64();
        self.endpoints.hints.until.values_mut().for_each(|until| until.bound(longest_s, now));
        self.compare_pauses(now);
        let EndpointTable { states, hints, .. } = &mut self.endpoints;
        let (subsets, tiers) = (&self.subsets.list, &self.subsets.tiers);
        hints.until.retain(|index, until| {
            let Some(endpoint) = states.get_mut(*index as usize) else { return false };
            let tier = subsets.get(endpoint.subset as usize).and_then(|g| tiers.get(g.tier));
            let held = now < until.held && tier.is_none_or(|tier| now >= tier.all_ask);
            endpoint.constraints.hints = Hints::of(now < until.degraded, held);
            now < until.degraded.max(until.remembered)
        });
    }

    /// Notes the tiers in which more than half of the endpoints that could serve would pause now.
    fn compare_pauses(&mut self, now: Time) {
        let latest = now.after_secs(self.config.health.ejection.as_secs_f64());
        for (at, tier) in self.subsets.tiers.iter_mut().enumerate() {
            let (mut asking, mut serving, mut last) = (0, tier.eligible, Time::ZERO);
            for (index, until) in self.endpoints.hints.until.iter().filter(|(_, until)| now < until.held) {
                let Some(endpoint) = self.endpoints.states.get(*index as usize) else { continue };
                if self.subsets.list.get(endpoint.subset as usize).is_some_and(|g| g.tier == at) {
                    asking += 1;
                    serving += usize::from(!endpoint.eligible);
                    last = last.max(until.held);
                }
            }
            let all_ask = if 2 * asking > serving { tier.all_ask.max(last) } else { tier.all_ask };
            tier.all_ask = all_ask.min(latest);
        }
    }
}
