//! One request from its headers to its end: strip, decide, steer, observe, give back.

mod verdict;

use super::Worker;
use super::affinity::{self, Issued};
use crate::config::Mode;
use crate::engine::{Decision, Outcome, Ticket};
use crate::host::StreamHost;
use crate::policy::Request;
use crate::time::Time;

/// A response that has been flowing for so long has begun well, whatever its end: a stream that stays open for
/// hours would otherwise never show that its endpoint works. Seconds.
const FLOWS_AFTER_S: f64 = 1.0;

/// What becomes of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Continue,
    /// It has been answered here.
    Answered,
}

/// Where a stream stands. Every way out goes through [`Stream::finish`], which gives back exactly once.
#[derive(Debug, Default)]
pub struct Stream {
    phase: Phase,
    issued: Option<Issued>,
}

#[derive(Debug, Default)]
enum Phase {
    /// No request headers seen, or nothing of ours.
    #[default]
    Foreign,
    /// Steered; no answer yet.
    Waiting { ticket: Ticket, upload: Upload },
    /// Observed only: whoever answers is learnt from the answer.
    Watching { upstream: usize, started: Time, upload: Upload },
    /// Answered; the body may still flow.
    Streaming { ticket: Ticket, judged: Judged, answered: Time, complete: bool },
}

/// Whether the client is done sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upload {
    Flowing,
    Over,
}

/// What the engine has been told of the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    NotYet,
    /// Good so far; only its end can still be bad.
    Flows,
    /// Once and for all.
    Settled,
}

impl Stream {
    /// Request headers; `complete` where nothing follows them. The steering header of the client is gone before
    /// anything else is looked at.
    pub fn request_headers(&mut self, worker: &mut Worker, host: &dyn StreamHost, complete: bool) -> Verdict {
        host.remove_request_header(worker.steer.header());
        if worker.shows_status(host) {
            return Verdict::Answered;
        }
        worker.carries_traffic = true;
        worker.busy = true;
        let Some(upstream) = route(worker, host) else { return Verdict::Continue };
        // Who asks for an upgrade has said all with the headers.
        let upload = match complete || host.request_header("upgrade").is_some() {
            true => Upload::Over,
            false => Upload::Flowing,
        };
        let now = host.now();
        let want = if worker.config.mode == Mode::Observe { 1 } else { worker.steer.want() };
        let key = worker.engine.upstream(upstream).and_then(|u| affinity::key(u.config(), host));
        let request = Request { key, want };
        let watching = Phase::Watching { upstream, started: now, upload };
        if worker.config.mode == Mode::Observe {
            let _shown_not_used = worker.engine.pick(upstream, request, now, &mut worker.rng);
            self.phase = watching;
            return Verdict::Continue;
        }
        let request = self.with_cookie(worker, upstream, request);
        match worker.engine.pick(upstream, request, now, &mut worker.rng) {
            Decision::Steer(candidates) => {
                if let Some((header, value)) = worker.steer.towards(upstream, &candidates) {
                    host.set_request_header(header, value);
                    let first = candidates.first();
                    if let Some(ticket) = first.and_then(|i| worker.engine.started(upstream, i, now)) {
                        if upload == Upload::Flowing {
                            worker.engine.uploading(&ticket);
                        }
                        self.phase = Phase::Waiting { ticket, upload };
                    }
                }
            }
            Decision::SafeEndpoint => {
                if let Some((header, value)) = worker.steer.to_safety(upstream) {
                    host.set_request_header(header, value);
                }
                self.phase = watching;
            }
            Decision::Fallback => self.phase = watching,
            Decision::Reject => {
                self.issued = None;
                host.respond(
                    503,
                    &[("x-evenkeel-reason", "no eligible endpoint"), ("retry-after", "1")],
                    b"",
                );
                return Verdict::Answered;
            }
        }
        Verdict::Continue
    }

    /// The request with a key of its own, if it had none and its client is to be given one.
    fn with_cookie(&mut self, worker: &mut Worker, at: usize, request: Request) -> Request {
        if request.key.is_some() {
            return request;
        }
        let upstream = worker.engine.upstream(at).map(|u| u.config());
        self.issued = upstream.and_then(|u| Issued::fresh(at, u, &mut worker.cookies));
        Request { key: self.issued.map(|issued| issued.key()), ..request }
    }

