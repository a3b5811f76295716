//! The lease: one worker at a time polls Prometheus and Envoy. It moves when its holder no longer renews it.

use super::codec::{Reader, Writer};
use crate::host::Host;
use engine::time::Time;

/// Duration of a lease without renewal, seconds: after this a holder that died is replaced.
const LASTS_S: f64 = 3.0;
/// The remaining time below which a lease is renewed, seconds.
const RENEW_AT_S: f64 = 2.0;

/// The holder of the lease, as this worker sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holder {
    /// Unknown: it has just been written, and counts only once it has been read back.
    #[default]
    Unsettled,
    /// This worker.
    Me,
    /// Another worker.
    Another,
}

/// A worker that may hold the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: u64,
    /// The hash of its configuration's text.
    pub configuration: u64,
    /// When it was configured.
    pub since: Time,
    /// Whether it carries traffic.
    pub busy: bool,
}

impl Candidate {
    /// Whether it takes the lease from a live `holder`.
    ///
    /// A newer configuration takes it from an older one, which lives on until its last connection is closed and polls
    /// what is no longer wanted. A worker without traffic takes it from one with traffic, where reading a large answer
    /// would delay requests; Envoy has one thread that carries none.
    fn replaces(&self, holder: &Candidate) -> bool {
        if self.configuration == holder.configuration {
            return holder.busy && !self.busy;
        }
        self.since > holder.since
    }
}

/// Renews or takes the lease under `key` for `me`, and returns its holder.
///
/// Of workers that write at the same time one succeeds. It counts as the holder once a later call has read its own id
/// back, so that one from which it has taken the lease may notice before.
#[inline(never)]
pub fn hold(host: &dyn Host, key: &str, me: Candidate, now: Time) -> Holder {
    let (bytes, version) = host.shared_get(key).unzip();
    let current = bytes.as_deref().and_then(read);
    let left = current.map_or(0.0, |(_, until)| until.seconds_since(now));
    // A much longer remaining time was written before the clock stepped back, or is damaged.
    let left = if left > 2.0 * LASTS_S { 0.0 } else { left };
    let mine = current.is_some_and(|(holder, _)| holder.id == me.id);
    let takes = current.is_none_or(|(holder, _)| if mine { holder != me } else { me.replaces(&holder) });
    if left <= 0.0 || takes || (mine && left < RENEW_AT_S) {
        let mut w = Writer::versioned();
        w.u64(me.id);
        w.time(now.after_secs(LASTS_S));
        w.u64(me.configuration);
        w.time(me.since);
        w.u32(u32::from(me.busy));
        let written = host.shared_replace(key, &w.0, version).is_ok();
        return if mine && written { Holder::Me } else { Holder::Unsettled };
    }
    if mine { Holder::Me } else { Holder::Another }
}

/// Whether worker `id` is the holder, as far as the others know.
pub fn is_held_by(host: &dyn Host, key: &str, id: u64) -> bool {
    let current = host.shared_get(key).and_then(|(bytes, _)| read(&bytes));
    current.is_some_and(|(holder, _)| holder.id == id)
}

