//! How requests end, and how much each ending says about the endpoint.

use crate::health::Blow;

/// A failure that is the endpoint's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An answer with status 500..=599.
    Status5xx,
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
}

impl Failure {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Failure::Status5xx => "status_5xx",
            Failure::TooMany => "too_many",
            Failure::Reset | Failure::Broken(_) => "reset",
            Failure::Refused => "refused",
            Failure::Timeout => "timeout",
            Failure::Grpc => "grpc_status",
        }
    }

    /// How many failures in a row this one counts for. A refused connection and a time-out say more than one
    /// bad answer: the first is the kernel's word that nobody listens, the second took seconds to learn.
    /// Too much to do is no illness: it prices the endpoint, it does not eject it.
    fn severity(self) -> u32 {
        match self {
            Failure::Refused | Failure::Timeout => 2,
            Failure::Status5xx | Failure::Reset | Failure::Broken(_) | Failure::Grpc => 1,
            Failure::TooMany => 0,
        }
    }

    /// What it means for the endpoint's health; nothing at all for [`TooMany`](Failure::TooMany).
    pub fn blow(self) -> Option<Blow> {
        let broke = if let Failure::Broken(connection) = self { Some(connection) } else { None };
        let blow = Blow { severity: self.severity(), broke };
        (blow.severity > 0).then_some(blow)
    }

    /// Whether the endpoint itself answered, which shows that it lives.
    pub fn answered(self) -> bool {
        matches!(self, Failure::Status5xx | Failure::TooMany | Failure::Grpc)
    }

    /// The failure that a gRPC status means, if the server is to blame
    /// (<https://grpc.io/docs/guides/status-codes/>).
    pub fn of_grpc_status(status: u32) -> Option<Failure> {
        match status {
            8 => Some(Failure::TooMany),
            2 | 4 | 13 | 14 | 15 => Some(Failure::Grpc),
            _ => None,
        }
    }

    /// The failure that an HTTP status of the endpoint means, if it is one.
    pub fn of_status(status: u16) -> Option<Failure> {
        match status {
            429 => Some(Failure::TooMany),
            500..=599 => Some(Failure::Status5xx),
            _ => None,
        }
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
            ("no_healthy_upstream", None),
            ("direct_response", None),
            ("", None),
        ] {
            assert_eq!(Failure::of_details(details.as_bytes()), failure, "{details}");
        }
    }

    #[test]
    fn blames_the_server_only_for_its_own_grpc_statuses() {
        assert_eq!(Failure::of_grpc_status(14), Some(Failure::Grpc));
        assert_eq!(Failure::of_grpc_status(8), Some(Failure::TooMany));
        for callers in [0, 1, 3, 5, 7, 9, 12, 16, 99] {
            assert_eq!(Failure::of_grpc_status(callers), None, "{callers}");
        }
    }
}
