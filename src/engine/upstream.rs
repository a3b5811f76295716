//! One balanced cluster: its fleet, what is known of it, and who is chosen.

use core::time::Duration;

use super::rules::Rules;
use super::{Decision, Failure, Outcome, Ticket};
use crate::config::{self, NoneEligible, RuleAction};
use crate::fleet::{EndpointRef, Fleet, Spec};
use crate::health::State;
use crate::measure::{Background, LearntWeight, Queueing, Reading};
use crate::member::{Counters, Member, Others};
use crate::policy::{self, Policy, Pool, View};
use crate::random::{self, Rng};
use crate::terms::Terms;
use crate::time::Time;

/// Latency assumed as the fleet's until there is a first answer, seconds.
const TYPICAL_AT_FIRST_S: f64 = 0.05;
/// A slow endpoint is explored after this many requests to the upstream without one to it: a tenth of what a p99
/// would notice …
const REQUESTS_PER_EXPLORATION: f64 = 1000.0;
/// … but neither sooner, nor later than this, seconds.
const EXPLORE_AFTER_S: [f64; 2] = [2.5, 12.0];
/// Each exploration in vain lengthens the pause by this factor …
const EXPLORE_GROWTH: f64 = 1.3;
/// … up to this, seconds, unless it was longer from the start.
const EXPLORE_AT_MOST_S: f64 = 6.0;
/// An endpoint that has waited for this many times the mean pause between two requests to it is left out.
const LEFT_OUT_GAPS: f64 = 20.0;
/// Share of the requests that may explore, however many endpoints are slow; a few may be saved up.
const EXPLORING_SHARE: f32 = 0.01;
const SAVED_EXPLORATIONS: f32 = 4.0;
/// Time constant of the request rate, seconds.
const RATE_OVER_S: f64 = 5.0;
/// An exploration that takes no more than this multiple of the typical latency went well.
const GOOD_MULTIPLE: f64 = 2.0;
/// Duty to probe an endpoint goes from worker to worker at this pace, seconds.
const DUTY_S: u64 = 2;
/// A recovered endpoint is warm: its slow start takes this share of a newcomer's.
const WARM_START: f64 = 0.1;
/// The share with which a slow start begins.
const START_SHARE: f64 = 0.1;
/// How steeply the signals' sum lowers the share when it is news every second: to e⁻¹ at an eighth above the
/// fleet's mean, so that a queue is held short, not only kept from overflowing. News that come every T seconds
/// are acted on 1/T as steeply: what a share can do wrong until the next news grows with T, and all proxies do it
/// at once (Mitzenmacher, "How useful is old information?", 2000).
const SIGNAL_STEEPNESS: f64 = 8.0;
/// How wide the range of a signal without a maximum is, against one that has it.
const RELATIVE: f64 = 0.25;
/// The share that a rule leaves of an endpoint's own.
const DOWN_WEIGHTED: f64 = 0.25;
/// The least share that signals leave, so that bad data alone starves nobody.
const LEAST_SIGNAL_SHARE: f64 = 0.02;

/// Which part of the common work is this worker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duty {
    /// This worker's place among those that carry traffic.
    pub rank: u32,
    /// How many there are, at least 1.
    pub workers: u32,
}

impl Duty {
    /// A worker on its own.
    pub const ALONE: Duty = Duty { rank: 0, workers: 1 };

    fn covers(self, hash: u64, now: Time) -> bool {
        let turn = now.0 / (DUTY_S * 1_000_000_000);
        random::mix(hash ^ turn) % u64::from(self.workers.max(1)) == u64::from(self.rank)
    }
}

/// What this worker did for the upstream, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests steered by the policy.
    pub policy: u64,
    /// Requests that verified or explored an endpoint.
    pub probes: u64,
    /// Requests left to Envoy's fallback because nobody was eligible.
    pub fallbacks: u64,
}

