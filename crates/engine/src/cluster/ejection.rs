//! What follows from the evidence: what is typical, who is out, whether it is panic, where requests go.

use super::Upstream;
use crate::cluster::stalled::{is_hung, patience};
use crate::cluster::subset::NO_GROUP;
use crate::cluster::subset::tiers;
use crate::endpoint::Condition;
use crate::endpoint::Known;
use crate::endpoint::Member;
use crate::health::{Good, State};
use crate::policy::{Turns, View};
use crate::settings::RuleAction;
use crate::time::Time;

/// Time constant of the request rate, seconds.
const RATE_OVER_S: f64 = 5.0;

impl Upstream {
    /// What follows for the endpoint at `index` from what it just did; O(1).
    pub(super) fn conclude(&mut self, index: u32, now: Time) {
        let tier = self.group_of(index).map(|g| g.tier);
        let may_leave = tier.is_some_and(|tier| self.may_leave(tier));
        let state = self.assess(index, now);
        let Some(member) = self.members.get_mut(index as usize) else { return };
        if state != State::Healthy && member.eligible && may_leave {
            member.eligible = false;
            self.out += 1;
            if let Some(tier) = tier.and_then(|tier| self.tiers.get_mut(tier)) {
                tier.eligible = tier.eligible.saturating_sub(1);
            }
        }
    }

    /// Judges the health of the endpoint at `index` and prices it.
    fn assess(&mut self, index: u32, now: Time) -> State {
        let Some(member) = self.members.get(index as usize).filter(|m| m.present) else {
            return State::Healthy;
        };
        let spotless = member.health.state() == State::Healthy && member.health.spotless();
        let beside = if spotless { 0.0 } else { self.errors_beside(index) };
        let (typical, measured, errors, patience) =
            self.group_of(index).map_or((self.typical, true, 0.0, f64::INFINITY), |g| {
                (g.typical, g.measured, g.failing, g.patience)
            });
        let Some(member) = self.members.get_mut(index as usize) else { return State::Healthy };
        let known = self.told.of(index, member);
        let expected = if measured {
            known.price(typical, errors, &self.terms)
        } else {
            // Beside what is only assumed, the first to answer would look like the only quick one.
            (typical + known.surcharge(typical, errors, &self.terms)) as f32
        };
        let hung = is_hung(&known, patience, now);
        let good = if hung || !member.health.untroubled() { known.good() } else { Good::default() };
        member.expected = expected;
        member.health.hangs(hung);
        member.assess(good, now, &self.config.health, beside)
    }

    /// The failure ratio of the endpoints in traffic, the one at `index` left out. A fault that one group does not
    /// have is no fault of everybody's.
    fn errors_beside(&self, index: u32) -> f64 {
        let Some(group) = self.group_of(index).filter(|_| self.terms.background) else { return 0.0 };
        let beside = group.background.ratio(|i| i != index && self.in_traffic(i));
        beside.into_iter().chain(group.elsewhere).reduce(f64::min).unwrap_or(0.0)
    }

    fn in_traffic(&self, index: u32) -> bool {
        self.members.get(index as usize).is_some_and(|m| m.eligible)
    }

    /// How many endpoints may be out at a time: where any may, at least one of several.
    fn most_out(&self) -> usize {
        let (endpoints, percent) = (self.endpoints(), self.config.health.max_ejected_percent);
        let least = usize::from(percent > 0.0 && endpoints > 1);
        ((endpoints as f64 * percent / 100.0) as usize).max(least)
    }

    /// How many endpoints are in a group.
    pub(super) fn endpoints(&self) -> usize {
        self.tiers.iter().map(|t| t.endpoints).sum()
    }

    /// Whether one more may be taken out before the next tick. In panic nobody is, and whoever would bring panic
    /// about is left to the tick: it brings the others back at the same time.
    pub(super) fn may_leave(&self, tier: usize) -> bool {
        let Some(tier) = self.tiers.get(tier) else { return false };
        let enough = self.rescued || !self.too_few(tier.eligible.saturating_sub(1), tier.endpoints);
        self.out < self.most_out() && !tier.panic && enough
    }

    /// Whether `left` eligible endpoints of so many are below the panic threshold.
    fn too_few(&self, left: usize, of: usize) -> bool {
        (left as f64) < of as f64 * self.config.failover.panic_percent / 100.0
    }

    /// Draws all conclusions anew: what is typical, who is out, who gets which share.
    pub(super) fn refresh(&mut self, now: Time) {
        let seconds = now.seconds_since(self.refreshed);
        self.refreshed = now;
        if seconds > 0.0 {
            let rate = f64::from(core::mem::take(&mut self.picks)) / seconds;
            self.rate += (rate - self.rate) * (seconds / RATE_OVER_S).min(1.0);
        }
        let fades_s = if self.terms.fade { seconds } else { 0.0 };
        let present = (0..).zip(&mut self.members).filter(|(_, m)| m.present);
        let known = present.map(|(index, m)| {
            m.errors.fade(fades_s);
            self.told.of(index, m)
        });
        let typical = median(known);
        self.typical = typical.unwrap_or(self.typical);
        self.compare_groups(typical, now);
        for index in 0..self.members.len() as u32 {
            self.assess(index, now);
        }
        self.rule(now);
        self.heed(now);
        self.eject();
        self.share(now);
        self.queueing.refresh();
        self.refresh_groups(now);
        self.divide(seconds, now);
    }

