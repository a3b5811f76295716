//! How requests end, and how much each ending says about the endpoint.

use crate::health::FailureEvent;
use crate::settings::Failures;

/// A failure that is the endpoint's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An answer with status 500..=599.
    Status5xx,
    /// An answer with another status that the operator counts.
    Status,
    /// 429, or gRPC `RESOURCE_EXHAUSTED`: it works, but has too much to do.
    TooMany,
    /// The request was reset before the answer, for a reason of its own or an unknown one.
    Reset,
    /// The connection broke before the answer: which one, 0 if that is unknown.
    Broken(u64),
    /// No connection could be made.
    Refused,
    /// No answer in time.
    Timeout,
    /// A gRPC status that blames the server.
    Grpc,
    /// The call's own deadline passed without an answer. It blames an endpoint that was silent for all that time and
    /// much longer than is typical, as a time-out; no other.
    Deadline,
}

impl Failure {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Failure::Status5xx => "status_5xx",
            Failure::Status => "status",
            Failure::TooMany => "too_many",
            Failure::Reset | Failure::Broken(_) => "reset",
            Failure::Refused => "refused",
            Failure::Timeout => "timeout",
            Failure::Grpc => "grpc_status",
            Failure::Deadline => "deadline",
        }
    }

    /// How many failures in a row this one counts for. A refused connection and a time-out say more than one
    /// bad answer: the first is the kernel's word that nothing listens, the second took seconds to learn.
    /// Too much to do is no illness: it prices the endpoint, it does not eject it.
    fn weight(self) -> u32 {
        match self {
            Failure::Refused | Failure::Timeout | Failure::Deadline => 2,
            Failure::Status5xx | Failure::Status | Failure::Reset | Failure::Broken(_) | Failure::Grpc => 1,
            Failure::TooMany => 0,
        }
    }

    /// What it means for the endpoint's health; nothing at all for [`TooMany`](Failure::TooMany).
    pub fn failure_event(self) -> Option<FailureEvent> {
        let broke = if let Failure::Broken(connection) = self { Some(connection) } else { None };
        let failure_event = FailureEvent { weight: self.weight(), broke };
        (failure_event.weight > 0).then_some(failure_event)
    }

    /// Whether the endpoint itself answered, which shows that it lives.
    pub fn is_response(self) -> bool {
        matches!(self, Failure::Status5xx | Failure::Status | Failure::TooMany | Failure::Grpc)
    }

    /// The failure that a gRPC status means, by what counts as one.
    pub fn of_grpc_status(status: u32, counts: &Failures) -> Option<Failure> {
        match status {
            _ if counts.grpc(status) => Some(Failure::Grpc),
            8 => Some(Failure::TooMany),
            _ => None,
        }
    }

    /// The failure that an HTTP status of the endpoint means, by what counts as one.
    pub fn of_status(status: u16, counts: &Failures) -> Option<Failure> {
        match status {
            500..=599 if counts.status(status) => Some(Failure::Status5xx),
            _ if counts.status(status) => Some(Failure::Status),
            429 => Some(Failure::TooMany),
            _ => None,
        }
    }

    /// This failure, if it counts as one. What has a status has been asked by that.
    pub fn counted(self, counts: &Failures) -> Option<Failure> {
        let counted = match self {
            Failure::Reset | Failure::Broken(_) | Failure::Refused => counts.resets(),
            Failure::Timeout | Failure::Deadline => counts.timeouts(),
            Failure::Status5xx | Failure::Status | Failure::TooMany | Failure::Grpc => true,
        };
        counted.then_some(self)
    }

    /// The failure behind a local reply, from Envoy's response code details
    /// (<https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/response_code_details>).
    /// `None` for replies that no endpoint has caused.
    pub fn of_details(details: &[u8]) -> Option<Failure> {
        let has = |needle: &[u8]| details.windows(needle.len()).any(|w| w == needle);
        if has(b"connection_failure") || has(b"connection_timeout") {
            Some(Failure::Refused)
        } else if has(b"response_timeout") || has(b"per_try_timeout") || has(b"per_try_idle_timeout") {
            Some(Failure::Timeout)
        } else if has(b"max_duration_timeout") || has(b"max_stream_duration_reached") {
            Some(Failure::Deadline)
        } else if details.starts_with(b"upstream_reset") && !has(b"overflow") {
            // What breaks off a response tells of a stream that may be old; what breaks before one, of the moment.
            let broke = has(b"before_response_started{connection_termination");
            Some(if broke { Failure::Broken(0) } else { Failure::Reset })
        } else {
            None
        }
    }
}

