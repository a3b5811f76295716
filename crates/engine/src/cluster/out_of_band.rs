//! Probes out of band (`health.probe`): requests of the balancer's own to suspect, ejected, slow and silent endpoints, so
//! that no user's request is the first to find out.
//!
//! What a probe asks for may be cheaper than users' requests, or not depend on what is broken. So a good answer admits
//! nothing by itself: it lets a single request of a user's follow, which decides. A bad one keeps them away. A latency is
//! compared with that of probes to endpoints in traffic alone, and a failure counts only while probes to others go well.

use hashbrown::HashMap;

use super::{Cluster, GOOD_MULTIPLE};
use crate::decision::RequestHandle;
use crate::endpoint::{EndpointRef, EndpointView, NOISE_S};
use crate::health::{FailureEvent, State};
use crate::order;
use crate::outcome::{Failure, Outcome};
use crate::settings;
use crate::time::Time;

/// The latest latencies of probes to endpoints in traffic that are kept: their median is stable, and is of minutes at
/// most.
const REFERENCES: usize = 32;
/// With fewer than this no probe is called slow.
const ENOUGH_REFERENCES: usize = 3;
/// Until then they are asked for so much more often.
const REFERENCES_SOONER: f64 = 10.0;
/// There are no more probes than users' requests, but for so many that were saved up: a proxy of many asks each of many
/// endpoints seldom, and would ask all of them out of band.
const MAX_SAVED: u32 = 32;
/// An endpoint that is about to be taken out or let in is asked this often, seconds, if not more often anyway.
const VERIFY_S: f64 = 1.0;
/// An estimate from fewer samples of users' requests than this, half of what it can rest on, gives way to what a probe found: what
/// waits in a queue says little of the endpoint, and more of a probe than of a request.
const FEW_SAMPLES: f64 = 8.0;
/// What was found holds for so many intervals.
const HOLDS_INTERVALS: f64 = 2.0;

/// How the latest probe of an endpoint went.
#[derive(Clone, Copy, Debug, PartialEq)]
enum ProbeResult {
    /// A good answer in the usual time, or nothing to compare it with.
    Quick,
    /// A good answer, so many times later than usual.
    Slow(f32),
    /// A failure.
    Failed,
}

/// One endpoint's probes.
#[derive(Clone, Copy, Debug)]
struct Record {
    endpoint: EndpointRef,
    /// When the latest was sent.
    sent: Time,
    /// Whether it has not ended.
    under_way: bool,
    /// Whether nothing was wrong with the endpoint when it was sent, so that others may be compared with it.
    plain: bool,
    /// How the latest that ended went, and when that one was sent.
    verdict: Option<(ProbeResult, Time)>,
}

/// Why an endpoint is to be probed, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// It is silent.
    Silent,
    /// Others are compared with it.
    Compare,
    /// It is out, slow or late.
    Look,
    /// It is about to be taken out or let in.
    Verify,
}

/// The probes of one cluster.
#[derive(Debug)]
pub(super) struct OutOfBand {
    interval_s: f64,
    timeout_s: f64,
    records: HashMap<u32, Record>,
    /// Seconds that the latest probes to endpoints in traffic took, the oldest replaced first.
    references: Vec<f32>,
    replaced: usize,
    /// When an endpoint in traffic was last asked to compare others with.
    compared: Time,
    /// What is due: the most urgent last, of these the longest waiting.
    due: Vec<(Urgency, core::cmp::Reverse<Time>, EndpointRef)>,
    /// How many probes may be sent, and this worker's requests that this was reckoned from.
    saved: u32,
    requests: u32,
}

impl OutOfBand {
    /// The probes that the settings ask for, if they do.
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

    /// After so much silence an endpoint is asked, seconds.
    pub fn interval_s(&self) -> f64 {
        self.interval_s
    }

    /// The schedule is made anew, after so many requests of users.
    pub fn begin(&mut self, requests: u32, now: Time) {
        let more = requests.wrapping_sub(core::mem::replace(&mut self.requests, requests));
        self.saved = self.saved.saturating_add(more).min(MAX_SAVED);
        self.due.clear();
        let kept_s = self.holds_s();
        self.records.retain(|_, record| now.seconds_since(record.sent) <= kept_s);
    }

    /// The endpoint is to be probed, unless it is, or was a moment ago.
    pub fn want(&mut self, endpoint: EndpointRef, urgency: Urgency, now: Time) {
        let pause_s = match urgency {
            Urgency::Verify => self.interval_s.min(VERIFY_S),
            Urgency::Silent | Urgency::Compare | Urgency::Look => self.interval_s,
        };
        let sent = match self.records.get(&endpoint.index).filter(|record| record.endpoint == endpoint) {
            // An answer that never came is not waited for.
            Some(record) if record.under_way && now.seconds_since(record.sent) <= 2.0 * self.timeout_s => {
                return;
            }
            Some(record) if now.seconds_since(record.sent) < pause_s => return,
            Some(record) => record.sent,
            None => Time::ZERO,
        };
        self.due.push((urgency, core::cmp::Reverse(sent), endpoint));
    }

