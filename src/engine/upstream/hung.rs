//! Who is hung: several requests wait for an answer and none comes, for much longer than is typical, while others
//! answer. It shows before any time-out; a policy that does not look at latency would feed it until then.

use super::group::Group;
use crate::known::Known;
use crate::time::Time;

/// One request may be heavy, and two by chance.
const SEVERAL: u32 = 3;
/// So many times the typical latency is a long time …
const LONG: f64 = 8.0;
/// … but not less than this, seconds: threads pause, packets are sent again.
const LEAST_LONG_S: f64 = 0.1;

/// Whether `member` has kept several requests waiting for more than `patience` seconds, and has answered none meanwhile.
pub(super) fn is_hung(member: &Known<'_>, patience: f64, now: Time) -> bool {
    member.awaiting() >= SEVERAL && member.floor(now) > patience
}

/// For how long an endpoint of `group` may keep quiet, seconds; for ever where the policy sees to it by itself. Where most keep quiet the fault is everybody's, and
/// nobody is hung.
pub(super) fn patience<'a>(group: &Group, member: impl Fn(u32) -> Option<Known<'a>>, now: Time) -> f64 {
    if group.policy.sees_silence() {
        return f64::INFINITY;
    }
    let patience = (LONG * group.typical).max(LEAST_LONG_S);
    let everybody = group.pool.everybody();
    let quiet = everybody.iter().filter_map(|i| member(*i)).filter(|member| is_hung(member, patience, now));
    if 2 * quiet.count() > everybody.len() { f64::INFINITY } else { patience }
}
