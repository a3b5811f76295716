//! Counters, which add up over all workers, live and ended, for as long as the process runs.
//!
//! Decisions do not need them, so they are published apart from the [`report`](crate::sharing::worker_report) and less
//! often; the worker that shows them reads them on request.

use hashbrown::HashMap;

use super::codec::{Reader, Writer};
use engine::endpoint::Counters;
use engine::time::Time;
use engine::{Balancer, Totals, order};

/// The highest number of endpoints in the retired counters, 3.6 MB: endpoints come and go for as long as a process
/// runs, and most never return.
pub const MAX_ENDPOINTS: usize = 100_000;
/// The highest number of upstreams in the retired counters. A configuration has up to 64, and is replaced now and then.
pub const MAX_UPSTREAMS: usize = 1024;

/// The cluster identity under which requests to unbalanced clusters are counted.
const UNMATCHED: u64 = 0;

/// The counters of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EndpointCounts {
    /// Since the process began.
    pub counters: Counters,
    /// Picks in about the last [`RECENT_S`](engine::RECENT_S) seconds.
    pub recent: f32,
}

/// The counters of one upstream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpstreamCounts {
    /// For the upstream as a whole.
    pub totals: Totals,
    /// By endpoint identity.
    pub endpoints: HashMap<u64, EndpointCounts>,
}

/// The counters of one worker or of several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// When they were written.
    pub at: Time,
    /// By cluster identity.
    pub upstreams: HashMap<u64, UpstreamCounts>,
}

impl Counts {
    /// The counters of this engine's worker.
    #[inline(never)]
    pub fn of(engine: &Balancer, now: Time) -> Counts {
        let mut counts = Counts { at: now, ..Counts::default() };
        for upstream in engine.upstreams() {
            let into = counts.upstreams.entry(upstream.hash()).or_default();
            into.totals = upstream.totals();
            let counted = |(identity, counters, recent)| (identity, EndpointCounts { counters, recent });
            into.endpoints.extend(upstream.counters().map(counted));
        }
        if engine.unmatched() > 0 {
            let totals = Totals { fallbacks: engine.unmatched(), ..Totals::default() };
            counts.upstreams.entry(UNMATCHED).or_default().totals = totals;
        }
        counts
    }

    /// The number of requests to clusters that no upstream balances.
    pub fn unmatched(&self) -> u64 {
        self.upstream(UNMATCHED).map_or(0, |counted| counted.totals.fallbacks)
    }

    /// Adds another worker's counters.
    #[inline(never)]
    pub fn merge(&mut self, other: &Counts) {
        for (cluster, theirs) in &other.upstreams {
            let ours = self.upstreams.entry(*cluster).or_default();
            ours.totals.merge(&theirs.totals);
            for (endpoint, counted) in &theirs.endpoints {
                let sum = ours.endpoints.entry(*endpoint).or_default();
                sum.counters.merge(&counted.counters);
                sum.recent += counted.recent;
            }
        }
    }

    /// The counters of one upstream, by its cluster identity.
    pub fn upstream(&self, cluster: u64) -> Option<&UpstreamCounts> {
        self.upstreams.get(&cluster)
    }

    /// Clears the recent picks, for a worker that has ended.
    pub fn grow_old(&mut self) {
        let endpoints = self.upstreams.values_mut().flat_map(|of| of.endpoints.values_mut());
        endpoints.for_each(|counted| counted.recent = 0.0);
    }

    /// Drops the least used upstreams and endpoints beyond [`MAX_UPSTREAMS`] and [`MAX_ENDPOINTS`].
    #[inline(never)]
    pub fn keep_the_most_used(&mut self) {
        if self.upstreams.len() > MAX_UPSTREAMS {
            let used = |of: &UpstreamCounts, cluster| (of.totals.policy, cluster, 0);
            let all = self.upstreams.iter().map(|(cluster, of)| used(of, *cluster));
            let least = least_kept(all.collect(), MAX_UPSTREAMS);
            self.upstreams.retain(|cluster, of| Some(used(of, *cluster)) >= least);
        }
        if self.upstreams.values().map(|of| of.endpoints.len()).sum::<usize>() > MAX_ENDPOINTS {
            let used = |of: &EndpointCounts, cluster, endpoint| (of.counters.requests, cluster, endpoint);
            let all = self.upstreams.iter().flat_map(|(cluster, counts)| {
                counts.endpoints.iter().map(move |(endpoint, of)| used(of, *cluster, *endpoint))
            });
            let least = least_kept(all.collect(), MAX_ENDPOINTS);
            for (cluster, counts) in &mut self.upstreams {
                counts.endpoints.retain(|endpoint, of| Some(used(of, *cluster, *endpoint)) >= least);
            }
        }
    }

