//! One balanced cluster: its fleet, what is known of it, and which endpoint is chosen.

pub(crate) mod decision_times;
mod ejection;
mod explain;
mod failings;
mod handover;
mod open_requests;
mod pressure;
mod probes;
mod returning;
pub(crate) mod rules;
mod said;
mod shares;
mod stalled;
mod subset;
pub(crate) mod totals;
mod transitions;
mod unseen;

use core::ops::Range;
use core::time::Duration;

use hashbrown::HashMap;

use super::{Decision, Failure, Outcome, Reason, RequestHandle, RetryHint, Totals};
use crate::ablation::Ablation;
use crate::autoscale::Scaler;
use crate::cluster::handover::HandoverState;
use crate::cluster::rules::Rules;
use crate::cluster::subset::split::{Drawn, Split, unit};
use crate::cluster::subset::{PriorityTier, Subset, VersionSubset};
use crate::endpoint::{Counters, EndpointState, Tally};
use crate::endpoint::{EndpointRef, EndpointSet, Spec};
use crate::endpoint::{EndpointView, NOISE_S};
use crate::endpoint::{PeerReport, PeerTable};
use crate::estimate::latency::CLIP;
use crate::estimate::{Epochs, LearntWeight, PeakEwma, Queueing, Reading, Slots};
use crate::health::{Evidence, State};
use crate::policy::{Candidates, PickContext, Request, Turns};
use crate::rng::{self, Rng};
use crate::settings::{self, NoneEligible};
use crate::time::Time;
use failings::Failings;
use open_requests::OpenRequests;
use unseen::UnseenFailures;

/// Latency assumed as the fleet's until there is a first answer, seconds.
const INITIAL_LATENCY_S: f64 = 0.05;
/// Share of the requests that may explore, however many endpoints are slow; a few may be saved up.
const EXPLORING_SHARE: f32 = 0.01;
const SAVED_EXPLORATIONS: f32 = 4.0;
/// An exploration that takes no more than this multiple of the typical latency went well.
const GOOD_MULTIPLE: f64 = 2.0;
/// Who took no more than this multiple of the typical latency was not silent: calls may have deadlines that no endpoint
/// could keep.
const SILENT_MULTIPLE: f64 = 4.0;
/// One answer of the latest few was a failure.
const FAILS_LATELY: f64 = 0.1;
/// Keeps the hash that divides keys over priorities and zones apart from that of the ring.
const TIER_SALT: u64 = 0xA24B_AED4_963E_E407;

/// The same of the hash that decides which keys are left to Envoy's own policy.
const ENVOY_SALT: u64 = 0x5851_F42D_4C95_7F2D;

/// So many endpoints that have left are remembered for what was counted.
const MAX_DEPARTED: usize = 10_000;

pub use crate::cluster::probes::ProbeShard;
pub use crate::cluster::transitions::{Change, RECENT_S};
pub use explain::Explained;
pub use said::Said;

/// Endpoints of one version, priority and side of the zone's border, and what they get together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SubsetLoad<'a> {
    /// The version; empty without a split.
    pub version: &'a str,
    /// 0 is used first.
    pub priority: u32,
    /// Whether it is in the proxy's zone; always without zones.
    pub local: bool,
    /// Which of Envoy's localities it is; empty where requests are not divided by their weights.
    pub locality: &'a str,
    /// How many endpoints.
    pub endpoints: usize,
    /// The part of the upstream's requests that it is to get, 0..=1.
    pub load: f64,
    /// How busy it is, 1 is full; only with zones.
    pub pressure: Option<f64>,
    /// Health is ignored.
    pub panic: bool,
}

