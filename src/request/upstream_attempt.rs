//! One attempt of a request, seen from the cluster's upstream filters: which endpoint it goes to and how that one
//! responds. Attempts that are retried are seen only here.

use std::cell::RefCell;
use std::rc::Rc;

use crate::host::StreamHost;
use crate::request::attempt::{Attempt, Upload};
use crate::request::classify::{self, LateStatus, UpstreamHost};
use crate::request::correlation::{PROPERTY, SharedCorrelation};
use crate::request::grpc_web::WebBody;
use crate::request::{header_hints, load_report};
use crate::worker::Worker;
use engine::{Failure, Outcome};

/// An attempt. Without a correlation its request is not one of this filter's, and it passes.
#[derive(Debug, Default)]
pub struct UpstreamAttempt {
    attempt: Attempt,
    correlation: Option<SharedCorrelation>,
    /// Whether it has a body, as every gRPC call has.
    uploads: bool,
    /// Whether it opens a tunnel.
    tunnels: bool,
    web: WebBody,
}

impl UpstreamAttempt {
    /// The worker among `workers` that handles this attempt's request. Costs one host call.
    pub fn worker_of(
        host: &dyn StreamHost,
        workers: impl Iterator<Item = Rc<RefCell<Worker>>>,
    ) -> Option<Rc<RefCell<Worker>>> {
        let number = number(host)?;
        workers.into_iter().find(|w| w.try_borrow().is_ok_and(|w| w.correlations.find(number).is_some()))
    }

    /// Request headers; `complete` if nothing follows them.
    pub fn request_headers(&mut self, worker: &mut Worker, host: &dyn StreamHost, complete: bool) {
        let Some(correlation) = number(host).and_then(|n| worker.correlations.find(n)) else { return };
        let now = host.now();
        (self.uploads, self.tunnels) = (!complete, !complete && classify::tunnels(host));
        let mut shared = correlation.borrow_mut();
        let engine = &mut worker.engine;
        let upstream = shared.upstream;
        // Envoy retries because the attempt before had no answer, or because of its answer.
        let failure = engine.counts(upstream).and_then(|counts| Failure::Reset.counted(counts));
        shared.tries_again(engine, failure, now);
        let mut reserved = core::mem::take(&mut shared.reserved);
        let served = classify::served_by(engine, host, upstream);
        if !shared.followed {
            shared.first = served.one_of_ours();
            if let Attempt::Waiting { handle, .. } = &reserved
                && served != UpstreamHost::None
                && served != UpstreamHost::Endpoint(handle.endpoint.index)
            {
                classify::not_followed(engine, host, upstream);
            }
        }
        let handle = match (reserved.due(engine, now), served) {
            (Some(handle), UpstreamHost::Endpoint(index)) if handle.endpoint.index == index => Some(*handle),
            (Some(handle), UpstreamHost::Endpoint(index)) => engine.reassigned(handle, index),
            (Some(handle), UpstreamHost::Unknown | UpstreamHost::None) => {
                engine.record_response(handle, Outcome::Unrelated, now);
                engine.finished(handle, now);
                None
            }
            (None, UpstreamHost::Endpoint(index)) => engine.started(upstream, index, now),
            (None, UpstreamHost::Unknown | UpstreamHost::None) => None,
        };
        shared.followed = true;
        shared.answering = false;
        shared.active += 1;
        // Time spent in other filters and in earlier attempts is not this endpoint's.
        if let Some(mut handle) = handle {
            engine.uploading(&handle);
            engine.uploaded(&mut handle, now);
            let upgrade = !complete && host.request_header("upgrade").is_some();
            self.attempt = Attempt::begin(engine, handle, Upload::of(complete || upgrade));
        }
        drop(shared);
        self.correlation = Some(correlation);
    }

    /// A part of the request's body, or its trailers; `last` for the last part.
    pub fn request_body(&mut self, worker: &mut Worker, host: &dyn StreamHost, last: bool) {
        self.attempt.request_part(&mut worker.engine, host, last);
    }