    /// Encodes for shared data.
    #[inline(never)]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::versioned();
        self.write(&mut w);
        w.0
    }

    /// From bytes of shared data; `None` if they are malformed.
    #[inline(never)]
    pub fn decode(bytes: &[u8]) -> Option<Counts> {
        Counts::read(&mut Reader::versioned(bytes)?)
    }

    /// Appends the counts to a record.
    #[inline(never)]
    pub fn write(&self, w: &mut Writer) {
        w.time(self.at);
        w.u32(self.upstreams.len() as u32);
        for (cluster, counts) in &self.upstreams {
            w.u64(*cluster);
            counts.totals.to_array().iter().for_each(|n| w.u64(*n));
            w.u32(counts.endpoints.len() as u32);
            for (endpoint, EndpointCounts { counters, recent }) in &counts.endpoints {
                w.u64(*endpoint);
                w.f32(*recent);
                w.u64(counters.requests);
                w.u64(counters.failures);
                w.u64(counters.picks);
            }
        }
    }

    /// Reads the counters from a record. Memory is bounded by the record's size, whatever counts it announces.
    #[inline(never)]
    pub fn read(r: &mut Reader<'_>) -> Option<Counts> {
        let mut counts = Counts { at: r.time()?, ..Counts::default() };
        for _ in 0..r.u32()? {
            let cluster = r.u64()?;
            let mut numbers = Totals::default().to_array();
            for number in &mut numbers {
                *number = r.u64()?;
            }
            let mut of = UpstreamCounts { totals: Totals::from_array(numbers), ..UpstreamCounts::default() };
            for _ in 0..r.u32()? {
                let endpoint = r.u64()?;
                let recent = r.f32()?.clamp(0.0, 1e9);
                let counters = Counters { requests: r.u64()?, failures: r.u64()?, picks: r.u64()? };
                of.endpoints.insert(endpoint, EndpointCounts { counters, recent });
            }
            counts.upstreams.insert(cluster, of);
        }
        Some(counts)
    }
}

/// The least of the `most` largest values; `None` if there are no more than `most`.
fn least_kept(mut all: Vec<(u64, u64, u64)>, most: usize) -> Option<(u64, u64, u64)> {
    let at = all.len().checked_sub(most)?;
    order::sort(&mut all);
    all.get(at).copied()
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn counted(recent: f32, requests: u64) -> Counts {
        let mut counts = Counts::default();
        let counters = Counters { requests, ..Counters::default() };
        counts.upstreams.entry(1).or_default().endpoints.insert(2, EndpointCounts { counters, recent });
        counts
    }

    fn of(counts: &Counts) -> (f32, u64) {
        counts
            .upstream(1)
            .map_or((0.0, 0), |of| (of.endpoints[&2].recent, of.endpoints[&2].counters.requests))
    }

    #[test]
    fn workers_add_up_and_what_is_over_is_not_recent() {
        let mut counts = counted(2.5, 10);
        counts.merge(&counted(1.5, 5));
        assert_eq!(of(&counts), (4.0, 15));
        counts.grow_old();
        assert_eq!(of(&counts), (0.0, 15), "all that was counted stays");
    }

    #[test]
    fn no_worker_has_had_less_than_nothing_lately_or_more_than_can_be() {
        for (written, read) in [(-5.0, 0.0), (3.0, 3.0), (1e30, 1e9)] {
            assert_eq!(Counts::decode(&counted(written, 1).encode()).as_ref().map(of), Some((read, 1)));
        }
    }
}
