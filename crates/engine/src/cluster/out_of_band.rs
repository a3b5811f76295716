//! Out-of-band probes (`health.probe`): the balancer's own requests to suspect, ejected, slow and silent endpoints, so
//! that no user's request is the first to meet a fault.
//!
//! A probe may be cheaper than users' requests, or not depend on what is broken. A good answer therefore readmits
//! nothing by itself: it allows a single user request, which decides. A failed probe prevents that request. The latency
//! of a probe is compared only with that of probes to endpoints in traffic, and a failure counts only while probes to
//! other endpoints succeed.

use hashbrown::HashMap;

use super::{Cluster, GOOD_MULTIPLE};
use crate::decision::RequestHandle;
use crate::endpoint::{EndpointRef, EndpointView, NOISE_S};
use crate::health::{FailureEvent, State};
use crate::outcome::{Failure, Outcome};
use crate::time::Time;
use crate::{order, settings};

/// Number of reference latencies kept, from the latest probes to endpoints in traffic: enough for a stable median that
/// is minutes old at most.
const REFERENCES: usize = 32;
/// Minimum number of references before a probe can count as slow.
const ENOUGH_REFERENCES: usize = 3;
/// Factor by which references are probed for more often until there are enough.
const REFERENCES_SOONER: f64 = 10.0;
/// Number of probes that can be saved up. Each user request earns one, so that a proxy which is one of many, and calls
/// each of many endpoints seldom, does not send more probes than requests.
const MAX_SAVED: u32 = 32;
/// Upper bound of the interval between probes of an endpoint that is about to be ejected or readmitted, seconds.
const VERIFY_S: f64 = 1.0;
/// Number of samples of users' requests below which a probe's result replaces the latency estimate, half of what an
/// estimate can rest on. Time spent in a queue says little about the endpoint, and weighs more on a probe than on a
/// request.
const FEW_SAMPLES: f64 = 8.0;
/// Number of probe intervals for which a result remains valid.
const HOLDS_INTERVALS: f64 = 2.0;

/// Result of an endpoint's latest probe.
#[derive(Clone, Copy, Debug, PartialEq)]
enum ProbeResult {
    /// Answered well in the usual time, or without references to compare with.
    Quick,
    /// Answered well, but slower than usual by this factor.
    Slow(f32),
    /// Failed.
    Failed,
}

/// Probe state of one endpoint.
#[derive(Clone, Copy, Debug)]
struct Record {
    endpoint: EndpointRef,
    /// When the latest probe was sent.
    sent: Time,
    /// Whether it is still in flight.
    under_way: bool,
    /// Whether the endpoint was in normal use when it was sent, so that its latency may serve as a reference.
    plain: bool,
    /// Result of the latest completed probe, and when that one was sent.
    verdict: Option<(ProbeResult, Time)>,
}

/// Reasons to probe an endpoint, in rising order of urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// No request for an interval.
    Silent,
    /// Needed as a reference.
    Compare,
    /// Ejected, slow or late with an answer.
    Look,
    /// About to be ejected or readmitted.
    Verify,
}

/// Out-of-band probes of one cluster.
#[derive(Debug)]
pub(super) struct OutOfBand {
    interval_s: f64,
    timeout_s: f64,
    records: HashMap<u32, Record>,
    /// Latencies of the latest probes to endpoints in traffic, seconds; a ring buffer.
    references: Vec<f32>,
    replaced: usize,
    /// When a reference was last requested.
    compared: Time,
    /// Pending probes: the most urgent last, and among these the longest waiting last.
    due: Vec<(Urgency, core::cmp::Reverse<Time>, EndpointRef)>,
    /// Number of probes that may be sent, and this worker's request count when that was last updated.
    saved: u32,
    requests: u32,
}

impl OutOfBand {
    /// Creates the probe state if probes are configured.
    pub fn new(health: &settings::Health) -> Option<Box<OutOfBand>> {
        let probe = health.probe.as_ref()?;
        Some(Box::new(OutOfBand {
            interval_s: probe.interval.as_secs_f64(),
            timeout_s: probe.timeout.as_secs_f64(),
            records: HashMap::new(),
            references: Vec::new(),
            replaced: 0,
            compared: Time::ZERO,
            due: Vec::new(),
            saved: MAX_SAVED,
            requests: 0,
        }))
    }

    /// Silence after which an endpoint is probed, seconds.
    pub fn interval_s(&self) -> f64 {
        self.interval_s
    }

    /// Begins a new schedule; `requests` is this worker's request count, each of which earns a probe.
    pub fn begin(&mut self, requests: u32, now: Time) {
        let more = requests.wrapping_sub(core::mem::replace(&mut self.requests, requests));
        self.saved = self.saved.saturating_add(more).min(MAX_SAVED);
        self.due.clear();
        let kept_s = self.holds_s();
        self.records.retain(|_, record| now.seconds_since(record.sent) <= kept_s);
    }

