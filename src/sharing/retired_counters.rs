//! Counters of workers that ended: the counters of a process never decrease, though its workers come and go.
//!
//! A worker that ends adds its own counts. One whose VM crashed is retired by the worker that finds its tombstone in
//! the [`registry`]. Each id is added exactly once: it is in the same record as the sum, which is written by
//! compare-and-swap.
//!
//! **Reading.** First the registry, then the counts of every worker in it, last the retired counters; workers whose ids
//! are in them are not counted again. A worker that is retired in between is so counted exactly once.

use super::codec::{Reader, Writer};
use super::counts::Counts;
use super::registry;
use crate::host::{Host, SharedError};
use crate::sharing::slot_id::SlotId;
use engine::endpoint::GONE_AFTER_S;
use engine::time::Time;

/// The number of ids that are remembered: enough to outlast every registry entry.
const REMEMBERED: usize = 1024;
/// Number of times that an ending worker tries the compare-and-swap.
const ATTEMPTS: usize = 20;

/// The keys of the counters and of all other records that a worker leaves.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The key of the registry.
    pub workers: String,
    /// The key of the retired counters.
    pub retired: String,
    /// The prefix of the keys of workers' counts; the slot id follows.
    pub counts: String,
    /// The prefix of the keys of workers' reports.
    pub slots: String,
    /// The prefix of the keys of endpoints' capacities, as workers have learnt them.
    pub capacities: String,
    /// The prefix of the keys of workers' counts for the guards.
    pub arms: String,
}

impl Keys {
    /// The keys of the plugin with this prefix.
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

/// The workers that ended, and the sum of their counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetiredCounters {
    /// When the first worker of the process began.
    pub founded: Time,
    /// The ids of the last workers that ended, oldest first.
    pub ids: Vec<u64>,
    /// The sum of their counts and of those before them.
    pub counts: Counts,
}

impl RetiredCounters {
    /// Encodes for shared data.
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

/// Writes an empty record if there is none, and never over one that another worker writes at the same time.
#[inline(never)]
pub fn seed(host: &dyn Host, keys: &Keys, now: Time) {
    let (bytes, version) = host.shared_get(&keys.retired).unzip();
    if bytes.and_then(|bytes| RetiredCounters::decode(&bytes)).is_none() {
        let empty = RetiredCounters { founded: now, ..RetiredCounters::default() }.encode();
        let _the_next_worker_tries_again = host.shared_replace(&keys.retired, &empty, version);
    }
}

/// Whether the counts of `id` are among the retired counters.
#[inline(never)]
pub fn holds(host: &dyn Host, keys: &Keys, id: u64) -> bool {
    let retired = host.shared_get(&keys.retired).and_then(|(bytes, _)| RetiredCounters::decode(&bytes));
    retired.is_some_and(|retired| retired.ids.contains(&id))
}

/// Moves the counts of an ended worker to the retired counters, clears its records in shared data, and removes it from
/// the registry, so that its slot id is free. After an error, another worker having written in between, it can be
/// repeated.
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

/// Adds the counts of `id` to the retired counters, unless they are there.
#[inline(never)]
fn inherit(host: &dyn Host, keys: &Keys, id: u64, left: impl FnOnce() -> Counts) -> Result<(), SharedError> {
    // The retired counters are read before the counts: if another worker retires `id` in between, the write here fails;
    // if one has done so before, the id is in the record.
    let (bytes, version) = host.shared_get(&keys.retired).unzip();
    let mut retired = bytes.and_then(|bytes| RetiredCounters::decode(&bytes)).unwrap_or_default();
    if !retired.ids.contains(&id) {
        retired.counts.merge(&left());
        retired.counts.grow_old();
        retired.counts.keep_the_most_used();
        retired.ids.push(id);
        host.shared_replace(&keys.retired, &retired.encode(), version)?;
    }
    Ok(())
}

/// Ends worker `id`, on `slot_id` if it had one: [`retire`] with its own final counts, repeated while other workers
/// write at the same time. If more of them end at once than that allows for, the final counts are left in its record, for
/// the worker that retires it.
#[inline(never)]
pub fn end(host: &dyn Host, keys: &Keys, id: u64, slot_id: Option<SlotId>, counted: &Counts) {
    let inherited = (0..ATTEMPTS).any(|_| inherit(host, keys, id, || counted.clone()).is_ok());
    if let (Some(slot_id), false) = (slot_id, inherited) {
        let _what_was_published_last_counts = slot_id.write(host, &keys.counts, counted.encode());
    }
    match slot_id {
        Some(slot_id) => _ = retire(host, keys, slot_id),
        None => registry::strike(host, &keys.workers, id),
    }
}

/// The counters of the whole process, without one worker's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gathered {
    /// The counts of all workers but that one, ended ones included.
    pub counts: Counts,
    /// The number of live workers with traffic, without that one.
    pub others: usize,
    /// When the first worker of the process began; [`Time::ZERO`] if unknown.
    pub founded: Time,
}

