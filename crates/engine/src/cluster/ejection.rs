//! Decisions from the evidence: baselines, which endpoints are ejected, and panic.

use super::Cluster;
use super::out_of_band::OutOfBand;
use super::overflow::Overflow;
use crate::ablation::Part;
use crate::cluster::stalled::{is_stalled, stall_timeout};
use crate::cluster::subset::{NO_SUBSET, Subset, tiers};
use crate::endpoint::{AnnouncedHealth, EndpointState, EndpointView};
use crate::estimate::Epochs;
use crate::health::{GoodRun, SURPRISE, State};
use crate::order::lower_median;
use crate::policy::Turns;
use crate::settings::{self, RuleAction};
use crate::time::Time;

/// Fraction of the time that an endpoint may be out of traffic because failures at the common failure ratio came in a
/// row by chance.
const LOST_BY_CHANCE: f64 = 0.005;
/// Maximum number of endpoints by which a worker without recent answers judges how all of them fail.
const OF_SOME: usize = 16;
/// Outcome of the health assessment for the whole cluster.
#[derive(Debug, Default)]
pub(super) struct Ejection {
    /// Number of ejected endpoints.
    pub out: usize,
    /// Number of further endpoints that are excluded because they are degraded.
    pub degraded_out: usize,
    /// Whether any tier is in panic: health is ignored there.
    pub panic: bool,
    /// Whether there are several tiers whose healthy endpoints together can carry the whole load.
    pub others_can_absorb: bool,
    /// Requests that go to ejected endpoints because the others are overloaded.
    pub overflow: Overflow,
    /// Out-of-band probes, if configured.
    pub probing: Option<Box<OutOfBand>>,
}

impl Ejection {
    /// No endpoint ejected; out-of-band probes as configured.
    pub fn new(health: &settings::Health) -> Ejection {
        Ejection { probing: OutOfBand::new(health), ..Ejection::default() }
    }
}

impl Cluster {
    /// Assesses the endpoint at `index` right after an event and ejects it at once if it is not healthy; O(1).
    pub(super) fn assess_now(&mut self, index: u32, now: Time) {
        if self.assess(index, now) != State::Healthy {
            self.leave_now(index);
        }
    }

    /// Ejects the endpoint at `index` before the next tick, within the limits of [`may_leave`](Cluster::may_leave).
    #[inline(never)]
    fn leave_now(&mut self, index: u32) {
        let tier = self.subset_of(index).map(|g| g.tier);
        let may_leave = tier.is_some_and(|tier| self.may_leave(tier));
        let Some(endpoint) = self.endpoints.states.get_mut(index as usize) else { return };
        if endpoint.eligible && may_leave {
            endpoint.eligible = false;
            self.ejection.out += 1;
            if let Some(tier) = tier.and_then(|tier| self.subsets.tiers.get_mut(tier)) {
                tier.eligible = tier.eligible.saturating_sub(1);
            }
        }
    }

    /// Assesses the health of the endpoint at `index` and updates its expected cost.
    fn assess(&mut self, index: u32, now: Time) -> State {
        let Some(endpoint) = self.endpoints.states.get(index as usize).filter(|m| m.present) else {
            return State::Healthy;
        };
        let spotless = endpoint.health.state() == State::Healthy && endpoint.health.spotless();
        let beside = if spotless { 0.0 } else { self.errors_beside(index, now) };
        let (typical, measured, errors, stall_timeout) =
            self.subset_of(index).map_or((self.typical, true, 0.0, f64::INFINITY), |g| {
                (g.latency.typical, g.latency.measured, g.errors.failing, g.latency.stall_timeout)
            });
        let spread = f64::from(self.queueing.noise.spread());
        let Some(endpoint) = self.endpoints.states.get_mut(index as usize) else { return State::Healthy };
        let known = self.endpoints.peers.of(index, endpoint);
        let expected = if measured {
            known.expected_cost(typical, spread, errors, &self.ablation)
        } else {
            // Compared with an assumed baseline, the first endpoint to answer would look like the only fast one.
            (typical + known.error_penalty(typical, errors, &self.ablation)) as f32
        };
        let expected = match f64::from(expected) < typical && self.ablation.has(Part::MinLatency) {
            true => known.no_quicker_than_it_shows(expected, (typical, self.traffic.waited_s), now),
            false => expected,
        };
        let stalled = is_stalled(&known, stall_timeout, now)
            || self.endpoints.open_requests.stand_still(index, &known, now);
        let good = if stalled || !endpoint.health.untroubled() { known.good() } else { GoodRun::default() };
        let found = self.ejection.probing.as_ref().map(|probing| probing.found_slow(index, &known, now));
        endpoint.expected = found.map_or(expected, |times| expected.max((typical * times) as f32));
        endpoint.health.set_stalled(stalled);
        endpoint.assess(good, now, &self.config.health, beside)
    }

