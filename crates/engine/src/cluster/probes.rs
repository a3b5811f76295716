//! Which endpoints get a request as a probe, to verify failing ones and explore slow ones, and which worker sends it.

use super::out_of_band::Urgency;
use super::{Cluster, GOOD_MULTIPLE};
use crate::endpoint::{AnnouncedHealth, EndpointRef, EndpointState, EndpointView, NOISE_S};
use crate::health::{Health, State};
use crate::settings::{self, RuleAction};
use crate::time::Time;
use crate::{order, rng};

/// Number of requests to the cluster after which a slow endpoint is explored: a tenth of what would show in a p99.
const REQUESTS_PER_EXPLORATION: f64 = 1000.0;
/// Range of the resulting pause, seconds.
const EXPLORE_AFTER_S: [f64; 2] = [2.5, 12.0];
/// Factor by which each failed exploration lengthens the pause.
const EXPLORE_GROWTH: f64 = 1.3;
/// Maximum of a pause that has grown, seconds, unless the initial pause was longer.
const MAX_EXPLORE_PAUSE_S: f64 = 6.0;
/// Turns to wait before the next request to an endpoint that has begun to answer well again. A turn is the number of
/// requests between two to the endpoint if each endpoint got its fair part.
const TURNS_TO_GO_ON: f64 = 1.0;
/// Turns to wait before a request to a failing endpoint, so that it gets at most half of a healthy endpoint's requests.
const TURNS_TO_PROBE: f64 = 2.0;
/// Turns to wait before a request to a slow endpoint.
const TURNS_TO_EXPLORE: f64 = 4.0;
/// Turns to wait before a request to an endpoint that gets none for no known reason.
const TURNS_LEFT_OUT: f64 = 20.0;
/// Time after which an endpoint's probes pass on to another worker, seconds.
pub(super) const DUTY_S: u64 = 2;
/// Number of rounds of all workers' duties to wait before an endpoint is probed by requests of other endpoints' keys.
const DUTIES_TO_AWAIT: f64 = 2.0;
/// Number of standard errors above the typical latency at which an endpoint is certainly slow: a factor of sixteen
/// after two answers, of two after thirty.
const CERTAIN_ERRORS: f64 = 8.0;
/// Minimum certainty.
const MIN_CERTAINTY: f64 = 0.1;
/// Time after which an endpoint is explored early, in multiples of the time in which requests were sent to it: what all
/// of these met, such as a hiccup while applications or a proxy start, may be over.
const CHECK_AFTER: f64 = 4.0;
/// Multiple of the typical latency up to which a first answer to an exploration is followed by another one.
pub(super) const NEAR_MULTIPLE: f64 = 8.0;

/// This worker's part of the work that the workers divide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeShard {
    /// Rank of this worker among those that carry traffic, from 0.
    pub rank: u32,
    /// Number of workers that carry traffic, at least 1.
    pub workers: u32,
    /// Whether this worker counts and logs state changes for all workers.
    pub is_reporter: bool,
}

impl ProbeShard {
    /// The only worker.
    pub const ALONE: ProbeShard = ProbeShard { rank: 0, workers: 1, is_reporter: true };

    /// Whether probes to the endpoint with this hash are this worker's at the moment.
    fn owns(self, hash: u64, now: Time) -> bool {
        let turn = now.0 / (DUTY_S * 1_000_000_000);
        self.holds(rng::mix(hash ^ turn))
    }

    /// Whether this worker is responsible for `hash` as long as the number of workers stays the same.
    fn holds(self, hash: u64) -> bool {
        hash % u64::from(self.workers.max(1)) == u64::from(self.rank)
    }
}

/// Part of the requests below which a subset is not explored: it is on standby.
pub(super) const WORTH_EXPLORING: f64 = 0.01;

/// Certainty that `endpoint` is slow, [`MIN_CERTAINTY`]..=1: an endpoint that was excluded on little evidence is
/// explored sooner.
fn certainty(endpoint: &EndpointView<'_>, typical: f64) -> f64 {
    let errors = endpoint.deviation(typical).map_or(CERTAIN_ERRORS, |(deviation, error)| deviation / error);
    (errors / CERTAIN_ERRORS).clamp(MIN_CERTAINTY, 1.0)
}

