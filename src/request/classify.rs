//! Outcomes of requests: from response headers, trailers, Envoy's response code details and the host that answered.

use crate::host::StreamHost;
use crate::request::grpc_web::WebBody;
use crate::request::route::Sampler;
use engine::rng;
use engine::settings::Failures;
use engine::time::Time;
use engine::{Balancer, Failure, Outcome, Quickness, RequestHandle, RetryHint};

/// `101 Switching Protocols`: what follows is not a response body, so a missing end means nothing.
const SWITCHING: u32 = 101;
/// `304 Not Modified`: does what was asked.
const NOT_MODIFIED: u32 = 304;

/// Outcome and status of response headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub outcome: Outcome,
    /// The HTTP status; 0 if there is none.
    pub status: u32,
    /// Whether the endpoint did not do what was asked: it redirects, turns the request down, or fails in a way that is
    /// configured not to count.
    pub declined: bool,
}

/// The outcome for the endpoint, by the configured failures; `complete` if nothing follows the headers. `sampler` selects
/// good answers that are looked at twice: `local_reply_config` can give a local reply any status.
pub(crate) fn of_headers(
    host: &dyn StreamHost,
    complete: bool,
    counts: &Failures,
    sampler: &mut Sampler,
) -> Answer {
    let (answer, suspicious) = read(host, complete, counts);
    if !suspicious && !sampler.takes_this_one() {
        return answer;
    }
    // Local replies of Envoy look like an endpoint's responses; only the response code details tell them apart.
    let details = host.property(&["response", "code_details"]).unwrap_or_default();
    let outcome = match &*details {
        b"via_upstream" => answer.outcome,
        details => match of_details(details, host, counts).or_else(|| idled(details, host, counts)) {
            Some(failure) => {
                if !suspicious {
                    sampler.found();
                }
                Outcome::Failed(failure)
            }
            None if suspicious => Outcome::Unrelated,
            None => answer.outcome,
        },
    };
    Answer { outcome, ..answer }
}

/// What the time of an answer may show. Where the status is in a gRPC-Web body, `web` is prepared to find it; only calls
/// that `upload` something are gRPC.
pub(crate) fn shows(host: &dyn StreamHost, answer: Answer, uploads: bool, web: &mut WebBody) -> Quickness {
    if answer.declined {
        return Quickness::Denied;
    }
    let open = uploads && answer.outcome == Outcome::Undecided && web.is_grpc(host);
    if open { Quickness::Open } else { Quickness::Shown }
}

/// The outcome as the client sees it, from an endpoint or from Envoy itself.
pub(crate) fn of_client(host: &dyn StreamHost, complete: bool, counts: &Failures) -> Outcome {
    read(host, complete, counts).0.outcome
}

/// The endpoint's failure in the response headers, if there is one.
pub(crate) fn failure(
    host: &dyn StreamHost,
    complete: bool,
    counts: &Failures,
    sampler: &mut Sampler,
) -> Option<Failure> {
    match of_headers(host, complete, counts, sampler).outcome {
        Outcome::Failed(failure) => Some(failure),
        _ => None,
    }
}

/// The answer in the response headers of an attempt; `None` for informational ones (1xx), which others follow.
pub(crate) fn of_attempt(host: &dyn StreamHost, complete: bool, counts: &Failures) -> Option<Answer> {
    let (answer, _) = read(host, complete, counts);
    let announced = (100..200).contains(&answer.status) && answer.status != SWITCHING;
    (!announced).then_some(answer)
}

/// The answer by status and gRPC status, and whether it may be a local reply of Envoy.
fn read(host: &dyn StreamHost, complete: bool, counts: &Failures) -> (Answer, bool) {
    let status = host.response_header(":status").as_deref().and_then(number).unwrap_or(0);
    let failure = u16::try_from(status).ok().and_then(|status| Failure::of_status(status, counts));
    if let Some(failure) = failure {
        return (Answer { outcome: Outcome::Failed(failure), status, declined: false }, true);
    }
    let code = host.response_header("grpc-status").map(|code| number(&code));
    let outcome = match code.flatten().and_then(|code| Failure::of_grpc_status(code, counts)) {
        Some(failure) => Outcome::Failed(failure),
        None if complete || status == SWITCHING => Outcome::Good,
        // A status that is good so far may have another in the trailers, which is what clients go by.
        None => Outcome::Undecided,
    };
    // 408 and Envoy's own 5xx may stand for an endpoint that did not respond.
    let suspicious = status == 408 || status >= 500 || code.is_some_and(|code| code != Some(0));
    let declined = status >= 300 && status != NOT_MODIFIED || code.flatten().is_some_and(|code| code != 0);
    (Answer { outcome, status, declined }, suspicious)
}

