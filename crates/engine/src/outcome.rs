//! Outcomes of requests, and how much each says about the endpoint.

use crate::health::FailureEvent;
use crate::settings::Failures;

/// A failure that is attributed to the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An answer with a status of 500..=599.
    Status5xx,
    /// An answer with another status that is configured as a failure.
    Status,
    /// 429, or gRPC `RESOURCE_EXHAUSTED`: the endpoint works, but is overloaded.
    TooMany,
    /// The request was reset before the answer, for a reason of its own or an unknown one.
    Reset,
    /// The connection broke before the answer; its number, 0 if unknown.
    Broken(u64),
    /// No connection could be established.
    Refused,
    /// No answer in time.
    Timeout,
    /// A gRPC status that blames the server.
    Grpc,
    /// An attempt in whose place the client got another's answer, so that the reason is unknown. Several in a row count
    /// as one failure.
    Unseen,
    /// The call's own deadline expired without an answer. It counts as a timeout against an endpoint that was silent
    /// for all that time and much longer than is typical, and not at all against any other.
    Deadline,
}

impl Failure {
    /// Name in logs and counters.
    pub fn name(self) -> &'static str {
        match self {
            Failure::Status5xx => "status_5xx",
            Failure::Status => "status",
            Failure::TooMany => "too_many",
            Failure::Reset | Failure::Broken(_) | Failure::Unseen => "reset",
            Failure::Refused => "refused",
            Failure::Timeout => "timeout",
            Failure::Grpc => "grpc_status",
            Failure::Deadline => "deadline",
        }
    }

    /// Number of consecutive failures that this one counts for. A refused connection and a timeout are stronger
    /// evidence than a bad answer: with the first, nothing listens; the second took seconds. Overload adds to the error
    /// penalty, but does not eject.
    fn weight(self) -> u32 {
        match self {
            Failure::Refused | Failure::Timeout | Failure::Deadline => 2,
            Failure::Status5xx | Failure::Status | Failure::Reset | Failure::Broken(_) | Failure::Grpc => 1,
            Failure::TooMany | Failure::Unseen => 0,
        }
    }

    /// Effect on the endpoint's health; `None` for [`TooMany`](Failure::TooMany).
    pub fn failure_event(self) -> Option<FailureEvent> {
        let broke = if let Failure::Broken(connection) = self { Some(connection) } else { None };
        let failure_event = FailureEvent { weight: self.weight(), broke };
        (self != Failure::TooMany).then_some(failure_event)
    }

    /// Whether the endpoint itself answered, which shows that it is alive.
    pub fn is_response(self) -> bool {
        matches!(self, Failure::Status5xx | Failure::Status | Failure::TooMany | Failure::Grpc)
    }

    /// The failure that a gRPC status stands for, by what is configured to count.
    pub fn of_grpc_status(status: u32, counts: &Failures) -> Option<Failure> {
        match status {
            _ if counts.grpc(status) => Some(Failure::Grpc),
            8 => Some(Failure::TooMany),
            _ => None,
        }
    }

    /// The failure that an HTTP status stands for, by what is configured to count.
    pub fn of_status(status: u16, counts: &Failures) -> Option<Failure> {
        match status {
            500..=599 if counts.status(status) => Some(Failure::Status5xx),
            _ if counts.status(status) => Some(Failure::Status),
            429 => Some(Failure::TooMany),
            _ => None,
        }
    }

    /// This failure, if it is configured to count. Failures with a status have been checked by that.
    pub fn counted(self, counts: &Failures) -> Option<Failure> {
        let counted = match self {
            Failure::Reset | Failure::Broken(_) | Failure::Refused | Failure::Unseen => counts.resets(),
            Failure::Timeout | Failure::Deadline => counts.timeouts(),
            Failure::Status5xx | Failure::Status | Failure::TooMany | Failure::Grpc => true,
        };
        counted.then_some(self)
    }

    /// The failure behind a local reply, from Envoy's response code details
    /// (<https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/response_code_details>). `None`
    /// for replies that no endpoint has caused. Other filters have details of their own, which may contain the error of a
    /// call of theirs.
    pub fn of_details(details: &[u8]) -> Option<Failure> {
        let of_envoy = [&b"upstream_"[..], b"response_timeout", b"max_duration_timeout"];
        if !of_envoy.iter().any(|beginning| details.starts_with(beginning)) {
            return None;
        }
        let has = |needle: &[u8]| details.windows(needle.len()).any(|w| w == needle);
        if has(b"connection_failure") || has(b"connection_timeout") {
            Some(Failure::Refused)
        } else if has(b"response_timeout") || has(b"per_try_timeout") || has(b"per_try_idle_timeout") {
            Some(Failure::Timeout)
        } else if has(b"max_duration_timeout") || has(b"max_stream_duration_reached") {
            Some(Failure::Deadline)
        } else if details.starts_with(b"upstream_reset") && !has(b"overflow") {
            // A break in the middle of a response concerns a stream that may be old; one before the response is
            // current.
            let broke = has(b"before_response_started{connection_termination");
            Some(if broke { Failure::Broken(0) } else { Failure::Reset })
        } else {
            None
        }
    }
}

