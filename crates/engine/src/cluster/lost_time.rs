//! Time that no endpoint took: the clock was set forward, or the process was stopped, while requests were on their way.
//!
//! A worker with requests in flight has an event or a tick at least twice a second, so a much longer silence of its own
//! says nothing of them. What a request took is counted without that time, and what grows old by the second stays as
//! young as it was: otherwise each endpoint with a request on its way would have taken an hour, and be given a wide berth
//! until that is disproved.

use super::Cluster;
use crate::time::Time;

/// The latest lost time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct LostTime {
    from: Time,
    to: Time,
}

impl LostTime {
    /// Seconds between `started` and `now` that were not lost.
    fn elapsed_s(self, started: Time, now: Time) -> f64 {
        let all_s = now.seconds_since(started);
        if started >= self.to {
            return all_s;
        }
        (all_s - self.to.min(now).seconds_since(self.from.max(started))).max(0.0)
    }
}

impl Cluster {
    /// The time between `from` and `to` was lost.
    #[inline(never)]
    pub fn lose(&mut self, from: Time, to: Time) {
        let lost_s = to.seconds_since(from);
        self.traffic.lose(LostTime { from, to }, lost_s, to);
        self.endpoints.states.iter_mut().filter(|m| m.present).for_each(|m| m.lose(lost_s, to));
        self.endpoints.open_requests.restart(to);
        self.rules.lose(lost_s, to);
    }

    /// Seconds that a request sent at `started` has taken until `now`.
    pub(super) fn elapsed_s(&self, started: Time, now: Time) -> f64 {
        self.traffic.lost.elapsed_s(started, now)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn s(seconds: f64) -> Time {
        Time::from_secs_f64(1000.0 + seconds)
    }

    #[test]
    fn what_is_lost_is_not_counted_and_nothing_else() {
        let lost = LostTime { from: s(10.0), to: s(3610.0) };
        for (started, now, elapsed_s) in [
            (0.0, 5.0, 5.0),
            (9.0, 3611.0, 2.0),
            (10.0, 3610.0, 0.0),
            (100.0, 3611.0, 1.0),
            (3610.0, 3615.0, 5.0),
            (4000.0, 4003.0, 3.0),
            (9.0, 100.0, 1.0),
            (5.0, 3.0, 0.0),
        ] {
            let elapsed = lost.elapsed_s(s(started), s(now));
            assert!((elapsed - elapsed_s).abs() < 1e-6, "{started}..{now}: {elapsed}");
        }
        assert!((LostTime::default().elapsed_s(s(1.0), s(3.0)) - 2.0).abs() < 1e-6);
    }
}
