//! What follows from the evidence: what is typical, which endpoints are out, whether it is panic, where requests go.

use super::Cluster;
use crate::cluster::stalled::{is_stalled, stall_timeout};
use crate::cluster::subset::NO_SUBSET;
use crate::cluster::subset::tiers;
use crate::endpoint::AnnouncedHealth;
use crate::endpoint::EndpointState;
use crate::endpoint::EndpointView;
use crate::estimate::Epochs;
use crate::health::{GoodRun, SURPRISE, State};
use crate::policy::{PickContext, Turns};
use crate::settings::RuleAction;
use crate::time::Time;

/// Seconds in a second that an endpoint may be without traffic because failures that all have came in a row by chance.
const LOST_BY_CHANCE: f64 = 0.005;
/// Time constant of the request rate, seconds.
const RATE_OVER_S: f64 = 5.0;

impl Cluster {
    /// What follows for the endpoint at `index` from what it just did; O(1).
    pub(super) fn assess_now(&mut self, index: u32, now: Time) {
        let tier = self.subset_of(index).map(|g| g.tier);
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
        let (typical, measured, errors, stall_timeout) =
            self.subset_of(index).map_or((self.typical, true, 0.0, f64::INFINITY), |g| {
                (g.typical, g.measured, g.failing, g.stall_timeout)
            });
        let spread = f64::from(self.queueing.noise.spread());
        let Some(member) = self.members.get_mut(index as usize) else { return State::Healthy };
        let known = self.told.of(index, member);
        let expected = if measured {
            known.expected_cost(typical, spread, errors, &self.ablation)
        } else {
            // Beside what is only assumed, the first to answer would look like the only quick one.
            (typical + known.error_penalty(typical, errors, &self.ablation)) as f32
        };
        let stalled =
            is_stalled(&known, stall_timeout, now) || self.open_requests.stand_still(index, &known, now);
        let good = if stalled || !member.health.untroubled() { known.good() } else { GoodRun::default() };
        member.expected = expected;
        member.health.set_stalled(stalled);
        member.assess(good, now, &self.config.health, beside)
    }