/// Gathers the counts of all workers but `me`.
#[inline(never)]
pub fn gather(host: &dyn Host, keys: &Keys, me: u64, now: Time) -> Gathered {
    let mut counted = Vec::new();
    for slot_id in registry::all(host, &keys.workers).into_iter().filter(|slot_id| slot_id.id != me) {
        let counts = slot_id.read(host, &keys.counts).and_then(|bytes| Counts::decode(&bytes));
        counted.extend(counts.map(|counts| (slot_id.id, counts)));
    }
    let retired = host.shared_get(&keys.retired).and_then(|(bytes, _)| RetiredCounters::decode(&bytes));
    let RetiredCounters { founded, ids, mut counts } = retired.unwrap_or_default();
    let mut others = 0;
    for (_, mut theirs) in counted.into_iter().filter(|(id, _)| !ids.contains(id)) {
        // Written before the clock stepped back: one that lives writes again.
        if theirs.at.from_the_future(now) || now.seconds_since(theirs.at) > GONE_AFTER_S {
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

    use core::cell::Cell;

    use super::*;
    use crate::host::{Call, CallError};
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

    /// Shared data of one worker that has counted, with a record under every key.
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
            assert_eq!(slot_id.read(&host, kind), None, "{kind}");
            assert_eq!(host.shared_get(&slot_id.key(kind)).unwrap().0, b"", "{kind}");
        }
        assert!(registry::all(&host, &keys.workers).is_empty());
    }

    #[test]
    fn counts_are_counted_once_between_the_two_steps_of_retiring() {
        let keys = Keys::under("evenkeel/test");
        let (host, slot_id) = worked(&keys);
        // The counts have been added, but record and entry are still there: the worker that retired it died here.
        inherit(&host, &keys, slot_id.id, || counted(5)).unwrap();
        assert_eq!(gathered(&host, &keys), 5);
        retire(&host, &keys, slot_id).unwrap();
        assert_eq!(gathered(&host, &keys), 5);
    }

    /// Shared data in which so many compare-and-swaps are lost to other workers.
    struct Contended(Shared, Cell<usize>);

    impl Host for Contended {
        fn now(&self) -> Time {
            NOW
        }

        fn shared_get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
            self.0.shared_get(key)
        }

        fn shared_set(&self, key: &str, value: &[u8], version: Option<u32>) -> Result<(), SharedError> {
            if version.is_some() && self.1.get() > 0 {
                self.1.set(self.1.get() - 1);
                return Err(SharedError::Conflict);
            }
            self.0.shared_set(key, value, version)
        }

        fn call(&self, _call: &Call<'_>) -> Result<u32, CallError> {
            Err(CallError::UnknownCluster)
        }

        fn log(&self, _level: log::Level, _message: &str) {}
    }

    /// All workers of a configuration may end at once.
    #[test]
    fn a_worker_that_ends_while_others_write_tries_again() {
        let keys = Keys::under("evenkeel/test");
        let host = Contended(Shared::default(), Cell::new(0));
        seed(&host, &keys, NOW);
        host.1.set(ATTEMPTS - 1);
        end(&host, &keys, 1, None, &counted(5));
        assert_eq!(gathered(&host.0, &keys), 5);
    }

    /// With a thread on each of many cores.
    #[test]
    fn a_worker_that_ends_while_too_many_others_write_leaves_what_it_has_counted() {
        let keys = Keys::under("evenkeel/test");
        let (host, slot_id) = worked(&keys);
        let host = Contended(host, Cell::new(2 * ATTEMPTS));
        end(&host, &keys, slot_id.id, Some(slot_id), &counted(7));
        assert_eq!(gathered(&host.0, &keys), 7, "until it is retired");
        retire(&host.0, &keys, slot_id).unwrap();
        assert_eq!(gathered(&host.0, &keys), 7);
    }

    /// More ids than can be read would lose the counts with them.
    #[test]
    fn the_latest_ids_are_remembered_and_the_counts_of_all() {
        let all = RetiredCounters { founded: NOW, ids: (0..1030).collect(), counts: counted(5) };
        let read = RetiredCounters::decode(&all.encode()).unwrap();
        assert_eq!(read.ids, (6..1030).collect::<Vec<u64>>());
        assert_eq!((read.founded, read.counts), (NOW, counted(5)));
    }
}