    /// Schedules a probe of `endpoint`, unless one is in flight or was sent a moment ago.
    pub fn want(&mut self, endpoint: EndpointRef, urgency: Urgency, now: Time) {
        let pause_s = match urgency {
            Urgency::Verify => self.interval_s.min(VERIFY_S),
            Urgency::Silent | Urgency::Compare | Urgency::Look => self.interval_s,
        };
        let sent = match self.records.get(&endpoint.index).filter(|record| record.endpoint == endpoint) {
            // A probe that never completed is given up after twice its timeout.
            Some(record) if record.under_way && now.seconds_since(record.sent) <= 2.0 * self.timeout_s => {
                return;
            }
            Some(record) if now.seconds_since(record.sent) < pause_s => return,
            Some(record) => record.sent,
            None => Time::ZERO,
        };
        self.due.push((urgency, core::cmp::Reverse(sent), endpoint));
    }

    /// Whether a reference probe to an endpoint in traffic is due.
    pub fn lacks_reference(&self, now: Time) -> bool {
        let few = self.references.len() < ENOUGH_REFERENCES;
        let pause_s = if few { self.interval_s / REFERENCES_SOONER } else { self.interval_s };
        !self.records.is_empty() && now.seconds_since(self.compared) >= pause_s
    }

    /// Schedules `endpoint` as the reference.
    pub fn compare_with(&mut self, endpoint: EndpointRef, now: Time) {
        self.compared = now;
        self.want(endpoint, Urgency::Compare, now);
    }

    /// Completes the schedule: sorts the pending probes.
    pub fn end(&mut self) {
        let rank = |of: &(Urgency, core::cmp::Reverse<Time>, EndpointRef)| (of.0, of.1, of.2.index);
        order::sort_by(&mut self.due, |one, other| rank(one) < rank(other));
    }

    fn take(&mut self, now: Time) -> Option<EndpointRef> {
        let (urgency, _, endpoint) = if self.saved > 0 { self.due.pop()? } else { return None };
        self.saved -= 1;
        let before = self.records.get(&endpoint.index).filter(|record| record.endpoint == endpoint);
        let record = Record {
            endpoint,
            sent: now,
            under_way: true,
            plain: urgency < Urgency::Look,
            verdict: before.and_then(|record| record.verdict),
        };
        self.records.insert(endpoint.index, record);
        Some(endpoint)
    }

    /// Whether the endpoint at `index` may get a user request as a probe: only after a good answer out of band.
    #[inline(never)]
    pub fn clears(&self, index: u32, known: &EndpointView<'_>, ruled_out: bool, typical: f64) -> bool {
        let Some((result, sent)) = self.verdict(index) else { return false };
        match (known.health.state(), result) {
            (_, ProbeResult::Failed) => false,
            (State::Stalled, _) => sent > known.quiet_since(),
            (State::Healthy, ProbeResult::Slow(times)) if !ruled_out => {
                // Still as slow as already known: not worth a request.
                GOOD_MULTIPLE * GOOD_MULTIPLE * f64::from(times) <= f64::from(known.expected) / typical
            }
            (State::Healthy, _) => true,
            _ => sent > known.health.last_failure(),
        }
    }

    /// Whether the latest probe of the endpoint at `index` failed, so that it gets no user request.
    #[inline(never)]
    pub fn refuses(&self, index: u32) -> bool {
        self.verdict(index).is_some_and(|(result, _)| result == ProbeResult::Failed)
    }

    fn verdict(&self, index: u32) -> Option<(ProbeResult, Time)> {
        self.records.get(&index)?.verdict
    }

    /// Whether probes to other endpoints succeed, so that a failure is the endpoint's own and not the path's.
    fn others_go_well(&self, index: u32) -> bool {
        let others = self.records.iter().filter(|(at, _)| **at != index);
        let (mut well, mut failed) = (0, 0);
        for (verdict, _) in others.filter_map(|(_, record)| record.verdict) {
            let count = if verdict == ProbeResult::Failed { &mut failed } else { &mut well };
            *count += 1;
        }
        well > 0 && well >= failed
    }

    /// Judges a probe's latency by the references: slow is more than twice their upper quartile.
    fn judge(&self, seconds: f64) -> ProbeResult {
        let mut sorted = self.references.clone();
        order::sort_by(&mut sorted, |one, other| one < other);
        let at =
            |part: f64| sorted.get((sorted.len() as f64 * part) as usize).copied().map_or(0.0, f64::from);
        if sorted.len() < ENOUGH_REFERENCES || seconds <= GOOD_MULTIPLE * at(0.75) + NOISE_S {
            return ProbeResult::Quick;
        }
        ProbeResult::Slow(((seconds + NOISE_S) / (at(0.5) + NOISE_S)) as f32)
    }

