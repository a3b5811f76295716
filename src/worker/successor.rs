//! A new configuration: its worker takes over what the one before it has learnt.

use super::Worker;
use crate::host::Host;
use crate::sharing::snapshot::Snapshot;
use engine::pattern;
use engine::time::Time;

/// Of `candidates` for the predecessor of a configuration for these clusters, the first that has one of them: filters of
/// one name on several listeners have configurations of their own, and none is another's predecessor. Where no cluster can
/// be read it is the first of all.
pub fn predecessor<C>(
    candidates: &[C],
    clusters: &[String],
    meets: impl Fn(&C, &[String], bool) -> bool,
) -> Option<usize> {
    if clusters.is_empty() {
        return (!candidates.is_empty()).then_some(0);
    }
    let first = |loosely| candidates.iter().position(|candidate| meets(candidate, clusters, loosely));
    first(false).or_else(|| first(true))
}

impl Worker {
    /// Whether it balances one of these clusters; with `loosely` also where one is a pattern for the other.
    pub fn meets(&self, clusters: &[String], loosely: bool) -> bool {
        pattern::meet(self.names(), clusters, loosely)
    }

    /// The clusters and patterns of the configuration, and the clusters that patterns have matched.
    pub fn named(&self) -> Vec<String> {
        self.names().map(str::to_owned).collect()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let own = self.config.upstreams.iter().map(|upstream| upstream.cluster.as_str());
        own.chain(self.clusters.patterns())
    }

    /// Takes over what the worker of an older configuration has learnt.
    #[inline(never)]
    pub fn take_over(&mut self, host: &dyn Host, old: &mut Worker, now: Time) {
        // A configuration for other clusters asks under other keys, where there is no answer yet.
        let known = self.discovery.take_over(&old.discovery);
        self.rebuild_endpoints(host, &known, now);
        self.engine.take_over(&mut old.engine, now);
        if self.snapshot == Snapshot::default() {
            self.snapshot = old.snapshot.clone();
            self.snapshot.retain(&self.engine);
            self.snapshot.apply(&mut self.engine);
        }
        self.guarding.take_over(&old.guarding);
        // Requests that come before the first tick are not steered either where the guard has stepped aside.
        self.obey_guards(now);
        self.membership.shard_before = Some((old.divided(old.membership.shard, now), now));
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::sharing::fake::Shared;
    use engine::ProbeShard;

    /// Two configurations may come between two ticks.
    #[test]
    fn the_work_stays_divided_through_several_configurations() {
        let host = Shared::default();
        let json = br#"{"upstreams":[{"cluster":"web","endpoints":{"static":["10.0.0.1:80"]}}]}"#;
        let worker = || Worker::configure(&host, json, "test", 1).unwrap();
        let mut workers = [worker(), worker(), worker()];
        workers[0].membership.shard = ProbeShard { workers: 4, rank: 2, is_reporter: false };
        let now = host.now();
        for at in 1..workers.len() {
            let (before, after) = workers.split_at_mut(at);
            after[0].take_over(&host, &mut before[at - 1], now);
            let shard = after[0].divided(ProbeShard::ALONE, now);
            assert_eq!((shard.workers, shard.rank), (4, 2), "{at}");
        }
        let later = now.after_secs(engine::endpoint::GONE_AFTER_S + 1.0);
        assert_eq!(
            workers[2].divided(ProbeShard::ALONE, later).workers,
            1,
            "the peers have reported by then"
        );
    }
}