/// The holder, and when its lease ends.
fn read(bytes: &[u8]) -> Option<(Candidate, Time)> {
    let mut r = Reader::versioned(bytes)?;
    let (id, until) = (r.u64()?, r.time()?);
    Some((Candidate { id, configuration: r.u64()?, since: r.time()?, busy: r.u32()? != 0 }, until))
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

    fn worker(id: u64) -> Candidate {
        Candidate { id, configuration: 1, since: s(0), busy: false }
    }

    fn hold(shared: &Shared, id: u64, now: Time) -> bool {
        super::hold(shared, "lease", worker(id), now) == Holder::Me
    }

    #[test]
    fn is_held_only_once_it_has_been_read_back() {
        let shared = Shared::default();
        assert!(!hold(&shared, 1, s(0)));
        assert!(hold(&shared, 1, s(1)));
        assert!(!hold(&shared, 2, s(1)));
    }

    #[test]
    fn moves_when_it_has_run_out_and_not_before() {
        let shared = Shared::default();
        hold(&shared, 1, s(0));
        assert!(!hold(&shared, 2, s(2)));
        assert!(hold(&shared, 1, s(2)), "still the first one's, and renewed");
        assert!(!hold(&shared, 2, s(4)));
        assert!(!hold(&shared, 2, s(6)), "taken");
        assert!(hold(&shared, 2, s(7)), "held");
        assert!(!hold(&shared, 1, s(7)), "lost");
    }

    #[test]
    fn goes_to_the_latest_configuration_and_stays_there() {
        let shared = Shared::default();
        let take = |id, configuration, since, now| {
            let me = Candidate { configuration, since: s(since), ..worker(id) };
            super::hold(&shared, "lease", me, s(now))
        };
        assert_eq!(take(1, 1, 0, 0), Holder::Unsettled);
        assert_eq!(take(1, 1, 0, 1), Holder::Me);
        assert_eq!(
            take(9, 1, 1, 1),
            Holder::Another,
            "a worker that starts later is not a configuration that does"
        );
        assert_eq!(take(2, 2, 1, 1), Holder::Unsettled);
        assert_eq!(take(1, 1, 0, 1), Holder::Another);
        assert_eq!(take(2, 2, 1, 2), Holder::Me);
        assert_eq!(take(1, 1, 0, 2), Holder::Another);
    }

    #[test]
    fn goes_to_a_worker_that_has_time_for_it() {
        let shared = Shared::default();
        let take = |id, busy, now| super::hold(&shared, "lease", Candidate { busy, ..worker(id) }, s(now));
        take(1, false, 0);
        assert_eq!(take(1, true, 1), Holder::Me);
        assert_eq!(take(2, true, 1), Holder::Another, "no more time than the other");
        assert_eq!(take(3, false, 1), Holder::Unsettled);
        assert_eq!(take(3, false, 2), Holder::Me);
        assert_eq!(take(1, true, 2), Holder::Another);
        assert_eq!(take(4, false, 2), Holder::Another);
    }

    #[test]
    fn from_the_future_is_void_and_free_for_all() {
        let shared = Shared::default();
        hold(&shared, 1, s(3600));
        assert!(!hold(&shared, 2, s(0)));
        assert!(hold(&shared, 2, s(1)));
        shared.put("lease", &[0xff; 37]);
        assert!(!hold(&shared, 2, s(1)));
        assert!(hold(&shared, 2, s(2)));
    }

    /// Another worker writes between this one's read and write.
    struct Raced<'s>(&'s Shared, Vec<u8>);

    impl Host for Raced<'_> {
        fn now(&self) -> Time {
            self.0.now()
        }

        fn shared_get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
            let read = self.0.shared_get(key);
            self.0.put(key, &self.1);
            read
        }

        fn shared_set(&self, key: &str, value: &[u8], version: Option<u32>) -> Result<(), SharedError> {
            self.0.shared_set(key, value, version)
        }

        fn call(&self, call: &Call<'_>) -> Result<u32, CallError> {
            self.0.call(call)
        }

        fn log(&self, _level: log::Level, _message: &str) {}
    }

    #[test]
    fn a_worker_that_is_late_neither_believes_in_its_lease_nor_takes_anothers() {
        let others = Shared::default();
        hold(&others, 2, s(2));
        let (another, _) = others.shared_get("lease").unwrap();
        let shared = Shared::default();
        hold(&shared, 1, s(0));
        assert!(hold(&shared, 1, s(0)));
        let raced = Raced(&shared, another.clone());
        assert_eq!(super::hold(&raced, "lease", worker(1), s(2)), Holder::Unsettled, "due for renewal");
        assert_eq!(shared.shared_get("lease").unwrap().0, another);
        assert!(hold(&shared, 2, s(3)));
        assert!(!hold(&shared, 1, s(3)));
    }
}