    /// The failure ratio that is usual beside the endpoint at `index`. A fault that one group does not have is no fault
    /// of every endpoint's.
    ///
    /// Health takes a run for no chance that the ratio makes as improbable as one in a thousand. Where an endpoint is
    /// asked often that happens often, so the ratio is raised until what is lost by it is bounded.
    fn errors_beside(&self, index: u32) -> f64 {
        let Some(subset) = self.subset_of(index).filter(|_| self.ablation.background) else { return 0.0 };
        let Some(member) = self.member(index) else { return 0.0 };
        let mut evidence = member.health.local();
        evidence.merge(&member.others_evidence());
        let run = evidence.failures.count.max(1);
        let endpoints = subset.pool.all().len().max(1);
        let beside = subset.background.usual(|i| i != index && self.in_traffic(i), Some(index), endpoints);
        let ratio = beside.unwrap_or(0.0);
        let rate = self.rate * f64::from(self.workers) / endpoints as f64;
        let chance = (LOST_BY_CHANCE / rate.max(1e-9)).min(SURPRISE);
        // Where that is often, what has not been seen yet is to be reckoned with.
        let often = chance < SURPRISE;
        let ratio = if often {
            let raised = ratio.max(subset.background.unseen(endpoints, self.workers));
            (raised * (SURPRISE / chance).powf(1.0 / f64::from(run))).min(1.0)
        } else {
            ratio
        };
        subset.elsewhere.map_or(ratio, |elsewhere| ratio.min(elsewhere))
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

    /// Whether one more may be taken out before the next tick. In panic none is, and one that would bring panic
    /// about is left to the tick: it brings the others back at the same time.
    pub(super) fn may_leave(&self, tier: usize) -> bool {
        let Some(tier) = self.tiers.get(tier) else { return false };
        let enough = self.others_can_absorb || !self.too_few(tier.eligible.saturating_sub(1), tier.endpoints);
        self.out < self.most_out() && !tier.panic && enough
    }

    /// Whether `left` eligible endpoints of so many are below the panic threshold.
    fn too_few(&self, left: usize, of: usize) -> bool {
        (left as f64) < of as f64 * self.config.failover.panic_percent / 100.0
    }

    /// Draws all conclusions anew: what is typical, which endpoints are out, which gets which share.
    pub(super) fn refresh(&mut self, now: Time) {
        let seconds = now.seconds_since(self.refreshed);
        self.refreshed = now;
        if seconds > 0.0 {
            let rate = f64::from(core::mem::take(&mut self.picks)) / seconds;
            self.rate += (rate - self.rate) * (seconds / RATE_OVER_S).min(1.0);
        }
        let fades_s = if self.ablation.fade { seconds } else { 0.0 };
        let present = (0..).zip(&mut self.members).filter(|(_, m)| m.present);
        let known = present.map(|(index, m)| {
            m.errors.fade(fades_s);
            self.told.of(index, m)
        });
        let typical = median(known);
        self.typical = typical.unwrap_or(self.typical);
        self.compare_subsets(typical, now);
        self.look_at_open_requests(now);
        for index in 0..self.members.len() as u32 {
            self.assess(index, now);
        }
        self.rule(now);
        self.heed(now);
        self.eject();
        self.share(now);
        self.queueing.noise.refresh(self.typical);
        self.turn_epoch(now);
        self.queueing.refresh();
        self.refresh_subsets(now);
        self.divide(seconds, now);
    }

    /// Once an epoch is longer than answers take, what was sent before it and still waits may be held.
    fn turn_epoch(&mut self, now: Time) {
        let Epochs { current, .. } = self.epochs;
        if now.seconds_since(current) > self.queueing.noise.survival.beyond(self.typical) {
            self.members.iter_mut().for_each(|member| member.turn_epoch(current));
            self.epochs = Epochs { current: now, before: current };
        }
    }

    /// What is typical of each group, and which failures are.
    fn compare_subsets(&mut self, typical: Option<f64>, now: Time) {
        let mut subsets = core::mem::take(&mut self.subsets);
        let divided = subsets.len() > 1;
        let mut known = Vec::new();
        for (at, subset) in subsets.iter_mut().enumerate() {
            let here = if divided {
                median(subset.pool.all().iter().filter_map(|i| self.member(*i)))
            } else {
                typical
            };
            subset.measured |= here.is_some();
            subset.typical = here.unwrap_or(subset.typical);
            subset.stall_timeout = stall_timeout(subset, |i| self.member(i), now);
            let failing = subset.background.usual(|i| self.in_traffic(i), None, subset.pool.all().len());
            subset.failing = failing.filter(|_| self.ablation.background).unwrap_or(0.0);
            if subset.record.known(now).is_some() {
                known.extend(subset.background.at_most(|i| self.in_traffic(i)).map(|ratio| (at, ratio)));
            }
        }
        let least = |but| {
            let others = known.iter().filter(|(at, _)| Some(*at) != but);
            others.min_by(|a, b| a.1.total_cmp(&b.1)).copied()
        };
        let first = least(None);
        let second = first.and_then(|(at, _)| least(Some(at)));
        for (at, subset) in subsets.iter_mut().enumerate() {
            // No subset is compared with itself.
            let other = if first.is_some_and(|(of, _)| of == at) { second } else { first };
            subset.elsewhere = other.map(|(_, failing)| failing);
        }
        self.subsets = subsets;
    }

    /// Tells the policies which endpoints can be chosen, and how often.
    fn refresh_subsets(&mut self, now: Time) {
        self.serving.clear();
        for (at, subset) in (0..).zip(&mut self.subsets) {
            if subset.policy.counts_turns() {
                subset.pool.refresh_by(&self.members, |member| member.weight);
            } else {
                subset.pool.refresh(&self.members);
            }
            let in_flight = |i: &u32| self.members.get(*i as usize).map_or(0, |m| m.in_flight.total());
            subset.in_flight = subset.pool.all().iter().map(in_flight).fold(0, u32::saturating_add);
            let view = PickContext {
                members: &self.members,
                told: &self.told,
                identities: self.fleet.identities(),
                peaks: &self.peaks,
                queueing: &self.queueing,
                in_flight: subset.in_flight,
                now,
                turns: Turns { requests: self.requests, ..subset.turns },
            };
            subset.policy.refresh(view, &subset.pool);
            if !subset.pool.is_empty() {
                self.serving.push(at);
            }
        }
        for lane in &mut self.lanes {
            let subsets = self.subsets.get(lane.subsets.clone()).unwrap_or_default();
            lane.serves = subsets.iter().any(|g| !g.pool.is_empty());
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

    /// Ejects failing endpoints, the failed before the suspect before those that a rule ejects, within the limits; in
    /// panic none. One that others have ruled out is out beyond the limits, and uses them up.
    fn eject(&mut self) {
        self.count_health();
        let limit = self.most_out();
        self.out = 0;
        let mut most_urgent = None;
        for member in self.members.iter_mut().filter(|m| m.present) {
            let grouped = member.subset != NO_SUBSET;
            member.eligible = grouped && !member.condition.is_unavailable();
            self.out += usize::from(grouped && member.condition == AnnouncedHealth::Unhealthy);
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
        self.exclude_degraded();
        self.panic();
    }

    /// Counts which endpoints are well, limits or no limits.
    fn count_health(&mut self) {
        for tier in &mut self.tiers {
            (tier.endpoints, tier.weight, tier.fit) = (0, 0.0, 0.0);
        }
        for subset in &mut self.subsets {
            (subset.weight, subset.fit) = (0.0, 0.0);
            let members = subset.pool.all().iter().filter_map(|i| self.members.get(*i as usize));
            let mut endpoints = 0;
            for member in members.filter(|m| m.condition != AnnouncedHealth::Draining) {
                endpoints += 1;
                subset.weight += f64::from(member.weight);
                if fit(member) {
                    subset.fit += f64::from(member.weight);
                }
            }
            if let Some(tier) = self.tiers.get_mut(subset.tier) {
                tier.endpoints += endpoints;
                tier.weight += subset.weight;
                tier.fit += subset.fit;
            }
        }
        self.others_can_absorb = tiers::others_can_absorb(&self.tiers);
    }

    /// Ignores health where too few are left, unless others can take over.
    fn panic(&mut self) {
        for (at, eligible) in self.count_eligible(|_| true).into_iter().enumerate() {
            let Some(endpoints) = self.tiers.get(at).map(|t| t.endpoints) else { continue };
            let panic = !self.others_can_absorb && self.too_few(eligible, endpoints);
            let eligible = if panic { endpoints } else { eligible };
            if let Some(tier) = self.tiers.get_mut(at) {
                (tier.panic, tier.eligible) = (panic, eligible);
            }
        }
        self.panic = self.tiers.iter().any(|t| t.panic);
        if self.panic {
            for subset in self.subsets.iter().filter(|g| self.tiers.get(g.tier).is_some_and(|t| t.panic)) {
                for index in subset.pool.all() {
                    let left_out =
                        |m: &&mut EndpointState| !m.eligible && m.condition != AnnouncedHealth::Draining;
                    if let Some(member) = self.members.get_mut(*index as usize).filter(left_out) {
                        member.eligible = true;
                        self.out = self.out.saturating_sub(1);
                    }
                }
            }
        }
    }

    /// Leaves the degraded alone, as long as the others of their tier are enough.
    fn exclude_degraded(&mut self) {
        let degraded = |m: &EndpointState| m.eligible && m.degraded();
        self.degraded_out = 0;
        if self.count(degraded) == 0 {
            return;
        }
        let eligible = self.count_eligible(|_| true);
        let others = self.count_eligible(|m| !degraded(m));
        let mut serves = vec![false; self.lanes.len()];
        for subset in &self.subsets {
            let well = |i: &u32| self.members.get(*i as usize).is_some_and(|m| m.eligible && !degraded(m));
            if let Some(serves) = serves.get_mut(subset.key.lane) {
                *serves |= subset.pool.all().iter().any(well);
            }
        }
        for subset in &self.subsets {
            // No other endpoint serves its version.
            if serves.get(subset.key.lane) != Some(&true) {
                continue;
            }
            let of = |counts: &[usize]| counts.get(subset.tier).copied().unwrap_or(0);
            let endpoints = self.tiers.get(subset.tier).map_or(0, |t| t.endpoints);
            if of(&eligible) == of(&others) || of(&others) == 0 || self.too_few(of(&others), endpoints) {
                continue;
            }
            for index in subset.pool.all() {
                if let Some(member) = self.members.get_mut(*index as usize).filter(|m| degraded(m)) {
                    member.eligible = false;
                    self.degraded_out += 1;
                }
            }
        }
    }

    /// How many of each tier are eligible and `which`.
    fn count_eligible(&self, which: impl Fn(&EndpointState) -> bool) -> Vec<usize> {
        let mut counts = vec![0; self.tiers.len()];
        for member in self.members.iter().filter(|m| m.eligible && which(m)) {
            let subset = self.subsets.get(member.subset as usize);
            if let Some(count) = subset.and_then(|g| counts.get_mut(g.tier)) {
                *count += 1;
            }
        }
        counts
    }

    fn count(&self, which: impl Fn(&EndpointState) -> bool) -> usize {
        self.members.iter().filter(|m| m.present && which(m)).count()
    }
}

/// How much it is wanted that `member` gets no traffic.
fn urgency(member: &EndpointState) -> Option<u8> {
    match member.health.state() {
        State::Failed => Some(3),
        State::Recovering => Some(2),
        State::Suspect | State::Stalled => Some(1),
        State::Healthy => (member.word.held() || member.ruled == Some(RuleAction::Eject)).then_some(0),
    }
}

/// Whether `member` is as well as an endpoint can be, by everything that judges it.
fn fit(member: &EndpointState) -> bool {
    member.condition == AnnouncedHealth::Serving
        && !member.word.degraded()
        && !member.word.held()
        && member.health.state() == State::Healthy
        && member.ruled != Some(RuleAction::Eject)
}

/// The median latency of `members`, seconds.
fn median<'a>(members: impl Iterator<Item = EndpointView<'a>>) -> Option<f64> {
    let mut logs: Vec<f64> = members.filter_map(|m| m.centre().map(|(centre, _)| centre)).collect();
    let middle = logs.len().checked_sub(1)? / 2;
    Some(logs.select_nth_unstable_by(middle, f64::total_cmp).1.exp())
}