/// The status of a call that comes after its response headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LateStatus {
    pub failure: Option<Failure>,
    /// Whether the endpoint did not do what was asked.
    pub declined: bool,
}

impl LateStatus {
    pub(crate) fn of(code: u32, counts: &Failures) -> LateStatus {
        LateStatus { failure: Failure::of_grpc_status(code, counts), declined: code != 0 }
    }
}

/// The gRPC status in the response trailers, if they have one.
pub(crate) fn of_trailers(host: &dyn StreamHost, counts: &Failures) -> Option<LateStatus> {
    Some(LateStatus::of(number(&host.response_trailer("grpc-status")?)?, counts))
}

/// The endpoint's failure behind a response that was cut short; `None` if the endpoint did not cause it.
pub(crate) fn of_the_end(host: &dyn StreamHost, counts: &Failures) -> Option<Failure> {
    let failure = of_details(&host.property(&["response", "code_details"])?, host, counts);
    // A response that has begun does not miss a deadline, however long its stream lasts.
    failure.filter(|failure| *failure != Failure::Deadline)
}

/// Why a request ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// The endpoint answered, and Envoy started the request anew: it followed a redirect, or `custom_response` sends the
    /// client to a page of its own. [`Outcome::Unrelated`] if the answer's status is unknown.
    Answered(Outcome),
    /// The endpoint failed.
    Failed(Failure),
    /// Unknown: the client left.
    PendingOutcome,
}

/// When a request began, and the deadline of its call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrival {
    pub began: Time,
    /// Whether it opens a tunnel (`CONNECT`), which either side ends by closing it.
    pub tunnels: bool,
    /// The `grpc-timeout` of the call, seconds.
    pub deadline_s: Option<f64>,
}

impl Arrival {
    /// The start of a request. The headers are read now, because they are out of reach when the request ends; a request
    /// without a body is not a gRPC call.
    pub fn now(host: &dyn StreamHost, now: Time, complete: bool) -> Arrival {
        if complete {
            return Arrival { began: now, ..Arrival::default() };
        }
        let timeout = host.request_header("grpc-timeout");
        Arrival { began: now, tunnels: tunnels(host), deadline_s: timeout.as_deref().and_then(grpc_timeout) }
    }

    /// Whether the call's own deadline has passed: its client enforces it by cancelling.
    fn missed_its_deadline(&self, host: &dyn StreamHost) -> bool {
        let passed = |deadline_s| host.now().seconds_since(self.began) >= DEADLINE_PASSED * deadline_s;
        self.deadline_s.is_some_and(passed)
    }
}

/// The reason for a request's end without an answer, from Envoy's response code details and the call's deadline.
#[inline(never)]
pub(crate) fn of_silence(host: &dyn StreamHost, arrival: &Arrival, counts: &Failures) -> Silence {
    of_end(&host.property(&["response", "code_details"]).unwrap_or_default(), host, arrival, counts)
}

fn of_end(details: &[u8], host: &dyn StreamHost, arrival: &Arrival, counts: &Failures) -> Silence {
    if details.starts_with(b"internal_redirect") {
        let code = host.property(&["response", "code"]);
        let code = code.and_then(|bytes| (*bytes).try_into().ok()).map_or(0, i64::from_le_bytes);
        return Silence::Answered(of_the_consumed(u16::try_from(code).unwrap_or(0), counts));
    }
    let failure = of_details(details, host, counts);
    let failure = failure.or_else(|| arrival.missed_its_deadline(host).then_some(Failure::Deadline));
    failure.and_then(|failure| failure.counted(counts)).map_or(Silence::PendingOutcome, Silence::Failed)
}

/// Whether a request without an end opens a tunnel. What flows in it is no response body, so a missing end means nothing.
pub(crate) fn tunnels(host: &dyn StreamHost) -> bool {
    host.request_header(":method").as_deref() == Some(b"CONNECT")
}

