//! One request from its headers to its end: strip the client's header, decide, steer, observe, report the outcome.

use super::affinity::{self, Issued};
use crate::host::StreamHost;
use crate::request::attempt::{Attempt, Upload, end_unanswered};
use crate::request::classify::{self, Answer, Arrival, LateStatus, Silence};
use crate::request::correlation::{PROPERTY, RequestCorrelation, SharedCorrelation};
use crate::request::decision_log::{self, DecisionRecord};
use crate::request::grpc_web::WebBody;
use crate::request::guarded::Guarded;
use crate::request::{header_hints, load_report, route, steering};
use crate::worker::Worker;
use config::Mode;
use engine::endpoint::EndpointRef;
use engine::policy::Request;
use engine::settings::Failures;
use engine::time::Time;
use engine::{Balancer, Decision, Outcome, RequestHandle};

pub(crate) use crate::request::route::Sampler;

/// What the filter does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Pass it on.
    Continue,
    /// Answered by the filter itself.
    Answered,
}

/// The state of a request. Every end goes through [`Stream::finish`], which returns the request handle exactly once.
#[derive(Debug, Default)]
pub struct Stream {
    phase: Phase,
    issued: Option<Issued>,
    /// The guard's record, if the request was drawn into an arm.
    guarded: Option<Guarded>,
    /// In observe mode: the endpoint that would have been named.
    shown: Option<EndpointRef>,
    /// Only one endpoint is named, so a retry goes to the same one.
    stays: bool,
    /// The request's number and what it shares with its upstream attempts, if these may be seen.
    correlation: Option<(u64, SharedCorrelation)>,
    /// The record of the decision, if an output wants it.
    pub(crate) record: Option<Box<DecisionRecord>>,
    /// When the request began, and its deadline.
    arrival: Arrival,
    /// Whether the client's own steering header has been removed or overwritten.
    stripped: bool,
    /// Whether the request has a body, as every gRPC call has.
    uploads: bool,
    web: WebBody,
}

#[derive(Debug, Default)]
enum Phase {
    /// No request headers yet, or nothing to follow.
    #[default]
    Foreign,
    /// The route's cluster belongs to no upstream so far.
    Unrouted,
    /// Steered, or its endpoint is known from the response.
    Steered(Attempt),
    /// Not steered: the endpoint is learnt from the response.
    Watching { upstream: usize, started: Time, upload: Upload },
    /// Its upstream attempts report outcomes; this filter only steered.
    Followed,
}

impl Stream {
    /// Request headers; `complete` if nothing follows them. The client's own steering header never passes: a decision
    /// overwrites it, otherwise it is removed, and before anything that may depend on it is read.
    pub fn request_headers(&mut self, worker: &mut Worker, host: &dyn StreamHost, complete: bool) -> Flow {
        if worker.steer.strips_first() {
            self.strip(worker, host);
        }
        let flow = self.receive(worker, host, complete);
        if !self.stripped {
            self.strip(worker, host);
        }
        flow
    }

    #[inline(never)]
    fn strip(&mut self, worker: &Worker, host: &dyn StreamHost) {
        steering::strip(worker.steer.header(), host);
        self.stripped = true;
    }

    fn receive(&mut self, worker: &mut Worker, host: &dyn StreamHost, complete: bool) -> Flow {
        if worker.shows_status(host) {
            return Flow::Answered;
        }
        let wants_debug = worker.wants_debug(host);
        worker.membership.carries_traffic = true;
        let Some(upstream) = route::of(worker, host) else {
            self.phase = Phase::Unrouted;
            return Flow::Continue;
        };
        worker.activity.busy = true;
        // A client that asks for an upgrade has sent its whole request with the headers.
        let upload = Upload::of(complete || host.request_header("upgrade").is_some());
        let now = host.now();
        (self.arrival, self.uploads) = (Arrival::now(host, now, complete), !complete);
        let flow = self.decide(worker, host, (upstream, upload), wants_debug, now);
        if worker.stats.times_this_one() {
            let ns = host.now().0.saturating_sub(now.0);
            if worker.engine.decided_within(upstream, ns) {
                worker.stats.timed(upstream, ns);
            }
        }
        flow
    }