    /// What is typical of each group, and which failures are.
    fn compare_groups(&mut self, typical: Option<f64>, now: Time) {
        let mut groups = core::mem::take(&mut self.groups);
        let divided = groups.len() > 1;
        let mut known = Vec::new();
        for (at, group) in groups.iter_mut().enumerate() {
            let here = if divided {
                median(group.pool.everybody().iter().filter_map(|i| self.member(*i)))
            } else {
                typical
            };
            group.measured |= here.is_some();
            group.typical = here.unwrap_or(group.typical);
            group.patience = patience(group, |i| self.member(i), now);
            let failing = group.background.ratio(|i| self.in_traffic(i));
            group.failing = failing.filter(|_| self.terms.background).unwrap_or(0.0);
            if group.record.known(now).is_some() {
                known.extend(group.background.at_most(|i| self.in_traffic(i)).map(|ratio| (at, ratio)));
            }
        }
        let least = |but| {
            let others = known.iter().filter(|(at, _)| Some(*at) != but);
            others.min_by(|a, b| a.1.total_cmp(&b.1)).copied()
        };
        let first = least(None);
        let second = first.and_then(|(at, _)| least(Some(at)));
        for (at, group) in groups.iter_mut().enumerate() {
            // Nobody is compared with itself.
            let other = if first.is_some_and(|(of, _)| of == at) { second } else { first };
            group.elsewhere = other.map(|(_, failing)| failing);
        }
        self.groups = groups;
    }

    /// Tells the policies who can be chosen, and how often.
    fn refresh_groups(&mut self, now: Time) {
        self.serving.clear();
        for (at, group) in (0..).zip(&mut self.groups) {
            if group.policy.counts_turns() {
                group.pool.refresh_by(&self.members, |member| member.weight);
            } else {
                group.pool.refresh(&self.members);
            }
            let in_flight = |i: &u32| self.members.get(*i as usize).map_or(0, |m| m.in_flight.total());
            group.in_flight = group.pool.everybody().iter().map(in_flight).fold(0, u32::saturating_add);
            let view = View {
                members: &self.members,
                told: &self.told,
                identities: self.fleet.identities(),
                peaks: &self.peaks,
                queueing: &self.queueing,
                in_flight: group.in_flight,
                now,
                turns: Turns { requests: self.requests, ..group.turns },
            };
            group.policy.refresh(view, &group.pool);
            if !group.pool.is_empty() {
                self.serving.push(at);
            }
        }
        for lane in &mut self.lanes {
            let groups = self.groups.get(lane.groups.clone()).unwrap_or_default();
            lane.serves = groups.iter().any(|g| !g.pool.is_empty());
        }
    }

    /// Applies the operator's rules.
    fn rule(&mut self, now: Time) {
        if self.config.rules.is_empty() {
            return;
        }
        let width = self.config.signals.len();
        let fresh_s = self.fresh_s();
        for (index, member) in self.members.iter_mut().enumerate().filter(|(_, m)| m.present) {
            let readings = self.readings.get(index * width..(index + 1) * width).unwrap_or_default();
            let known = self.told.of(index as u32, member);
            let failing = self.failings.ratio(index as u32, now);
            member.ruled = self.rules.judge(index, (known, failing), readings, fresh_s, now);
        }
    }

    /// Takes the sick out, the failed before the suspect before those that a rule condemns, within the limits; in
    /// panic nobody. Whoever others have condemned is out beyond the limits, and uses them up.
    fn eject(&mut self) {
        self.count_health();
        let limit = self.most_out();
        self.out = 0;
        let mut most_urgent = None;
        for member in self.members.iter_mut().filter(|m| m.present) {
            let grouped = member.group != NO_GROUP;
            member.eligible = grouped && !member.condition.condemned();
            self.out += usize::from(grouped && member.condition == Condition::Unhealthy);
            most_urgent = urgency(member).filter(|_| member.eligible).max(most_urgent);
        }
        while let Some(now) = most_urgent {
            most_urgent = None;
            for member in self.members.iter_mut().filter(|m| m.eligible) {
                match urgency(member) {
                    Some(wanted) if wanted == now && self.out < limit => {
                        member.eligible = false;
                        self.out += 1;
                    }
                    Some(wanted) if wanted < now => most_urgent = most_urgent.max(Some(wanted)),
                    _ => {}
                }
            }
        }
        self.spare();
        self.panic();
    }

