//! What headers, trailers and the end of a response say, and of whom.

use crate::engine::{Failure, Outcome, Ticket};
use crate::host::StreamHost;
use crate::worker::Worker;

/// Switching protocols: what flows from here on is no response body, and has no end that could be missing.
const SWITCHING: u32 = 101;

/// What the response headers say of the endpoint; `complete` where nothing follows them.
pub(super) fn of_headers(host: &dyn StreamHost, complete: bool) -> Outcome {
    let status = host.response_header(":status").as_deref().and_then(number).unwrap_or(0);
    let failure = match u16::try_from(status).ok().and_then(Failure::of_status) {
        Some(failure) => failure,
        None => match host.response_header("grpc-status").map(grpc_failure) {
            Some(Some(failure)) => failure,
            Some(None) => return Outcome::Good,
            None if complete || status == SWITCHING => return Outcome::Good,
            None => return Outcome::Undecided,
        },
    };
    // Envoy's own replies look like the endpoint's; only the details tell them apart.
    let details = host.property(&["response", "code_details"]).unwrap_or_default();
    match details.as_slice() {
        b"via_upstream" => Outcome::Failed(failure),
        details => Failure::of_details(details).map_or(Outcome::Unrelated, Outcome::Failed),
    }
}

/// The failure that the trailers tell, if they do.
pub(super) fn of_trailers(host: &dyn StreamHost) -> Option<Failure> {
    grpc_failure(host.response_trailer("grpc-status")?)
}

/// Who broke off a response that never came to its end: the endpoint, or (`None`) anybody else.
pub(super) fn of_the_end(host: &dyn StreamHost) -> Option<Failure> {
    Failure::of_details(&host.property(&["response", "code_details"])?)
}

fn grpc_failure(status: Vec<u8>) -> Option<Failure> {
    Failure::of_grpc_status(number(&status)?)
}

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// The endpoint with this index.
    Ours(u32),
    /// A host that is none of the endpoints.
    Stranger,
    /// No host: Envoy itself or another filter.
    Nobody,
}

impl Served {
    pub(super) fn one_of_ours(self) -> Option<u32> {
        match self {
            Served::Ours(index) => Some(index),
            Served::Stranger | Served::Nobody => None,
        }
    }
}

/// The host that Envoy used in the end.
pub(super) fn served_by(worker: &Worker, host: &dyn StreamHost, upstream: usize) -> Served {
    let Some(address) = host.property(&["upstream", "address"]).filter(|a| !a.is_empty()) else {
        return Served::Nobody;
    };
    let fleet = worker.engine.upstream(upstream).map(|u| u.fleet());
    fleet.and_then(|f| f.index_of_text(&address)).map_or(Served::Stranger, Served::Ours)
}

/// Sees to it that the outcome goes to whoever served the request: a retry goes elsewhere, Envoy passes over an
/// address that is not in the cluster, and other filters answer by themselves.
pub(super) fn reattribute(
    worker: &mut Worker,
    host: &dyn StreamHost,
    ticket: Ticket,
    outcome: Outcome,
) -> (Ticket, Outcome) {
    let served = match served_by(worker, host, ticket.upstream) {
        Served::Ours(served) if served == ticket.endpoint.index => return (ticket, outcome),
        Served::Ours(served) => served,
        // Whatever was good or bad about it is not the named endpoint's.
        Served::Stranger => return (ticket, Outcome::Unrelated),
        // Envoy tells by its details of an endpoint that it could not reach.
        Served::Nobody => return (ticket, if is_good(outcome) { Outcome::Unrelated } else { outcome }),
    };
    let Some(moved) = worker.engine.moved(&ticket, served) else { return (ticket, outcome) };
    let attempts = host.property(&["upstream", "request_attempt_count"]);
    let attempts = attempts.and_then(|b| b.try_into().ok()).map_or(1, u64::from_le_bytes);
    if attempts > 1 {
        // The first endpoint failed, or the request would not be elsewhere; and its latency is not this one's.
        worker.engine.judged(&ticket, Some(Failure::Reset), host.now());
        return (moved, if is_good(outcome) { Outcome::Unrelated } else { outcome });
    }
    (moved, outcome)
}

fn is_good(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Good | Outcome::Undecided)
}

/// A decimal number of up to nine digits.
fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 9 {
        return None;
    }
    text.iter().try_fold(0u32, |n, b| b.is_ascii_digit().then(|| n * 10 + u32::from(b - b'0')))
}