    /// Decides where the request goes, and writes the steering header.
    fn decide(
        &mut self,
        worker: &mut Worker,
        host: &dyn StreamHost,
        (upstream, upload): (usize, Upload),
        wants_debug: bool,
        now: Time,
    ) -> Flow {
        let observed = worker.config.mode == Mode::Observe;
        let named = if observed { 1 } else { worker.steer.want() };
        let want = if wants_debug || worker.sinks.any { named.max(2) } else { named };
        let key = worker.engine.upstream(upstream).and_then(|u| affinity::key(u.config(), host));
        let mut request = Request { key, want };
        if !observed {
            request = self.with_cookie(worker, upstream, request);
        }
        let decision = worker.engine.pick(upstream, request, now, &mut worker.rng);
        self.guarded = Guarded::begin(&worker.engine, upstream);
        self.phase = Phase::Watching { upstream, started: now, upload };
        if wants_debug || worker.sinks.any {
            self.record = worker.record_decision(host, (upstream, &decision), wants_debug, now);
            self.record.iter().for_each(|record| worker.attribute(host, record));
        }
        match decision {
            Decision::Steer(candidates) if observed => {
                let fleet = worker.engine.upstream(upstream).map(|u| u.fleet());
                self.shown = candidates.first().and_then(|index| fleet?.reference(index));
            }
            _ if observed => {}
            Decision::Steer(candidates) => {
                let candidates =
                    if want > named { decision_log::named(candidates, named) } else { candidates };
                let fleet = worker.engine.upstream(upstream).map(|u| u.fleet());
                if !fleet.is_some_and(|fleet| worker.steer.towards(fleet, &candidates, host)) {
                    self.phase = Phase::Foreign;
                    return Flow::Continue;
                }
                self.stripped = true;
                self.stays = candidates.as_slice().len() == 1;
                let first = candidates.first();
                let handle = first.and_then(|i| worker.engine.started(upstream, i, now));
                let begun = handle.map(|handle| Attempt::begin(&mut worker.engine, handle, upload));
                self.phase = begun.map_or(Phase::Foreign, Phase::Steered);
            }
            Decision::SafeEndpoint => {
                self.stripped |= worker.steer.to_safety(upstream, host);
            }
            Decision::Fallback => host.leave(),
            Decision::Reject => {
                self.issued = None;
                self.phase = Phase::Foreign;
                self.guarded.iter_mut().for_each(Guarded::fail);
                return reject(host);
            }
        }
        if worker.correlations.wanted {
            self.register(worker, host, upstream);
        }
        Flow::Continue
    }

    /// Gives the request the key of a new cookie, if it has no key and the filter sets the cookie.
    fn with_cookie(&mut self, worker: &mut Worker, at: usize, request: Request) -> Request {
        if request.key.is_some() {
            return request;
        }
        let upstream = worker.engine.upstream(at).map(|u| u.config());
        self.issued = upstream.and_then(|u| Issued::fresh(at, u, &mut worker.cookies));
        Request { key: self.issued.map(|issued| issued.key()), ..request }
    }

    /// Registers the request, so that its upstream attempts find it.
    #[inline(never)]
    fn register(&mut self, worker: &mut Worker, host: &dyn StreamHost, upstream: usize) {
        let reserved = match self.phase {
            Phase::Steered(attempt) => attempt,
            _ => Attempt::Over,
        };
        let (number, correlation) = worker.correlations.open(RequestCorrelation::new(upstream, reserved));
        host.set_property(PROPERTY, &number.to_le_bytes());
        self.correlation = Some((number, correlation));
    }