    /// Failure ratio of the other endpoints of its subset, which health uses as the baseline for the endpoint at
    /// `index`; at most the least ratio of any other subset, because a fault that one subset does not have is not
    /// common to all.
    ///
    /// Health takes a run of failures as significant where the baseline makes it as improbable as one in a thousand. At
    /// a high request rate such runs are frequent, so the baseline is raised until the time lost to them is bounded by
    /// [`LOST_BY_CHANCE`].
    #[inline(never)]
    fn errors_beside(&self, index: u32, now: Time) -> f64 {
        let Some(subset) = self.subset_of(index).filter(|_| self.ablation.has(Part::BaselineErrors)) else {
            return 0.0;
        };
        let Some(endpoint) = self.endpoint(index) else { return 0.0 };
        let mut evidence = endpoint.health.local();
        evidence.merge(&endpoint.others_evidence());
        let run = evidence.failures.total().max(1);
        let endpoints = subset.pool.all().len().max(1);
        let beside =
            subset.errors.background.usual(|i| i != index && self.in_traffic(i), Some(index), endpoints);
        let ratio = match subset.errors.record.known(now) {
            Some(_) => beside.unwrap_or(0.0),
            None => beside.unwrap_or(0.0).max(self.reported_beside(index, subset)),
        };
        // Number of endpoints of this size in the subset; requests are divided evenly among them.
        let alike = (subset.division.weight / f64::from(endpoint.weight)).max(1.0);
        let alike = if alike.is_finite() { alike } else { endpoints as f64 };
        let rate = self.traffic.rate * f64::from(self.traffic.workers) / alike;
        let chance = (LOST_BY_CHANCE / rate.max(1e-9)).min(SURPRISE);
        // At such a rate, failures that have not been observed yet have to be allowed for.
        let often = chance < SURPRISE;
        let ratio = if often {
            let raised = ratio.max(subset.errors.background.unseen(alike - 1.0, self.traffic.workers));
            (raised * (SURPRISE / chance).powf(1.0 / f64::from(run))).min(1.0)
        } else {
            ratio
        };
        subset.errors.elsewhere.map_or(ratio, |elsewhere| ratio.min(elsewhere))
    }

    /// Median failure ratio of the other endpoints of `subset`, or of some of many, as the peers report it: for a worker
    /// that has no recent answers of its own. All of them may fail alike.
    #[inline(never)]
    fn reported_beside(&self, index: u32, subset: &Subset) -> f64 {
        let all = subset.pool.all();
        let some = all.iter().step_by(all.len().div_ceil(OF_SOME).max(1)).copied();
        let others = some.filter(|other| *other != index && self.in_traffic(*other));
        let mut ratios: Vec<f64> =
            others.filter_map(|other| Some(self.endpoint(other)?.error_ratio())).collect();
        lower_median(&mut ratios).unwrap_or(0.0)
    }

    /// Whether the endpoint at `index` is in traffic on its own account. One that has traffic because of panic alone is
    /// left out of the baseline: otherwise all would count as healthy after the next tick, and too few after the one
    /// after it.
    fn in_traffic(&self, index: u32) -> bool {
        let in_use = |m: &EndpointState| m.eligible && !(self.ejection.panic && urgency(m).is_some());
        self.endpoints.states.get(index as usize).is_some_and(in_use)
    }

    /// Maximum number of ejected endpoints: `max_ejected_percent` of them, and at least one of several unless it is 0.
    fn most_out(&self) -> usize {
        let (endpoints, percent) = (self.endpoints(), self.config.health.max_ejected_percent);
        let least = usize::from(percent > 0.0 && endpoints > 1);
        ((endpoints as f64 * percent / 100.0) as usize).max(least)
    }

    /// Number of endpoints in all tiers.
    pub(super) fn endpoints(&self) -> usize {
        self.subsets.tiers.iter().map(|t| t.endpoints).sum()
    }

    /// Whether one more endpoint of `tier` may be ejected before the next tick: not in panic, nor where it would cause
    /// panic. That is left to the tick, which readmits the others at the same time.
    pub(super) fn may_leave(&self, tier: usize) -> bool {
        let Some(tier) = self.subsets.tiers.get(tier) else { return false };
        let enough =
            self.ejection.others_can_absorb || !self.too_few(tier.eligible.saturating_sub(1), tier.endpoints);
        self.ejection.out < self.most_out() && !tier.panic && enough
    }