/// A balanced cluster.
pub struct Cluster {
    config: settings::Upstream,
    ablation: Ablation,
    hash: u64,
    poll_s: f64,
    fleet: EndpointSet,
    members: Vec<EndpointState>,
    told: PeerTable,
    /// By endpoint where the policy compares them, and none elsewhere.
    peaks: Vec<PeakEwma>,
    readings: Vec<Reading>,
    learnt: Vec<LearntWeight>,
    queueing: Queueing,
    others_slots: Option<Slots>,
    inherited: Option<HandoverState>,
    scaler: Scaler,
    rules: Rules,
    failings: Failings,
    unseen: UnseenFailures,
    open_requests: OpenRequests,
    split: Split,
    lanes: Vec<VersionSubset>,
    subsets: Vec<Subset>,
    tiers: Vec<PriorityTier>,
    /// Groups in which some endpoint could be chosen at the last tick.
    serving: Vec<u32>,
    least_signal: usize,
    /// Picks since the last refresh, and their rate per second.
    picks: u32,
    rate: f64,
    /// Picks ever; the sum may wrap.
    requests: u32,
    /// Workers that carry traffic.
    workers: u32,
    explorations: f32,
    /// How many endpoints are out, and how many are spared.
    out: usize,
    degraded_out: usize,
    /// The part of the requests that Envoy's own policy is to decide on: some hosts can only be reached by it.
    left_to_envoy: f64,
    /// Health is ignored somewhere.
    panic: bool,
    /// Those that are well can carry everything, wherever they are.
    others_can_absorb: bool,
    typical: f64,
    totals: Totals,
    /// What decided last.
    reason: Reason,
    /// Counts of endpoints that have left, should they return, and what was carried over from the members' own:
    /// counters do not go down.
    departed: HashMap<u64, Counters>,
    journal: transitions::TransitionLog,
    returning: returning::Returning,
    said: said::Words,
    refreshed: Time,
    epochs: Epochs,
    /// When this worker began to send: an endpoint that it never sent anything is silent since then.
    began: Time,
}

impl Cluster {
    /// An upstream with its static endpoints, nothing measured yet.
    pub fn new(
        config: &settings::Upstream,
        poll_interval: Option<Duration>,
        ablation: Ablation,
        now: Time,
    ) -> Cluster {
        let config = reduced(config, &ablation);
        let least_signal = match &config.policy {
            settings::Policy::LeastSignal { signal } => config.signals.iter().position(|s| s.name == *signal),
            _ => None,
        };
        let mut upstream = Cluster {
            hash: rng::hash(config.cluster.as_bytes()),
            poll_s: poll_interval.map_or(5.0, |interval| interval.as_secs_f64()),
            fleet: EndpointSet::default(),
            members: Vec::new(),
            told: PeerTable::default(),
            peaks: Vec::new(),
            readings: Vec::new(),
            learnt: vec![LearntWeight::default(); config.signals.len()],
            queueing: Queueing::default(),
            others_slots: None,
            inherited: None,
            scaler: Scaler::default(),
            rules: Rules::new(&config.rules),
            failings: Failings::new(&config),
            unseen: UnseenFailures::default(),
            open_requests: OpenRequests::default(),
            split: Split::new(&config.split),
            lanes: Vec::new(),
            subsets: Vec::new(),
            tiers: Vec::new(),
            serving: Vec::new(),
            least_signal: least_signal.unwrap_or(0),
            picks: 0,
            requests: 0,
            explorations: SAVED_EXPLORATIONS,
            rate: 0.0,
            workers: 1,
            out: 0,
            degraded_out: 0,
            left_to_envoy: 0.0,
            panic: false,
            others_can_absorb: false,
            typical: INITIAL_LATENCY_S,
            totals: Totals::default(),
            reason: Reason::default(),
            departed: HashMap::new(),
            journal: transitions::TransitionLog::default(),
            returning: returning::Returning::default(),
            said: said::Words::default(),
            refreshed: now,
            epochs: Epochs { current: now, before: now },
            began: now,
            ablation,
            config,
        };
        let lane = || VersionSubset { subsets: 0..0, serves: false, pending_probes: Vec::new() };
        upstream.lanes.resize_with(upstream.split.lanes(), lane);
        let specs: Vec<Spec> = upstream.config.endpoints.fixed.iter().map(Spec::from).collect();
        upstream.set_fleet(&specs, now);
        // What merges the sources has the configuration; a list of ten thousand is not kept twice.
        upstream.config.endpoints.fixed = Vec::new();
        upstream
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.config.cluster
    }

    /// [`rng::hash`] of the cluster's name: its identity between workers.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The configuration it runs by; endpoints that it names are in the [`fleet`](Cluster::fleet).
    pub fn config(&self) -> &settings::Upstream {
        &self.config
    }

    /// Which endpoints there are.
    pub fn fleet(&self) -> &EndpointSet {
        &self.fleet
    }

