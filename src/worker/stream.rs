//! One request from its headers to its end: strip, decide, steer, observe, give back.

use super::{Worker, affinity};
use crate::config::Mode;
use crate::engine::{Decision, Failure, Outcome, Ticket};
use crate::host::StreamHost;
use crate::policy::Request;

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
}

#[derive(Debug, Default)]
enum Phase {
    /// No request headers seen, or nothing of ours.
    #[default]
    Foreign,
    /// Steered; no answer yet.
    Waiting(Ticket),
    /// Observed only: whoever answers is learnt from the answer.
    Watching(usize, crate::time::Time),
    /// Answered; the body may still flow. `judged` if the outcome is settled.
    Streaming { ticket: Ticket, judged: bool },
}

impl Stream {
    /// Request headers. The steering header of the client is gone before anything else is looked at.
    pub fn request_headers(&mut self, worker: &mut Worker, host: &dyn StreamHost) -> Verdict {
        host.remove_request_header(worker.steer.header());
        worker.carries_traffic = true;
        let Some(upstream) = route(worker, host) else { return Verdict::Continue };
        let now = host.now();
        let want = if worker.config.mode == Mode::Observe { 1 } else { worker.steer.want() };
        let key = worker.engine.upstream(upstream).and_then(|u| affinity::key(u.config(), host));
        let request = Request { key, want };
        if worker.config.mode == Mode::Observe {
            let _shown_not_used = worker.engine.pick(upstream, request, now, &mut worker.rng);
            self.phase = Phase::Watching(upstream, now);
            return Verdict::Continue;
        }
        match worker.engine.pick(upstream, request, now, &mut worker.rng) {
            Decision::Steer(candidates) => {
                if let Some((header, value)) = worker.steer.towards(upstream, &candidates) {
                    host.set_request_header(header, value);
                    let first = candidates.first();
                    let ticket = first.and_then(|i| worker.engine.started(upstream, i, now));
                    self.phase = ticket.map_or(Phase::Foreign, Phase::Waiting);
                }
            }
            Decision::SafeEndpoint => {
                if let Some((header, value)) = worker.steer.to_safety(upstream) {
                    host.set_request_header(header, value);
                }
                self.phase = Phase::Watching(upstream, now);
            }
            Decision::Fallback => self.phase = Phase::Watching(upstream, now),
            Decision::Reject => {
                host.respond(503, &[("x-evenkeel-reason", "no eligible endpoint"), ("retry-after", "1")]);
                return Verdict::Answered;
            }
        }
        Verdict::Continue
    }

    /// Response headers, from the endpoint or from Envoy itself.
    pub fn response_headers(&mut self, worker: &mut Worker, host: &dyn StreamHost) {
        if worker.steer.comes_back() {
            host.remove_response_header(worker.steer.header());
        }
        if matches!(self.phase, Phase::Foreign) {
            return;
        }
        let now = host.now();
        let status = host.response_header(":status").as_deref().and_then(number).unwrap_or(0);
        let outcome = outcome(status, host);
        let (ticket, outcome) = match core::mem::take(&mut self.phase) {
            Phase::Waiting(ticket) => reattribute(worker, host, ticket, outcome),
            Phase::Watching(upstream, started) => {
                let index = served_by(worker, host, upstream);
                let ticket = index.and_then(|i| worker.engine.started(upstream, i, started));
                let Some(ticket) = ticket else { return };
                (ticket, outcome)
            }
            other => {
                self.phase = other;
                return;
            }
        };
        worker.engine.answered(&ticket, outcome, now);
        self.phase = Phase::Streaming { ticket, judged: outcome != Outcome::Undecided };
    }

    /// Response trailers: where gRPC puts its status.
    pub fn response_trailers(&mut self, worker: &mut Worker, host: &dyn StreamHost) {
        if let Phase::Streaming { ticket, judged: judged @ false } = &mut self.phase {
            *judged = true;
            let status = host.response_trailer("grpc-status").as_deref().and_then(number).unwrap_or(0);
            worker.engine.judged(ticket, Failure::of_grpc_status(status), host.now());
        }
    }

    /// The end, whichever way it came; further calls change nothing.
    pub fn finish(&mut self, worker: &mut Worker, host: &dyn StreamHost) {
        match core::mem::take(&mut self.phase) {
            Phase::Foreign | Phase::Watching(..) => {}
            Phase::Waiting(ticket) => {
                let now = host.now();
                worker.engine.answered(&ticket, Outcome::Cancelled, now);
                worker.engine.finished(&ticket, now);
            }
            Phase::Streaming { ticket, .. } => worker.engine.finished(&ticket, host.now()),
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

/// What the response headers say of the endpoint.
fn outcome(status: u32, host: &dyn StreamHost) -> Outcome {
    if let Some(failure) = u16::try_from(status).ok().and_then(Failure::of_status) {
        if failure == Failure::TooMany {
            return Outcome::Failed(failure);
        }
        // Envoy's own replies look like the endpoint's; only the details tell them apart.
        let details = host.property(&["response", "code_details"]).unwrap_or_default();
        return match details.as_slice() {
            b"via_upstream" => Outcome::Failed(failure),
            details => Failure::of_details(details).map_or(Outcome::Unrelated, Outcome::Failed),
        };
    }
    match host.response_header("grpc-status").as_deref().and_then(number) {
        Some(status) => Failure::of_grpc_status(status).map_or(Outcome::Good, Outcome::Failed),
        None if is_grpc(host) => Outcome::Undecided,
        None => Outcome::Good,
    }
}

fn is_grpc(host: &dyn StreamHost) -> bool {
    host.response_header("content-type").is_some_and(|t| t.starts_with(b"application/grpc"))
}

/// The endpoint that Envoy used in the end, if it is one of ours.
fn served_by(worker: &Worker, host: &dyn StreamHost, upstream: usize) -> Option<u32> {
    let address = host.property(&["upstream", "address"])?;
    worker.engine.upstream(upstream)?.fleet().index_of_text(&address)
}

/// Sees to it that the outcome goes to whoever served the request: a retry goes elsewhere, and Envoy passes
/// over an address that is not in the cluster.
fn reattribute(
    worker: &mut Worker,
    host: &dyn StreamHost,
    ticket: Ticket,
    outcome: Outcome,
) -> (Ticket, Outcome) {
    let served = served_by(worker, host, ticket.upstream);
    let Some(served) = served.filter(|i| *i != ticket.endpoint.index) else { return (ticket, outcome) };
    let Some(moved) = worker.engine.moved(&ticket, served) else { return (ticket, outcome) };
    let attempts = host.property(&["upstream", "request_attempt_count"]);
    let attempts = attempts.and_then(|b| b.try_into().ok()).map_or(1, u64::from_le_bytes);
    if attempts > 1 {
        // The first endpoint failed, or the request would not be elsewhere; and its latency is not this one's.
        worker.engine.judged(&ticket, Some(Failure::Reset), host.now());
        let verdict = match outcome {
            Outcome::Good | Outcome::Undecided => Outcome::Unrelated,
            other => other,
        };
        return (moved, verdict);
    }
    (moved, outcome)
}

/// A decimal number of up to nine digits.
fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 9 {
        return None;
    }
    text.iter().try_fold(0u32, |n, b| b.is_ascii_digit().then(|| n * 10 + u32::from(b - b'0')))
}