    /// Whether `left` eligible endpoints out of `of` are below the panic threshold.
    fn too_few(&self, left: usize, of: usize) -> bool {
        (left as f64) < of as f64 * self.config.failover.panic_percent / 100.0
    }

    /// Decays failure ratios by `seconds` and updates the median latency of all endpoints.
    #[inline(never)]
    pub(super) fn measure(&mut self, seconds: f64) -> Option<f64> {
        let fades_s = if self.ablation.has(Part::Fade) { seconds } else { 0.0 };
        self.endpoints.states.iter_mut().filter(|m| m.present).for_each(|m| m.errors.fade(fades_s));
        let typical = median(self.endpoints.views().map(|(_, view)| view));
        self.typical = typical.unwrap_or(self.typical);
        typical
    }

    /// Assesses every endpoint.
    #[inline(never)]
    pub(super) fn assess_all(&mut self, now: Time) {
        for index in 0..self.endpoints.states.len() as u32 {
            self.assess(index, now);
        }
    }

    /// Starts a new epoch once the current one is longer than answers take: a request that was sent before it and is
    /// still unanswered may be held by its endpoint on purpose.
    #[inline(never)]
    pub(super) fn turn_epoch(&mut self, now: Time) {
        let Epochs { current, .. } = self.traffic.epochs;
        if now.seconds_since(current) > self.queueing.noise.survival.beyond(self.typical) {
            self.endpoints.states.iter_mut().for_each(|endpoint| endpoint.turn_epoch(current));
            self.traffic.epochs = Epochs { current: now, before: current };
        }
    }

    /// Updates the latency and failure baselines of each subset.
    #[inline(never)]
    pub(super) fn compare_subsets(&mut self, typical: Option<f64>, now: Time) {
        let mut subsets = core::mem::take(&mut self.subsets.list);
        let divided = subsets.len() > 1;
        let mut known = Vec::new();
        for (at, subset) in subsets.iter_mut().enumerate() {
            let here = if divided {
                median(subset.pool.all().iter().filter_map(|i| self.endpoint(*i)))
            } else {
                typical
            };
            subset.latency.measured |= here.is_some();
            subset.latency.typical = here.unwrap_or(subset.latency.typical);
            subset.latency.stall_timeout = stall_timeout(subset, |i| self.endpoint(i), now);
            subset.errors.background.set_apart(SURPRISE);
            let failing =
                subset.errors.background.usual(|i| self.in_traffic(i), None, subset.pool.all().len());
            subset.errors.failing =
                failing.filter(|_| self.ablation.has(Part::BaselineErrors)).unwrap_or(0.0);
            if divided && subset.errors.record.known(now).is_some() {
                known.extend(
                    subset.errors.background.at_most(|i| self.in_traffic(i)).map(|ratio| (at, ratio)),
                );
            }
        }
        let least = |but| {
            let others = known.iter().filter(|(at, _)| Some(*at) != but);
            others.min_by(|a, b| a.1.total_cmp(&b.1)).copied()
        };
        let first = least(None);
        let second = first.and_then(|(at, _)| least(Some(at)));
        for (at, subset) in subsets.iter_mut().enumerate() {
            // No subset is compared with itself: the best one gets the second best.
            let other = if first.is_some_and(|(of, _)| of == at) { second } else { first };
            subset.errors.elsewhere = other.map(|(_, failing)| failing);
        }
        self.subsets.list = subsets;
    }

    /// Refreshes the pools of the policies: which endpoints are eligible, and with which shares.
    #[inline(never)]
    pub(super) fn refresh_subsets(&mut self, now: Time) {
        self.subsets.serving.clear();
        for (at, subset) in (0..).zip(&mut self.subsets.list) {
            if subset.policy.counts_turns() {
                subset.pool.refresh_by(&self.endpoints.states, |endpoint| endpoint.weight);
            } else {
                subset.pool.refresh(&self.endpoints.states);
            }
            let in_flight =
                |i: &u32| self.endpoints.states.get(*i as usize).map_or(0, |m| m.in_flight.total());
            subset.in_flight = subset.pool.all().iter().map(in_flight).fold(0, u32::saturating_add);
            let view = self.endpoints.context(
                &self.queueing,
                subset.in_flight,
                Turns { requests: self.traffic.requests, ..subset.turns },
                now,
            );
            subset.policy.refresh(view, &subset.pool);
            if !subset.pool.is_empty() {
                self.subsets.serving.push(at);
            }
        }
        for version in &mut self.subsets.versions {
            let subsets = self.subsets.list.get(version.subsets.clone()).unwrap_or_default();
            version.serves = subsets.iter().any(|g| !g.pool.is_empty());
        }
    }

