//! What workers that are gone have counted: counters of a process never go down, though its workers come and go.
//!
//! A worker that ends adds its counts itself; one whose VM crashed is retired by the worker that finds its tombstone in
//! the [`registry`]. Each id is added exactly once: it stands in the same record as the sum, which is written by
//! compare-and-swap.
//!
//! **Reading.** First the registry, then the records of every worker in it, last the retired counters, whose ids are not
//! counted again. A worker that is retired meanwhile is counted once either way.

use super::codec::{Reader, Writer};
use super::counts::Counts;
use super::registry;
use crate::host::{Host, SharedError};
use crate::sharing::slot_id::SlotId;
use engine::endpoint::GONE_AFTER_S;
use engine::time::Time;

/// Ids are remembered until long after no worker lists them any more.
const REMEMBERED: usize = 1024;
/// How often a worker that ends tries against others that write at the same time.
const ATTEMPTS: usize = 20;

/// The keys that counting needs.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The list of workers.
    pub workers: String,
    /// The retired counters.
    pub retired: String,
    /// What stands before the slot id in the key of a worker's counts.
    pub counts: String,
    /// What stands before the slot id in the key of a worker's slot.
    pub slots: String,
    /// What stands before the slot id in the key of what a worker has learnt of the endpoints' capacity.
    pub capacities: String,
    /// What stands before the slot id in the key of what a worker has counted for the guards.
    pub arms: String,
}

impl Keys {
    /// The keys under a prefix.
    pub fn under(prefix: &str) -> Keys {
        Keys {
            workers: format!("{prefix}/workers"),
            retired: format!("{prefix}/estate"),
            counts: format!("{prefix}/counts"),
            slots: format!("{prefix}/slot"),
            capacities: format!("{prefix}/capacity"),
            arms: format!("{prefix}/arms"),
        }
    }
}

/// Which workers are gone, and what all of them have counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetiredCounters {
    /// When the first worker of the process began.
    pub founded: Time,
    /// The latest to go, oldest first.
    pub ids: Vec<u64>,
    /// Their counts and those of every worker before them.
    pub counts: Counts,
}

impl RetiredCounters {
    /// As bytes for shared data.
    #[inline(never)]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::versioned();
        w.time(self.founded);
        let ids = self.ids.get(self.ids.len().saturating_sub(REMEMBERED)..).unwrap_or_default();
        w.u32(ids.len() as u32);
        ids.iter().for_each(|id| w.u64(*id));
        self.counts.write(&mut w);
        w.0
    }

    /// From bytes of shared data; `None` if they are malformed.
    #[inline(never)]
    pub fn decode(bytes: &[u8]) -> Option<RetiredCounters> {
        let mut r = Reader::versioned(bytes)?;
        let founded = r.time()?;
        let len = r.u32().filter(|len| *len as usize <= REMEMBERED)?;
        let ids = (0..len).map(|_| r.u64()).collect::<Option<_>>()?;
        Some(RetiredCounters { founded, ids, counts: Counts::read(&mut r)? })
    }
}

/// Writes an empty record where there is none: with the key absent, compare-and-swap would let two writers
/// through at the same time.
#[inline(never)]
pub fn seed(host: &dyn Host, keys: &Keys, now: Time) {
    if host.shared_get(&keys.retired).and_then(|(bytes, _)| RetiredCounters::decode(&bytes)).is_none() {
        let empty = RetiredCounters { founded: now, ..RetiredCounters::default() }.encode();
        let _the_next_worker_tries_again = host.shared_set(&keys.retired, &empty, None);
    }
}

/// Whether the counts of `id` are among the retired counters.
#[inline(never)]
pub fn holds(host: &dyn Host, keys: &Keys, id: u64) -> bool {
    let retired = host.shared_get(&keys.retired).and_then(|(bytes, _)| RetiredCounters::decode(&bytes));
    retired.is_some_and(|retired| retired.ids.contains(&id))
}

/// Moves the counts of a worker that will write no more to the retired counters, clears what it leaves in shared data,
/// and strikes it off the list, so that its slot id is free. On an error another worker wrote in between: try again.
#[inline(never)]
pub fn retire(host: &dyn Host, keys: &Keys, slot_id: SlotId) -> Result<(), SharedError> {
    inherit(host, keys, slot_id.id, || {
        let left = slot_id.read(host, &keys.counts);
        left.and_then(|bytes| Counts::decode(&bytes)).unwrap_or_default()
    })?;
    for kind in [&keys.counts, &keys.slots, &keys.capacities, &keys.arms] {
        slot_id.clear(host, kind);
    }
    registry::strike(host, &keys.workers, slot_id.id);
    Ok(())
}