/// First result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A good answer.
    Good,
    /// An answer whose end decides (a truncated body, gRPC trailers); its latency counts already.
    Undecided,
    /// A failure that is attributed to the endpoint.
    Failed(Failure),
    /// The client left before an answer.
    Cancelled,
    /// It ended for a reason unrelated to the endpoint.
    Unrelated,
}

impl Outcome {
    /// Whether the answer is good as far as is known.
    pub fn is_good(self) -> bool {
        matches!(self, Outcome::Good | Outcome::Undecided)
    }

    /// The outcome for the endpoint of the last of several attempts: its failures count, its latency does not, because
    /// that includes the attempts before. A deadline runs from the first attempt.
    pub fn of_a_later_attempt(self) -> Outcome {
        let deadline = self == Outcome::Failed(Failure::Deadline);
        if self.is_good() || deadline { Outcome::Unrelated } else { self }
    }
}

/// Whether the time of an answer may show that its endpoint is quick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quickness {
    /// It did what was asked.
    Shown,
    /// It did not: it redirects or turns the request down.
    Denied,
    /// Its status comes later: in gRPC's trailers.
    Open,
}

/// What an answer whose [`Quickness`] is open has yet to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unsettled {
    /// Nothing.
    #[default]
    Nothing,
    /// Whether its time belongs to the mean of those that did what was asked.
    Mean,
    /// That and the time itself.
    Sample,
}

/// What the last answer of a retried request says about the earlier attempts, whose answers are not visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryHint {
    /// The last attempt was shed, and a route that retries such an answer retries others of the kind.
    Shed,
    /// The last attempt failed, so the earlier ones did as well.
    Failed,
    /// Nothing.
    Unseen,
}

impl RetryHint {
    /// The hint of an answer with this outcome and HTTP status, 0 without one.
    pub fn of(outcome: Outcome, status: u32) -> RetryHint {
        match outcome {
            Outcome::Failed(Failure::TooMany) => RetryHint::Shed,
            // A call's deadline runs from its first attempt, and ends the last one without a fault of its own.
            Outcome::Failed(Failure::Deadline) => RetryHint::Unseen,
            Outcome::Failed(_) => RetryHint::Failed,
            // The only status that `retriable-4xx` retries.
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

    /// ext_proc puts the error of its own call into the details.
    #[test]
    fn what_befell_another_filters_call_is_no_failure_of_the_endpoint() {
        for reason in [
            "remote_connection_failure,_transport_failure_reason:_delayed_connect_error:_Connection_refused",
            "connection_timeout",
            "connection_termination",
            "upstream_response_timeout",
            "max_duration_timeout",
        ] {
            let details = format!(
                "ext_proc_error_gRPC_error_14{{upstream_connect_error_or_disconnect/reset_before_headers._reset_reason:_{reason}}}"
            );
            assert_eq!(Failure::of_details(details.as_bytes()), None, "{details}");
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
    fn configured_failures_decide_what_counts() {
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

    #[test]
    fn a_later_attempt_is_charged_with_its_failures_and_not_with_the_time_of_the_others() {
        for outcome in [Outcome::Good, Outcome::Undecided, Outcome::Failed(Failure::Deadline)] {
            assert_eq!(outcome.of_a_later_attempt(), Outcome::Unrelated, "{outcome:?}");
        }
        for failure in [Failure::Refused, Failure::Reset, Failure::Broken(1)] {
            assert_eq!(Outcome::Failed(failure).of_a_later_attempt(), Outcome::Failed(failure));
        }
    }
}