    /// Factor by which the latest probe found the endpoint at `index` slower than the references; 0 if it did not, if
    /// the result has expired, or if users' requests gave enough samples.
    #[inline(never)]
    pub fn found_slow(&self, index: u32, known: &EndpointView<'_>, now: Time) -> f64 {
        let samples = known.centre().map_or(0.0, |(_, samples)| samples);
        match self.verdict(index) {
            Some((ProbeResult::Slow(times), sent))
                if samples < FEW_SAMPLES && now.seconds_since(sent) <= self.holds_s() =>
            {
                times.into()
            }
            _ => 0.0,
        }
    }

    /// A user request was answered in the usual time: clears a slow result.
    pub fn is_well(&mut self, index: u32) {
        if let Some(record) = self.records.get_mut(&index) {
            record.verdict = record.verdict.filter(|(verdict, _)| !matches!(verdict, ProbeResult::Slow(_)));
        }
    }

    /// Forgets the endpoint at `index`, which has left.
    pub fn forget(&mut self, index: u32) {
        self.records.remove(&index);
    }

    fn holds_s(&self) -> f64 {
        HOLDS_INTERVALS * self.interval_s + self.timeout_s
    }

    fn refer_to(&mut self, seconds: f64) {
        if self.references.len() < REFERENCES {
            self.references.push(seconds as f32);
        } else if let Some(oldest) = self.references.get_mut(self.replaced % REFERENCES) {
            *oldest = seconds as f32;
            self.replaced += 1;
        }
    }

    /// Caps timestamps at `now` after the clock stepped back.
    pub fn not_after(&mut self, now: Time) {
        self.compared = self.compared.min(now);
        for record in self.records.values_mut() {
            record.sent = record.sent.min(now);
            record.verdict = record.verdict.map(|(verdict, sent)| (verdict, sent.min(now)));
        }
    }
}

impl Cluster {
    /// The next endpoint to probe out of band at `now`, if any. The caller must report the result with
    /// [`record_probe`](Cluster::record_probe).
    pub fn take_probe(&mut self, now: Time) -> Option<EndpointRef> {
        let probing = self.ejection.probing.as_mut()?;
        let set = &self.endpoints.set;
        let endpoint = loop {
            let endpoint = probing.take(now)?;
            if set.is_current(endpoint) {
                break endpoint;
            }
        };
        self.stats.totals.out_of_band.sent += 1;
        Some(endpoint)
    }

    /// Disables out-of-band probes.
    pub fn probe_none(&mut self) {
        self.ejection.probing = None;
    }

    /// Records the result of the probe `handle`: a good answer, a failure, or any other outcome if it never reached the
    /// endpoint.
    pub fn record_probe(&mut self, handle: &RequestHandle, outcome: Outcome, now: Time) {
        let RequestHandle { endpoint, started, .. } = *handle;
        let failure = if let Outcome::Failed(failure) = outcome { Some(failure) } else { None };
        self.stats.totals.out_of_band.failed += u64::from(failure.is_some());
        let (typical, seconds) = (self.typical_beside(endpoint.index), self.elapsed_s(started, now));
        let Some(probing) = self.ejection.probing.as_mut() else { return };
        let known = probing.records.get(&endpoint.index).copied().filter(|known| known.endpoint == endpoint);
        let Some(mut record) = known.filter(|_| self.endpoints.set.is_current(endpoint)) else { return };
        record.under_way = false;
        if !matches!(outcome, Outcome::Good | Outcome::Failed(_)) {
            probing.records.insert(endpoint.index, record);
            return;
        }
        let Some(state) = self.endpoints.states.get_mut(endpoint.index as usize) else { return };
        let verdict = if failure.is_some() { ProbeResult::Failed } else { probing.judge(seconds) };
        let is_usual = f64::from(state.expected) <= GOOD_MULTIPLE * typical + NOISE_S;
        if verdict != ProbeResult::Failed && record.plain && state.eligible && is_usual {
            probing.refer_to(seconds);
        }
        record.verdict = Some((verdict, started));
        let counts = verdict == ProbeResult::Failed
            && matches!(state.health.state(), State::Healthy | State::Suspect)
            && probing.others_go_well(endpoint.index);
        probing.records.insert(endpoint.index, record);
        if counts && let Some(event) = failure.and_then(Failure::failure_event) {
            state.health.failure(started, now, FailureEvent { weight: 1, ..event });
        }
        self.assess_now(endpoint.index, now);
    }
}