    /// Whether an endpoint in traffic is to be asked, to compare those with that are looked at.
    pub fn lacks_reference(&self, now: Time) -> bool {
        let few = self.references.len() < ENOUGH_REFERENCES;
        let pause_s = if few { self.interval_s / REFERENCES_SOONER } else { self.interval_s };
        !self.records.is_empty() && now.seconds_since(self.compared) >= pause_s
    }

    /// That is this one.
    pub fn compare_with(&mut self, endpoint: EndpointRef, now: Time) {
        self.compared = now;
        self.want(endpoint, Urgency::Compare, now);
    }

    /// The schedule is complete.
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

    /// Whether a request of a user's may look after the endpoint at `index`: only what was answered well out of band is worth it.
    #[inline(never)]
    pub fn clears(&self, index: u32, known: &EndpointView<'_>, ruled_out: bool, typical: f64) -> bool {
        let Some((result, sent)) = self.verdict(index) else { return false };
        match (known.health.state(), result) {
            (_, ProbeResult::Failed) => false,
            (State::Stalled, _) => sent > known.quiet_since(),
            (State::Healthy, ProbeResult::Slow(times)) if !ruled_out => {
                // One that is as slow as is known need not be looked at.
                GOOD_MULTIPLE * GOOD_MULTIPLE * f64::from(times) <= f64::from(known.expected) / typical
            }
            (State::Healthy, _) => true,
            _ => sent > known.health.last_failure(),
        }
    }

    fn verdict(&self, index: u32) -> Option<(ProbeResult, Time)> {
        self.records.get(&index)?.verdict
    }

    /// Whether probes to others go well, so that a failure is the endpoint's and not the path's.
    fn others_go_well(&self, index: u32) -> bool {
        let others = self.records.iter().filter(|(at, _)| **at != index);
        let (mut well, mut failed) = (0, 0);
        for (verdict, _) in others.filter_map(|(_, record)| record.verdict) {
            let count = if verdict == ProbeResult::Failed { &mut failed } else { &mut well };
            *count += 1;
        }
        well > 0 && well >= failed
    }

    /// What an answer after so many seconds means, beside those of endpoints in traffic: late is what takes more than twice as long as
    /// three in four of them.
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

    /// How many times slower than the others the latest probe found the endpoint at `index`, where users' requests tell little; 0
    /// if it did not, or long ago.
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

    /// A user's request was answered in the usual time, which says more.
    pub fn is_well(&mut self, index: u32) {
        if let Some(record) = self.records.get_mut(&index) {
            record.verdict = record.verdict.filter(|(verdict, _)| !matches!(verdict, ProbeResult::Slow(_)));
        }
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

    /// The clock stepped back to `now`.
    pub fn not_after(&mut self, now: Time) {
        self.compared = self.compared.min(now);
        for record in self.records.values_mut() {
            record.sent = record.sent.min(now);
            record.verdict = record.verdict.map(|(verdict, sent)| (verdict, sent.min(now)));
        }
    }
}

impl Cluster {
    /// The endpoint that is to be probed out of band at `now`, if one is. Its holder owes a
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

    /// Endpoints are not probed out of band.
    pub fn probe_none(&mut self) {
        self.ejection.probing = None;
    }

    /// How the probe of `ticket` went: a good answer, a failure, or it never came to the endpoint.
    pub fn record_probe(&mut self, ticket: &RequestHandle, outcome: Outcome, now: Time) {
        let RequestHandle { endpoint, started, .. } = *ticket;
        let failure = if let Outcome::Failed(failure) = outcome { Some(failure) } else { None };
        self.stats.totals.out_of_band.failed += u64::from(failure.is_some());
        let typical = self.typical_beside(endpoint.index);
        let Some(probing) = self.ejection.probing.as_mut() else { return };
        let known = probing.records.get(&endpoint.index).copied().filter(|known| known.endpoint == endpoint);
        let Some(mut record) = known.filter(|_| self.endpoints.set.is_current(endpoint)) else { return };
        record.under_way = false;
        if !matches!(outcome, Outcome::Good | Outcome::Failed(_)) {
            probing.records.insert(endpoint.index, record);
            return;
        }
        let Some(member) = self.endpoints.states.get_mut(endpoint.index as usize) else { return };
        let seconds = now.seconds_since(started);
        let verdict = if failure.is_some() { ProbeResult::Failed } else { probing.judge(seconds) };
        let is_usual = f64::from(member.expected) <= GOOD_MULTIPLE * typical + NOISE_S;
        if verdict != ProbeResult::Failed && record.plain && member.eligible && is_usual {
            probing.refer_to(seconds);
        }
        record.verdict = Some((verdict, started));
        let counts = verdict == ProbeResult::Failed
            && matches!(member.health.state(), State::Healthy | State::Suspect)
            && probing.others_go_well(endpoint.index);
        probing.records.insert(endpoint.index, record);
        if counts && let Some(event) = failure.and_then(Failure::failure_event) {
            member.health.failure(started, now, FailureEvent { weight: 1, ..event });
        }
        self.assess_now(endpoint.index, now);
    }
}
