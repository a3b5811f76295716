//! One balanced cluster: its fleet, what is known of it, and who is chosen.

mod conclusions;
mod exploration;
mod shares;

use core::time::Duration;

use hashbrown::HashMap;

use super::rules::Rules;
use super::{Decision, Failure, Outcome, Ticket, Totals};
use crate::config::{self, NoneEligible};
use crate::fleet::{EndpointRef, Fleet, Spec};
use crate::measure::{Background, LearntWeight, Queueing, Reading};
use crate::member::{Counters, Member, NOISE_S, Others};
use crate::policy::{self, Policy, Pool, Request, View};
use crate::random::{self, Rng};
use crate::terms::Terms;
use crate::time::Time;

/// Latency assumed as the fleet's until there is a first answer, seconds.
const TYPICAL_AT_FIRST_S: f64 = 0.05;
/// Share of the requests that may explore, however many endpoints are slow; a few may be saved up.
const EXPLORING_SHARE: f32 = 0.01;
const SAVED_EXPLORATIONS: f32 = 4.0;
/// An exploration that takes no more than this multiple of the typical latency went well.
const GOOD_MULTIPLE: f64 = 2.0;

/// So many endpoints that have left are remembered for what was counted.
const MOST_DEPARTED: usize = 10_000;

pub use exploration::Duty;

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
    /// Requests of all workers on their way to anybody, exact for this worker's own.
    in_flight: u32,
    explorations: f32,
    /// How many endpoints are not about to go, how many of these are out, and how many are spared.
    staying: usize,
    out: usize,
    spared: usize,
    panic: bool,
    typical: f64,
    fleet_errors: f64,
    background: Background,
    scratch: Vec<f64>,
    totals: Totals,
    /// Counts of endpoints that have left, should they return: counters do not go down.
    departed: HashMap<u64, Counters>,
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
            in_flight: 0,
            staying: 0,
            out: 0,
            spared: 0,
            panic: false,
            typical: TYPICAL_AT_FIRST_S,
            fleet_errors: 0.0,
            background: Background::default(),
            scratch: Vec::new(),
            totals: Totals::default(),
            departed: HashMap::new(),
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

    /// What this worker has counted for each endpoint, by identity; those that have left are among them.
    pub fn counters(&self) -> impl Iterator<Item = (u64, Counters)> {
        let present = self.members.iter().filter(|m| m.present).map(|m| (m.identity, m.counters));
        present.chain(self.departed.iter().map(|(identity, counters)| (*identity, *counters)))
    }

    /// Starts counting anew.
    pub fn forget_counts(&mut self) {
        self.totals = Totals::default();
        self.departed.clear();
        self.members.iter_mut().for_each(|m| m.counters = Counters::default());
    }

    fn remember_counters(&mut self, index: u32) {
        let Some(member) = self.member(index).copied() else { return };
        if self.departed.len() < MOST_DEPARTED {
            self.departed.insert(member.identity, member.counters);
        }
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
            self.remember_counters(*index);
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
                member.identity = endpoint.hash;
                if let Some(counted) = self.departed.remove(&endpoint.hash) {
                    member.counters = counted;
                }
                member.stand(endpoint.spec.condition, now);
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
    pub fn pick(&mut self, request: Request, now: Time, rng: &mut Rng) -> Decision {
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
                let view =
                    View { members: &self.members, queueing: &self.queueing, in_flight: self.in_flight, now };
                let rest = self.policy.pick(view, &mut self.pool, request, rng);
                rest.as_slice().iter().for_each(|i| probe.push(*i));
                self.totals.probes += 1;
                probe
            }
            _ => {
                self.totals.policy += 1;
                let view =
                    View { members: &self.members, queueing: &self.queueing, in_flight: self.in_flight, now };
                self.policy.pick(view, &mut self.pool, request, rng)
            }
        };
        if let Some(first) = candidates.first() {
            if let Some(member) = self.members.get_mut(first as usize) {
                member.counters.picks += 1;
            }
            candidates.truncate(request.want.max(1));
            return Decision::Steer(candidates);
        }
        self.totals.policy -= 1;
        let (count, decision) = match self.config.failover.none_eligible {
            NoneEligible::Envoy => (&mut self.totals.fallbacks, Decision::Fallback),
            NoneEligible::Reject => (&mut self.totals.rejects, Decision::Reject),
            NoneEligible::SafeEndpoint(_) => (&mut self.totals.safe_endpoint, Decision::SafeEndpoint),
        };
        *count += 1;
        decision
    }

    /// A request is sent to the endpoint at `index`.
    ///
    /// Returns who that is, and how many others it found in flight.
    pub fn started(&mut self, index: u32, now: Time) -> Option<(EndpointRef, u32)> {
        let endpoint = self.fleet.reference(index)?;
        let member = self.members.get_mut(index as usize)?;
        let depth = member.total_in_flight();
        member.in_flight.start(now);
        self.in_flight += 1;
        Some((endpoint, depth))
    }

    /// Nobody can answer yet what is still being sent.
    pub fn uploading(&mut self, endpoint: EndpointRef, started: Time) {
        if let Some(member) = self.current(endpoint) {
            member.in_flight.stop_awaiting(started);
        }
    }

    /// An answer is due from `since` on.
    pub fn uploaded(&mut self, endpoint: EndpointRef, since: Time) {
        if let Some(member) = self.current(endpoint) {
            member.in_flight.start_awaiting(since);
        }
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
                member.latency.observe(seconds, started, now, &terms);
                member.peak.observe(raw, now);
            }
            Outcome::Failed(failure) if failure.answered() => member.in_flight.answer(started, now),
            Outcome::Failed(Failure::Timeout) | Outcome::Cancelled => {
                member.in_flight.stop_awaiting(started);
                member.latency.observe_at_least(seconds, started, now, &terms);
                member.peak.observe_at_least(raw, now);
            }
            Outcome::Failed(_) | Outcome::Unrelated => member.in_flight.stop_awaiting(started),
        }
        if outcome == Outcome::Good || outcome == Outcome::Undecided {
            let well = seconds <= GOOD_MULTIPLE * typical + NOISE_S;
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
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        let endpoint = self.fleet.reference(to)?;
        self.members.get_mut(to as usize)?.in_flight.start(started);
        self.in_flight += 1;
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
            self.in_flight = self.in_flight.saturating_sub(1);
        }
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

    /// The clock stepped back to `now`.
    pub fn not_after(&mut self, now: Time) {
        self.members.iter_mut().for_each(|member| member.not_after(now));
        self.readings.iter_mut().for_each(|reading| reading.not_after(now));
    }

    /// Time passes.
    pub fn tick(&mut self, duty: Duty, now: Time) {
        self.refresh(now);
        self.schedule(duty, now);
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
                condition: member.condition,
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