/// The outcome of an answer with this status that Envoy has consumed; 0 if unknown.
fn of_the_consumed(status: u16, counts: &Failures) -> Outcome {
    match Failure::of_status(status, counts) {
        Some(failure) => Outcome::Failed(failure),
        None if status == 0 => Outcome::Unrelated,
        None => Outcome::Good,
    }
}

/// The part of a call's deadline after which a cancellation counts as its expiry: the client's clock starts earlier
/// than this one, and so ends earlier.
const DEADLINE_PASSED: f64 = 0.9;

/// The value of `grpc-timeout`, up to eight digits and a unit, in seconds
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
fn grpc_timeout(text: &[u8]) -> Option<f64> {
    let (unit, digits) = text.split_last()?;
    let unit = match unit {
        b'H' => 3600.0,
        b'M' => 60.0,
        b'S' => 1.0,
        b'm' => 1e-3,
        b'u' => 1e-6,
        b'n' => 1e-9,
        _ => return None,
    };
    (digits.len() <= 8).then_some(())?;
    Some(f64::from(number(digits)?) * unit)
}

/// The failure in Envoy's response code details. A broken connection fails all streams on it at once: the hash of its
/// local address identifies the connection.
#[inline(never)]
fn of_details(details: &[u8], host: &dyn StreamHost, counts: &Failures) -> Option<Failure> {
    match Failure::of_details(details)?.counted(counts)? {
        Failure::Broken(_) => {
            let connection = host.property(&["upstream", "local_address"]);
            Some(Failure::Broken(connection.map_or(0, |address| rng::hash(&address))))
        }
        failure => Some(failure),
    }
}

/// The failure behind a local reply to a stream that was idle for too long: Envoy answers 504 (to gRPC `UNAVAILABLE`) if
/// the client had sent everything, and 408 if the client itself was what it waited for.
fn idled(details: &[u8], host: &dyn StreamHost, counts: &Failures) -> Option<Failure> {
    let idle = details == b"stream_idle_timeout";
    let waited = idle
        && (host.response_header(":status").as_deref() == Some(b"504")
            || host.response_header("grpc-status").as_deref() == Some(b"14"));
    if waited { Failure::Deadline.counted(counts) } else { None }
}

/// The reason for a local reply in place of an answer, at its headers.
pub(crate) fn of_local_reply(host: &dyn StreamHost, arrival: &Arrival, counts: &Failures) -> Silence {
    let details = host.property(&["response", "code_details"]).unwrap_or_default();
    match idled(&details, host, counts) {
        Some(failure) => Silence::Failed(failure),
        None => of_end(&details, host, arrival, counts),
    }
}

/// The outcome of a request that was steered to a cluster of one endpoint, and that Envoy answered for another reason
/// than its request there: without such a cluster, or with no healthy host in it, the endpoint cannot be reached.
#[inline(never)]
pub(crate) fn of_its_cluster(host: &dyn StreamHost, counts: &Failures) -> Outcome {
    let details = host.property(&["response", "code_details"]).unwrap_or_default();
    let lost = details.starts_with(b"cluster_not_found") || details.starts_with(b"no_healthy_upstream");
    let failure = if lost { Failure::Refused.counted(counts) } else { None };
    failure.map_or(Outcome::Unrelated, Outcome::Failed)
}

/// The failure of an unanswered attempt that never had a connection.
pub(crate) fn no_connection(host: &dyn StreamHost, counts: &Failures) -> Option<Failure> {
    let reason = host.property(&["upstream", "transport_failure_reason"])?;
    if reason.is_empty() { None } else { Failure::Refused.counted(counts) }
}

/// The host that answered a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamHost {
    /// The endpoint with this index.
    Endpoint(u32),
    /// A host that is not among the endpoints.
    Unknown,
    /// No host: Envoy itself or another filter answered.
    None,
}

impl UpstreamHost {
    pub(crate) fn one_of_ours(self) -> Option<u32> {
        match self {
            UpstreamHost::Endpoint(index) => Some(index),
            UpstreamHost::Unknown | UpstreamHost::None => None,
        }
    }
}

