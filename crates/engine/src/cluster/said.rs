//! What endpoints say about themselves in response headers: degraded, to be taken out, or in need of a pause.
//!
//! An endpoint can only harm itself by that: it is ejected within `max_ejected_percent` as for any other reason, and
//! for no longer than an ejection lasts.

use hashbrown::HashMap;

use super::Cluster;
use crate::endpoint::EndpointRef;
use crate::endpoint::Word;
use crate::health::{FailureEvent, State};
use crate::time::Time;

/// What the headers of one answer say about the endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Said {
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
pub(super) struct Words(HashMap<u32, Until>);

impl Words {
    /// Resets the slot at `index` for another endpoint.
    pub fn forget(&mut self, index: u32) {
        self.0.remove(&index);
    }
}

impl Cluster {
    /// Processes the statements in an answer to a request that was sent at `started`.
    pub fn said(&mut self, endpoint: EndpointRef, started: Time, said: Said, now: Time) {
        if !self.endpoints.set.is_current(endpoint) {
            return;
        }
        let index = endpoint.index;
        let nothing = Said::default() == said;
        let health = &self.config.health;
        let longest = health.ejection.as_secs_f64();
        let Some(member) = self.endpoints.states.get_mut(index as usize) else { return };
        if nothing && !member.constraints.word.degraded() {
            return;
        }
        let word = self.endpoints.said.0.entry(index).or_default();
        word.degraded = if said.degraded { now.after_secs(longest) } else { Time::ZERO };
        // Written so that NaN requests no pause.
        let held = said.hold_s > 0.0;
        if held {
            word.held = word.held.max(now.after_secs(said.hold_s.min(longest)));
        }
        member.constraints.word = Word::of(said.degraded, held || member.constraints.word.held());
        if said.failing {
            let failure_event = FailureEvent { weight: health.fail_after, broke: None };
            member.health.failure(started.min(now), now, failure_event);
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
        let Some(member) = self.endpoints.states.get_mut(index as usize) else { return };
        if member.eligible && may_leave && member.health.state() == State::Healthy {
            member.eligible = false;
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
        let members = &mut self.endpoints.states;
        self.endpoints.said.0.retain(|index, word| {
            let Some(member) = members.get_mut(*index as usize) else { return false };
            word.degraded = word.degraded.min(longest);
            word.held = word.held.min(longest);
            member.constraints.word = Word::of(now < word.degraded, now < word.held);
            member.constraints.word != Word::default()
        });
    }
}
