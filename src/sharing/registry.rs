//! The registry: which workers publish reports, and under which keys. Each worker enters and renews its own entry. One
//! not renewed for 30 s is marked expired, and removed once its counts are among the [retired
//! counters](crate::sharing::retired_counters). A worker that was only suspended enters anew under another id: its entry may be
//! about to be retired by another worker.
//!
//! Shared data has no delete, so keys are not made of ids, of which a process with many reloads has many, but of the
//! numbers of [`SlotId`]: a worker takes the lowest free number, and its removal frees it.

use super::codec::{Reader, Writer};
use crate::host::Host;
use crate::sharing::slot_id::SlotId;
use engine::order;
use engine::time::Time;

/// The age at which an entry is marked expired, seconds.
const STRUCK_AFTER_S: f64 = 30.0;
/// The age at which an entry is renewed, seconds.
const RENEW_AFTER_S: f64 = 5.0;
/// The age at which a tombstone is cleared, seconds. After the clock was set forward every worker looks expired, and
/// enters anew with its next tick.
const CLEARED_AFTER_S: f64 = 60.0;
/// The highest number of tombstones: the oldest beyond it are cleared at once, so that many reloads do not fill the
/// list.
const MAX_TOMBSTONES: usize = 64;
/// The highest number of registered workers; Envoy has one per core.
const MAX_WORKERS: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    slot_id: SlotId,
    /// When it was last renewed.
    seen: Time,
    /// When it was marked expired; [`Time::ZERO`] if it is live.
    expired: Time,
}

impl Entry {
    fn is_live(&self) -> bool {
        self.expired == Time::ZERO
    }

    fn is_due_for_renewal(&self, now: Time) -> bool {
        self.seen.from_the_future(now) || now.seconds_since(self.seen) > RENEW_AFTER_S
    }

    /// Whether it makes room for a worker if no number is free: not while it is renewed, as damage is not. Two workers with
    /// one number would overwrite each other's records.
    fn makes_room(&self, now: Time) -> bool {
        !self.is_live() || now.seconds_since(self.seen) > 2.0 * RENEW_AFTER_S
    }

    /// Marks it expired if it was not renewed for long. A time after now was written before the clock stepped back; a
    /// worker that lives enters again.
    fn expire(&mut self, now: Time) {
        let silent = self.seen.from_the_future(now) || now.seconds_since(self.seen) >= STRUCK_AFTER_S;
        if silent && (self.is_live() || self.expired.from_the_future(now)) {
            self.expired = now;
        }
    }
}

/// The registry as one worker sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The live workers, ordered by id.
    pub live: Vec<SlotId>,
    /// Expired workers whose counts are to be moved to the retired counters.
    pub to_retire: Vec<SlotId>,
    /// Whether the worker that asked was registered before.
    pub found: bool,
    /// Whether it is marked expired: it is to enter under another id.
    pub gone: bool,
    /// The slot id of the worker that asked, once no other worker can have the same.
    pub mine: Option<SlotId>,
}

#[inline(never)]
fn read(bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let Some(mut r) = Reader::versioned(bytes) else { return entries };
    while let (Some(id), Some(number), Some(seen), Some(expired)) = (r.u64(), r.u32(), r.time(), r.time()) {
        let taken = |entry: &Entry| entry.slot_id.number == number || entry.slot_id.id == id;
        if (number as usize) < MAX_WORKERS && !entries.iter().any(taken) {
            entries.push(Entry { slot_id: SlotId { id, number }, seen, expired });
        }
    }
    entries
}

#[inline(never)]
fn write(entries: &[Entry]) -> Vec<u8> {
    let mut w = Writer::versioned();
    for Entry { slot_id, seen, expired } in entries {
        w.u64(slot_id.id);
        w.u32(slot_id.number);
        w.time(*seen);
        w.time(*expired);
    }
    w.0
}

/// The lowest free number; `None` if all are taken.
fn lowest_free(entries: &[Entry]) -> Option<u32> {
    (0..MAX_WORKERS as u32).find(|number| entries.iter().all(|entry| entry.slot_id.number != *number))
}

/// Reads the registry, and enters or renews `me` if `enter`. A lost race is repeated at the next tick.
#[inline(never)]
pub fn update(host: &dyn Host, key: &str, me: u64, enter: bool, now: Time) -> Listed {
    let (bytes, version) = host.shared_get(key).unzip();
    let mut entries = read(&bytes.unwrap_or_default());
    let known = entries.iter().find(|entry| entry.slot_id.id == me).copied();
    let gone = known.is_some_and(|mine| !mine.is_live());
    let mut mine = known.filter(|_| !gone).map(|entry| entry.slot_id);
    if enter && !gone && known.is_none_or(|mine| mine.is_due_for_renewal(now)) {
        entries.retain(|entry| entry.slot_id.id != me);
        entries.iter_mut().for_each(|entry| entry.expire(now));
        let number = known.map(|entry| entry.slot_id.number).or_else(|| lowest_free(&entries));
        let number = number.or_else(|| {
            let at = entries.iter().rposition(|entry| entry.makes_room(now))?;
            Some(entries.remove(at).slot_id.number)
        });
        if let Some(number) = number {
            let slot_id = SlotId { id: me, number };
            // The youngest first, so that a full list cannot push out the worker that enters.
            entries.insert(0, Entry { slot_id, seen: now, expired: Time::ZERO });
            let written = host.shared_replace(key, &write(&entries), version).is_ok();
            mine = Some(slot_id).filter(|_| known.is_some() || written);
        }
    }
    let mut live: Vec<SlotId> =
        entries.iter().filter(|entry| entry.is_live()).map(|entry| entry.slot_id).collect();
    order::sort(&mut live);
    Listed { live, to_retire: to_retire(&entries, now), found: known.is_some(), gone, mine }
}