    /// A part of the request's body, or its trailers; `last` for the last part.
    pub fn request_body(&mut self, worker: &mut Worker, host: &dyn StreamHost, last: bool) {
        self.follow_attempts_if_seen();
        match &mut self.phase {
            Phase::Steered(attempt) => {
                attempt.request_part(&mut worker.engine, host, last);
                if let Some((_, correlation)) = &self.correlation {
                    correlation.borrow_mut().reserved = *attempt;
                }
            }
            Phase::Watching { started, upload: upload @ Upload::Flowing, .. } => {
                *started = host.now();
                *upload = Upload::of(last);
            }
            _ => {}
        }
    }

    /// Response headers, from the endpoint or from Envoy itself; `complete` if nothing follows them.
    pub fn response_headers(&mut self, worker: &mut Worker, host: &dyn StreamHost, complete: bool) {
        if worker.steer.comes_back() {
            host.remove_response_header(worker.steer.header());
        }
        if let Some(guarded) = &mut self.guarded {
            guarded.headers(&worker.engine, host, &self.arrival, complete);
            // Also for endpoints that are unknown: both arms must be measured alike.
            if self.uploads && guarded.is_undecided() {
                self.web.is_grpc(host);
            }
        }
        if let Some(issued) = self.issued.take()
            && let Some(upstream) = worker.engine.upstream(issued.upstream)
        {
            issued.give(upstream.config(), host);
        }
        if self.record.is_some() || worker.config.debug.is_some() {
            // A copy: the outcome below looks at the same answers twice.
            let mut sampler = worker.answer_sampler;
            let counts = self.counts(worker).filter(|_| self.is_watched(worker));
            let failure = counts.and_then(|counts| classify::failure(host, complete, counts, &mut sampler));
            self.write_debug_header(worker, host, failure);
        }
        self.follow_attempts_if_seen();
        self.compare(worker, host);
        if matches!(self.phase, Phase::Unrouted) {
            self.phase = Phase::Foreign;
            route::look_again(worker, host);
        }
        let (engine, sampler) = (&mut worker.engine, &mut worker.answer_sampler);
        match &mut self.phase {
            Phase::Foreign | Phase::Unrouted => {}
            Phase::Steered(attempt) => {
                let now = host.now();
                let Some(handle) = attempt.due(engine, now).copied() else { return };
                let Some(counts) = engine.counts(handle.upstream) else { return };
                let mut answer = classify::of_headers(host, complete, counts, sampler);
                if answer.outcome == Outcome::Unrelated && worker.steer.names_a_cluster() {
                    answer.outcome = classify::of_its_cluster(host, counts);
                }
                if answer.outcome == Outcome::Undecided && self.arrival.tunnels {
                    answer.outcome = Outcome::Good;
                }
                let shows = classify::shows(host, answer, self.uploads, &mut self.web);
                let from = (handle, self.stays);
                let (handle, outcome, its_own) = classify::reattribute(engine, host, from, answer);
                attempt.receive_headers(engine, handle, (outcome, shows), now, complete);
                self.listen(engine, host, its_own.then_some(handle), answer, now);
            }
            Phase::Watching { upstream, started, .. } => {
                let (upstream, started) = (*upstream, *started);
                self.learn_endpoint(worker, host, (upstream, started), complete);
            }
            Phase::Followed => {
                let answered =
                    self.correlation.as_ref().is_some_and(|(_, correlation)| correlation.borrow().answering);
                if !answered {
                    self.explain(engine, host, classify::of_local_reply);
                }
            }
        }
    }

