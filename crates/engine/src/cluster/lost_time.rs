//! Time that no endpoint took: the clock was set forward, or the process was stopped, while requests were on their way.
//!
//! A worker with requests in flight has an event or a tick at least twice a second, so a much longer silence of its own
//! says nothing of them. What a request took is counted without that time, and what grows old by the second stays as
//! young as it was. Otherwise each endpoint with a request on its way would have taken an hour, and be avoided until that is
//! disproved.

use super::Cluster;
use crate::time::{LostTime, Time};

impl Cluster {
    /// Leaves a lost time out of everything that is counted from here on.
    #[inline(never)]
    pub fn lose_time(&mut self, lost: LostTime) {
        self.traffic.lose_time(lost);
        self.endpoints.states.iter_mut().filter(|m| m.present).for_each(|m| m.lose_time(lost));
        self.endpoints.open_requests.restart(lost.to);
        self.rules.lose_time(lost);
    }

    /// Seconds that a request sent at `started` has taken until `now`.
    pub(super) fn elapsed_s(&self, started: Time, now: Time) -> f64 {
        self.traffic.lost.elapsed_s(started, now)
    }
}