/// A balanced cluster.
pub struct Upstream {
    config: config::Upstream,
    terms: Terms,
    hash: u64,
    poll_s: f64,
    fleet: Fleet,
    members: Vec<Member>,
    readings: Vec<Reading>,
    learnt: Vec<LearntWeight>,
    queueing: Queueing,
    rules: Rules,
    pool: Pool,
    policy: Box<dyn Policy>,
    least_signal: usize,
    due: Vec<u32>,
    /// Picks since the last refresh, and their rate per second.
    picks: u32,
    rate: f64,
    explorations: f32,
    out: usize,
    panic: bool,
    typical: f64,
    fleet_errors: f64,
    background: Background,
    scratch: Vec<f64>,
    totals: Totals,
    refreshed: Time,
}

impl Upstream {
    /// An upstream with its static endpoints, nothing measured yet.
    pub fn new(
        config: &config::Upstream,
        prometheus: Option<&config::Prometheus>,
        terms: Terms,
        now: Time,
    ) -> Upstream {
        let config = reduced(config, &terms);
        let least_signal = match &config.policy {
            config::Policy::LeastSignal { signal } => config.signals.iter().position(|s| s.name == *signal),
            _ => None,
        };
        let mut upstream = Upstream {
            hash: random::hash(config.cluster.as_bytes()),
            poll_s: prometheus.map_or(5.0, |p| p.interval.as_secs_f64()),
            fleet: Fleet::default(),
            members: Vec::new(),
            readings: Vec::new(),
            learnt: vec![LearntWeight::default(); config.signals.len()],
            queueing: Queueing::default(),
            rules: Rules::new(&config.rules),
            pool: Pool::default(),
            policy: policy::build(&config.policy, terms),
            least_signal: least_signal.unwrap_or(0),
            due: Vec::new(),
            picks: 0,
            explorations: SAVED_EXPLORATIONS,
            rate: 0.0,
            out: 0,
            panic: false,
            typical: TYPICAL_AT_FIRST_S,
            fleet_errors: 0.0,
            background: Background::default(),
            scratch: Vec::new(),
            totals: Totals::default(),
            refreshed: now,
            terms,
            config,
        };
        let specs: Vec<Spec> = upstream.config.endpoints.fixed.iter().map(Spec::from).collect();
        upstream.set_fleet(&specs, now);
        upstream
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.config.cluster
    }

    /// [`random::hash`] of the cluster's name: its identity between workers.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The configuration it runs by.
    pub fn config(&self) -> &config::Upstream {
        &self.config
    }

    /// Who the endpoints are.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// What is known of the endpoint at `index`.
    pub fn member(&self, index: u32) -> Option<&Member> {
        self.members.get(index as usize).filter(|m| m.present)
    }

    /// What this worker did for the upstream.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// How much requests in flight delay the next.
    pub fn queueing(&self) -> &Queueing {
        &self.queueing
    }

    /// The fleet's median latency in seconds.
    pub fn typical(&self) -> f64 {
        self.typical
    }

    /// The readings of the endpoint at `index`, in the order of the configured signals.
    pub fn readings(&self, index: u32) -> &[Reading] {
        let width = self.config.signals.len();
        let start = (index as usize).saturating_mul(width);
        self.readings.get(start..start + width).unwrap_or_default()
    }

    /// Makes `specs` the fleet. Newcomers to a fleet that already serves start slowly.
    pub fn set_fleet(&mut self, specs: &[Spec], now: Time) {
        let serving = !self.fleet.is_empty();
        let changes = self.fleet.update(specs);
        self.members.resize(self.fleet.places(), Member::default());
        self.readings.resize(self.fleet.places() * self.config.signals.len(), Reading::default());
        for index in &changes.left {
            self.reset(*index, Member::default());
            self.background.forget(*index);
            self.rules.forget(*index);
        }
        for index in &changes.joined {
            let joined = if serving { now } else { Time::ZERO };
            self.reset(*index, Member { present: true, eligible: true, joined, ..Member::default() });
        }
        for (index, endpoint) in self.fleet.iter() {
            if let Some(member) = self.members.get_mut(index as usize) {
                member.weight = endpoint.spec.weight as f32;
            }
        }
        self.refresh(now);
    }

    fn reset(&mut self, index: u32, to: Member) {
        if let Some(member) = self.members.get_mut(index as usize) {
            *member = to;
        }
        let width = self.config.signals.len();
        let start = index as usize * width;
        if let Some(readings) = self.readings.get_mut(start..start + width) {
            readings.fill(Reading::default());
        }
    }