    /// Response headers of a request that was not steered: learns its endpoint, and follows the attempt from here on.
    #[inline(never)]
    fn learn_endpoint(
        &mut self,
        worker: &mut Worker,
        host: &dyn StreamHost,
        (upstream, started): (usize, Time),
        complete: bool,
    ) {
        let (engine, sampler) = (&mut worker.engine, &mut worker.answer_sampler);
        let now = host.now();
        let Some(counts) = engine.counts(upstream) else { return };
        let answer = classify::of_headers(host, complete, counts, sampler);
        let shows = classify::shows(host, answer, self.uploads, &mut self.web);
        let outcome = match answer.outcome {
            Outcome::Undecided if self.arrival.tunnels => Outcome::Good,
            outcome => outcome,
        };
        let outcome = match classify::attempts(host) {
            0 | 1 => outcome,
            // The endpoint that failed before is unknown here; the last one is not charged with that time.
            _ => outcome.of_a_later_attempt(),
        };
        let served = classify::served_by(engine, host, upstream);
        self.phase = Phase::Foreign;
        if let Some(handle) = served.one_of_ours().and_then(|i| engine.started(upstream, i, started)) {
            let mut attempt = Attempt::Over;
            attempt.receive_headers(engine, handle, (outcome, shows), now, complete);
            self.phase = Phase::Steered(attempt);
            self.listen(engine, host, Some(handle), answer, now);
        }
    }

    /// In observe mode: compares the endpoint that would have been named with that of Envoy's first attempt.
    #[inline(never)]
    fn compare(&mut self, worker: &mut Worker, host: &dyn StreamHost) {
        let Some(named) = self.shown.take() else { return };
        let (upstream, used) = match (&self.phase, &self.correlation) {
            (Phase::Followed, Some((_, correlation))) => {
                let correlation = correlation.borrow();
                (correlation.upstream, correlation.first)
            }
            (Phase::Watching { upstream, .. }, _) if classify::attempts(host) <= 1 => {
                (*upstream, classify::served_by(&worker.engine, host, *upstream).one_of_ours())
            }
            _ => return,
        };
        if let Some(used) = used {
            worker.engine.compare(upstream, named, used);
        }
    }

    /// Passes the endpoint's own headers and load reports to the engine.
    fn listen(
        &mut self,
        engine: &mut Balancer,
        host: &dyn StreamHost,
        handle: Option<RequestHandle>,
        answer: Answer,
        now: Time,
    ) {
        if let Some(handle) = handle
            && engine.heeds_headers(handle.upstream)
            && let Some(hints) = header_hints::of_headers(host, answer)
        {
            engine.take_hints(&handle, hints, now);
            if hints.failing
                && let Phase::Steered(attempt) = &mut self.phase
            {
                attempt.settle();
            }
        }
        if let Some(handle) = handle
            && header_hints::is_its_own(answer.outcome)
        {
            load_report::take(engine, &handle, || now, |name| host.response_header(name));
        }
    }