    /// What is known of the endpoint at `index`.
    pub fn member(&self, index: u32) -> Option<EndpointView<'_>> {
        let member = self.members.get(index as usize).filter(|m| m.present)?;
        Some(self.told.of(index, member))
    }

    /// What is known of all endpoints, with their indices.
    fn known(&self) -> impl Iterator<Item = (u32, EndpointView<'_>)> {
        let present = (0u32..).zip(&self.members).filter(|(_, m)| m.present);
        present.map(|(index, member)| (index, self.told.of(index, member)))
    }

    /// What decided the latest [`pick`](Cluster::pick).
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// What this worker did for the upstream.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// What this worker has counted for each endpoint, by identity: ever, and recent picks. Those that have left
    /// are among them.
    pub fn counters(&self) -> impl Iterator<Item = (u64, Counters, f32)> {
        let present = (0..).zip(&self.members).filter(|(_, m)| m.present);
        let present = present.map(|(index, m)| {
            let mut counters = Counters::from(m.counters);
            let identity = self.fleet.identities().get(index as usize).copied().unwrap_or_default();
            self.departed.get(&identity).into_iter().for_each(|before| counters.merge(before));
            (identity, counters, self.recent_picks(index))
        });
        let left =
            self.departed.iter().filter(|(identity, _)| self.fleet.index_of_hash(**identity).is_none());
        present.chain(left.map(|(identity, counters)| (*identity, *counters, 0.0)))
    }

    fn remember_counters(&mut self, index: u32) {
        let Some(counted) = self.member(index).map(|m| m.counters) else { return };
        let Some(identity) = self.fleet.identities().get(index as usize).copied() else { return };
        let kept = self.departed.len() < MAX_DEPARTED || self.departed.contains_key(&identity);
        if counted != Tally::default() && kept {
            self.departed.entry(identity).or_default().merge(&counted.into());
        }
    }

    fn remember_member(&mut self, index: u32, now: Time) {
        let identity = self.fleet.identities().get(index as usize).copied();
        let member = self.members.get_mut(index as usize).filter(|m| m.present).map(core::mem::take);
        if let (Some(identity), Some(member)) = (identity, member) {
            self.returning.leave(identity, member, now);
        }
    }

    /// How the requests are divided over versions, priorities and zones; one part where they are not.
    pub fn parts(&self) -> impl Iterator<Item = SubsetLoad<'_>> {
        self.subsets.iter().map(|subset| SubsetLoad {
            version: self.config.split.get(subset.key.lane).map_or("", |(version, _)| version.as_str()),
            priority: subset.key.priority,
            local: !subset.key.remote,
            locality: &subset.locality.0,
            endpoints: subset.pool.all().len(),
            load: subset.load * self.split.share(subset.key.lane),
            pressure: self.config.zone.as_ref().map(|_| subset.spill.pressure()),
            panic: self.tiers.get(subset.tier).is_some_and(|t| t.panic),
        })
    }

    /// The failure ratio of the latest answers of the endpoint at `index`, 0..=1, as far as anything depends on it;
    /// else what has not faded of it.
    pub fn error_ratio(&self, index: u32, now: Time) -> f64 {
        let faded = self.member(index).map_or(0.0, |member| member.error_ratio());
        self.failings.ratio(index, now).unwrap_or(0.0).max(faded)
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
        let joined = if self.fleet.is_empty() { Time::ZERO } else { now };
        self.set_fleet_joined(specs, joined, now);
    }

    /// Makes `specs` the fleet, newcomers of which have joined at `joined`; with [`Time::ZERO`] they were there before
    /// anybody looked. How many there are.
    pub fn set_fleet_joined(&mut self, specs: &[Spec], joined: Time, now: Time) -> usize {
        let changes = self.fleet.update(specs);
        let places = self.fleet.places();
        self.members.reserve_exact(places.saturating_sub(self.members.len()));
        self.members.resize_with(places, EndpointState::default);
        if self.config.policy == settings::Policy::PeakEwma {
            self.peaks.resize(places, PeakEwma::default());
        }
        self.readings.resize(self.fleet.places() * self.config.signals.len(), Reading::default());
        self.failings.make_room(places);
        self.unseen.make_room(places);
        for index in &changes.left {
            self.remember_counters(*index);
            self.remember_member(*index, now);
            self.reset(*index, EndpointState::default());
            self.open_requests.forget(*index, now);
            self.rules.forget(*index);
        }
        for index in &changes.joined {
            let identity = self.fleet.identities().get(*index as usize).copied().unwrap_or_default();
            let asked = self.requests;
            let member = self.returning.take(identity, now).unwrap_or_else(|| {
                let mut member =
                    EndpointState { present: true, eligible: true, asked, ..EndpointState::default() };
                member.health.joins(joined);
                member
            });
            self.reset(*index, member);
        }
        for (index, endpoint) in self.fleet.iter() {
            if let Some(member) = self.members.get_mut(index as usize) {
                member.weight = endpoint.weight;
                let counted =
                    self.departed.get(&endpoint.hash).filter(|_| member.counters == Tally::default());
                if let Some(counted) = counted.copied().and_then(Tally::resume) {
                    member.counters = counted;
                    self.departed.remove(&endpoint.hash);
                }
                member.stand(endpoint.condition(), now);
            }
        }
        self.assign_subsets();
        for index in changes.left.iter().chain(&changes.joined) {
            self.forget_transitions(*index);
        }
        self.refresh(now);
        changes.joined.len()
    }

    fn reset(&mut self, index: u32, to: EndpointState) {
        if let Some(member) = self.members.get_mut(index as usize) {
            *member = to;
        }
        self.told.forget_one(index);
        self.failings.forget(index);
        self.unseen.forget(index);
        self.said.forget(index);
        if let Some(peak) = self.peaks.get_mut(index as usize) {
            *peak = PeakEwma::default();
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
        if self.is_left_to_envoy(request.key, rng) {
            self.totals.unsteerable += 1;
            self.reason = Reason::Unsteerable;
            return Decision::Fallback;
        }
        self.requests = self.requests.wrapping_add(1);
        self.explorations = (self.explorations + EXPLORING_SHARE).min(SAVED_EXPLORATIONS);
        let drawn = self.split.draw(request.key, rng);
        let mut candidates = Candidates::default();
        if let Some(index) = self.next_due(drawn.lane, request.key) {
            candidates.push(index);
            self.totals.probes += 1;
            self.reason = Reason::Probe;
        } else {
            self.totals.policy += 1;
            self.reason = Reason::Policy;
        }
        self.choose(drawn, request, now, rng, &mut candidates);
        if let Some(first) = candidates.first() {
            if let Some(member) = self.members.get_mut(first as usize) {
                member.counters.pick();
                member.asked = self.requests;
            }
            candidates.truncate(request.want.max(1));
            return Decision::Steer(candidates);
        }
        self.totals.policy -= 1;
        let totals = &mut self.totals;
        let (count, decision, reason) = match self.config.failover.none_eligible {
            // No endpoint is known, as before the first answer of a source: that is no reason to turn a request away.
            _ if self.fleet.is_empty() => (&mut totals.fallbacks, Decision::Fallback, Reason::Fallback),
            NoneEligible::Envoy => (&mut totals.fallbacks, Decision::Fallback, Reason::Fallback),
            NoneEligible::Reject => (&mut totals.rejects, Decision::Reject, Reason::Reject),
            NoneEligible::SafeEndpoint(_) => {
                (&mut totals.safe_endpoint, Decision::SafeEndpoint, Reason::SafeEndpoint)
            }
        };
        self.reason = reason;
        *count += 1;
        decision
    }

    /// Leaves this part of the requests to Envoy's own policy, 0 to 1.
    pub fn leave_to_envoy(&mut self, part: f64) {
        self.left_to_envoy = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
    }

    /// Whether Envoy's own policy decides on a request; always alike on those of one key.
    fn is_left_to_envoy(&self, key: Option<u64>, rng: &mut Rng) -> bool {
        if self.left_to_envoy <= 0.0 || self.fleet.is_empty() {
            return false;
        }
        key.map_or_else(|| rng.unit(), |key| unit(rng::mix(key ^ ENVOY_SALT))) < self.left_to_envoy
    }

    /// The part of the requests that is left to Envoy's own policy.
    pub fn left_to_envoy(&self) -> f64 {
        self.left_to_envoy
    }

    /// Adds the endpoints that the policy names: in the group that the request is drawn into, and where that has too
    /// few, in the others of its version before those of other versions.
    fn choose(
        &mut self,
        drawn: Drawn,
        request: Request,
        now: Time,
        rng: &mut Rng,
        candidates: &mut Candidates,
    ) {
        let lanes = &self.lanes;
        let serves = |lane: usize| lanes.get(lane).is_some_and(|l| l.serves);
        let lane = if serves(drawn.lane) { drawn.lane } else { self.split.instead(drawn, serves).lane };
        let Some(subsets) = self.lanes.get(lane).map(|l| l.subsets.clone()) else { return };
        let first = self.draw_subset(subsets.clone(), request.key, rng);
        let mut second_best = None;
        if let Some(first) = first {
            self.ask(first, request, now, rng, candidates);
            let fails = self.subsets.get(first).is_some_and(|g| g.record.failing(now) > FAILS_LATELY);
            if fails && request.want > 1 && subsets.len() > 1 {
                // What fails together would fail the retry, too.
                second_best = candidates.as_slice().get(request.want - 1).copied();
                candidates.truncate(request.want - 1);
            }
        }
        for other in [true, false] {
            for at in 0..self.serving.len() {
                if candidates.as_slice().len() >= request.want.max(1) {
                    return;
                }
                let subset = self.serving.get(at).map_or(usize::MAX, |g| *g as usize);
                if Some(subset) != first && subsets.contains(&subset) == other {
                    self.ask(subset, request, now, rng, candidates);
                }
            }
            second_best.take().into_iter().for_each(|index| candidates.push(index));
        }
    }

    /// One of `subsets`, in proportion to their loads. A key always falls at the same place, so that what moves from
    /// one group to another moves no key that could stay.
    fn draw_subset(&self, subsets: Range<usize>, key: Option<u64>, rng: &mut Rng) -> Option<usize> {
        let (start, subsets) = (subsets.start, self.subsets.get(subsets)?);
        let whole = subsets.iter().position(|g| g.load >= 1.0);
        if let Some(at) = whole {
            return Some(start + at);
        }
        let mut left = key.map_or_else(|| rng.unit(), |key| unit(rng::mix(key ^ TIER_SALT)));
        let mut last = None;
        for (at, subset) in subsets.iter().enumerate().filter(|(_, g)| g.load > 0.0) {
            last = Some(start + at);
            if left < subset.load {
                break;
            }
            left -= subset.load;
        }
        last
    }

    /// Adds the endpoints that the policy names in one group.
    fn ask(&mut self, at: usize, request: Request, now: Time, rng: &mut Rng, to: &mut Candidates) {
        let Some(subset) = self.subsets.get_mut(at) else { return };
        let in_flight = subset.in_flight;
        let turns = Turns { requests: self.requests, ..subset.turns };
        let view = PickContext {
            members: &self.members,
            told: &self.told,
            identities: self.fleet.identities(),
            peaks: &self.peaks,
            queueing: &self.queueing,
            in_flight,
            now,
            turns,
        };
        let named = subset.policy.pick(view, &mut subset.pool, request, rng);
        named.as_slice().iter().for_each(|index| to.push(*index));
    }

    /// Counts how a decision that was only shown compares with Envoy's: by what each of the two endpoints is expected
    /// to take.
    pub fn compare(&mut self, named: u32, used: u32) {
        let expected = |index| self.member(index).map(|m| f64::from(m.expected));
        let (Some(named_s), Some(used_s)) = (expected(named), expected(used)) else { return };
        self.totals.observed.compared += 1;
        self.totals.observed.agreed += u64::from(named == used);
        let gain_us = (used_s - named_s) * 1e6;
        self.totals.observed.gained_us += gain_us.max(0.0) as u64;
        self.totals.observed.lost_us += (-gain_us).max(0.0) as u64;
    }

    /// A request was answered by another host than the one that was named, though it was no retry.
    pub fn not_followed(&mut self) {
        self.totals.not_followed += 1;
    }

    /// A request came by a route that was chosen after the decision.
    pub fn rerouted(&mut self) {
        self.totals.rerouted += 1;
    }

    /// A decision took so long. Whether that is believed.
    pub fn decided_within(&mut self, ns: u64) -> bool {
        self.totals.times.observe(ns)
    }

    /// A request is sent to the endpoint at `index`.
    ///
    /// Returns which endpoint that is, and how many others it found that it works on: as many as there would be at an
    /// endpoint of mean weight.
    pub fn started(&mut self, index: u32, now: Time) -> Option<(EndpointRef, u32)> {
        let endpoint = self.fleet.reference(index)?;
        let member = self.members.get_mut(index as usize)?;
        let pending = self.told.of(index, member).pending() as f32;
        let unit = self.subsets.get(member.subset as usize).map_or(1.0, |g| g.turns.unit);
        let depth = (pending * unit / member.weight).round() as u32;
        member.send(now);
        self.count_in_flight(index, 1);
        Some((endpoint, depth))
    }

    /// What is still being sent cannot be answered yet.
    pub fn uploading(&mut self, endpoint: EndpointRef, started: Time) {
        let epochs = self.epochs;
        if let Some(member) = self.current(endpoint) {
            member.stop_awaiting(started, epochs);
        }
    }

    /// An answer is due from `since` on.
    pub fn uploaded(&mut self, endpoint: EndpointRef, since: Time) {
        if let Some(member) = self.current(endpoint) {
            member.await_answer(since);
        }
    }

    /// The client has begun a request at `started` that it has not ended.
    pub fn opened(&mut self, endpoint: EndpointRef, started: Time) {
        if self.current(endpoint).is_some() {
            self.open_requests.open(endpoint.index, started);
        }
    }

    /// Such a request moves on that last moved at `moved`.
    pub fn moves(&mut self, endpoint: EndpointRef, moved: Time, now: Time) {
        if self.current(endpoint).is_some() {
            self.open_requests.moves(endpoint.index, moved, now);
        }
    }

    /// Such a request is complete, answered, or over.
    pub fn closed(&mut self, endpoint: EndpointRef, moved: Time, now: Time) {
        let stalled = match self.current(endpoint) {
            Some(member) => member.health.state() == State::Stalled,
            None => return,
        };
        self.open_requests.close(endpoint.index, moved, now, stalled);
    }

    fn count_in_flight(&mut self, index: u32, by: i32) {
        if let Some(subset) = self.subset_of_mut(index) {
            subset.in_flight = subset.in_flight.saturating_add_signed(by);
        }
    }

    /// The member that `endpoint` names, if it is still the same endpoint.
    fn current(&mut self, endpoint: EndpointRef) -> Option<&mut EndpointState> {
        if !self.fleet.is_current(endpoint) {
            return None;
        }
        self.members.get_mut(endpoint.index as usize)
    }

    /// The first sign of a request's outcome.
    pub fn record_response(&mut self, ticket: &RequestHandle, outcome: Outcome, now: Time) {
        let RequestHandle { endpoint, started, .. } = *ticket;
        let outcome = match outcome {
            Outcome::Failed(Failure::Deadline) if self.was_silent(endpoint.index, started, now) => {
                Outcome::Failed(Failure::Timeout)
            }
            Outcome::Failed(Failure::Deadline) => Outcome::Cancelled,
            outcome => outcome,
        };
        // Another may stand in its place by now, with which its answer has nothing to do.
        if !self.fleet.is_current(endpoint) {
            return;
        }
        let typical = self.typical_beside(endpoint.index);
        // What it would have taken an idle endpoint.
        let ablation = self.ablation;
        let raw = now.seconds_since(started);
        let queue = if ablation.queueing && ablation.idle { self.queueing.delay(ticket.depth) } else { 1.0 };
        let seconds = raw / f64::from(queue);
        let teaches = self.subset_of(endpoint.index).is_none_or(|g| g.teaches);
        if ablation.queueing && teaches && (outcome == Outcome::Good || outcome == Outcome::Undecided) {
            let known = self.member(endpoint.index).map(|m| m.latency);
            self.queueing.noise.survival.observe(raw);
            if let Some((latency, deviation)) = known.and_then(|known| Some((known, known.deviation(raw)?))) {
                if !latency.falling() {
                    self.queueing.observe(ticket.depth, deviation);
                }
                if latency.settled() {
                    let weight = self.queueing.sample_weight(ticket.depth);
                    self.queueing.noise.observe(deviation - queue.ln(), weight, CLIP);
                }
            }
        }
        let (weight, rows) = (self.queueing.sample_weight(ticket.depth), self.queueing.noise.rows());
        self.observe_peak(endpoint.index, outcome, raw, now);
        let epochs = self.epochs;
        let Some(member) = self.members.get_mut(endpoint.index as usize) else { return };
        match outcome {
            Outcome::Good | Outcome::Undecided => {
                member.answer(started, epochs, now);
                member.latency.observe_weighed((seconds, weight), started, now, rows, &ablation);
            }
            Outcome::Failed(failure) if failure.is_response() => member.answer(started, epochs, now),
            Outcome::Failed(Failure::Timeout) | Outcome::Cancelled => {
                member.stop_awaiting(started, epochs);
                member.latency.observe_at_least(seconds, started, now, &ablation);
            }
            Outcome::Failed(_) | Outcome::Unrelated => member.stop_awaiting(started, epochs),
        }
        if matches!(outcome, Outcome::Good | Outcome::Undecided)
            || matches!(outcome, Outcome::Failed(failure) if failure.is_response())
        {
            self.open_requests.answered(endpoint.index, now);
        }
        let Some(member) = self.members.get_mut(endpoint.index as usize) else { return };
        if outcome == Outcome::Good || outcome == Outcome::Undecided {
            let well = seconds <= GOOD_MULTIPLE * typical + NOISE_S;
            member.exploration.answer(well);
        }
        match outcome {
            Outcome::Good => self.record_outcome(endpoint, started, None, now),
            Outcome::Failed(failure) => self.record_outcome(endpoint, started, Some(failure), now),
            _ => self.assess_now(endpoint.index, now),
        }
    }

    /// Whether the endpoint at `index` kept quiet from `started` to `now`, and for much longer than is typical: a
    /// deadline that passes says no more than that.
    fn was_silent(&self, index: u32, started: Time, now: Time) -> bool {
        let Some(known) = self.member(index) else { return false };
        let long = now.seconds_since(started) > SILENT_MULTIPLE * self.typical_beside(index) + NOISE_S;
        // What others sent meanwhile makes it busy with them; what they were answered shows that it lives.
        long && known.in_flight.quiet_since() <= started && known.good().start <= started
    }

    /// Where the policy compares peaks of latency, takes one that was so long.
    fn observe_peak(&mut self, index: u32, outcome: Outcome, seconds: f64, now: Time) {
        let Some(peak) = self.peaks.get_mut(index as usize) else { return };
        match outcome {
            Outcome::Good | Outcome::Undecided => peak.observe(seconds, now),
            Outcome::Failed(Failure::Timeout) | Outcome::Cancelled => peak.observe_at_least(seconds, now),
            Outcome::Failed(_) | Outcome::Unrelated => {}
        }
    }

    /// The request turned out to be served by the endpoint at `to`: a retry, or Envoy's fallback. Who that is, and how
    /// many others are in flight there.
    pub fn reassigned(&mut self, from: EndpointRef, to: u32, started: Time) -> Option<(EndpointRef, u32)> {
        let epochs = self.epochs;
        if let Some(member) = self.current(from) {
            member.stop_awaiting(started, epochs);
            member.in_flight.finish();
            self.count_in_flight(from.index, -1);
        }
        self.started(to, started)
    }

    /// The verdict on a request: good, or a failure of the endpoint's.
    pub fn record_outcome(
        &mut self,
        endpoint: EndpointRef,
        started: Time,
        failure: Option<Failure>,
        now: Time,
    ) {
        if !self.fleet.is_current(endpoint) {
            return;
        }
        if failure == Some(Failure::Deadline) && !self.was_silent(endpoint.index, started, now) {
            return;
        }
        // Sent before the clock stepped back, it would outweigh all that comes until the clock is there again.
        let started = started.min(now);
        if let Some(subset) = self.subset_of_mut(endpoint.index) {
            subset.background.observe(endpoint.index, failure.is_some());
            subset.record.observe(failure.is_some(), now);
        }
        let Some(member) = self.current(endpoint) else { return };
        member.errors.observe(failure.is_some());
        self.failings.observe(endpoint.index, failure.is_some(), now);
        if failure.is_none() {
            self.unseen.forget(endpoint.index);
        }
        let Some(member) = self.current(endpoint) else { return };
        match failure {
            None => member.health.success(started),
            Some(failure) => {
                member.counters.failure();
                if let Some(blow) = failure.blow() {
                    member.health.failure(started, now, blow);
                }
            }
        }
        self.assess_now(endpoint.index, now);
    }

    /// The request failed here and was answered by another endpoint, to which it has been reassigned.
    /// Why is not seen: the last answer gives a `hint`. Where there is none, it is priced, and counts only with
    /// others in a row; where routes try again because of answers such as 429, it is priced and no more.
    pub fn record_failed_attempt(
        &mut self,
        endpoint: EndpointRef,
        started: Time,
        hint: RetryHint,
        now: Time,
    ) {
        let Some(member) = self.current(endpoint) else { return };
        member.counters.request();
        // Who is looked at by single requests is looked at to see whether they fail.
        let looked_at = matches!(member.health.state(), State::Failed | State::Recovering | State::Stalled);
        let counts = match hint {
            RetryHint::Shed => false,
            RetryHint::Failed => true,
            RetryHint::Unseen => looked_at || self.unseen.another(endpoint.index),
        };
        let health = &self.config.health;
        let blamed = Failure::Reset.counted(&health.failures).filter(|_| health.blame_retried && counts);
        self.record_outcome(endpoint, started, Some(blamed.unwrap_or(Failure::TooMany)), now);
    }

    /// The request is over.
    pub fn finished(&mut self, endpoint: EndpointRef, _now: Time) {
        if let Some(member) = self.current(endpoint) {
            member.in_flight.finish();
            member.counters.request();
            self.count_in_flight(endpoint.index, -1);
        }
    }

    /// Forgets what the other workers know, to be told anew as of `told`.
    pub fn forget_others(&mut self, told: Time) {
        self.told.forget(told);
        self.members.iter_mut().for_each(|member| member.health.forget_others());
    }

    /// Adds what another worker knows of the endpoint with identity `hash`.
    pub fn merge_other(&mut self, hash: u64, other: &PeerReport, evidence: &Evidence) {
        if !self.ablation.sharing {
            return;
        }
        let Some(index) = self.fleet.index_of_hash(hash) else { return };
        if let Some(member) = self.members.get_mut(index as usize) {
            self.told.merge((index, member), self.fleet.places(), other, evidence);
        }
    }

    /// The clock stepped back to `now`.
    pub fn not_after(&mut self, now: Time) {
        self.members.iter_mut().for_each(|member| member.not_after(now));
        self.told.not_after(now);
        self.peaks.iter_mut().for_each(|peak| peak.not_after(now));
        self.readings.iter_mut().for_each(|reading| reading.not_after(now));
        self.subsets.iter_mut().for_each(|subset| subset.record.not_after(now));
        self.began = self.began.min(now);
        self.epochs = Epochs { current: self.epochs.current.min(now), before: self.epochs.before.min(now) };
        self.learnt.iter_mut().for_each(|weight| weight.not_after(now));
        self.rules.not_after(now);
        self.failings.not_after(now);
        self.open_requests.not_after(now);
        self.scaler.not_after(now);
    }

    /// Time passes.
    pub fn tick(&mut self, duty: ProbeShard, now: Time) {
        self.restore(now);
        self.workers = duty.workers.max(1);
        self.refresh(now);
        self.schedule(duty, now);
        self.record_transitions(duty);
    }

    /// Takes over what `old` has learnt.
    pub fn take_over(&mut self, old: &mut Cluster, now: Time) {
        self.typical = old.typical;
        self.told.forget(now);
        self.queueing = old.queueing.clone();
        self.scaler = old.scaler.clone();
        self.returning = core::mem::take(&mut old.returning);
        let mut inherited = HandoverState::new(now);
        for (index, identity) in self.fleet.present() {
            let Some(member) = self.members.get_mut(index as usize) else { continue };
            let at = old.fleet.index_of_hash(identity).unwrap_or(u32::MAX);
            let Some(known) = old.members.get_mut(at as usize).filter(|m| m.present) else {
                if !old.fleet.is_empty() {
                    member.health.joins(now);
                }
                continue;
            };
            let all = old.told.of(at, known);
            inherited.add(identity, all);
            let quiet_since = all.quiet_since();
            member.take_over(known, quiet_since);
            // It has waited for as many requests as before.
            member.asked = self.requests.wrapping_sub(old.requests.wrapping_sub(known.asked));
            if let (Some(peak), Some(known)) =
                (self.peaks.get_mut(index as usize), old.peaks.get(at as usize))
            {
                *peak = *known;
            }
        }
        self.inherited = Some(inherited);
        self.take_over_subsets(old, now);
        self.not_after(now);
        self.restore(now);
        self.refresh(now);
        self.take_over_transitions();
    }
}

/// The configuration without what `ablation` leaves out.
fn reduced(config: &settings::Upstream, ablation: &Ablation) -> settings::Upstream {
    let mut config = config.clone();
    if !ablation.eject {
        config.health.fail_after = u32::MAX;
    }
    if !ablation.verify {
        config.health.suspect_after = u32::MAX;
    }
    if !ablation.slow_start {
        config.slow_start = Duration::ZERO;
    }
    if !ablation.signals {
        config.signals.clear();
    }
    config
}
