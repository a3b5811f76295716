//! Who publishes a slot. Workers enter themselves; whoever has been silent for long is struck off.

use super::codec::{Reader, Writer};
use crate::host::Host;
use crate::time::Time;

/// A worker that has not renewed its entry for this long is gone, in seconds.
const STRUCK_AFTER_S: f64 = 30.0;
/// An entry is renewed at this age, in seconds.
const RENEW_AFTER_S: f64 = 5.0;
/// The most workers that are listed; Envoy has one a core.
const MOST_WORKERS: usize = 512;

/// Worker ids with the time of their last renewal, in order of entry.
fn read(bytes: &[u8]) -> Vec<(u64, Time)> {
    let mut entries = Vec::new();
    let Some(mut r) = Reader::versioned(bytes) else { return entries };
    while let (Some(id), Some(seen)) = (r.u64(), r.time()) {
        if entries.len() < MOST_WORKERS {
            entries.push((id, seen));
        }
    }
    entries
}

/// The ids of all workers, this one entered or renewed if `enter`. Losing a race is no fault: the next tick
/// tries again.
pub fn update(host: &dyn Host, key: &str, me: u64, enter: bool, now: Time) -> Vec<u64> {
    let (bytes, version) = host.shared_get(key).unzip();
    let mut entries = read(&bytes.unwrap_or_default());
    let mine = entries.iter().find(|(id, _)| *id == me);
    let stale = mine.is_none_or(|(_, seen)| *seen > now || now.seconds_since(*seen) > RENEW_AFTER_S);
    if enter && stale {
        // Later than now: written before the clock stepped back. Whoever lives enters again.
        let struck = |seen: Time| seen > now || now.seconds_since(seen) >= STRUCK_AFTER_S;
        entries.retain(|(id, seen)| *id != me && !struck(*seen));
        entries.push((me, now));
        let mut w = Writer::versioned();
        for (id, seen) in &entries {
            w.u64(*id);
            w.time(*seen);
        }
        let _lost_races_are_tried_again = host.shared_set(key, &w.0, version);
    }
    let mut ids: Vec<u64> = entries.into_iter().map(|(id, _)| id).collect();
    ids.sort_unstable();
    ids
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::exchange::fake::Shared;

    fn s(seconds: u64) -> Time {
        Time((1_000_000 + seconds) * 1_000_000_000)
    }

    #[test]
    fn lists_who_entered_until_they_have_been_silent_for_long() {
        let shared = Shared::default();
        assert_eq!(update(&shared, "workers", 2, true, s(0)), [2]);
        assert_eq!(update(&shared, "workers", 1, true, s(1)), [1, 2]);
        assert_eq!(update(&shared, "workers", 9, false, s(1)), [1, 2], "reading is not entering");
        assert_eq!(update(&shared, "workers", 1, true, s(29)), [1, 2]);
        assert_eq!(update(&shared, "workers", 1, true, s(40)), [1]);
    }

    #[test]
    fn an_entry_from_the_future_does_not_stay_for_ever() {
        let shared = Shared::default();
        update(&shared, "workers", 1, true, s(3600));
        update(&shared, "workers", 2, true, s(3600));
        assert_eq!(update(&shared, "workers", 1, true, s(0)), [1]);
        assert_eq!(update(&shared, "workers", 2, true, s(0)), [1, 2], "whoever lives is back");
    }

    #[test]
    fn a_damaged_list_is_written_anew() {
        let shared = Shared::default();
        for damage in [&b""[..], b"\x63garbage", b"\x01short", &[0xff; 100]] {
            shared.put("workers", damage);
            assert_eq!(update(&shared, "workers", 7, true, s(0)), [7], "{damage:?}");
        }
    }
}