/// Adds what `id` has counted to the retired counters, unless it is there.
#[inline(never)]
fn inherit(host: &dyn Host, keys: &Keys, id: u64, left: impl FnOnce() -> Counts) -> Result<(), SharedError> {
    // The retired counters are read before the counts: if another worker retires `id` in between, the write here fails,
    // and if some worker did so before, the id stands in it.
    let (bytes, version) = host.shared_get(&keys.retired).unzip();
    let mut retired = bytes.and_then(|bytes| RetiredCounters::decode(&bytes)).unwrap_or_default();
    if !retired.ids.contains(&id) {
        retired.counts.merge(&left());
        retired.counts.grow_old();
        retired.counts.keep_the_most_used();
        retired.ids.push(id);
        host.shared_set(&keys.retired, &retired.encode(), version)?;
    }
    Ok(())
}

/// The end of worker `id`, on `slot_id` if it ever had one: [`retire`] with what it knows itself to have counted,
/// against the worker that writes at the same time.
#[inline(never)]
pub fn end(host: &dyn Host, keys: &Keys, id: u64, slot_id: Option<SlotId>, counted: &Counts) {
    for _ in 0..ATTEMPTS {
        if inherit(host, keys, id, || counted.clone()).is_ok() {
            break;
        }
    }
    match slot_id {
        Some(slot_id) => _ = retire(host, keys, slot_id),
        None => registry::strike(host, &keys.workers, id),
    }
}

/// What has been counted in the whole process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gathered {
    /// By all workers but one, those that are gone included.
    pub counts: Counts,
    /// Workers that carry traffic and were heard of lately, that one not among them.
    pub others: usize,
    /// When the first worker of the process began; [`Time::ZERO`] if that is unknown.
    pub founded: Time,
}

/// Gathers what all workers but `me` have counted.
#[inline(never)]
pub fn gather(host: &dyn Host, keys: &Keys, me: u64, now: Time) -> Gathered {
    let mut told = Vec::new();
    for slot_id in registry::all(host, &keys.workers).into_iter().filter(|slot_id| slot_id.id != me) {
        let counts = slot_id.read(host, &keys.counts).and_then(|bytes| Counts::decode(&bytes));
        told.extend(counts.map(|counts| (slot_id.id, counts)));
    }
    let retired = host.shared_get(&keys.retired).and_then(|(bytes, _)| RetiredCounters::decode(&bytes));
    let RetiredCounters { founded, ids, mut counts } = retired.unwrap_or_default();
    let mut others = 0;
    for (_, mut theirs) in told.into_iter().filter(|(id, _)| !ids.contains(id)) {
        if now.seconds_since(theirs.at) > GONE_AFTER_S {
            theirs.grow_old();
        } else {
            others += 1;
        }
        counts.merge(&theirs);
    }
    Gathered { counts, others, founded }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::sharing::fake::Shared;

    const CLUSTER: u64 = 7;
    const NOW: Time = Time(1_000_000_000_000_000);

    fn counted(requests: u64) -> Counts {
        let mut counts = Counts { at: NOW, ..Counts::default() };
        counts.upstreams.entry(CLUSTER).or_default().totals.policy = requests;
        counts
    }

    fn gathered(host: &Shared, keys: &Keys) -> u64 {
        gather(host, keys, 0, NOW).counts.upstream(CLUSTER).map_or(0, |counted| counted.totals.policy)
    }

    /// Shared data with one worker that has counted, and left something under every kind of key.
    fn worked(keys: &Keys) -> (Shared, SlotId) {
        let host = Shared::default();
        seed(&host, keys, NOW);
        registry::update(&host, &keys.workers, 1, true, NOW);
        let slot_id = registry::update(&host, &keys.workers, 1, true, NOW).mine.unwrap();
        for kind in [&keys.slots, &keys.capacities, &keys.arms] {
            slot_id.write(&host, kind, vec![1, 2, 3]).unwrap();
        }
        slot_id.write(&host, &keys.counts, counted(5).encode()).unwrap();
        (host, slot_id)
    }

    #[test]
    fn a_worker_that_is_gone_leaves_its_counts_and_nothing_else() {
        let keys = Keys::under("evenkeel/test");
        let (host, slot_id) = worked(&keys);
        assert_eq!(gathered(&host, &keys), 5);
        retire(&host, &keys, slot_id).unwrap();
        assert_eq!(gathered(&host, &keys), 5);
        for kind in [&keys.counts, &keys.slots, &keys.capacities, &keys.arms] {
            assert_eq!(host.shared_get(&slot_id.key(kind)), None, "{kind}");
        }
        assert!(registry::all(&host, &keys.workers).is_empty());
    }

    #[test]
    fn counts_are_counted_once_between_the_two_steps_of_retiring() {
        let keys = Keys::under("evenkeel/test");
        let (host, slot_id) = worked(&keys);
        // It has been added, and neither its record nor its entry is gone: the worker that retires it died here.
        inherit(&host, &keys, slot_id.id, || counted(5)).unwrap();
        assert_eq!(gathered(&host, &keys), 5);
        retire(&host, &keys, slot_id).unwrap();
        assert_eq!(gathered(&host, &keys), 5);
    }
}