    /// Decides where a request goes.
    pub fn pick(&mut self, want: usize, now: Time, rng: &mut Rng) -> Decision {
        self.picks += 1;
        self.explorations = (self.explorations + EXPLORING_SHARE).min(SAVED_EXPLORATIONS);
        let due = self.due.pop().and_then(|i| Some((i, self.members.get_mut(i as usize)?)));
        let mut candidates = match due {
            Some((index, member))
                if member.present
                    && member.awaiting() == 0
                    && (!member.eligible || self.explorations >= 1.0) =>
            {
                if member.eligible {
                    member.exploring = true;
                    self.explorations -= 1.0;
                }
                let mut probe = policy::Candidates::default();
                probe.push(index);
                let view = View { members: &self.members, queueing: &self.queueing, now };
                let rest = self.policy.pick(view, &mut self.pool, want, rng);
                rest.as_slice().iter().for_each(|i| probe.push(*i));
                self.totals.probes += 1;
                probe
            }
            _ => {
                self.totals.policy += 1;
                let view = View { members: &self.members, queueing: &self.queueing, now };
                self.policy.pick(view, &mut self.pool, want, rng)
            }
        };
        if candidates.first().is_some() {
            candidates.truncate(want.max(1));
            return Decision::Steer(candidates);
        }
        self.totals.policy -= 1;
        self.totals.fallbacks += 1;
        match self.config.failover.none_eligible {
            NoneEligible::Envoy => Decision::Fallback,
            NoneEligible::Reject => Decision::Reject,
            NoneEligible::SafeEndpoint(_) => Decision::SafeEndpoint,
        }
    }

    /// A request is sent to the endpoint at `index`.
    ///
    /// Returns who that is, and how many others it found in flight.
    pub fn started(&mut self, index: u32, now: Time) -> Option<(EndpointRef, u32)> {
        let endpoint = self.fleet.reference(index)?;
        let member = self.members.get_mut(index as usize)?;
        let depth = member.total_in_flight();
        member.in_flight.start(now);
        member.counters.picks += 1;
        Some((endpoint, depth))
    }

    /// The member that `endpoint` names, if it is still the same endpoint.
    fn current(&mut self, endpoint: EndpointRef) -> Option<&mut Member> {
        if !self.fleet.is_current(endpoint) {
            return None;
        }
        self.members.get_mut(endpoint.index as usize)
    }

    /// The first sign of a request's outcome.
    pub fn answered(&mut self, ticket: &Ticket, outcome: Outcome, now: Time) {
        let Ticket { endpoint, started, .. } = *ticket;
        let typical = self.typical;
        // What it would have taken an idle endpoint.
        let terms = self.terms;
        let raw = now.seconds_since(started);
        let queue = if terms.queueing && terms.idle { self.queueing.delay(ticket.depth) } else { 1.0 };
        let seconds = raw / f64::from(queue);
        if terms.queueing && (outcome == Outcome::Good || outcome == Outcome::Undecided) {
            let deviation = self.member(endpoint.index).and_then(|m| m.latency.deviation(raw));
            deviation.into_iter().for_each(|d| self.queueing.observe(ticket.depth, d));
        }
        let Some(member) = self.current(endpoint) else { return };
        match outcome {
            Outcome::Good | Outcome::Undecided => {
                member.in_flight.answer(started, now);
                member.latency.observe(seconds, now, &terms);
            }
            Outcome::Failed(failure) if failure.answered() => member.in_flight.answer(started, now),
            Outcome::Failed(Failure::Timeout) | Outcome::Cancelled => {
                member.in_flight.stop_awaiting(started);
                member.latency.observe_at_least(seconds, now, &terms);
            }
            Outcome::Failed(_) | Outcome::Unrelated => member.in_flight.stop_awaiting(started),
        }
        if outcome == Outcome::Good || outcome == Outcome::Undecided {
            let well = seconds <= GOOD_MULTIPLE * typical;
            if core::mem::take(&mut member.exploring) {
                member.look_again = well;
                member.explored_in_vain = if well { 0 } else { member.explored_in_vain.saturating_add(1) };
            }
        }
        match outcome {
            Outcome::Good => self.judged(endpoint, started, None, now),
            Outcome::Failed(failure) => self.judged(endpoint, started, Some(failure), now),
            _ => self.conclude(endpoint.index, now),
        }
    }

