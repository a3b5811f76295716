//! A worker's report: its own view of its endpoints, published at every tick for its peers to merge.

use super::codec::{Reader, Writer};
use engine::endpoint::{EndpointState, EndpointView, PeerReport};
use engine::estimate::{Blend, InFlightReport};
use engine::health::{Evidence, FailureRun, GoodRun};
use engine::time::Time;
use engine::{Balancer, Cluster};

/// The size of an endpoint's entry, bytes: identity, requests, latency, health and failure ratio.
const ENTRY: usize = 108;
/// The size of the report's head, bytes.
const HEAD: usize = 17;
/// The size of an upstream's head, bytes.
const UPSTREAM: usize = 16;

/// Writes this worker's own view; `busy` if it has had requests lately.
#[inline(never)]
pub fn encode(engine: &Balancer, busy: bool, now: Time) -> Vec<u8> {
    let unknown = EndpointState::default();
    let of_upstream = |upstream: &Cluster| UPSTREAM + ENTRY * upstream.fleet().len();
    let size = HEAD + engine.upstreams().iter().map(of_upstream).sum::<usize>();
    let mut w = Writer::versioned_for(size);
    w.time(now);
    w.u32(busy.into());
    w.u32(engine.upstreams().len() as u32);
    for upstream in engine.upstreams() {
        w.u64(upstream.hash());
        w.f32(upstream.own_rate() as f32);
        w.u32(upstream.fleet().len() as u32);
        for (index, identity) in upstream.fleet().present() {
            let endpoint = upstream.endpoint(index).unwrap_or(EndpointView::alone(&unknown));
            w.bytes(&entry(identity, &endpoint, now));
        }
    }
    w.0
}

/// An entry, built on the stack: thousands of them are written per second.
#[inline]
fn entry(identity: u64, endpoint: &EndpointState, now: Time) -> [u8; ENTRY] {
    let in_flight = endpoint.report(now);
    let (centre, samples, updated) = endpoint.latency.parts();
    let Evidence { failures, good } = endpoint.health.local();
    let mut entry = [0; ENTRY];
    let mut row = Row(&mut entry);
    row.put(identity.to_le_bytes());
    row.put(in_flight.total.to_le_bytes());
    row.put(in_flight.awaiting.to_le_bytes());
    row.put(in_flight.mean_age.to_le_bytes());
    row.put(in_flight.quiet_since.0.to_le_bytes());
    row.put(centre.to_le_bytes());
    row.put(samples.to_le_bytes());
    row.put(updated.0.to_le_bytes());
    row.put(failures.count.to_le_bytes());
    row.put(good.count.to_le_bytes());
    row.put(failures.unseen.to_le_bytes());
    row.put(failures.failed_probes.to_le_bytes());
    row.put(failures.since.0.to_le_bytes());
    row.put(failures.latest_start.0.to_le_bytes());
    row.put(failures.latest_at.0.to_le_bytes());
    row.put(failures.broke_at.0.to_le_bytes());
    row.put(failures.broke_on.to_le_bytes());
    row.put(good.start.0.to_le_bytes());
    row.put((endpoint.errors.ratio() as f32).to_le_bytes());
    entry
}

/// The rest of an entry that is still to be written.
struct Row<'e>(&'e mut [u8]);

impl Row<'_> {
    /// Appends a field. Inlined, because the size of each field is known.
    #[inline(always)]
    fn put<const N: usize>(&mut self, field: [u8; N]) {
        if let Some((place, behind)) = core::mem::take(&mut self.0).split_first_chunk_mut::<N>() {
            *place = field;
            self.0 = behind;
        }
    }
}

/// When a report was published, and whether its worker has had requests lately.
pub fn published(bytes: &[u8]) -> Option<(Time, bool)> {
    let mut r = Reader::versioned(bytes)?;
    Some((r.time()?, r.u32()? > 0))
}

/// Merges a report into what the engine knows of the peers; `before` says whether its worker comes before this one in
/// their common order. `None` if it is malformed; what comes before the fault counts.
#[inline(never)]
pub fn merge(bytes: &[u8], before: bool, engine: &mut Balancer) -> Option<()> {
    let mut r = Reader::versioned(bytes)?;
    let _published = r.time()?;
    let busy = r.u32()? > 0;
    for _ in 0..r.u32()? {
        let cluster = r.u64()?;
        let upstream = engine.index_of_hash(cluster);
        let rate = r.f32()?;
        if let Some(upstream) = upstream.and_then(|u| engine.upstream_mut(u)) {
            upstream.merge_peer(rate, before, busy);
        }
        for _ in 0..r.u32()? {
            let (hash, others, evidence) = read_entry(r.array()?)?;
            if let Some(upstream) = upstream.and_then(|u| engine.upstream_mut(u)) {
                upstream.merge_other(hash, &others, &evidence);
            }
        }
    }
    Some(())
}

/// Reads an entry. Its size is fixed, so fields need no bounds checks.
#[inline]
fn read_entry(entry: [u8; ENTRY]) -> Option<(u64, PeerReport, Evidence)> {
    let r = &mut Reader(&entry);
    let hash = r.u64()?;
    let in_flight = InFlightReport {
        total: r.u32()?,
        awaiting: r.u32()?,
        mean_age: r.f32()?.max(0.0),
        quiet_since: r.time()?,
    };
    let mut latency = Blend::default();
    latency.add((r.f32()?, r.f32()?, r.time()?));
    let (count, good_count, unseen) = (r.u32()?, r.u16()?, r.u16()?);
    let failures = FailureRun {
        count,
        unseen,
        failed_probes: r.u32()?,
        since: r.time()?,
        latest_start: r.time()?,
        latest_at: r.time()?,
        broke_at: r.time()?,
        broke_on: r.u64()?,
    };
    let good = GoodRun { count: good_count, start: r.time()? };
    let evidence = Evidence { failures, good };
    let error_ratio = r.f32()?.clamp(0.0, 1.0);
    Some((hash, PeerReport { in_flight, latency, error_ratio }, evidence))
}
