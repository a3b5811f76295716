//! What a worker makes of its peers' reports: their knowledge in its engine, and its own part of the common work.

use super::worker_report;
use engine::endpoint::GONE_AFTER_S;
use engine::time::Time;
use engine::{Balancer, ProbeShard};

/// Replaces what `engine`, the one of worker `me`, knows of the others by these reports, and divides the work that one
/// of them does for all among those that carry traffic. Whether a peer has reported comes along.
pub fn merge<'a>(
    engine: &mut Balancer,
    me: u64,
    reports: impl Iterator<Item = (u64, impl AsRef<[u8]> + 'a)>,
    now: Time,
) -> (ProbeShard, bool) {
    engine.forget_others(now);
    let mut shard = ProbeShard::ALONE;
    let mut first = u64::MAX;
    for (peer, report) in reports.filter(|(peer, _)| *peer != me) {
        let Some((published, busy)) = worker_report::published(report.as_ref()) else { continue };
        let from_the_future = published.seconds_since(now) > GONE_AFTER_S;
        if from_the_future || now.seconds_since(published) > GONE_AFTER_S {
            continue;
        }
        // A worker without requests has none to probe with.
        shard.workers += u32::from(busy);
        shard.rank += u32::from(busy && peer < me);
        first = first.min(peer);
        let _what_was_readable_counts = worker_report::merge(report.as_ref(), engine);
    }
    shard.is_reporter = me < first;
    (shard, first != u64::MAX)
}