    /// Applies the operator's rules.
    #[inline(never)]
    pub(super) fn rule(&mut self, now: Time) {
        if self.config.rules.is_empty() {
            return;
        }
        let width = self.config.signals.len();
        let fresh_s = self.fresh_s();
        for (index, endpoint) in self.endpoints.states.iter_mut().enumerate().filter(|(_, m)| m.present) {
            let readings =
                self.endpoints.readings.get(index * width..(index + 1) * width).unwrap_or_default();
            let known = self.endpoints.peers.of(index as u32, endpoint);
            let failing = self.endpoints.failings.ratio(index as u32, now);
            endpoint.constraints.ruled = self.rules.judge(index, (known, failing), readings, fresh_s, now);
        }
    }

    /// Ejects endpoints within the limits, in the order failed, recovering, suspect or stalled, then those that a rule
    /// ejects or that asked for a pause. In panic, ejected endpoints become eligible again. An endpoint that is
    /// announced as unavailable is ineligible regardless of the limit; if unhealthy, it counts towards it.
    #[inline(never)]
    pub(super) fn eject(&mut self) {
        self.count_health();
        let limit = self.most_out();
        self.ejection.out = 0;
        let mut most_urgent = None;
        for endpoint in self.endpoints.states.iter_mut().filter(|m| m.present) {
            let grouped = endpoint.subset != NO_SUBSET;
            endpoint.eligible = grouped && !endpoint.constraints.announced.is_unavailable();
            self.ejection.out +=
                usize::from(grouped && endpoint.constraints.announced == AnnouncedHealth::Unhealthy);
            most_urgent = urgency(endpoint).filter(|_| endpoint.eligible).max(most_urgent);
        }
        while let Some(now) = most_urgent {
            most_urgent = None;
            for endpoint in self.endpoints.states.iter_mut().filter(|m| m.eligible) {
                match urgency(endpoint) {
                    Some(wanted) if wanted == now && self.ejection.out < limit => {
                        endpoint.eligible = false;
                        self.ejection.out += 1;
                    }
                    Some(wanted) if wanted < now => most_urgent = most_urgent.max(Some(wanted)),
                    _ => {}
                }
            }
        }
        self.exclude_degraded();
        self.panic();
    }

    /// Counts the endpoints and the healthy ones of each tier and subset, regardless of the limits.
    fn count_health(&mut self) {
        for tier in &mut self.subsets.tiers {
            (tier.endpoints, tier.weight, tier.fit) = (0, 0.0, 0.0);
        }
        for subset in &mut self.subsets.list {
            (subset.division.weight, subset.division.fit) = (0.0, 0.0);
            let states = subset.pool.all().iter().filter_map(|i| self.endpoints.states.get(*i as usize));
            let mut endpoints = 0;
            for endpoint in states.filter(|m| m.constraints.announced != AnnouncedHealth::Draining) {
                endpoints += 1;
                subset.division.weight += f64::from(endpoint.weight);
                if fit(endpoint) {
                    subset.division.fit += f64::from(endpoint.weight);
                }
            }
            if let Some(tier) = self.subsets.tiers.get_mut(subset.tier) {
                tier.endpoints += endpoints;
                tier.weight += subset.division.weight;
                tier.fit += subset.division.fit;
            }
        }
        self.ejection.others_can_absorb = tiers::others_can_absorb(&self.subsets.tiers);
    }

    /// Ignores health in tiers with too few eligible endpoints, unless the other tiers can carry the load.
    fn panic(&mut self) {
        for (at, eligible) in self.count_eligible(|_| true).into_iter().enumerate() {
            let Some(endpoints) = self.subsets.tiers.get(at).map(|t| t.endpoints) else { continue };
            let panic = !self.ejection.others_can_absorb && self.too_few(eligible, endpoints);
            let eligible = if panic { endpoints } else { eligible };
            if let Some(tier) = self.subsets.tiers.get_mut(at) {
                (tier.panic, tier.eligible) = (panic, eligible);
            }
        }
        self.ejection.panic = self.subsets.tiers.iter().any(|t| t.panic);
        if self.ejection.panic {
            for subset in
                self.subsets.list.iter().filter(|g| self.subsets.tiers.get(g.tier).is_some_and(|t| t.panic))
            {
                for index in subset.pool.all() {
                    let left_out = |m: &&mut EndpointState| {
                        !m.eligible && m.constraints.announced != AnnouncedHealth::Draining
                    };
                    if let Some(endpoint) = self.endpoints.states.get_mut(*index as usize).filter(left_out) {
                        endpoint.eligible = true;
                        self.ejection.out = self.ejection.out.saturating_sub(1);
                    }
                }
            }
        }
    }