/// The first sign of how a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A good answer.
    Good,
    /// An answer that its end may still spoil (a body cut short, gRPC trailers): its latency counts already.
    Undecided,
    /// A failure that is the endpoint's.
    Failed(Failure),
    /// The client went away before an answer.
    Cancelled,
    /// It ended for a reason that says nothing of the endpoint.
    Unrelated,
}

/// What the last answer to a request that was tried again tells of the attempts before it, which were not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryHint {
    /// It sheds load, and routes that try again for one such answer do for another.
    Shed,
    /// It failed, and so did they.
    Failed,
    /// Nothing.
    Unseen,
}

impl RetryHint {
    /// The hint of an answer with this outcome and HTTP status, 0 if there was none.
    pub fn of(outcome: Outcome, status: u32) -> RetryHint {
        match outcome {
            Outcome::Failed(Failure::TooMany) => RetryHint::Shed,
            // A call's deadline runs from its first attempt, and ends the last for no fault of its own.
            Outcome::Failed(Failure::Deadline) => RetryHint::Unseen,
            Outcome::Failed(_) => RetryHint::Failed,
            // The only status that `retriable-4xx` tries again.
            _ if status == 409 => RetryHint::Shed,
            _ => RetryHint::Unseen,
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn reads_envoys_response_code_details() {
        for (details, failure) in [
            (
                "upstream_reset_before_response_started{remote_connection_failure,delayed_connect_error:_111}",
                Some(Failure::Refused),
            ),
            ("upstream_reset_before_response_started{connection_termination}", Some(Failure::Broken(0))),
            ("upstream_reset_before_response_started{remote_reset}", Some(Failure::Reset)),
            ("upstream_reset_after_response_started{connection_termination}", Some(Failure::Reset)),
            ("upstream_reset_before_response_started{connection_timeout}", Some(Failure::Refused)),
            ("upstream_reset_before_response_started{overflow}", None),
            ("response_timeout", Some(Failure::Timeout)),
            ("upstream_per_try_timeout", Some(Failure::Timeout)),
            ("max_duration_timeout", Some(Failure::Deadline)),
            ("upstream_max_stream_duration_reached", Some(Failure::Deadline)),
            ("no_healthy_upstream", None),
            ("direct_response", None),
            ("", None),
        ] {
            assert_eq!(Failure::of_details(details.as_bytes()), failure, "{details}");
        }
    }

    #[test]
    fn blames_the_server_only_for_its_own_grpc_statuses() {
        let counts = Failures::default();
        assert_eq!(Failure::of_grpc_status(14, &counts), Some(Failure::Grpc));
        assert_eq!(Failure::of_grpc_status(8, &counts), Some(Failure::TooMany));
        for callers in [0, 1, 3, 5, 7, 9, 12, 16, 99] {
            assert_eq!(Failure::of_grpc_status(callers, &counts), None, "{callers}");
        }
    }

    #[test]
    fn what_counts_is_the_operators() {
        use crate::settings::Counted::{LocalOrigin, Status};
        let counts = Failures::of(vec![Status(429, 429), Status(404, 404), Status(502, 502)]);
        for (status, failure) in [
            (429, Some(Failure::Status)),
            (404, Some(Failure::Status)),
            (502, Some(Failure::Status5xx)),
            (500, None),
        ] {
            assert_eq!(Failure::of_status(status, &counts), failure, "{status}");
        }
        assert_eq!(Failure::of_status(429, &Failures::default()), Some(Failure::TooMany));
        assert_eq!(Failure::Reset.counted(&counts), None);
        let local = Failures::of(vec![LocalOrigin]);
        assert_eq!(Failure::of_status(503, &local), None);
        for failure in
            [Failure::Reset, Failure::Broken(1), Failure::Refused, Failure::Timeout, Failure::Deadline]
        {
            assert_eq!(failure.counted(&local), Some(failure));
        }
    }
}
