//! What headers, trailers and the end of a response say, and of whom.

use crate::engine::{Engine, Failure, Outcome, Ticket};
use crate::host::StreamHost;
use crate::random;

/// Switching protocols: what flows from here on is no response body, and has no end that could be missing.
const SWITCHING: u32 = 101;

/// What the response headers say of the endpoint; `complete` where nothing follows them.
pub(in crate::worker) fn of_headers(host: &dyn StreamHost, complete: bool) -> Outcome {
    let outcome = of_status(status(host), host, complete);
    let Outcome::Failed(failure) = outcome else { return outcome };
    // Envoy's own replies look like the endpoint's; only the details tell them apart.
    let details = host.property(&["response", "code_details"]).unwrap_or_default();
    match details.as_slice() {
        b"via_upstream" => Outcome::Failed(failure),
        details => of_details(details, host).map_or(Outcome::Unrelated, Outcome::Failed),
    }
}

/// The failure that the response headers tell, if they do.
pub(in crate::worker) fn failure(host: &dyn StreamHost, complete: bool) -> Option<Failure> {
    match of_headers(host, complete) {
        Outcome::Failed(failure) => Some(failure),
        _ => None,
    }
}

/// What an endpoint's own response headers say of it; nothing where they only announce others.
pub(in crate::worker) fn of_attempt(host: &dyn StreamHost, complete: bool) -> Option<Outcome> {
    let status = status(host);
    let announced = (100..200).contains(&status) && status != SWITCHING;
    (!announced).then(|| of_status(status, host, complete))
}

fn status(host: &dyn StreamHost) -> u32 {
    host.response_header(":status").as_deref().and_then(number).unwrap_or(0)
}

fn of_status(status: u32, host: &dyn StreamHost, complete: bool) -> Outcome {
    if let Some(failure) = u16::try_from(status).ok().and_then(Failure::of_status) {
        return Outcome::Failed(failure);
    }
    match host.response_header("grpc-status").map(grpc_failure) {
        Some(Some(failure)) => Outcome::Failed(failure),
        Some(None) => Outcome::Good,
        None if complete || status == SWITCHING => Outcome::Good,
        None => Outcome::Undecided,
    }
}

/// The failure that the trailers tell, if they do.
pub(in crate::worker) fn of_trailers(host: &dyn StreamHost) -> Option<Failure> {
    grpc_failure(host.response_trailer("grpc-status")?)
}

/// Who broke off a response that never came to its end: the endpoint, or (`None`) anybody else.
pub(in crate::worker) fn of_the_end(host: &dyn StreamHost) -> Option<Failure> {
    of_details(&host.property(&["response", "code_details"])?, host)
}

/// What Envoy's details of a response say. Streams that share a connection break with it; its own end tells it from others.
fn of_details(details: &[u8], host: &dyn StreamHost) -> Option<Failure> {
    match Failure::of_details(details)? {
        Failure::Broken(_) => {
            let connection = host.property(&["upstream", "local_address"]);
            Some(Failure::Broken(connection.map_or(0, |address| random::hash(&address))))
        }
        failure => Some(failure),
    }
}

/// Whether an attempt without an answer never had a connection.
pub(in crate::worker) fn no_connection(host: &dyn StreamHost) -> Option<Failure> {
    let reason = host.property(&["upstream", "transport_failure_reason"])?;
    (!reason.is_empty()).then_some(Failure::Refused)
}

fn grpc_failure(status: Vec<u8>) -> Option<Failure> {
    Failure::of_grpc_status(number(&status)?)
}

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Served {
    /// The endpoint with this index.
    Ours(u32),
    /// A host that is none of the endpoints.
    Stranger,
    /// No host: Envoy itself or another filter.
    Nobody,
}

impl Served {
    pub(in crate::worker) fn one_of_ours(self) -> Option<u32> {
        match self {
            Served::Ours(index) => Some(index),
            Served::Stranger | Served::Nobody => None,
        }
    }
}

/// The host that Envoy used in the end.
pub(in crate::worker) fn served_by(engine: &Engine, host: &dyn StreamHost, upstream: usize) -> Served {
    let Some(address) = host.property(&["upstream", "address"]).filter(|a| !a.is_empty()) else {
        return Served::Nobody;
    };
    let fleet = engine.upstream(upstream).map(|u| u.fleet());
    fleet.and_then(|f| f.index_of_text(&address)).map_or(Served::Stranger, Served::Ours)
}

/// Sees to it that the outcome goes to whoever served the request: a retry goes elsewhere, Envoy passes over an
/// address that is not in the cluster, and other filters answer by themselves. `stays` where a retry would go to the same
/// endpoint again.
pub(in crate::worker) fn reattribute(
    engine: &mut Engine,
    host: &dyn StreamHost,
    (ticket, stays): (Ticket, bool),
    outcome: Outcome,
) -> (Ticket, Outcome) {
    let served = match served_by(engine, host, ticket.upstream) {
        Served::Ours(served) if served == ticket.endpoint.index => {
            if stays && attempts(host) > 1 {
                engine.gave_up(&ticket, Failure::Reset, host.now());
                return (ticket, of_a_later_attempt(outcome));
            }
            return (ticket, outcome);
        }
        Served::Ours(served) => served,
        // Whatever was good or bad about it is not the named endpoint's.
        Served::Stranger => {
            if attempts(host) <= 1 {
                not_followed(engine, host, ticket.upstream);
            }
            return (ticket, Outcome::Unrelated);
        }
        // Envoy tells by its details of an endpoint that it could not reach.
        Served::Nobody => return (ticket, if is_good(outcome) { Outcome::Unrelated } else { outcome }),
    };
    let Some(moved) = engine.moved(&ticket, served) else { return (ticket, outcome) };
    if attempts(host) > 1 {
        // The first endpoint failed, or the request would not be elsewhere.
        engine.gave_up(&ticket, Failure::Reset, host.now());
        return (moved, of_a_later_attempt(outcome));
    }
    not_followed(engine, host, ticket.upstream);
    (moved, outcome)
}

/// A first attempt went elsewhere: because the request has another route by now, or because nothing follows the header.
pub(in crate::worker) fn not_followed(engine: &mut Engine, host: &dyn StreamHost, upstream: usize) {
    match super::route::by_cluster(engine, host) {
        Some(other) if other != upstream => engine.rerouted(other),
        _ => engine.not_followed(upstream),
    }
}

/// How often Envoy has tried.
pub(in crate::worker) fn attempts(host: &dyn StreamHost) -> u64 {
    let attempts = host.property(&["upstream", "request_attempt_count"]);
    attempts.and_then(|bytes| bytes.try_into().ok()).map_or(1, u64::from_le_bytes)
}

/// What the end of a request with retries says of the endpoint that had the last: the latency is not its own.
pub(in crate::worker) fn of_a_later_attempt(outcome: Outcome) -> Outcome {
    if is_good(outcome) { Outcome::Unrelated } else { outcome }
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
