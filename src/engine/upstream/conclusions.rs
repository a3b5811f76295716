//! What follows from the evidence: what is typical, who is out, whether it is panic.

use super::Upstream;
use crate::config::RuleAction;
use crate::fleet::Condition;
use crate::health::State;
use crate::member::Member;
use crate::policy::View;
use crate::time::Time;

/// Time constant of the request rate, seconds.
const RATE_OVER_S: f64 = 5.0;

impl Upstream {
    /// What follows for the endpoint at `index` from what it just did; O(1).
    pub(super) fn conclude(&mut self, index: u32, now: Time) {
        let may_leave = self.may_leave();
        let state = self.assess(index, now);
        let Some(member) = self.members.get_mut(index as usize) else { return };
        if state != State::Healthy && member.eligible && may_leave {
            member.eligible = false;
            self.out += 1;
        }
    }

    /// Judges the health of the endpoint at `index` and prices it.
    fn assess(&mut self, index: u32, now: Time) -> State {
        let Some(member) = self.members.get(index as usize).filter(|m| m.present) else {
            return State::Healthy;
        };
        let spotless =
            member.health.state() == State::Healthy && member.health.spotless(&member.others.evidence);
        let beside = if spotless { 0.0 } else { self.errors_beside(index) };
        let (typical, errors) = (self.typical, self.fleet_errors);
        let Some(member) = self.members.get_mut(index as usize) else { return State::Healthy };
        member.health.set_others(member.others.evidence);
        member.price(typical, errors, &self.terms);
        member.assess(now, &self.config.health, beside)
    }

    /// The failure ratio of the endpoints in traffic, the one at `index` left out.
    fn errors_beside(&self, index: u32) -> f64 {
        if !self.terms.background {
            return 0.0;
        }
        self.background.ratio(|i| i != index && self.members.get(i as usize).is_some_and(|m| m.eligible))
    }

    /// How many endpoints may be out at a time.
    fn most_out(&self) -> usize {
        (self.staying as f64 * self.config.health.max_ejected_percent / 100.0) as usize
    }

    /// Whether one more may be taken out before the next tick. In panic nobody is, and whoever would bring panic
    /// about is left to the tick: it brings the others back at the same time.
    pub(super) fn may_leave(&self) -> bool {
        let left = self.staying.saturating_sub(self.out + self.spared + 1);
        self.out < self.most_out() && !self.panic && !self.too_few(left)
    }

    /// Whether `left` eligible endpoints are below the panic threshold.
    pub(super) fn too_few(&self, left: usize) -> bool {
        (left as f64) < self.staying as f64 * self.config.failover.panic_percent / 100.0
    }

    /// Draws all conclusions anew: what is typical, who is out, who gets which share.
    pub(super) fn refresh(&mut self, now: Time) {
        let seconds = now.seconds_since(self.refreshed);
        self.refreshed = now;
        if seconds > 0.0 {
            let rate = f64::from(core::mem::take(&mut self.picks)) / seconds;
            self.rate += (rate - self.rate) * (seconds / RATE_OVER_S).min(1.0);
        }
        if self.terms.fade {
            self.members.iter_mut().for_each(|m| m.errors.fade(seconds));
        }
        self.typical = self.median(|m| m.centre().map(|(centre, _)| centre.exp())).unwrap_or(self.typical);
        self.fleet_errors = self.errors_beside(u32::MAX);
        for index in 0..self.members.len() as u32 {
            self.assess(index, now);
        }
        self.rule(now);
        self.eject();
        self.share(now);
        self.pool.refresh(&self.members);
        self.queueing.refresh();
        self.in_flight = self.members.iter().map(Member::total_in_flight).fold(0, u32::saturating_add);
        let view = View { members: &self.members, queueing: &self.queueing, in_flight: self.in_flight, now };
        self.policy.refresh(view, &self.pool);
    }

    /// Applies the operator's rules.
    fn rule(&mut self, now: Time) {
        let width = self.config.signals.len();
        let fresh_s = self.fresh_s();
        for (index, member) in self.members.iter_mut().enumerate().filter(|(_, m)| m.present) {
            let readings = self.readings.get(index * width..(index + 1) * width).unwrap_or_default();
            member.ruled = self.rules.judge(index, member, readings, fresh_s, now);
        }
    }

    fn median(&mut self, value: impl Fn(&Member) -> Option<f64>) -> Option<f64> {
        self.scratch.clear();
        self.scratch.extend(self.members.iter().filter(|m| m.present).filter_map(value));
        let middle = self.scratch.len().checked_sub(1)? / 2;
        Some(*self.scratch.select_nth_unstable_by(middle, f64::total_cmp).1)
    }

    /// Takes the sick out, the failed before the suspect before those that a rule condemns, within the limits; in
    /// panic nobody. Whoever others have condemned is out beyond the limits, and uses them up.
    fn eject(&mut self) {
        self.staying = self.count(|m| m.condition != Condition::Draining);
        self.out = self.count(|m| m.condition == Condition::Unhealthy);
        let limit = self.most_out();
        self.members.iter_mut().for_each(|m| m.eligible = m.present && !m.condition.condemned());
        let wanted_out: [fn(&Member) -> bool; 4] = [
            |m| m.health.state() == State::Failed,
            |m| m.health.state() == State::Recovering,
            |m| m.health.state() == State::Suspect,
            |m| m.ruled == Some(RuleAction::Eject),
        ];
        for wanted in wanted_out {
            for member in self.members.iter_mut().filter(|m| m.eligible && wanted(m)) {
                if self.out < limit {
                    member.eligible = false;
                    self.out += 1;
                }
            }
        }
        self.spare();
        self.panic = self.too_few(self.staying.saturating_sub(self.out + self.spared));
        if self.panic {
            self.members
                .iter_mut()
                .for_each(|m| m.eligible = m.present && m.condition != Condition::Draining);
            (self.out, self.spared) = (0, 0);
        }
    }

    /// Leaves the degraded alone, as long as the others are enough.
    fn spare(&mut self) {
        let degraded = |m: &Member| m.eligible && m.condition == Condition::Degraded;
        self.spared = self.count(degraded);
        let left = self.staying.saturating_sub(self.out + self.spared);
        if self.spared == 0 || left == 0 || self.too_few(left) {
            self.spared = 0;
            return;
        }
        self.members.iter_mut().filter(|m| degraded(m)).for_each(|m| m.eligible = false);
    }

    fn count(&self, which: impl Fn(&Member) -> bool) -> usize {
        self.members.iter().filter(|m| m.present && which(m)).count()
    }
}
