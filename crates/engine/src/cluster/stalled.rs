//! When an endpoint is stalled: several requests that were sent since its last answer wait for one, for much longer
//! than is typical, while others answer. It shows before any time-out; a policy that does not look at latency would
//! send to it until then.

use crate::cluster::subset::Subset;
use crate::endpoint::EndpointView;
use crate::time::Time;

/// One request may be heavy, and two by chance.
const SEVERAL: u16 = 3;
/// So many times the typical latency is a long time …
const STALLED_MULTIPLE: f64 = 8.0;
/// … but not less than this, seconds: threads pause, packets are sent again.
const MIN_STALL_S: f64 = 0.1;
/// Where more than this part of a group keeps quiet the fault is common and none is stalled …
const MAX_STALLED_SHARE: f64 = 0.5;
/// … until it is less than this again, or they would all go and come in turns.
const RESUME_STALLED_SHARE: f64 = 0.25;

/// Whether `member` has kept several requests waiting for more than `stall_timeout` seconds, and has answered none
/// meanwhile.
pub(super) fn is_stalled(member: &EndpointView<'_>, stall_timeout: f64, now: Time) -> bool {
    let owed = member.health.unanswered();
    // A long poll is old, and the last answer may be: what was sent since has to wait, too.
    owed.requests() >= SEVERAL
        && owed.waited_s(now) > stall_timeout
        && member.min_latency(now) > stall_timeout
}

/// For how long an endpoint of `subset` may keep quiet, seconds; for ever where the policy sees to it by itself, where
/// it is not known yet what is long, and where most keep quiet.
pub(super) fn stall_timeout<'a>(
    subset: &Subset,
    member: impl Fn(u32) -> Option<EndpointView<'a>>,
    now: Time,
) -> f64 {
    if subset.policy.sees_silence() || !subset.latency.measured {
        return f64::INFINITY;
    }
    let stall_timeout = (STALLED_MULTIPLE * subset.latency.typical).max(MIN_STALL_S);
    let everybody = subset.pool.all();
    let quiet =
        everybody.iter().filter_map(|i| member(*i)).filter(|member| is_stalled(member, stall_timeout, now));
    let most =
        if subset.latency.stall_timeout.is_infinite() { RESUME_STALLED_SHARE } else { MAX_STALLED_SHARE };
    // One of several is never the fault of all.
    let most = (most * everybody.len() as f64).max(if everybody.len() > 1 { 1.0 } else { 0.0 });
    if quiet.count() as f64 > most { f64::INFINITY } else { stall_timeout }
}