/// Whether a failing endpoint has waited long enough for a request: to be verified, if it is out of traffic or its subset
/// `idle`. In panic or beyond the limit it is in traffic; one that is slower than usual gets none all the same, and is
/// explored; `explores` has what is usual and the pause, seconds.
#[cold]
#[inline(never)]
fn may_verify(
    endpoint: &EndpointView<'_>,
    (turns, idle, out_of_band): (f64, bool, bool),
    explores: Option<(f64, f64)>,
    limits: &settings::Health,
    now: Time,
) -> bool {
    if endpoint.eligible && !idle {
        let goes_on = endpoint.exploration.looks_again() && turns >= TURNS_TO_GO_ON;
        return explores.is_some_and(|(usual, pause)| {
            let slow = f64::from(endpoint.expected) > GOOD_MULTIPLE * usual + NOISE_S;
            let since = endpoint.quiet_since().max(endpoint.health.looked());
            let waited = || now.seconds_since(since) > pause;
            slow && (goes_on || (turns >= TURNS_TO_EXPLORE && waited()))
        });
    }
    let enough = match endpoint.health.state() {
        State::Recovering => TURNS_TO_GO_ON,
        _ => TURNS_TO_PROBE * endpoint.health.caution(),
    };
    // After a good out-of-band probe, the first user request need not wait.
    let waited =
        now >= endpoint.health.next_probe(limits) || (out_of_band && endpoint.health.caution() <= 1.0);
    waited && turns >= enough
}

/// Whether an endpoint gets so few requests that it may have changed unseen. Not only slow ones: if most were slow
/// together, slow was typical, and once one has recovered all others are left without traffic.
fn lacks_requests(endpoint: &EndpointView<'_>, turns: f64, still_slow: bool) -> bool {
    let left_out = || turns * f64::from(1.0 - endpoint.turn.held) >= TURNS_LEFT_OUT;
    turns >= TURNS_TO_EXPLORE && (still_slow || left_out())
}

/// Time without an answer after which an endpoint is explored, seconds; `pause` where it is certainly slow and has not
/// been explored in vain. Also, whether that is early, because requests were sent to it for `tested_s` only.
#[inline(never)]
fn exploration_pause_s(
    endpoint: &EndpointView<'_>,
    (pause, typical): (f64, f64),
    tested_s: f64,
) -> (f64, bool) {
    let growth = EXPLORE_GROWTH.powi(i32::from(endpoint.exploration.in_vain()));
    let usual = (pause * (growth * certainty(endpoint, typical))).min(pause.max(MAX_EXPLORE_PAUSE_S));
    let early = (CHECK_AFTER * tested_s).max(MIN_CERTAINTY * pause);
    (usual.min(early), early < usual)
}

/// A probe of an endpoint that is out of traffic.
struct HealthProbe {
    /// Whether it is due.
    due: bool,
    /// Whether it is due and this worker's to send.
    mine: bool,
    /// Whether requests are unanswered that are no reason for it.
    busy: bool,
    stalled: bool,
    /// The length of its turn, requests.
    turn: f64,
    /// Where an endpoint is probed by requests of its own keys: this worker's requests, and the number of workers.
    own_keys: Option<(u32, u32)>,
}

/// Whether the probe may be sent.
#[cold]
#[inline(never)]
fn may_send(probe: HealthProbe, endpoint: &mut Health, limits: &settings::Health, now: Time) -> bool {
    let HealthProbe { due, mine, busy, stalled, turn, own_keys } = probe;
    let sent = if stalled { mine } else { endpoint.may_probe(mine, busy, limits, now) };
    if let Some((requests, workers)) = own_keys {
        // The worker to which its own keys come is on duty now and then.
        let duties_s = DUTIES_TO_AWAIT * DUTY_S as f64 * f64::from(workers);
        let patience = (turn * TURNS_LEFT_OUT, duties_s);
        endpoint.await_own_keys(due && (sent || !busy), requests, patience, limits, now);
    }
    sent
}

