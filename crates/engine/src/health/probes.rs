//! Schedule of the probes to an endpoint out of traffic, at growing intervals while it fails.

use super::{FailureHistory, Health, State};
use crate::settings;
use crate::time::Time;

/// Interval of verifying requests to a suspect endpoint, seconds: long enough to cost little, short enough that a
/// single failure costs an endpoint no more than a second of traffic.
const VERIFY_S: f64 = 1.0;
/// Wait before the first half-open probe as a fraction of the longest wait (5 s of 30 s): a restart takes seconds.
const FIRST_WAIT: f64 = 1.0 / 6.0;
/// Factor by which each failed probe lengthens the wait, so that an endpoint that recovers is found within half of the
/// time it was away, and one that stays away for T costs about log(T) requests.
const WAIT_GROWTH: f64 = 1.5;

/// This worker's probes of an endpoint out of traffic, as far as unanswered requests delay the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Looks {
    /// When the latest probe was sent, or since when the next one waits for an answer to other requests.
    pub since: Time,
    /// Number of probes in a row that were sent although requests were unanswered.
    further: u8,
    /// Whether the next may be sent although requests are unanswered.
    granted: bool,
    /// Whether the latest has ended in an answer or a failure, so that only older requests are unanswered.
    ended: bool,
}

impl Looks {
    fn sent(&mut self, now: Time) {
        let further = self.further.saturating_add(self.granted.into());
        *self = Looks { since: now, further, ..Looks::default() };
    }

    /// Records the end of a request started at `start`.
    pub fn answered(&mut self, start: Time) {
        if self.since != Time::ZERO && start >= self.since {
            (self.ended, self.further) = (true, 0);
        }
    }

    /// Whether the next probe need no longer wait for the unanswered requests; `first_s` is its first wait.
    fn grant(&mut self, first_s: f64, now: Time) -> bool {
        if self.since == Time::ZERO {
            self.since = now;
        }
        let wait_s = first_s * WAIT_GROWTH.powi(self.further.into());
        self.granted = self.ended || now.seconds_since(self.since) >= wait_s;
        self.granted
    }
}

/// How long a probe that is due has waited for a request whose key the endpoint owns.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Overdue {
    /// Since when it is due; [`Time::ZERO`] if it is not.
    pub since: Time,
    /// This worker's request count then.
    requests: u32,
    /// Whether it may be a request of another key.
    by_any_key: bool,
}

impl Health {
    /// Updates whether the next probe, which is `due` or not, may be a request of another endpoint's key: once it has been
    /// due for the first half-open wait, and for as many requests and seconds as `patience` says; this worker has had
    /// `requests` by now. One whose own keys have no traffic would never be probed.
    #[inline(never)]
    pub fn await_own_keys(
        &mut self,
        due: bool,
        requests: u32,
        patience: (f64, f64),
        limits: &settings::Health,
        now: Time,
    ) {
        if !due {
            self.past.iter_mut().for_each(|past| past.overdue = Overdue::default());
            return;
        }
        let seconds = patience.1.max(limits.ejection.as_secs_f64() * FIRST_WAIT);
        let overdue = &mut self.past_mut().overdue;
        if overdue.since == Time::ZERO {
            (overdue.since, overdue.requests) = (now, requests);
        }
        let waited = f64::from(requests.wrapping_sub(overdue.requests));
        overdue.by_any_key = waited >= patience.0 && now.seconds_since(overdue.since) >= seconds;
    }

    /// Whether the next probe may be a request of another endpoint's key.
    pub fn may_probe_by_any_key(&self) -> bool {
        self.past.as_ref().is_some_and(|past| past.overdue.by_any_key)
    }

    /// Records that a probe is sent at `now` to the endpoint, which is out of traffic; `idle` if nothing awaits an answer
    /// of it.
    pub fn probed(&mut self, idle: bool, now: Time) {
        let past = self.past_mut();
        past.overdue = Overdue::default();
        past.looks.sent(now);
        if idle {
            self.unanswered.restart_looks();
        }
    }

    /// When the latest probe was sent, or since when the next one waits; [`Time::ZERO`] if neither is known.
    pub fn looked(&self) -> Time {
        self.past.as_ref().map_or(Time::ZERO, |past| past.looks.since)
    }

    /// Whether a stalled endpoint, silent for `quiet_s` seconds, is due for its next probe. The silence is counted from
    /// when something began to wait: from the latest probe, if the client of the one before has given up.
    #[inline(never)]
    pub fn may_look(&self, quiet_s: f64, limits: &settings::Health, now: Time) -> bool {
        let looked_s = now.seconds_since(self.looked());
        if looked_s <= quiet_s {
            looked_s >= limits.ejection.as_secs_f64() * FIRST_WAIT
        } else {
            quiet_s >= self.look_after_s(limits)
        }
    }

    /// Whether a probe that is `due` may be sent to an endpoint that is out of traffic; if it is `busy`, with unanswered
    /// requests, only after a wait that grows with each probe. Such a request may be a long poll, or hang for hours.
    #[inline(never)]
    pub fn may_probe(&mut self, due: bool, busy: bool, limits: &settings::Health, now: Time) -> bool {
        if !busy {
            self.past.iter_mut().for_each(|past| past.looks = Looks::default());
            return due;
        }
        let first_s = limits.ejection.as_secs_f64() * FIRST_WAIT;
        due && self.past_mut().looks.grant(first_s, now)
    }

    /// Whether the next probe may be sent although requests are unanswered.
    pub fn may_probe_busy(&self) -> bool {
        self.past.as_ref().is_some_and(|past| past.looks.granted)
    }

    /// Silence after which a stalled endpoint is due for its next probe, seconds; grows by the first half-open wait
    /// with each probe.
    fn look_after_s(&self, limits: &settings::Health) -> f64 {
        limits.ejection.as_secs_f64() * FIRST_WAIT * (1.0 + f64::from(self.unanswered.looks()))
    }

    /// Factor on the wait for the next probe, from 1, that grows with failed probes; applied to requests as well as to
    /// time, so that an endpoint that stays away costs no more where requests are rare.
    pub fn caution(&self) -> f64 {
        let failed_probes = self
            .past
            .as_ref()
            .map_or(0, |past| past.own.failed_probes.saturating_add(past.others.failed_probes));
        WAIT_GROWTH.powi(failed_probes.min(64) as i32).min(1.0 / FIRST_WAIT)
    }

    /// Start of the latest request that failed.
    pub fn last_failure(&self) -> Time {
        let latest = self.past.as_ref().map(|past| past.own.latest_start.max(past.others.latest_start));
        latest.unwrap_or(Time::ZERO)
    }

    /// When an endpoint out of traffic is due for its next probe; [`Time::ZERO`] if it is due at any time.
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
                // From when the probe was sent, so that a timeout does not add its own length to the wait.
                let failed_start = own.latest_start.max(others.latest_start);
                failed_start.after_secs(wait)
            }
        }
    }
}
