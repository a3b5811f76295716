//! One worker at a time asks Prometheus. The lease moves when its holder goes silent.

use super::codec::{Reader, Writer};
use crate::host::Host;
use crate::time::Time;

/// How long a lease lasts without renewal, seconds: a holder that died is replaced after this.
const LASTS_S: f64 = 3.0;
/// A lease with less than this left is renewed, seconds.
const RENEW_AT_S: f64 = 2.0;

/// Whether `me` holds the lease under `key`, after trying to keep or take it.
///
/// Shared data has no create-if-absent, so two workers may both write a first lease; each believes in it only
/// when a later call reads its own id back.
pub fn hold(host: &dyn Host, key: &str, me: u64, now: Time) -> bool {
    let (bytes, version) = host.shared_get(key).unzip();
    let current = bytes.as_deref().and_then(read);
    let left = current.map_or(0.0, |(_, until)| until.seconds_since(now));
    // For much longer than leases last: written before the clock stepped back, or damaged.
    let left = if left > 2.0 * LASTS_S { 0.0 } else { left };
    let mine = current.is_some_and(|(holder, _)| holder == me);
    if left <= 0.0 || (mine && left < RENEW_AT_S) {
        let mut w = Writer::versioned();
        w.u64(me);
        w.time(now.after_secs(LASTS_S));
        let written = host.shared_set(key, &w.0, version).is_ok();
        return mine && written;
    }
    mine
}

fn read(bytes: &[u8]) -> Option<(u64, Time)> {
    let mut r = Reader::versioned(bytes)?;
    Some((r.u64()?, r.time()?))
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
    fn is_held_only_once_it_has_been_read_back() {
        let shared = Shared::default();
        assert!(!hold(&shared, "lease", 1, s(0)));
        assert!(hold(&shared, "lease", 1, s(1)));
        assert!(!hold(&shared, "lease", 2, s(1)));
    }

    #[test]
    fn moves_when_it_has_run_out_and_not_before() {
        let shared = Shared::default();
        hold(&shared, "lease", 1, s(0));
        assert!(!hold(&shared, "lease", 2, s(2)));
        assert!(hold(&shared, "lease", 1, s(2)), "still the first one's, and renewed");
        assert!(!hold(&shared, "lease", 2, s(4)));
        assert!(!hold(&shared, "lease", 2, s(6)), "taken");
        assert!(hold(&shared, "lease", 2, s(7)), "held");
        assert!(!hold(&shared, "lease", 1, s(7)), "lost");
    }

    #[test]
    fn from_the_future_is_void_and_free_for_all() {
        let shared = Shared::default();
        hold(&shared, "lease", 1, s(3600));
        assert!(!hold(&shared, "lease", 2, s(0)));
        assert!(hold(&shared, "lease", 2, s(1)));
        shared.put("lease", &[0xff; 17]);
        assert!(!hold(&shared, "lease", 2, s(1)));
        assert!(hold(&shared, "lease", 2, s(2)));
    }
}