    /// The upstream's definition of a failure.
    fn counts<'w>(&self, worker: &'w Worker) -> Option<&'w Failures> {
        let upstream = match (&self.phase, &self.correlation) {
            (_, Some((_, correlation))) => correlation.borrow().upstream,
            (Phase::Steered(attempt), None) => attempt.upstream()?,
            (Phase::Watching { upstream, .. }, None) => *upstream,
            (Phase::Foreign | Phase::Unrouted | Phase::Followed, None) => return None,
        };
        worker.engine.counts(upstream)
    }

    /// A part of the response's body; `last` for the last part.
    pub fn response_body(&mut self, worker: &mut Worker, host: &dyn StreamHost, last: bool) {
        self.guarded.iter_mut().for_each(|guarded| guarded.body(last));
        if let Some(code) = self.web.part(host, last) {
            self.take_web(worker, host, code);
        }
        if let Phase::Steered(attempt) = &mut self.phase {
            attempt.response_part(&mut worker.engine, worker.activity.ticked, last);
        }
    }

    /// The gRPC status at the end of the body.
    #[inline(never)]
    fn take_web(&mut self, worker: &mut Worker, host: &dyn StreamHost, code: u32) {
        let guarded = || self.guarded.as_ref().and_then(|guarded| guarded.counts(&worker.engine));
        let Some(counts) = self.counts(worker).or_else(guarded) else { return };
        let status = LateStatus::of(code, counts);
        if status.failure.is_some() {
            self.guarded.iter_mut().for_each(Guarded::fail);
            if self.is_watched(worker) {
                self.report(worker, host, status.failure);
            }
        }
        if let Phase::Steered(attempt) = &mut self.phase
            && attempt.awaits_trailers()
        {
            attempt.trailers(&mut worker.engine, Some(status), host);
        }
    }

    /// Response trailers, which carry the status of gRPC. Envoy's gRPC-Web filter moves it into the body and leaves empty
    /// ones.
    pub fn response_trailers(&mut self, worker: &mut Worker, host: &dyn StreamHost) {
        if let Some(code) = self.web.end() {
            self.take_web(worker, host, code);
        }
        self.guarded.iter_mut().for_each(|guarded| guarded.trailers(&worker.engine, host));
        let awaits = matches!(&self.phase, Phase::Steered(attempt) if attempt.awaits_trailers());
        if !awaits && !self.is_watched(worker) {
            return;
        }
        let status = self.counts(worker).and_then(|counts| classify::of_trailers(host, counts));
        let failure = status.and_then(|status| status.failure);
        if self.is_watched(worker) && failure.is_some() {
            self.report(worker, host, failure);
        }
        if let Phase::Steered(attempt) = &mut self.phase
            && awaits
        {
            attempt.report_load(&mut worker.engine, host);
            attempt.trailers(&mut worker.engine, status, host);
        }
    }

    /// The end of the request, for whatever reason; later calls do nothing.
    pub fn finish(&mut self, worker: &mut Worker, host: &dyn StreamHost) {
        self.follow_attempts_if_seen();
        let engine = &mut worker.engine;
        if let Some(guarded) = self.guarded.take() {
            guarded.end(engine, host, &self.arrival);
        }
        match core::mem::take(&mut self.phase) {
            Phase::Foreign | Phase::Unrouted | Phase::Watching { .. } => {}
            Phase::Steered(mut attempt) => {
                let counts = attempt.upstream().and_then(|upstream| engine.counts(upstream));
                let reason = match counts {
                    Some(counts) if attempt.broken_off() => classify::of_the_end(host, counts),
                    Some(counts) if attempt.is_unanswered() => {
                        let silence = classify::of_silence(host, &self.arrival, counts);
                        end_unanswered(engine, host, (&mut attempt, self.stays), silence)
                    }
                    _ => None,
                };
                if let Some(end) = attempt.end(engine, reason, (host, worker.activity.ticked)) {
                    end.explain(engine, None, host.now());
                }
            }
            Phase::Followed => self.explain(engine, host, classify::of_silence),
        }
        if let Some((number, _)) = self.correlation.take() {
            worker.correlations.close(number);
        }
    }

    /// Hands over to the upstream attempts once one has been seen.
    fn follow_attempts_if_seen(&mut self) {
        if let Some((_, correlation)) = &self.correlation
            && !matches!(self.phase, Phase::Followed)
            && correlation.borrow().followed
        {
            self.phase = Phase::Followed;
        }
    }

    /// Resolves attempts that ended without a known reason, from what Envoy says of the request's end.
    #[inline(never)]
    fn explain(
        &self,
        engine: &mut Balancer,
        host: &dyn StreamHost,
        silence: fn(&dyn StreamHost, &Arrival, &Failures) -> Silence,
    ) {
        let Some((_, correlation)) = &self.correlation else { return };
        let mut correlation = correlation.borrow_mut();
        if correlation.is_in_doubt() {
            let Some(counts) = engine.counts(correlation.upstream) else { return };
            let failure = match silence(host, &self.arrival, counts) {
                Silence::Failed(failure) => Some(failure),
                Silence::Answered(_) | Silence::PendingOutcome => None,
            };
            correlation.explanation = Some(failure);
            correlation.explain(engine, failure, host.now());
        }
    }
}

#[inline(never)]
fn reject(host: &dyn StreamHost) -> Flow {
    host.respond(503, &[("x-evenkeel-reason", "no eligible endpoint"), ("retry-after", "1")], b"");
    Flow::Answered
}
