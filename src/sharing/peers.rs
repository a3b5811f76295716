//! The peers' reports in a worker: their knowledge goes to the engine, their number sets this worker's share of the
//! work.

use super::worker_report;
use engine::endpoint::GONE_AFTER_S;
use engine::time::Time;
use engine::{Balancer, ProbeShard};

/// Replaces the peers' data in `engine`, that of worker `me`, by these reports. Returns this worker's shard of the work
/// that is divided among the workers with traffic, and how many peers' reports count.
pub fn merge<'a>(
    engine: &mut Balancer,
    me: u64,
    reports: impl Iterator<Item = (u64, impl AsRef<[u8]> + 'a)>,
    now: Time,
) -> (ProbeShard, u32) {
    engine.forget_others(now);
    let mut shard = ProbeShard::ALONE;
    let (mut first, mut peers) = (u64::MAX, 0);
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
        peers += 1;
        let _what_was_readable_counts = worker_report::merge(report.as_ref(), peer < me, engine);
    }
    shard.is_reporter = me < first;
    (shard, peers)
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use engine::policy::Request;
    use engine::rng::Rng;

    const NOW: Time = Time(1_000_000_000_000_000);

    fn engine() -> Balancer {
        let json = br#"{"upstreams":[{"cluster":"web","endpoints":{"static":["10.0.0.1:80"]}}]}"#;
        Balancer::new(&config::parse(json).unwrap(), NOW)
    }

    fn report(busy: bool, at: Time) -> Vec<u8> {
        worker_report::encode(&engine(), busy, at)
    }

    #[test]
    fn work_is_divided_among_those_that_carry_traffic() {
        let reports = [(1, report(true, NOW)), (2, report(false, NOW)), (4, report(true, NOW))];
        for (me, rank, reporter) in [(0, 0, true), (3, 1, false), (5, 2, false)] {
            let (shard, peers) = merge(&mut engine(), me, reports.iter().map(|(id, r)| (*id, r)), NOW);
            assert_eq!((shard.workers, shard.rank, shard.is_reporter, peers), (3, rank, reporter, 3), "{me}");
        }
    }

    #[test]
    fn a_home_begins_where_those_of_the_workers_before_end() {
        let busy = |requests: usize| {
            let mut engine = engine();
            let later = NOW.after_secs(1.0);
            let mut rng = Rng::new(1);
            (0..requests).for_each(|_| _ = engine.pick(0, Request::wanting(1), NOW, &mut rng));
            engine.tick(ProbeShard::ALONE, later);
            worker_report::encode(&engine, true, later)
        };
        let reports = [(1, busy(10)), (3, busy(30)), (9, busy(60))];
        for (me, from) in [(0, 0.0), (2, 0.1), (4, 0.4), (10, 1.0)] {
            let mut engine = engine();
            merge(&mut engine, me, reports.iter().map(|(id, r)| (*id, r)), NOW.after_secs(1.0));
            let home = engine.upstream(0).unwrap().home();
            assert!((home.from - from).abs() < 1e-3, "{me}: {home:?}");
        }
    }

    #[test]
    fn a_report_counts_for_a_while_and_none_from_after_now() {
        for (at, counts) in [
            (NOW, true),
            (NOW.after_secs(GONE_AFTER_S - 0.1), true),
            (NOW.after_secs(GONE_AFTER_S + 0.1), false),
            (NOW.after_secs(3600.0), false),
            (Time(NOW.0 - (1e9 * (GONE_AFTER_S + 0.1)) as u64), false),
        ] {
            let (shard, peers) = merge(&mut engine(), 1, [(2, report(true, at))].into_iter(), NOW);
            assert_eq!((shard.workers, peers), (1 + u32::from(counts), counts.into()), "{at:?}");
        }
    }
}