/// The host that answered, from Envoy's last attempt.
pub(crate) fn served_by(engine: &Balancer, host: &dyn StreamHost, upstream: usize) -> UpstreamHost {
    let Some(address) = host.served_by().filter(|a| !a.is_empty()) else {
        return UpstreamHost::None;
    };
    let fleet = engine.upstream(upstream).map(|u| u.fleet());
    fleet.and_then(|f| f.index_of_text(&address)).map_or(UpstreamHost::Unknown, UpstreamHost::Endpoint)
}

/// Attributes the outcome to the endpoint that served the request: a retry goes to another endpoint, Envoy ignores an
/// address that is not in the cluster, and other filters answer by themselves. `stays` if a retry would go to the same
/// endpoint. Returns the handle to report on, the outcome, and whether the handle's endpoint served the request.
pub(crate) fn reattribute(
    engine: &mut Balancer,
    host: &dyn StreamHost,
    (handle, stays): (RequestHandle, bool),
    Answer { outcome, status, .. }: Answer,
) -> (RequestHandle, Outcome, bool) {
    let deadline = outcome == Outcome::Failed(Failure::Deadline);
    let served = match served_by(engine, host, handle.upstream) {
        UpstreamHost::Endpoint(served) if engine.names(&handle, served) => {
            if stays && attempts(host) > 1 {
                engine.record_failed_attempt(&handle, RetryHint::of(outcome, status), host.now());
                return (handle, outcome.of_a_later_attempt(), true);
            }
            return (handle, outcome, true);
        }
        UpstreamHost::Endpoint(served) => served,
        // The named endpoint did not serve it, so nothing is said about it.
        UpstreamHost::Unknown => {
            if attempts(host) <= 1 {
                not_followed(engine, host, handle.upstream);
            }
            return (handle, Outcome::Unrelated, false);
        }
        // Envoy answered for an endpoint that it could not reach, and the failure says so; a deadline may have passed
        // before it tried.
        UpstreamHost::None if outcome.is_good() || deadline => return (handle, Outcome::Unrelated, false),
        UpstreamHost::None => return (handle, outcome, false),
    };
    let Some(moved) = engine.reassigned(&handle, served) else { return (handle, outcome, false) };
    if attempts(host) > 1 {
        // The request was retried, so the first endpoint failed.
        engine.record_failed_attempt(&handle, RetryHint::of(outcome, status), host.now());
        return (moved, outcome.of_a_later_attempt(), true);
    }
    not_followed(engine, host, handle.upstream);
    (moved, outcome, true)
}

/// Counts a first attempt that went to another endpoint: the request's route has changed since the decision, or nothing
/// in Envoy follows the steering header.
#[inline(never)]
pub(crate) fn not_followed(engine: &mut Balancer, host: &dyn StreamHost, upstream: usize) {
    match super::route::by_cluster(engine, host) {
        Some(other) if other != upstream => engine.rerouted(other),
        _ => engine.not_followed(upstream),
    }
}

/// Number of attempts that Envoy has made, 1 if unknown.
pub(crate) fn attempts(host: &dyn StreamHost) -> u64 {
    let attempts = host.property(&["upstream", "request_attempt_count"]);
    attempts.and_then(|bytes| (*bytes).try_into().ok()).map_or(1, u64::from_le_bytes)
}

/// A decimal number of one to nine digits.
pub(crate) fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 9 {
        return None;
    }
    text.iter().try_fold(0u32, |n, b| b.is_ascii_digit().then(|| n * 10 + u32::from(b - b'0')))
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn reads_a_calls_deadline() {
        for (text, seconds) in
            [("1H", 3600.0), ("2M", 120.0), ("10S", 10.0), ("250m", 0.25), ("5u", 5e-6), ("7n", 7e-9)]
        {
            assert!((grpc_timeout(text.as_bytes()).unwrap() - seconds).abs() < 1e-12, "{text}");
        }
        for text in ["", "S", "10", "1.5S", "-1S", "123456789S", "10s", "10 S", "\u{b5}S"] {
            assert_eq!(grpc_timeout(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_number_has_one_to_nine_digits() {
        assert_eq!((number(b"0"), number(b"999999999")), (Some(0), Some(999_999_999)));
        for text in ["", "1000000000", "+1", "1 ", "x"] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
    }
}
