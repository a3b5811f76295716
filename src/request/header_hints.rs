//! An endpoint's announcements about itself in response headers: degraded, failing, or not to be used for a while.

use crate::host::StreamHost;
use crate::host::retry_after::pause_asked_for;
use crate::request::classify::Answer;
use engine::{HeaderHints, Outcome};

/// The header by which an endpoint asks to be ejected at once.
pub(crate) const FAILING: &str = "x-envoy-immediate-health-check-fail";

/// The statements in the headers of an `answer`; `None` if Envoy or another filter sent it.
pub(crate) fn of_headers(host: &dyn StreamHost, answer: Answer) -> Option<HeaderHints> {
    let asks =
        || pause_asked_for(answer.status, || host.response_header("retry-after"), || host.process().wall());
    is_its_own(answer.outcome).then(|| HeaderHints {
        degraded: host.response_header("x-envoy-degraded").is_some(),
        failing: host.response_header(FAILING).is_some(),
        hold_s: asks().unwrap_or(0.0),
        failed: matches!(answer.outcome, Outcome::Failed(_)),
    })
}

/// Whether an answer with this outcome comes from the endpoint itself.
pub(crate) fn is_its_own(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Good | Outcome::Undecided => true,
        Outcome::Failed(failure) => failure.is_response(),
        Outcome::Cancelled | Outcome::Unrelated => false,
    }
}