    /// Response headers; `complete` if nothing follows them.
    pub fn response_headers(&mut self, worker: &mut Worker, host: &dyn StreamHost, complete: bool) {
        let Some(correlation) = &self.correlation else { return };
        let engine = &mut worker.engine;
        let upstream = correlation.borrow().upstream;
        let Some(counts) = engine.counts(upstream) else { return };
        let Some(answer) = classify::of_attempt(host, complete, counts) else { return };
        correlation.borrow_mut().answering = true;
        let now = host.now();
        let heeds = engine.heeds_headers(upstream);
        let Some(handle) = self.attempt.due(engine, now).copied() else { return };
        // The route may retry such an answer: it is good only once no other attempt has followed.
        let may_be_retried = (400..500).contains(&answer.status) && answer.outcome == Outcome::Good;
        let outcome = match answer.outcome {
            _ if may_be_retried => Outcome::Undecided,
            Outcome::Undecided if self.tunnels => Outcome::Good,
            outcome => outcome,
        };
        let how = (outcome, classify::shows(host, answer, self.uploads, &mut self.web));
        self.attempt.receive_headers(engine, handle, how, now, complete && !may_be_retried);
        if heeds && let Some(hints) = header_hints::of_headers(host, answer) {
            engine.take_hints(&handle, hints, now);
            if hints.failing {
                self.attempt.settle();
            }
        }
        if header_hints::is_its_own(answer.outcome) {
            load_report::take(engine, &handle, || now, |name| host.response_header(name));
        }
    }

    /// A part of the response's body; `last` for the last part.
    pub fn response_body(&mut self, worker: &mut Worker, host: &dyn StreamHost, last: bool) {
        let status = self.web.part(host, last).and_then(|code| self.late_status(worker, code));
        if status.is_some() && self.attempt.awaits_trailers() {
            self.attempt.trailers(&mut worker.engine, status, host);
        }
        self.attempt.response_part(&mut worker.engine, worker.activity.ticked, last);
    }

    /// What a gRPC status at the end of the body says.
    fn late_status(&self, worker: &Worker, code: u32) -> Option<LateStatus> {
        let upstream = self.correlation.as_ref()?.borrow().upstream;
        Some(LateStatus::of(code, worker.engine.counts(upstream)?))
    }

    /// Response trailers, which carry the status of gRPC.
    pub fn response_trailers(&mut self, worker: &mut Worker, host: &dyn StreamHost) {
        let upstream =
            self.correlation.as_ref().map_or(usize::MAX, |correlation| correlation.borrow().upstream);
        if self.attempt.awaits_trailers() {
            let web = self.web.end().and_then(|code| self.late_status(worker, code));
            let status =
                worker.engine.counts(upstream).and_then(|counts| classify::of_trailers(host, counts));
            self.attempt.report_load(&mut worker.engine, host);
            self.attempt.trailers(&mut worker.engine, status.or(web), host);
        }
    }

    /// The end of the attempt, for whatever reason; later calls do nothing.
    pub fn finish(&mut self, worker: &mut Worker, host: &dyn StreamHost) {
        let Some(correlation) = self.correlation.take() else { return };
        let mut correlation = correlation.borrow_mut();
        correlation.active = correlation.active.saturating_sub(1);
        if matches!(self.attempt, Attempt::Over) {
            return;
        }
        let unanswered = matches!(self.attempt, Attempt::Waiting { .. });
        let reason = match correlation.explanation {
            Some(reason) => reason,
            None if unanswered => {
                let counts = worker.engine.counts(correlation.upstream);
                counts.and_then(|counts| classify::no_connection(host, counts))
            }
            None => None,
        };
        if let Some(end) = self.attempt.end(&mut worker.engine, reason, (host, worker.activity.ticked)) {
            correlation.leave(&mut worker.engine, end, host.now());
        }
    }
}

fn number(host: &dyn StreamHost) -> Option<u64> {
    Some(u64::from_le_bytes((*host.property(PROPERTY)?).try_into().ok()?))
}
