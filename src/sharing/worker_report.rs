//! One worker's view of its endpoints, published on every tick for the others to merge.

use super::codec::{Reader, Writer};
use engine::Balancer;
use engine::endpoint::{EndpointState, EndpointView, PeerReport};
use engine::estimate::{Blend, InFlightReport};
use engine::health::{Evidence, FailureRun, GoodRun};
use engine::rng;
use engine::time::Time;

/// Writes what this worker knows first-hand; `busy` if it has had requests lately.
pub fn encode(engine: &Balancer, busy: bool, now: Time) -> Vec<u8> {
    let unknown = EndpointState::default();
    let mut w = Writer::versioned();
    w.time(now);
    w.u32(busy.into());
    w.u32(engine.upstreams().len() as u32);
    for upstream in engine.upstreams() {
        w.u64(rng::hash(upstream.cluster().as_bytes()));
        w.u32(upstream.fleet().len() as u32);
        for (index, identity) in upstream.fleet().present() {
            w.u64(identity);
            entry(&mut w, &upstream.member(index).unwrap_or(EndpointView::alone(&unknown)), now);
        }
    }
    w.0
}

fn entry(w: &mut Writer, member: &EndpointState, now: Time) {
    let in_flight = member.report(now);
    w.u32(in_flight.total);
    w.u32(in_flight.awaiting);
    w.f32(in_flight.mean_age);
    w.time(in_flight.quiet_since);
    let (centre, samples, updated) = member.latency.parts();
    w.f32(centre);
    w.f32(samples);
    w.time(updated);
    let Evidence { failures, good } = member.health.local();
    w.u32(failures.count);
    w.u32(good.count.into());
    w.u32(failures.failed_probes);
    w.time(failures.since);
    w.time(failures.latest_start);
    w.time(failures.latest_at);
    w.time(failures.broke_at);
    w.u64(failures.broke_on);
    w.time(good.start);
    w.f32(member.errors.ratio() as f32);
}

/// When the slot was published, and whether its worker has had requests lately.
pub fn published(bytes: &[u8]) -> Option<(Time, bool)> {
    let mut r = Reader::versioned(bytes)?;
    Some((r.time()?, r.u32()? > 0))
}

/// Adds a slot's entries to what the engine knows of the other workers. `None` if the slot is malformed; what
/// stood before the fault has been taken.
pub fn merge(bytes: &[u8], engine: &mut Balancer) -> Option<()> {
    let mut r = Reader::versioned(bytes)?;
    let _published = (r.time()?, r.u32()?);
    for _ in 0..r.u32()? {
        let cluster = r.u64()?;
        let upstream = engine.index_of_hash(cluster);
        for _ in 0..r.u32()? {
            let hash = r.u64()?;
            let (others, evidence) = read_entry(&mut r)?;
            if let Some(upstream) = upstream.and_then(|u| engine.upstream_mut(u)) {
                upstream.merge_other(hash, &others, &evidence);
            }
        }
    }
    Some(())
}

fn read_entry(r: &mut Reader<'_>) -> Option<(PeerReport, Evidence)> {
    let in_flight = InFlightReport {
        total: r.u32()?,
        awaiting: r.u32()?,
        mean_age: r.f32()?.max(0.0),
        quiet_since: r.time()?,
    };
    let mut latency = Blend::default();
    latency.add((r.f32()?, r.f32()?, r.time()?));
    let (count, good_count) = (r.u32()?, r.u32()?);
    let failures = FailureRun {
        count,
        failed_probes: r.u32()?,
        since: r.time()?,
        latest_start: r.time()?,
        latest_at: r.time()?,
        broke_at: r.time()?,
        broke_on: r.u64()?,
    };
    let good = GoodRun { count: u16::try_from(good_count).unwrap_or(u16::MAX), start: r.time()? };
    let evidence = Evidence { failures, good };
    let error_ratio = r.f32()?.clamp(0.0, 1.0);
    Some((PeerReport { in_flight, latency, error_ratio }, evidence))
}
