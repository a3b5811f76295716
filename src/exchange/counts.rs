//! What has been counted, which must add up over all workers, living and gone, for as long as the process runs.
//!
//! Counts are not needed to decide, so they travel apart from the [`slot`](super::slot) and less often; whoever
//! shows them reads them when asked.

use hashbrown::HashMap;

use super::codec::{Reader, Writer};
use crate::engine::{Engine, Totals};
use crate::member::Counters;

/// The most endpoints that are read from one record; more than a configuration can hold is damage.
const MOST_ENDPOINTS: usize = 100_000;
/// The same of upstreams.
const MOST_UPSTREAMS: u32 = 1024;

/// What has been counted for one upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamCounts {
    /// For the upstream as a whole.
    pub totals: Totals,
    /// By endpoint identity.
    pub endpoints: HashMap<u64, Counters>,
}

/// What has been counted, by cluster identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub HashMap<u64, UpstreamCounts>);

impl Counts {
    /// What this engine's worker has counted.
    pub fn of(engine: &Engine) -> Counts {
        let mut counts = Counts::default();
        for upstream in engine.upstreams() {
            let into = counts.0.entry(upstream.hash()).or_default();
            into.totals = upstream.totals();
            into.endpoints.extend(upstream.counters());
        }
        counts
    }

    /// Adds what somebody else has counted.
    pub fn merge(&mut self, other: &Counts) {
        for (cluster, theirs) in &other.0 {
            let ours = self.0.entry(*cluster).or_default();
            ours.totals.merge(&theirs.totals);
            for (endpoint, counters) in &theirs.endpoints {
                ours.endpoints.entry(*endpoint).or_default().merge(counters);
            }
        }
    }

    /// The counts of one upstream.
    pub fn upstream(&self, cluster: u64) -> Option<&UpstreamCounts> {
        self.0.get(&cluster)
    }

    /// As bytes for shared data.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::versioned();
        self.write(&mut w);
        w.0
    }

    /// From bytes of shared data; `None` if they are malformed.
    pub fn decode(bytes: &[u8]) -> Option<Counts> {
        Counts::read(&mut Reader::versioned(bytes)?)
    }

    /// Appends the counts to a record.
    pub fn write(&self, w: &mut Writer) {
        w.u32(self.0.len() as u32);
        for (cluster, counts) in &self.0 {
            w.u64(*cluster);
            counts.totals.to_array().iter().for_each(|n| w.u64(*n));
            w.u32(counts.endpoints.len() as u32);
            for (endpoint, counters) in &counts.endpoints {
                w.u64(*endpoint);
                w.u64(counters.requests);
                w.u64(counters.failures);
                w.u64(counters.picks);
            }
        }
    }

    /// Takes the counts from a record.
    pub fn read(r: &mut Reader<'_>) -> Option<Counts> {
        let mut counts = Counts::default();
        let mut seen = 0;
        let upstreams = r.u32().filter(|n| *n <= MOST_UPSTREAMS)?;
        for _ in 0..upstreams {
            let cluster = r.u64()?;
            let mut numbers = Totals::default().to_array();
            for number in &mut numbers {
                *number = r.u64()?;
            }
            let mut of = UpstreamCounts { totals: Totals::from_array(numbers), ..UpstreamCounts::default() };
            for _ in 0..r.u32()? {
                seen += 1;
                if seen > MOST_ENDPOINTS {
                    return None;
                }
                let endpoint = r.u64()?;
                let counters = Counters { requests: r.u64()?, failures: r.u64()?, picks: r.u64()? };
                of.endpoints.insert(endpoint, counters);
            }
            counts.0.insert(cluster, of);
        }
        Some(counts)
    }
}
