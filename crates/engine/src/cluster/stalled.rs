//! Who is hung: several requests that were sent since its last answer wait for one, for much longer than is typical, while
//! others answer. It shows before any time-out; a policy that does not look at latency would feed it until then.

use crate::cluster::subset::Group;
use crate::endpoint::Known;
use crate::time::Time;

/// One request may be heavy, and two by chance.
const SEVERAL: u16 = 3;
/// So many times the typical latency is a long time …
const LONG: f64 = 8.0;
/// … but not less than this, seconds: threads pause, packets are sent again.
const LEAST_LONG_S: f64 = 0.1;
/// Where more than this part of a group keeps quiet the fault is everybody's and nobody is hung …
const MOST: f64 = 0.5;
/// … until it is less than this again, or they would all go and come in turns.
const MOST_AGAIN: f64 = 0.25;

/// Whether `member` has kept several requests waiting for more than `patience` seconds, and has answered none meanwhile.
pub(super) fn is_hung(member: &Known<'_>, patience: f64, now: Time) -> bool {
    let owed = member.health.owed();
    // A long poll is old, and the last answer may be: what was sent since has to wait, too.
    owed.requests() >= SEVERAL && owed.waited_s(now) > patience && member.floor(now) > patience
}

/// For how long an endpoint of `group` may keep quiet, seconds; for ever where the policy sees to it by itself, where
/// nobody knows yet what is long, and where most keep quiet.
pub(super) fn patience<'a>(group: &Group, member: impl Fn(u32) -> Option<Known<'a>>, now: Time) -> f64 {
    if group.policy.sees_silence() || !group.measured {
        return f64::INFINITY;
    }
    let patience = (LONG * group.typical).max(LEAST_LONG_S);
    let everybody = group.pool.everybody();
    let quiet = everybody.iter().filter_map(|i| member(*i)).filter(|member| is_hung(member, patience, now));
    let most = if group.patience.is_infinite() { MOST_AGAIN } else { MOST };
    // One of several is never the fault of all.
    let most = (most * everybody.len() as f64).max(if everybody.len() > 1 { 1.0 } else { 0.0 });
    if quiet.count() as f64 > most { f64::INFINITY } else { patience }
}
