//! What has been counted, which must add up over all workers, living and gone, for as long as the process runs.
//!
//! Counts are not needed to decide, so they travel apart from the [`slot`](super::slot) and less often; whoever
//! shows them reads them when asked.

use hashbrown::HashMap;

use super::codec::{Reader, Writer};
use crate::engine::{Engine, Totals};
use crate::member::Counters;
use crate::time::Time;

/// The most endpoints that are read from one record; more than a configuration can hold is damage.
const MOST_ENDPOINTS: usize = 100_000;
/// The same of upstreams.
const MOST_UPSTREAMS: u32 = 1024;

/// What has been counted for one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EndpointCounts {
    /// Ever.
    pub counters: Counters,
    /// Picks of about the last [`RECENT_S`](crate::engine::RECENT_S) seconds.
    pub recent: f32,
}

/// What has been counted for one upstream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpstreamCounts {
    /// For the upstream as a whole.
    pub totals: Totals,
    /// By endpoint identity.
    pub endpoints: HashMap<u64, EndpointCounts>,
}

/// What has been counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// When it was written down.
    pub at: Time,
    /// By cluster identity.
    pub upstreams: HashMap<u64, UpstreamCounts>,
}

impl Counts {
    /// What this engine's worker has counted.
    pub fn of(engine: &Engine, now: Time) -> Counts {
        let mut counts = Counts { at: now, ..Counts::default() };
        for upstream in engine.upstreams() {
            let into = counts.upstreams.entry(upstream.hash()).or_default();
            into.totals = upstream.totals();
            let counted = |(identity, counters, recent)| (identity, EndpointCounts { counters, recent });
            into.endpoints.extend(upstream.counters().map(counted));
        }
        counts
    }

    /// Adds what somebody else has counted.
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

    /// The counts of one upstream.
    pub fn upstream(&self, cluster: u64) -> Option<&UpstreamCounts> {
        self.upstreams.get(&cluster)
    }

    /// Whoever wrote this is gone: nothing of it is recent.
    pub fn grow_old(&mut self) {
        let endpoints = self.upstreams.values_mut().flat_map(|of| of.endpoints.values_mut());
        endpoints.for_each(|counted| counted.recent = 0.0);
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

    /// Takes the counts from a record.
    pub fn read(r: &mut Reader<'_>) -> Option<Counts> {
        let mut counts = Counts { at: r.time()?, ..Counts::default() };
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
                let recent = r.f32()?.clamp(0.0, 1e9);
                let counters = Counters { requests: r.u64()?, failures: r.u64()?, picks: r.u64()? };
                of.endpoints.insert(endpoint, EndpointCounts { counters, recent });
            }
            counts.upstreams.insert(cluster, of);
        }
        Some(counts)
    }
}
