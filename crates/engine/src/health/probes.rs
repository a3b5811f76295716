//! When an endpoint out of traffic gets its next single request: at growing distances while it fails.

use super::{FailureHistory, Health, State};
use crate::settings;
use crate::time::Time;

/// Spacing of verifying requests to a suspect, seconds: long enough not to cost much, short enough that a
/// single failure costs an endpoint no more than a second of traffic.
const VERIFY_S: f64 = 1.0;
/// The first half-open probe comes after this share of the longest wait (5 s of 30 s): a restart takes seconds.
const FIRST_WAIT: f64 = 1.0 / 6.0;
/// Each failed probe lengthens the wait by this factor, so an endpoint that heals is found within half of the
/// time it was away, and one that stays away for T costs about log(T) requests.
const WAIT_GROWTH: f64 = 1.5;

impl Health {
    /// After how many seconds of silence a stalled endpoint is due for its next look: a first half-open probe's wait,
    /// again and again.
    pub fn look_after_s(&self, limits: &settings::Health) -> f64 {
        limits.ejection.as_secs_f64() * FIRST_WAIT * (1.0 + f64::from(self.unanswered.looks()))
    }

    /// How much longer than at first the next single request is waited for, after failed probes: in requests as in
    /// time, so that an endpoint that stays away costs no more where requests are rare.
    pub fn caution(&self) -> f64 {
        let failed_probes = self
            .past
            .as_ref()
            .map_or(0, |past| past.own.failed_probes.saturating_add(past.others.failed_probes));
        WAIT_GROWTH.powi(failed_probes.min(64) as i32).min(1.0 / FIRST_WAIT)
    }

    /// When the latest request was sent that failed.
    pub fn last_failure(&self) -> Time {
        let latest = self.past.as_ref().map(|past| past.own.latest_start.max(past.others.latest_start));
        latest.unwrap_or(Time::ZERO)
    }

    /// When an endpoint out of traffic is due for its next single request.
    pub fn next_probe(&self, limits: &settings::Health) -> Time {
        let FailureHistory { own, others, .. } = self.past.as_deref().copied().unwrap_or_default();
        match self.state {
            State::Healthy | State::Stalled | State::Recovering => Time::ZERO,
            State::Suspect => {
                let failed_at = own.latest_at.max(others.latest_at);
                failed_at.after_secs(VERIFY_S.min(limits.ejection.as_secs_f64()))
            }
            State::Failed => {
                let wait = limits.ejection.as_secs_f64() * FIRST_WAIT * self.caution();
                // From when the probe was sent: a time-out must not add its own length to the wait.
                let failed_start = own.latest_start.max(others.latest_start);
                failed_start.after_secs(wait)
            }
        }
    }
}