impl Cluster {
    /// Schedules the probes of all subsets: failing endpoints to be verified and slow ones to be explored, the longest
    /// waiting first.
    #[inline(never)]
    pub(super) fn schedule(&mut self, shard: ProbeShard, now: Time) {
        self.subsets.versions.iter_mut().for_each(|version| version.pending_probes.clear());
        let shard = self.traffic.on_duty(shard);
        let rate = self.traffic.rate * f64::from(shard.workers);
        let requests = self.traffic.requests;
        self.ejection.probing.iter_mut().for_each(|probing| probing.begin(requests, now));
        for at in 0..self.subsets.list.len() {
            self.schedule_subset(at, rate, shard, now);
            self.schedule_out_of_band(at, shard, now);
        }
        for version in &mut self.subsets.versions {
            order::sort(&mut version.pending_probes);
        }
        self.ejection.probing.iter_mut().for_each(|probing| probing.end());
    }

    /// Schedules the probes of one subset. An idle subset is not explored, but its failing endpoints are verified:
    /// whether it can take over must be known before it has to.
    ///
    /// Their cost is bounded in requests of this worker, so that it is the same fraction at any request rate.
    fn schedule_subset(&mut self, at: usize, rate: f64, shard: ProbeShard, now: Time) {
        let everybody = self.endpoints();
        let Some(subset) = self.subsets.list.get(at) else { return };
        let Some(version) = self.subsets.versions.get_mut(subset.key.version) else { return };
        let idle = subset.division.load < WORTH_EXPLORING;
        let explores = subset.policy.exiles() && !idle;
        let part = self.subsets.split.share(subset.key.version) * subset.division.load;
        // As if all endpoints were in traffic, so that the fewer there are the less the others cost.
        let apart = subset.division.weight / part.max(WORTH_EXPLORING);
        let pause = (REQUESTS_PER_EXPLORATION / (rate * part).max(1e-3))
            .clamp(EXPLORE_AFTER_S[0], EXPLORE_AFTER_S[1]);
        // A worker with less than one request per shard turn would never get to send its probes.
        let sparse = self.traffic.is_sparse();
        let (typical, health) = (subset.latency.typical, &self.config.health);
        let probing = self.ejection.probing.as_deref();
        let own_keys = subset.policy.owner(0).is_some().then_some((self.traffic.requests, shard.workers));
        for index in subset.pool.all().iter().copied() {
            let Some(identity) = self.endpoints.set.identities().get(index as usize) else { continue };
            let Some(endpoint) = self.endpoints.states.get_mut(index as usize) else { continue };
            // An endpoint that is announced as unavailable is probed by whatever announced it, and an excluded
            // degraded one is to be left alone.
            let elsewhere = endpoint.constraints.announced.is_unavailable()
                || (self.ejection.degraded_out > 0 && !endpoint.eligible);
            // A stalled endpoint is probed although it has unanswered requests: these are the reason.
            let state = endpoint.health.state();
            let stalled = state == State::Stalled;
            // Another one out of traffic may be, once these have waited for long.
            let busy = !stalled && self.endpoints.peers.of(index, endpoint).pending() > 0;
            let out = state != State::Healthy || !endpoint.eligible;
            // An endpoint that asked for a pause gets one.
            if endpoint.constraints.hints.held()
                || (busy && !out)
                || (elsewhere && endpoint.constraints.announced != AnnouncedHealth::Serving)
            {
                continue;
            }
            let again = endpoint.exploration.looks_again();
            let waited = self.traffic.requests.wrapping_sub(endpoint.turn.asked);
            // An idle subset has no fair part of the requests, so its turns are those of one endpoint among all.
            let turn = if idle { everybody as f64 } else { apart / f64::from(endpoint.weight) };
            let turns = f64::from(waited) / turn;
            let known = self.endpoints.peers.of(index, endpoint);
            // Measurements by which a rule ejected an endpoint change only through requests to it.
            let ruled_out = !known.eligible && known.constraints.ruled == Some(RuleAction::Eject);
            let still_slow = ruled_out || f64::from(known.expected) > GOOD_MULTIPLE * typical + NOISE_S;
            let quiet_s =
                || now.seconds_since(known.quiet_since().max(self.traffic.began).max(known.health.joined()));
            let mut early = false;
            let identified = (index, *identity);
            let patience = || {
                self.signals.fleet.patience((at, typical), &self.endpoints.readings, identified, known, now)
            };
            let due = match state {
                State::Stalled if !known.eligible => {
                    known.health.may_look(quiet_s(), health, now) && turns >= TURNS_TO_PROBE
                }
                // A subset may be idle because a rule has ejected all of it.
                State::Healthy if !explores && !ruled_out => false,
                State::Healthy if again => {
                    (still_slow || !known.exploration.has_looked()) && turns >= TURNS_TO_GO_ON
                }
                State::Healthy => {
                    lacks_requests(&known, turns, still_slow) && {
                        // One worker checks what its own first requests met, so that there are not as many checks as
                        // workers.
                        let checks = shard.holds(*identity);
                        let tested = || self.traffic.tested_s(known.health.joined(), waited, now);
                        let tested_s = if checks { tested() } else { f64::INFINITY };
                        let pause_s;
                        (pause_s, early) = match idle {
                            // Compared with others that the rule has ejected, it may not be slow.
                            true => (pause, false),
                            false => exploration_pause_s(&known, (pause, typical), tested_s),
                        };
                        quiet_s() > pause_s * patience()
                    }
                }
                _ => {
                    let explored = explores.then_some((subset.latency.usual(), pause));
                    may_verify(&known, (turns, idle, probing.is_some()), explored, health, now)
                }
            };
            // The worker that began to explore an endpoint goes on, so that one worker sees its consecutive answers. One
            // worker decides whether unanswered requests have waited for long, as it knows only its own probes.
            let mine = || match busy {
                true => shard.holds(*identity),
                false => again || sparse || early || shard.owns(*identity, now),
            };
            let mut sent = due
                && mine()
                && probing.is_none_or(|probing| again || probing.clears(index, &known, ruled_out, typical));
            if out {
                // Its own keys could not ask it before.
                let due = due && !probing.is_some_and(|probing| probing.refuses(index));
                let probe = HealthProbe { due, mine: sent, busy, stalled, turn, own_keys };
                sent = may_send(probe, &mut endpoint.health, health, now);
            }
            if sent {
                version.pending_probes.push((waited, index));
            }
            if again && !still_slow && endpoint.exploration.has_looked() {
                endpoint.exploration.settle();
            }
        }
    }