    /// Excludes degraded endpoints as long as the other endpoints of their tier suffice, within the limit on ejected
    /// endpoints. Those announced as degraded are beyond the limit where the others can carry the load by Envoy's own
    /// measure.
    fn exclude_degraded(&mut self) {
        let degraded = |m: &EndpointState| m.eligible && m.degraded();
        self.ejection.degraded_out = 0;
        if self.count(degraded) == 0 {
            return;
        }
        let limit = self.most_out();
        let eligible = self.count_eligible(|_| true);
        let others = self.count_eligible(|m| !degraded(m));
        let mut serves = vec![false; self.subsets.versions.len()];
        for subset in &self.subsets.list {
            let well =
                |i: &u32| self.endpoints.states.get(*i as usize).is_some_and(|m| m.eligible && !degraded(m));
            if let Some(serves) = serves.get_mut(subset.key.version) {
                *serves |= subset.pool.all().iter().any(well);
            }
        }
        for subset in &self.subsets.list {
            // All endpoints of this version are degraded.
            if serves.get(subset.key.version) != Some(&true) {
                continue;
            }
            let of = |counts: &[usize]| counts.get(subset.tier).copied().unwrap_or(0);
            let endpoints = self.subsets.tiers.get(subset.tier).map_or(0, |t| t.endpoints);
            if of(&eligible) == of(&others) || of(&others) == 0 || self.too_few(of(&others), endpoints) {
                continue;
            }
            let carried = tiers::capacity(of(&others) as f64, endpoints as f64) >= 1.0;
            for index in subset.pool.all() {
                let Some(endpoint) = self.endpoints.states.get_mut(*index as usize).filter(|m| degraded(m))
                else {
                    continue;
                };
                let announced = endpoint.constraints.announced == AnnouncedHealth::Degraded;
                if carried && announced || self.ejection.out + self.ejection.degraded_out < limit {
                    endpoint.eligible = false;
                    self.ejection.degraded_out += 1;
                }
            }
        }
    }

    /// Number of eligible endpoints that match `which`, by tier.
    pub(super) fn count_eligible(&self, which: impl Fn(&EndpointState) -> bool) -> Vec<usize> {
        let mut counts = vec![0; self.subsets.tiers.len()];
        for endpoint in self.endpoints.states.iter().filter(|m| m.eligible && which(m)) {
            let subset = self.subsets.list.get(endpoint.subset as usize);
            if let Some(count) = subset.and_then(|g| counts.get_mut(g.tier)) {
                *count += 1;
            }
        }
        counts
    }

    fn count(&self, which: impl Fn(&EndpointState) -> bool) -> usize {
        self.endpoints.states.iter().filter(|m| m.present && which(m)).count()
    }
}

/// Order in which `endpoint` is ejected, the highest first; `None` if there is no reason to eject it.
fn urgency(endpoint: &EndpointState) -> Option<u8> {
    match endpoint.health.state() {
        State::Failed => Some(3),
        State::Recovering => Some(2),
        State::Suspect | State::Stalled => Some(1),
        State::Healthy => (endpoint.constraints.hints.held()
            || endpoint.constraints.ruled == Some(RuleAction::Eject))
        .then_some(0),
    }
}

/// Whether `endpoint` is healthy by every source: own evidence, announced health, rules and its own headers.
fn fit(endpoint: &EndpointState) -> bool {
    endpoint.constraints.announced == AnnouncedHealth::Serving
        && !endpoint.constraints.hints.degraded()
        && !endpoint.constraints.hints.held()
        && endpoint.health.state() == State::Healthy
        && endpoint.constraints.ruled != Some(RuleAction::Eject)
}

/// The median latency of `endpoints`, seconds.
pub(super) fn median<'a>(endpoints: impl Iterator<Item = EndpointView<'a>>) -> Option<f64> {
    let mut logs: Vec<f64> = endpoints.filter_map(|m| m.centre().map(|(centre, _)| centre)).collect();
    lower_median(&mut logs).map(f64::exp)
}