    /// The request turned out to be served by the endpoint at `to`: a retry, or Envoy's fallback.
    pub fn moved(&mut self, from: EndpointRef, to: u32, started: Time) -> Option<EndpointRef> {
        if let Some(member) = self.current(from) {
            member.in_flight.stop_awaiting(started);
            member.in_flight.finish();
        }
        let endpoint = self.fleet.reference(to)?;
        self.members.get_mut(to as usize)?.in_flight.start(started);
        Some(endpoint)
    }

    /// The verdict on a request: good, or a failure of the endpoint's.
    pub fn judged(&mut self, endpoint: EndpointRef, started: Time, failure: Option<Failure>, now: Time) {
        if !self.fleet.is_current(endpoint) {
            return;
        }
        self.background.observe(endpoint.index, failure.is_some());
        let Some(member) = self.current(endpoint) else { return };
        member.errors.observe(failure.is_some());
        match failure {
            None => member.health.success(started),
            Some(failure) => {
                member.counters.failures += 1;
                if failure.severity() > 0 {
                    member.health.failure(started, now, failure.severity());
                }
            }
        }
        self.conclude(endpoint.index, now);
    }

    /// The request is over.
    pub fn finished(&mut self, endpoint: EndpointRef, _now: Time) {
        if let Some(member) = self.current(endpoint) {
            member.in_flight.finish();
            member.counters.requests += 1;
        }
    }

    /// What follows for the endpoint at `index` from what it just did; O(1).
    fn conclude(&mut self, index: u32, now: Time) {
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
        (self.fleet.len() as f64 * self.config.health.max_ejected_percent / 100.0) as usize
    }

    /// Whether one more may be taken out before the next tick. In panic nobody is, and whoever would bring panic
    /// about is left to the tick: it brings the others back at the same time.
    fn may_leave(&self) -> bool {
        let left = self.fleet.len().saturating_sub(self.out + 1);
        self.out < self.most_out() && !self.panic && !self.too_few(left)
    }

    /// Whether `left` eligible endpoints are below the panic threshold.
    fn too_few(&self, left: usize) -> bool {
        (left as f64) < self.fleet.len() as f64 * self.config.failover.panic_percent / 100.0
    }

    /// Forgets what the other workers know, to be told anew as of `told`.
    pub fn forget_others(&mut self, told: Time) {
        for member in self.members.iter_mut().filter(|m| m.present) {
            member.others = Others::default();
            member.told = told;
        }
    }

    /// Adds what another worker knows of the endpoint with identity `hash`.
    pub fn merge_other(&mut self, hash: u64, other: &Others) {
        if !self.terms.sharing {
            return;
        }
        let Some(index) = self.fleet.index_of_hash(hash) else { return };
        if let Some(member) = self.members.get_mut(index as usize) {
            member.others.merge(other);
        }
    }

    /// Takes the value of one signal for one endpoint, observed at `at`.
    pub fn set_signal(&mut self, signal: usize, hash: u64, value: f64, at: Time) {
        let width = self.config.signals.len();
        let Some(index) = self.fleet.index_of_hash(hash) else { return };
        let Some(smoothing) = self.config.signals.get(signal).map(|s| s.smoothing) else { return };
        let memory_s = 3.0 * self.fresh_s();
        if let Some(reading) = self.readings.get_mut(index as usize * width + signal) {
            reading.observe(value, at, smoothing, memory_s);
        }
    }

    /// The clock stepped back to `now`.
    pub fn not_after(&mut self, now: Time) {
        self.members.iter_mut().for_each(|member| member.not_after(now));
        self.readings.iter_mut().for_each(|reading| reading.not_after(now));
    }

    /// An answer on `signal`, observed at `at`, had values for `known` endpoints.
    pub fn signal_answered(&mut self, signal: usize, known: usize, at: Time) {
        let accuracy = known as f64 / self.fleet.len().max(1) as f64;
        let interval_s = self.poll_s;
        let learns = self.config.signals.get(signal).is_some_and(|s| s.learn);
        if let (true, Some(learnt)) = (learns, self.learnt.get_mut(signal)) {
            learnt.observe(accuracy, at, interval_s);
        }
    }