    /// A part of the request's body, or its trailers; `complete` with the last. The endpoint's time counts from the
    /// last part that came before the answer: how slowly a client sends is not the endpoint's doing.
    pub fn request_body(&mut self, worker: &mut Worker, host: &dyn StreamHost, complete: bool) {
        match &mut self.phase {
            Phase::Waiting { ticket, upload: upload @ Upload::Flowing } => {
                if complete {
                    *upload = Upload::Over;
                    worker.engine.uploaded(ticket, host.now());
                } else {
                    ticket.started = host.now();
                }
            }
            Phase::Watching { started, upload: upload @ Upload::Flowing, .. } => {
                *started = host.now();
                if complete {
                    *upload = Upload::Over;
                }
            }
            _ => {}
        }
    }

    /// Response headers, from the endpoint or from Envoy itself; `complete` where nothing follows them.
    pub fn response_headers(&mut self, worker: &mut Worker, host: &dyn StreamHost, complete: bool) {
        if worker.steer.comes_back() {
            host.remove_response_header(worker.steer.header());
        }
        if let Some(issued) = self.issued.take()
            && let Some(upstream) = worker.engine.upstream(issued.upstream)
        {
            issued.give(upstream.config(), host);
        }
        if matches!(self.phase, Phase::Foreign) {
            return;
        }
        let now = host.now();
        let outcome = verdict::of_headers(host, complete);
        let (ticket, outcome) = match core::mem::take(&mut self.phase) {
            Phase::Waiting { mut ticket, upload } => {
                if upload == Upload::Flowing {
                    let last_part = ticket.started;
                    worker.engine.uploaded(&mut ticket, last_part);
                }
                verdict::reattribute(worker, host, ticket, outcome)
            }
            Phase::Watching { upstream, started, .. } => {
                let served = verdict::served_by(worker, host, upstream);
                let ticket = served.one_of_ours().and_then(|i| worker.engine.started(upstream, i, started));
                let Some(ticket) = ticket else { return };
                (ticket, outcome)
            }
            other => {
                self.phase = other;
                return;
            }
        };
        worker.engine.answered(&ticket, outcome, now);
        let judged = match outcome {
            Outcome::Undecided => Judged::NotYet,
            _ => Judged::Settled,
        };
        self.phase = Phase::Streaming { ticket, judged, answered: now, complete };
    }

    /// A part of the response's body; `last` with the last.
    pub fn response_body(&mut self, worker: &mut Worker, host: &dyn StreamHost, last: bool) {
        let Phase::Streaming { ticket, judged, answered, complete } = &mut self.phase else { return };
        *complete |= last;
        if *judged == Judged::NotYet && !last {
            let now = host.now();
            if now.seconds_since(*answered) >= FLOWS_AFTER_S {
                *judged = Judged::Flows;
                worker.engine.judged(ticket, None, now);
            }
        }
    }

    /// Response trailers: where gRPC puts its status.
    pub fn response_trailers(&mut self, worker: &mut Worker, host: &dyn StreamHost) {
        let Phase::Streaming { ticket, judged, complete, .. } = &mut self.phase else { return };
        if core::mem::replace(complete, true) || *judged == Judged::Settled {
            return;
        }
        if let Some(failure) = verdict::of_trailers(host) {
            *judged = Judged::Settled;
            worker.engine.judged(ticket, Some(failure), host.now());
        }
    }

    /// The end, whichever way it came; further calls change nothing.
    pub fn finish(&mut self, worker: &mut Worker, host: &dyn StreamHost) {
        match core::mem::take(&mut self.phase) {
            Phase::Foreign | Phase::Watching { .. } => {}
            Phase::Waiting { mut ticket, upload } => {
                let now = host.now();
                // A client that leaves in the middle of its own request says nothing of the endpoint.
                let outcome = match upload {
                    Upload::Over => Outcome::Cancelled,
                    Upload::Flowing => {
                        worker.engine.uploaded(&mut ticket, now);
                        Outcome::Unrelated
                    }
                };
                worker.engine.answered(&ticket, outcome, now);
                worker.engine.finished(&ticket, now);
            }
            Phase::Streaming { ticket, judged, complete, .. } => {
                let now = host.now();
                let open = judged != Judged::Settled;
                let broken = if open && !complete { verdict::of_the_end(host) } else { None };
                if broken.is_some() || judged == Judged::NotYet {
                    worker.engine.judged(&ticket, broken, now);
                }
                worker.engine.finished(&ticket, now);
            }
        }
    }
}

/// The upstream that balances the route's cluster. The name costs a trip to the host, so it is not asked for
/// where one entry balances all.
fn route(worker: &Worker, host: &dyn StreamHost) -> Option<usize> {
    worker.engine.route_any().or_else(|| {
        let cluster = host.property(&["xds", "cluster_name"])?;
        worker.engine.route(core::str::from_utf8(&cluster).ok()?)
    })
}
