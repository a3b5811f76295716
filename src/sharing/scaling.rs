//! The records of autoscaling: the capacity of an endpoint, as each worker has learnt it from its own responses, and
//! the state of autoscaling, which the lease holder computes. The state is complete, with consecutive periods too, so
//! that the next lease holder continues from it.

use super::codec::{Reader, Writer};
use engine::Balancer;
use engine::autoscale::scaler::{Below, Period};
use engine::autoscale::{Division, Scaler, Trend, trend};
use engine::estimate::Slots;
use engine::time::Time;

/// Writes the capacity of endpoints that this worker has learnt.
pub fn encode_slots(engine: &Balancer, now: Time) -> Vec<u8> {
    let mut w = Writer::versioned();
    w.time(now);
    for upstream in engine.upstreams() {
        if let Some(slots) = upstream.own_slots() {
            w.u64(upstream.hash());
            w.f32(slots.count);
            w.u32(u32::from(slots.found));
        }
    }
    w.0
}

/// When the capacities were written.
pub fn slots_written(bytes: &[u8]) -> Option<Time> {
    Reader::versioned(bytes)?.time()
}

/// Reads the capacities of other workers and merges them into one value per upstream.
pub fn apply_slots<'a>(others: impl Iterator<Item = &'a [u8]>, engine: &mut Balancer) {
    let mut merged: Vec<Option<Slots>> = vec![None; engine.upstreams().len()];
    for bytes in others {
        let Some(mut r) = Reader::versioned(bytes) else { continue };
        let _written = r.time();
        while let (Some(upstream), Some(count), Some(found)) = (r.u64(), r.f32(), r.u32()) {
            let place = engine.index_of_hash(upstream).and_then(|at| merged.get_mut(at));
            if let (Some(place), true) = (place, count > 0.0) {
                *place = Slots::merged(*place, Some(Slots { count, found: found != 0 }));
            }
        }
    }
    for (at, slots) in merged.into_iter().enumerate() {
        if let Some(upstream) = engine.upstream_mut(at) {
            upstream.set_others_slots(slots);
        }
    }
}

/// Writes the state of autoscaling.
pub fn encode(engine: &Balancer) -> Vec<u8> {
    let mut w = Writer::versioned();
    for upstream in engine.upstreams() {
        w.u64(upstream.hash());
        scaler(&mut w, upstream.scaler());
    }
    w.0
}

fn scaler(w: &mut Writer, scaler: &Scaler) {
    // Pressure is never negative and the desired number of replicas never zero, so these stand for "unknown".
    w.f64(scaler.shown.unwrap_or(-1.0));
    w.u32(scaler.desired.unwrap_or(0));
    w.time(scaler.sampled);
    w.time(scaler.period.began);
    w.u32(scaler.period.samples);
    w.f64(scaler.period.demand);
    w.f64(scaler.period.known);
    w.u32(scaler.above);
    w.time(scaler.below.since);
    w.u32(scaler.below.periods);
    w.u32(scaler.below.most);
    w.u32(scaler.trend.periods().len() as u32);
    scaler.trend.periods().iter().for_each(|demand| w.f64(*demand));
    w.u32(scaler.division.loaded);
    w.u32(scaler.division.standby);
}

/// Reads the state of autoscaling into the engine, up to the first malformed field.
pub fn apply(bytes: &[u8], engine: &mut Balancer, now: Time) {
    let Some(mut r) = Reader::versioned(bytes) else { return };
    while let (Some(hash), Some(mut scaler)) = (r.u64(), read_scaler(&mut r)) {
        scaler.not_after(now);
        if let Some(upstream) = engine.index_of_hash(hash).and_then(|at| engine.upstream_mut(at)) {
            upstream.set_scaler(scaler);
        }
    }
}

fn read_scaler(r: &mut Reader<'_>) -> Option<Scaler> {
    let shown = Some(r.f64()?).filter(|shown| *shown >= 0.0);
    let desired = Some(r.u32()?).filter(|desired| *desired > 0);
    let sampled = r.time()?;
    let period =
        Period { began: r.time()?, samples: r.u32()?, demand: r.f64()?.max(0.0), known: r.f64()?.max(0.0) };
    let above = r.u32()?;
    let below = Below { since: r.time()?, periods: r.u32()?, most: r.u32()? };
    let mut demand = Vec::with_capacity(trend::MAX_PERIODS);
    for _ in 0..(r.u32()? as usize).min(trend::MAX_PERIODS) {
        demand.push(r.f64()?);
    }
    let trend = Trend::of(demand);
    let division = Division { loaded: r.u32()?, standby: r.u32()? };
    Some(Scaler { shown, desired, sampled, period, above, below, trend, division })
}
