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
    let left = current.map_or(0.0, |(_, until)| until.seconds_since(now).min(LASTS_S));
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