    /// How long a signal counts in full: two polls and a bit, so that one lost poll changes nothing.
    fn fresh_s(&self) -> f64 {
        2.5 * self.poll_s
    }

    /// Time passes.
    pub fn tick(&mut self, duty: Duty, now: Time) {
        self.refresh(now);
        self.schedule(duty, now);
    }

    /// Draws all conclusions anew: what is typical, who is out, who gets which share.
    fn refresh(&mut self, now: Time) {
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
        let view = View { members: &self.members, queueing: &self.queueing, now };
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
    /// panic nobody.
    fn eject(&mut self) {
        let limit = self.most_out();
        self.out = 0;
        self.members.iter_mut().for_each(|m| m.eligible = m.present);
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
        self.panic = self.too_few(self.fleet.len().saturating_sub(self.out));
        if self.panic {
            self.members.iter_mut().for_each(|m| m.eligible = m.present);
            self.out = 0;
        }
    }

    /// How often each is considered: weight × signals × slow start.
    fn share(&mut self, now: Time) {
        let width = self.config.signals.len();
        let scales: Vec<Scale> = (0..width).map(|s| self.scale(s, now)).collect();
        let fresh_s = self.fresh_s();
        for (index, member) in self.members.iter_mut().enumerate().filter(|(_, m)| m.present) {
            let readings = self.readings.get(index * width..(index + 1) * width).unwrap_or_default();
            let mut burden = 0.0;
            for (reading, scale) in readings.iter().zip(&scales) {
                let above = scale.of(reading.burden()) - scale.mean;
                let news_s = if self.terms.news { reading.news_s().max(self.poll_s).max(1.0) } else { 1.0 };
                burden += scale.weight * reading.trust(now, fresh_s) * above / news_s;
            }
            let signals =
                (-SIGNAL_STEEPNESS * burden).exp().clamp(LEAST_SIGNAL_SHARE, 1.0 / LEAST_SIGNAL_SHARE);
            let start = slow_start(member, self.config.slow_start, now);
            let ruled = if member.ruled == Some(RuleAction::DownWeight) { DOWN_WEIGHTED } else { 1.0 };
            member.share = (f64::from(member.weight) * signals * start * ruled) as f32;
            member.signal = match (readings.get(self.least_signal), scales.get(self.least_signal)) {
                (Some(reading), Some(scale)) if reading.trust(now, fresh_s) > 0.0 => {
                    reading.get(now).map_or(scale.median, |(value, _)| value) as f32
                }
                (_, Some(scale)) => scale.median as f32,
                _ => 0.0,
            };
        }
    }

    /// What the values of signal `at` are measured against.
    fn scale(&mut self, at: usize, now: Time) -> Scale {
        let width = self.config.signals.len();
        let fresh_s = self.fresh_s();
        self.scratch.clear();
        let rows = self.readings.chunks_exact(width.max(1)).zip(&self.members).filter(|(_, m)| m.present);
        self.scratch.extend(rows.filter_map(|(row, _)| {
            let reading = row.get(at).filter(|r| r.trust(now, fresh_s) > 0.0)?;
            reading.get(now).map(|(value, _)| value)
        }));
        let signal = self.config.signals.get(at);
        let max = signal.and_then(|s| s.max);
        let learnt = self.learnt.get(at).map_or(1.0, LearntWeight::get);
        let weight = signal.map_or(0.0, |s| s.weight) * learnt;
        let Some(middle) = self.scratch.len().checked_sub(1).map(|last| last / 2) else {
            return Scale { weight, max, median: 0.0, mean: 0.0 };
        };
        let median = *self.scratch.select_nth_unstable_by(middle, f64::total_cmp).1;
        let mut scale = Scale { weight, max, median, mean: 0.0 };
        scale.mean = self.scratch.iter().map(|v| scale.of(*v)).sum::<f64>() / self.scratch.len() as f64;
        scale
    }

    /// Who gets a single request next: the sick to be verified, the exiled to be explored.
    fn schedule(&mut self, duty: Duty, now: Time) {
        self.due.clear();
        let explores = self.policy.exiles();
        let rate = self.rate * f64::from(duty.workers);
        let pause = (REQUESTS_PER_EXPLORATION / rate.max(1e-3)).clamp(EXPLORE_AFTER_S[0], EXPLORE_AFTER_S[1]);
        let left_out = LEFT_OUT_GAPS * self.fleet.len() as f64 / rate.max(1e-3);
        let (typical, health) = (self.typical, &self.config.health);
        for (index, endpoint) in self.fleet.iter() {
            let Some(member) = self.members.get_mut(index as usize) else { continue };
            if member.awaiting() > 0 {
                continue;
            }
            let again = core::mem::take(&mut member.look_again);
            // What a rule took out for its own measurements shows only by requests that these have changed.
            let ruled_out = !member.eligible && member.ruled == Some(RuleAction::Eject);
            let still_slow = ruled_out || f64::from(member.expected) > GOOD_MULTIPLE * typical;
            let due = if member.health.state() != State::Healthy {
                !member.eligible && now >= member.health.next_probe(health)
            } else if !explores && !ruled_out {
                false
            } else if again {
                still_slow
            } else {
                let growth = EXPLORE_GROWTH.powi(i32::from(member.explored_in_vain.min(16)));
                let longest = pause.max(EXPLORE_AT_MOST_S);
                let silence = now.seconds_since(member.quiet_since());
                // Not only the slow: where most were slow together, slow is typical, and all of them are left
                // without traffic once one has healed.
                silence > (pause * growth).min(longest) && (still_slow || silence > left_out)
            };
            // Who began to look again goes on, so that the same worker sees the answers in a row.
            if due && (again || duty.covers(endpoint.hash, now)) {
                self.due.push(index);
            }
        }
    }

    /// Takes over what `old` has learnt.
    pub fn adopt(&mut self, old: &Upstream, now: Time) {
        self.typical = old.typical;
        self.queueing = old.queueing.clone();
        for (index, endpoint) in self.fleet.iter() {
            let Some(known) = old.fleet.index_of_hash(endpoint.hash) else { continue };
            let (Some(member), Some(known)) = (self.members.get_mut(index as usize), old.member(known))
            else {
                continue;
            };
            *member = Member {
                weight: member.weight,
                in_flight: Default::default(),
                counters: Counters::default(),
                others: Others::default(),
                ..*known
            };
        }
        self.refresh(now);
    }
}

/// The configuration without what `terms` leaves out.
fn reduced(config: &config::Upstream, terms: &Terms) -> config::Upstream {
    let mut config = config.clone();
    if !terms.eject {
        config.health.fail_after = u32::MAX;
    }
    if !terms.verify {
        config.health.suspect_after = u32::MAX;
    }
    if !terms.slow_start {
        config.slow_start = Duration::ZERO;
    }
    if !terms.signals {
        config.signals.clear();
    }
    config
}

/// What makes values of one signal comparable.
#[derive(Clone, Copy, Debug)]
struct Scale {
    weight: f64,
    max: Option<f64>,
    median: f64,
    mean: f64,
}

impl Scale {
    /// 0 is best, 1 is full. Without a maximum nobody knows what full is, so the whole range, with the median in
    /// its middle, is only a quarter as wide: a busy endpoint in an idle fleet is no overload.
    fn of(&self, value: f64) -> f64 {
        let value = value.max(0.0);
        match self.max {
            Some(max) => (value / max).min(2.0),
            None if value + self.median.max(0.0) > 0.0 => RELATIVE * value / (value + self.median.max(0.0)),
            None => 0.5 * RELATIVE,
        }
    }
}

fn slow_start(member: &Member, newcomer: Duration, now: Time) -> f64 {
    let ramp = |since: Time, over: f64| match since {
        Time::ZERO => 1.0,
        _ if over <= 0.0 => 1.0,
        _ => (now.seconds_since(since) / over).clamp(START_SHARE, 1.0),
    };
    let newcomer = newcomer.as_secs_f64();
    ramp(member.joined, newcomer).min(ramp(member.health.returned, newcomer * WARM_START))
}