    /// Schedules the out-of-band probes of one subset.
    #[inline(never)]
    fn schedule_out_of_band(&mut self, at: usize, shard: ProbeShard, now: Time) {
        let Some(probing) = self.ejection.probing.as_deref_mut() else { return };
        let Some(subset) = self.subsets.list.get(at) else { return };
        let explores = subset.policy.exiles() && subset.division.load >= WORTH_EXPLORING;
        let sparse = self.traffic.is_sparse();
        let compares = probing.lacks_reference(now);
        let mut reference: Option<(u64, EndpointRef)> = None;
        for index in subset.pool.all().iter().copied() {
            let Some(identity) = self.endpoints.set.identities().get(index as usize) else { continue };
            let Some(endpoint) = self.endpoints.set.reference(index) else { continue };
            let Some(known) = self.endpoints.view(index) else { continue };
            let announced = known.constraints.announced;
            let elsewhere = announced.is_unavailable() || (self.ejection.degraded_out > 0 && !known.eligible);
            if known.constraints.hints.held() || (elsewhere && announced != AnnouncedHealth::Serving) {
                continue;
            }
            let on_duty = || known.exploration.looks_again() || sparse || shard.owns(*identity, now);
            let since = known.quiet_since().max(self.traffic.began).max(known.health.joined());
            let silent = || now.seconds_since(since) >= probing.interval_s() && shard.holds(*identity);
            let expected = f64::from(known.expected);
            let slow = expected > GOOD_MULTIPLE * subset.latency.typical + NOISE_S
                || (!known.eligible && known.constraints.ruled == Some(RuleAction::Eject));
            let late = || f64::from(known.silent(&self.queueing, now)) > GOOD_MULTIPLE * expected;
            let urgency = match known.health.state() {
                State::Suspect | State::Recovering if on_duty() => Urgency::Verify,
                State::Healthy if !(explores && (slow || late())) || !on_duty() => {
                    if silent() {
                        Urgency::Silent
                    } else {
                        if compares && known.eligible && !slow {
                            // A random endpoint: the one with the lowest hash.
                            let drawn = (rng::mix(*identity ^ now.0), endpoint);
                            reference = reference.filter(|of| of.0 < drawn.0).or(Some(drawn));
                        }
                        continue;
                    }
                }
                _ if on_duty() => Urgency::Look,
                _ if silent() => Urgency::Silent,
                _ => continue,
            };
            probing.want(endpoint, urgency, now);
        }
        if let Some((_, endpoint)) = reference {
            probing.compare_with(endpoint, now);
        }
    }

