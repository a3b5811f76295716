//! Stalled endpoints: several requests sent since the endpoint's last answer have waited much longer than is typical,
//! while other endpoints answer. This shows before any timeout; until then, a policy that ignores latency would keep
//! sending.

use crate::cluster::subset::Subset;
use crate::endpoint::EndpointView;
use crate::health::State;
use crate::time::Time;

/// Minimum number of waiting requests: one may be heavy, and two by chance.
const SEVERAL: u16 = 3;
/// Multiple of the typical latency after which an endpoint is stalled.
const STALLED_MULTIPLE: f64 = 8.0;
/// Minimum stall timeout, seconds: threads pause, packets are retransmitted.
const MIN_STALL_S: f64 = 0.1;
/// Fraction of stalled endpoints in a subset above which the fault is common and none counts as stalled.
const MAX_STALLED_SHARE: f64 = 0.5;
/// Fraction at or below which endpoints count as stalled again: hysteresis, so that they do not all leave and return in
/// turns.
const RESUME_STALLED_SHARE: f64 = 0.25;

/// Whether `endpoint` has kept several requests waiting for more than `stall_timeout` seconds and answered none
/// meanwhile. One that is stalled stays so until an answer: its clients may have given up, so that nothing waits.
pub(super) fn is_stalled(endpoint: &EndpointView<'_>, stall_timeout: f64, now: Time) -> bool {
    let owed = endpoint.health.unanswered();
    // A long poll is old, and the last answer may be: what was sent since has to have waited as well.
    owed.requests() >= SEVERAL
        && owed.waited_s(now) > stall_timeout
        && match endpoint.health.state() {
            State::Stalled => is_still_owed(endpoint),
            _ => endpoint.min_latency(now) > stall_timeout,
        }
}

/// Whether no worker has had an answer since the endpoint stalled, to a request sent since.
#[cold]
#[inline(never)]
fn is_still_owed(endpoint: &EndpointView<'_>) -> bool {
    endpoint.good().start <= endpoint.health.ejected()
}

/// Stall timeout for endpoints of `subset`, seconds. Infinite where the policy reacts to silence itself, where no
/// latency has been measured, and where most endpoints are silent.
pub(super) fn stall_timeout<'a>(
    subset: &Subset,
    endpoint: impl Fn(u32) -> Option<EndpointView<'a>>,
    now: Time,
) -> f64 {
    if subset.policy.sees_silence() || !subset.latency.measured {
        return f64::INFINITY;
    }
    let stall_timeout = (STALLED_MULTIPLE * subset.latency.typical).max(MIN_STALL_S);
    let everybody = subset.pool.all();
    let quiet = everybody
        .iter()
        .filter_map(|i| endpoint(*i))
        .filter(|endpoint| is_stalled(endpoint, stall_timeout, now));
    let most =
        if subset.latency.stall_timeout.is_infinite() { RESUME_STALLED_SHARE } else { MAX_STALLED_SHARE };
    // One endpoint out of several is never a common fault.
    let most = (most * everybody.len() as f64).max(if everybody.len() > 1 { 1.0 } else { 0.0 });
    if quiet.count() as f64 > most { f64::INFINITY } else { stall_timeout }
}
