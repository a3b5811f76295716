//! Probes out of band (`health.probe`): requests of the balancer's own to suspect, ejected, slow and silent endpoints, so
//! that no user's request is the first to find out.
//!
//! What a probe asks for may be cheaper than users' requests, or not depend on what is broken. So a good answer admits
//! nothing by itself: it lets a single request of a user's follow, which decides. A bad one keeps them away. A latency is
//! compared with that of probes to endpoints in traffic alone, and a failure counts only while probes to others go well.

use hashbrown::HashMap;

use super::{Cluster, GOOD_MULTIPLE};
use crate::decision::RequestHandle;
use crate::endpoint::{EndpointRef, NOISE_S};
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
/// An endpoint that is about to be taken out or let in is asked this often, seconds, if not more often anyway.
const VERIFY_S: f64 = 1.0;
/// What was found holds for so many intervals.
const HOLDS_INTERVALS: f64 = 2.0;

/// How the latest probe of an endpoint went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// A good answer in the usual time, or nothing to compare it with.
    Quick,
    /// A good answer, late.
    Slow,
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
    /// How the latest that ended went, and when that one was sent.
    verdict: Option<(Verdict, Time)>,
    /// Probes alone found the endpoint slow.
    found_slow: bool,
}

/// Why an endpoint is to be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// It is about to be taken out or let in.
    Verify,
    /// It is out, slow or silent, or is compared with.
    Look,
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
    /// What is due, the longest waiting last.
    due: Vec<(core::cmp::Reverse<Time>, EndpointRef)>,
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
        }))
    }

    /// After so much silence an endpoint is asked, seconds.
    pub fn interval_s(&self) -> f64 {
        self.interval_s
    }

    /// The schedule is made anew.
    pub fn begin(&mut self, now: Time) {
        self.due.clear();
        let kept_s = HOLDS_INTERVALS * self.interval_s + self.timeout_s;
        self.records.retain(|_, record| now.seconds_since(record.sent) <= kept_s);
    }

    /// The endpoint is to be probed, unless it is, or was a moment ago.
    pub fn want(&mut self, endpoint: EndpointRef, urgency: Urgency, now: Time) {
        let pause_s = match urgency {
            Urgency::Verify => self.interval_s.min(VERIFY_S),
            Urgency::Look => self.interval_s,
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
        self.due.push((core::cmp::Reverse(sent), endpoint));
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
        self.want(endpoint, Urgency::Look, now);
    }

    /// The schedule is complete.
    pub fn end(&mut self) {
        order::sort_by(&mut self.due, |one, other| (one.0, one.1.index) < (other.0, other.1.index));
    }

    fn take(&mut self, now: Time) -> Option<EndpointRef> {
        let (_, endpoint) = self.due.pop()?;
        let before = self.records.get(&endpoint.index).filter(|record| record.endpoint == endpoint);
        let record = Record {
            endpoint,
            sent: now,
            under_way: true,
            verdict: before.and_then(|record| record.verdict),
            found_slow: before.is_some_and(|record| record.found_slow),
        };
        self.records.insert(endpoint.index, record);
        Some(endpoint)
    }

    /// Whether the latest probe of the endpoint at `index` was sent after `since` and was answered well.
    pub fn went_well(&self, index: u32, since: Time) -> bool {
        self.verdict(index).is_some_and(|(verdict, sent)| verdict != Verdict::Failed && sent > since)
    }

    /// The same, and in the usual time.
    pub fn was_quick(&self, index: u32) -> bool {
        self.verdict(index).is_some_and(|(verdict, _)| verdict == Verdict::Quick)
    }

    fn verdict(&self, index: u32) -> Option<(Verdict, Time)> {
        self.records.get(&index)?.verdict
    }

    /// Whether probes to others go well, so that a failure is the endpoint's and not the path's.
    fn others_go_well(&self, index: u32) -> bool {
        let others = self.records.iter().filter(|(at, _)| **at != index);
        let (mut well, mut failed) = (0, 0);
        for (verdict, _) in others.filter_map(|(_, record)| record.verdict) {
            let count = if verdict == Verdict::Failed { &mut failed } else { &mut well };
            *count += 1;
        }
        well > 0 && well >= failed
    }

    /// How many times longer a probe took than usual; none without enough to compare it with.
    fn times_usual(&self, seconds: f64) -> Option<f64> {
        if self.references.len() < ENOUGH_REFERENCES {
            return None;
        }
        let mut sorted = self.references.clone();
        order::sort_by(&mut sorted, |one, other| one < other);
        let usual = sorted.get(sorted.len() / 2).copied().map_or(0.0, f64::from);
        Some((seconds + NOISE_S) / (usual + NOISE_S))
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
        let rows = self.queueing.noise.rows();
        let Some(probing) = self.ejection.probing.as_mut() else { return };
        let known = probing.records.get(&endpoint.index).copied().filter(|known| known.endpoint == endpoint);
        let Some(mut record) = known.filter(|_| self.endpoints.set.is_current(endpoint)) else { return };
        record.under_way = false;
        if !matches!(outcome, Outcome::Good | Outcome::Failed(_)) {
            probing.records.insert(endpoint.index, record);
            return;
        }
        let Some(member) = self.endpoints.states.get_mut(endpoint.index as usize) else { return };
        let (expected, quiet_since) = {
            let known = self.endpoints.peers.of(endpoint.index, member);
            (f64::from(known.expected), known.quiet_since())
        };
        let seconds = now.seconds_since(started);
        let times = probing.times_usual(seconds);
        let verdict = match times {
            _ if failure.is_some() => Verdict::Failed,
            Some(times) if times > GOOD_MULTIPLE => Verdict::Slow,
            _ => Verdict::Quick,
        };
        let is_usual = expected <= GOOD_MULTIPLE * typical + NOISE_S;
        if verdict != Verdict::Failed && member.eligible && is_usual && !record.found_slow {
            probing.refer_to(seconds);
        }
        // Users' requests know better, as far as there are any.
        let is_silent = now.seconds_since(quiet_since) >= probing.interval_s;
        if let (Some(times), true) = (times, is_silent && verdict != Verdict::Failed) {
            record.found_slow |= verdict == Verdict::Slow && is_usual;
            if record.found_slow {
                // No probe makes an endpoint look quicker than the others.
                let like = (typical + NOISE_S) * times.max(1.0) - NOISE_S;
                member.latency.observe_weighed((like, 1.0), started, now, rows, &self.ablation);
                record.found_slow = verdict == Verdict::Slow || !is_usual;
            }
        }
        record.verdict = Some((verdict, started));
        let counts = verdict == Verdict::Failed
            && matches!(member.health.state(), State::Healthy | State::Suspect)
            && probing.others_go_well(endpoint.index);
        probing.records.insert(endpoint.index, record);
        if counts && let Some(event) = failure.and_then(Failure::failure_event) {
            member.health.failure(started, now, FailureEvent { weight: 1, ..event });
        }
        self.assess_now(endpoint.index, now);
    }
}