/// The workers whose tombstones are cleared now: old ones, and the oldest of many.
fn to_retire(entries: &[Entry], now: Time) -> Vec<SlotId> {
    let mut tombstones: Vec<Entry> = entries.iter().filter(|entry| !entry.is_live()).copied().collect();
    order::sort_few_by_key(&mut tombstones, |entry| core::cmp::Reverse(entry.expired));
    let is_due = |(rank, entry): &(usize, Entry)| {
        *rank >= MAX_TOMBSTONES || now.seconds_since(entry.expired) >= CLEARED_AFTER_S
    };
    tombstones.into_iter().enumerate().filter(is_due).map(|(_, entry)| entry.slot_id).collect()
}

/// Every registered worker, live and expired.
pub fn all(host: &dyn Host, key: &str) -> Vec<SlotId> {
    let bytes = host.shared_get(key).map(|(bytes, _)| bytes).unwrap_or_default();
    read(&bytes).into_iter().map(|entry| entry.slot_id).collect()
}

/// Removes `id` from the registry. A lost race is repeated by the worker that finds the entry again.
pub fn strike(host: &dyn Host, key: &str, id: u64) {
    let Some((bytes, version)) = host.shared_get(key) else { return };
    let mut entries = read(&bytes);
    let before = entries.len();
    entries.retain(|entry| entry.slot_id.id != id);
    if entries.len() < before {
        let _lost_races_are_tried_again = host.shared_set(key, &write(&entries), Some(version));
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::host::{Call, CallError, SharedError};
    use crate::sharing::fake::Shared;

    fn s(seconds: u64) -> Time {
        Time((1_000_000 + seconds) * 1_000_000_000)
    }

    fn live(shared: &Shared, me: u64, enter: bool, now: Time) -> Vec<u64> {
        update(shared, "workers", me, enter, now).live.into_iter().map(|slot_id| slot_id.id).collect()
    }

    fn ids(slot_ids: &[SlotId]) -> Vec<u64> {
        slot_ids.iter().map(|slot_id| slot_id.id).collect()
    }

    #[test]
    fn lists_workers_until_they_have_been_silent_for_long() {
        let shared = Shared::default();
        assert_eq!(live(&shared, 2, true, s(0)), [2]);
        assert_eq!(live(&shared, 1, true, s(1)), [1, 2]);
        assert_eq!(live(&shared, 9, false, s(1)), [1, 2], "reading is not entering");
        assert_eq!(live(&shared, 1, true, s(29)), [1, 2]);
        assert_eq!(live(&shared, 1, true, s(40)), [1]);
    }

    #[test]
    fn an_entry_from_the_future_does_not_stay_for_ever() {
        let shared = Shared::default();
        live(&shared, 1, true, s(3600));
        live(&shared, 2, true, s(3600));
        assert_eq!(live(&shared, 1, true, s(0)), [1]);
        assert!(update(&shared, "workers", 2, true, s(0)).gone);
        assert_eq!(live(&shared, 3, true, s(0)), [1, 3], "a live worker enters anew");
    }

    #[test]
    fn a_damaged_list_is_written_anew() {
        let shared = Shared::default();
        for damage in [&b""[..], b"\x63garbage", b"\x02short", &[0xff; 100]] {
            shared.put("workers", damage);
            assert_eq!(live(&shared, 7, true, s(0)), [7], "{damage:?}");
        }
    }

    #[test]
    fn expired_workers_are_retired_once_they_had_time_to_enter_anew() {
        let shared = Shared::default();
        live(&shared, 1, true, s(0));
        live(&shared, 2, true, s(0));
        // The clock is set forward: both look expired.
        assert!(update(&shared, "workers", 1, true, s(9000)).to_retire.is_empty());
        assert_eq!(all(&shared, "workers").len(), 2, "still counted");
        assert!(update(&shared, "workers", 2, true, s(9000)).gone);
        assert_eq!(live(&shared, 3, true, s(9000)), [1, 3], "it enters anew");
        assert!(update(&shared, "workers", 1, true, s(9059)).to_retire.is_empty());
        assert_eq!(ids(&update(&shared, "workers", 1, true, s(9060)).to_retire), [2]);
        strike(&shared, "workers", 2);
        assert_eq!(ids(&all(&shared, "workers")), [1, 3]);
        assert!(!update(&shared, "workers", 2, true, s(9091)).found);
        assert!(update(&shared, "workers", 2, true, s(9091)).found);
    }

    #[test]
    fn a_number_is_certain_once_it_is_written_and_free_once_its_owner_is_struck_off() {
        let shared = Shared::default();
        let slot_id = |id| update(&shared, "workers", id, true, s(0)).mine.map(|slot_id| slot_id.number);
        assert_eq!(slot_id(7), Some(0), "another that writes the first list fails");
        assert_eq!([slot_id(7), slot_id(8), slot_id(9)], [Some(0), Some(1), Some(2)]);
        strike(&shared, "workers", 8);
        assert_eq!([slot_id(10), slot_id(9), slot_id(8)], [Some(1), Some(2), Some(3)]);
        assert_eq!(update(&shared, "workers", 5, false, s(0)).mine, None);
    }

    /// Many cores, and several configurations that drain.
    #[test]
    fn a_worker_that_finds_no_number_takes_none_from_one_that_lives() {
        let shared = Shared::default();
        let all = 1..=MAX_WORKERS as u64;
        all.clone().for_each(|id| _ = live(&shared, id, true, s(0)));
        let full = shared.shared_get("workers");
        let late = |at| update(&shared, "workers", 9999, true, s(at)).mine;
        assert_eq!(late(4), None);
        assert!(shared.shared_get("workers") == full, "it does not try to");
        let number = |id| update(&shared, "workers", id, false, s(6)).mine.map(|slot_id| slot_id.number);
        let silent = number(7);
        all.filter(|id| *id != 7).for_each(|id| _ = live(&shared, id, true, s(6)));
        assert_eq!(late(9), None);
        assert_eq!(late(11).map(|slot_id| slot_id.number), silent);
        assert!(!update(&shared, "workers", 7, false, s(11)).found);
    }

    #[test]
    fn many_expired_workers_are_retired_at_once() {
        let shared = Shared::default();
        (1..=100).for_each(|id| _ = live(&shared, id, true, s(0)));
        assert_eq!(update(&shared, "workers", 1000, true, s(500)).to_retire.len(), 36);
    }

    #[test]
    fn a_clock_that_another_thread_reads_a_moment_later_expires_no_worker() {
        let shared = Shared::default();
        let ahead = Time(s(0).0 + 1000);
        live(&shared, 1, true, s(0));
        live(&shared, 1, true, ahead);
        assert_eq!(live(&shared, 2, true, ahead), [1, 2]);
        assert_eq!(live(&shared, 3, true, s(0)), [1, 2, 3], "a microsecond behind");
        assert_eq!(live(&shared, 4, true, Time(s(0).0 - 60_000_000_000)), [4], "a minute behind");
    }

    /// Numbers are places in what every worker keeps: a hostile one would make them all reserve room.
    #[test]
    fn a_number_beyond_all_workers_is_no_entry() {
        let shared = Shared::default();
        let entry = |id, number| Entry { slot_id: SlotId { id, number }, seen: s(0), expired: Time::ZERO };
        let (last, beyond) = (MAX_WORKERS as u32 - 1, MAX_WORKERS as u32);
        shared.put("workers", &write(&[entry(5, last), entry(6, beyond), entry(7, u32::MAX)]));
        assert_eq!(ids(&all(&shared, "workers")), [5]);
    }

    /// Another worker may have begun to retire its counts, so it does not become live again under this id.
    #[test]
    fn a_worker_that_was_taken_for_gone_learns_it() {
        let shared = Shared::default();
        let entry = Entry { slot_id: SlotId { id: 5, number: 0 }, seen: s(0), expired: s(1) };
        shared.put("workers", &write(&[entry]));
        let listed = update(&shared, "workers", 5, true, s(2));
        assert_eq!((listed.found, listed.gone, listed.mine), (true, true, None));
        assert_eq!(live(&shared, 6, true, s(2)), [6], "under another id");
    }

    /// Shared data that another worker enters right after this one has read it.
    struct Entered(Shared, core::cell::Cell<bool>);

    impl Host for Entered {
        fn now(&self) -> Time {
            s(0)
        }

        fn shared_get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
            let read = self.0.shared_get(key);
            if !self.1.replace(true) {
                live(&self.0, 3, true, s(0));
            }
            read
        }

        fn shared_set(&self, key: &str, value: &[u8], version: Option<u32>) -> Result<(), SharedError> {
            self.0.shared_set(key, value, version)
        }

        fn call(&self, _call: &Call<'_>) -> Result<u32, CallError> {
            Err(CallError::UnknownCluster)
        }

        fn log(&self, _level: log::Level, _message: &str) {}
    }

    #[test]
    fn a_strike_loses_no_worker_that_enters_meanwhile() {
        let host = Entered(Shared::default(), core::cell::Cell::new(true));
        live(&host.0, 1, true, s(0));
        live(&host.0, 2, true, s(0));
        host.1.set(false);
        strike(&host, "workers", 2);
        let mut left = ids(&all(&host, "workers"));
        left.sort_unstable();
        assert_eq!(left, [1, 2, 3], "the race is lost");
        strike(&host, "workers", 2);
        assert_eq!(live(&host.0, 1, false, s(0)), [1, 3]);
    }
}