    /// The endpoint that gets the next request of `version` as a probe at `now`, regardless of the policy.
    pub(super) fn next_probe(&mut self, version: usize, key: Option<u64>, now: Time) -> Option<u32> {
        if self.subsets.versions.get(version)?.pending_probes.is_empty() {
            return None;
        }
        self.send_probe(version, key, now)
    }

    #[cold]
    #[inline(never)]
    fn send_probe(&mut self, version: usize, key: Option<u64>, now: Time) -> Option<u32> {
        let index = self.next_due(version, key)?;
        // One that fails and is in traffic all the same is probed no more often while it hangs.
        let is_probe = |m: &&mut EndpointState| !m.eligible || m.health.state() != State::Healthy;
        if let Some(endpoint) = self.endpoints.states.get_mut(index as usize).filter(is_probe) {
            endpoint.health.probed(endpoint.in_flight.awaiting() == 0, now);
        }
        Some(index)
    }

    /// The endpoint of the next probe. Explorations beyond the budget are skipped.
    pub(super) fn next_due(&mut self, version: usize, key: Option<u64>) -> Option<u32> {
        loop {
            let index = self.take_due(version, key)?;
            let Some(endpoint) = self.endpoints.states.get_mut(index as usize).filter(|m| m.present) else {
                continue;
            };
            let known = self.endpoints.peers.of(index, endpoint);
            // A stalled endpoint is probed although it has unanswered requests: these are the reason.
            let waits = known.health.state() != State::Stalled && !known.health.may_probe_busy();
            if waits && known.pending() > 0 {
                continue;
            }
            if !known.eligible {
                return Some(index);
            }
            if self.traffic.explores() {
                endpoint.exploration.begin();
                return Some(index);
            }
        }
    }

    /// Takes the longest waiting endpoint. If the request's key has an owner in that endpoint's subset, only the owner
    /// qualifies: other endpoints are probed by requests of their own keys, as long as there are any.
    fn take_due(&mut self, version: usize, key: Option<u64>) -> Option<u32> {
        let subsets = &self.subsets.list;
        let of = |index: u32| subsets.get(self.endpoints.states.get(index as usize)?.subset as usize);
        let due = &mut self.subsets.versions.get_mut(version)?.pending_probes;
        let owned = |index: u32| {
            let owner = key.and_then(|key| of(index)?.policy.owner(key));
            owner.is_none_or(|owner| owner == index)
        };
        let by_any_key = |index: u32| {
            let endpoint = self.endpoints.states.get(index as usize);
            endpoint.is_some_and(|m| !m.eligible && m.health.may_probe_by_any_key())
        };
        let own = due.iter().rposition(|(_, index)| owned(*index));
        let at = own.or_else(|| due.iter().rposition(|(_, index)| by_any_key(*index)))?;
        Some(due.remove(at).1)
    }
}