    /// Counts who is well, limits or no limits.
    fn count_health(&mut self) {
        for tier in &mut self.tiers {
            (tier.endpoints, tier.weight, tier.fit) = (0, 0.0, 0.0);
        }
        for group in &mut self.groups {
            (group.weight, group.fit) = (0.0, 0.0);
            let members = group.pool.everybody().iter().filter_map(|i| self.members.get(*i as usize));
            let mut endpoints = 0;
            for member in members.filter(|m| m.condition != Condition::Draining) {
                endpoints += 1;
                group.weight += f64::from(member.weight);
                if fit(member) {
                    group.fit += f64::from(member.weight);
                }
            }
            if let Some(tier) = self.tiers.get_mut(group.tier) {
                tier.endpoints += endpoints;
                tier.weight += group.weight;
                tier.fit += group.fit;
            }
        }
        self.rescued = tiers::rescued(&self.tiers);
    }

    /// Ignores health where too few are left, unless others can take over.
    fn panic(&mut self) {
        for (at, eligible) in self.count_eligible(|_| true).into_iter().enumerate() {
            let Some(endpoints) = self.tiers.get(at).map(|t| t.endpoints) else { continue };
            let panic = !self.rescued && self.too_few(eligible, endpoints);
            let eligible = if panic { endpoints } else { eligible };
            if let Some(tier) = self.tiers.get_mut(at) {
                (tier.panic, tier.eligible) = (panic, eligible);
            }
        }
        self.panic = self.tiers.iter().any(|t| t.panic);
        if self.panic {
            for group in self.groups.iter().filter(|g| self.tiers.get(g.tier).is_some_and(|t| t.panic)) {
                for index in group.pool.everybody() {
                    let left_out = |m: &&mut Member| !m.eligible && m.condition != Condition::Draining;
                    if let Some(member) = self.members.get_mut(*index as usize).filter(left_out) {
                        member.eligible = true;
                        self.out = self.out.saturating_sub(1);
                    }
                }
            }
        }
    }

    /// Leaves the degraded alone, as long as the others of their tier are enough.
    fn spare(&mut self) {
        let degraded = |m: &Member| m.eligible && m.degraded();
        self.spared = 0;
        if self.count(degraded) == 0 {
            return;
        }
        let eligible = self.count_eligible(|_| true);
        let others = self.count_eligible(|m| !degraded(m));
        let mut serves = vec![false; self.lanes.len()];
        for group in &self.groups {
            let well = |i: &u32| self.members.get(*i as usize).is_some_and(|m| m.eligible && !degraded(m));
            if let Some(serves) = serves.get_mut(group.key.lane) {
                *serves |= group.pool.everybody().iter().any(well);
            }
        }
        for group in &self.groups {
            // Nobody else serves its version.
            if serves.get(group.key.lane) != Some(&true) {
                continue;
            }
            let of = |counts: &[usize]| counts.get(group.tier).copied().unwrap_or(0);
            let endpoints = self.tiers.get(group.tier).map_or(0, |t| t.endpoints);
            if of(&eligible) == of(&others) || of(&others) == 0 || self.too_few(of(&others), endpoints) {
                continue;
            }
            for index in group.pool.everybody() {
                if let Some(member) = self.members.get_mut(*index as usize).filter(|m| degraded(m)) {
                    member.eligible = false;
                    self.spared += 1;
                }
            }
        }
    }

    /// How many of each tier are eligible and `which`.
    fn count_eligible(&self, which: impl Fn(&Member) -> bool) -> Vec<usize> {
        let mut counts = vec![0; self.tiers.len()];
        for member in self.members.iter().filter(|m| m.eligible && which(m)) {
            let group = self.groups.get(member.group as usize);
            if let Some(count) = group.and_then(|g| counts.get_mut(g.tier)) {
                *count += 1;
            }
        }
        counts
    }

    fn count(&self, which: impl Fn(&Member) -> bool) -> usize {
        self.members.iter().filter(|m| m.present && which(m)).count()
    }
}

/// How much it is wanted that `member` gets no traffic.
fn urgency(member: &Member) -> Option<u8> {
    match member.health.state() {
        State::Failed => Some(3),
        State::Recovering => Some(2),
        State::Suspect | State::Hung => Some(1),
        State::Healthy => (member.word.held() || member.ruled == Some(RuleAction::Eject)).then_some(0),
    }
}

/// Whether `member` is as well as an endpoint can be, by all who judge.
fn fit(member: &Member) -> bool {
    member.condition == Condition::Serving
        && !member.word.degraded()
        && !member.word.held()
        && member.health.state() == State::Healthy
        && member.ruled != Some(RuleAction::Eject)
}

/// The median latency of `members`, seconds.
fn median<'a>(members: impl Iterator<Item = Known<'a>>) -> Option<f64> {
    let mut latencies: Vec<f64> =
        members.filter_map(|m| m.centre().map(|(centre, _)| centre.exp())).collect();
    let middle = latencies.len().checked_sub(1)? / 2;
    Some(*latencies.select_nth_unstable_by(middle, f64::total_cmp).1)
}
