//! Requests in flight to one endpoint, and how long it has been silent.
//!
//! A stalled endpoint shows before any timeout: its requests grow old and no answer comes. Mean age alone would also
//! count against an endpoint that works on one heavy request; silence alone against one that has a single request.
//! [`InFlight::min_latency`] takes the smaller of the two: old requests *and* no answer.

use crate::time::{LostTime, Time};

/// One worker's requests in flight to one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct InFlight {
    total: u32,
    awaiting: u32,
    /// Sum of the start times of requests that await response headers, microseconds; wraps.
    started_us: u64,
    /// Last answer, or when the endpoint went from idle to busy.
    quiet_since: Time,
}

/// What a worker reports to its peers, frozen at the time of the report: an old report of waiting requests would
/// otherwise age into a false alarm.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct InFlightReport {
    /// Requests that are not complete, including long streams.
    pub total: u32,
    /// Requests that await response headers, except [held](super::Held) ones.
    pub awaiting: u32,
    /// Mean age of the awaiting requests, seconds.
    pub mean_age: f32,
    /// Last answer to this worker, or when the endpoint went from idle to busy.
    pub quiet_since: Time,
}

impl InFlight {
    /// No requests in flight, to an endpoint that last answered at `quiet_since`.
    pub fn none_since(quiet_since: Time) -> InFlight {
        InFlight { quiet_since, ..InFlight::default() }
    }

    /// Records a request sent at `now`.
    pub fn start(&mut self, now: Time) {
        self.total = self.total.saturating_add(1);
        self.start_awaiting(now);
    }

    /// An answer is due from `now` on: for a request with a body, only once it is complete.
    pub fn start_awaiting(&mut self, now: Time) {
        if self.awaiting == 0 {
            self.quiet_since = self.quiet_since.max(now);
        }
        self.awaiting = self.awaiting.saturating_add(1);
        self.started_us = self.started_us.wrapping_add(now.0 / 1000);
    }

    /// Response headers arrived for the request started at `started`, from the endpoint itself.
    pub fn answer(&mut self, started: Time, now: Time) {
        self.stop_awaiting(started);
        self.quiet_since = self.quiet_since.max(now);
    }

    /// The request started at `started` will not be answered: reset, timeout, cancelled.
    pub fn stop_awaiting(&mut self, started: Time) {
        self.awaiting = self.awaiting.saturating_sub(1);
        self.started_us = if self.awaiting == 0 { 0 } else { self.started_us.wrapping_sub(started.0 / 1000) };
    }

    /// The request is complete.
    pub fn finish(&mut self) {
        self.total = self.total.saturating_sub(1);
    }

    /// In a lost time the endpoint was not silent. The sum of start times stays, because each request subtracts its own.
    pub fn lose_time(&mut self, lost: LostTime) {
        self.quiet_since = lost.shift(self.quiet_since);
    }

    /// Caps timestamps at `now` after the clock stepped back, except the sum of start times, from which each request
    /// subtracts its own.
    pub fn not_after(&mut self, now: Time) {
        self.quiet_since = self.quiet_since.min(now);
    }

    /// Number of requests that are not complete.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Number of requests that await response headers.
    pub fn awaiting(&self) -> u32 {
        self.awaiting
    }

    /// Last answer, or when the endpoint went from idle to busy.
    pub fn quiet_since(&self) -> Time {
        self.quiet_since
    }

    /// Mean age of the requests that await response headers, seconds; 0 without any.
    pub fn mean_age(&self, now: Time) -> f64 {
        if self.awaiting == 0 {
            return 0.0;
        }
        // The sum of start times may wrap; the sum of ages, a small difference modulo 2⁶⁴, does not.
        let ages_us = u64::from(self.awaiting).wrapping_mul(now.0 / 1000).wrapping_sub(self.started_us);
        let ages_us = i64::try_from(ages_us).unwrap_or(0); // negative if the clock stepped back
        ages_us as f64 * 1e-6 / f64::from(self.awaiting)
    }

    /// The report to the peers at `now`. It excludes the `held` requests, whose ages are not known separately; the
    /// others are about as old as the silence.
    pub fn report(&self, held: u32, now: Time) -> InFlightReport {
        let awaiting = self.awaiting.saturating_sub(held);
        let age = match (awaiting, held) {
            (0, _) => 0.0,
            (_, 0) => self.mean_age(now),
            _ => self.mean_age(now).min(now.seconds_since(self.quiet_since)),
        };
        InFlightReport { total: self.total, awaiting, mean_age: age as f32, quiet_since: self.quiet_since }
    }

    /// Lower bound of the latency of a new request, seconds, from requests that have *not* been answered: the smaller
    /// of mean age and silence, over this worker (at `now`) and its peers (as of `reported_at`).
    pub fn min_latency(&self, others: &InFlightReport, reported_at: Time, now: Time) -> f64 {
        let awaiting = u64::from(self.awaiting) + u64::from(others.awaiting);
        if awaiting == 0 {
            return 0.0;
        }
        let ages = f64::from(self.awaiting) * self.mean_age(now)
            + f64::from(others.awaiting) * f64::from(others.mean_age.max(0.0));
        let as_of = if self.awaiting > 0 { now } else { reported_at };
        let silence = as_of.seconds_since(self.quiet_since.max(others.quiet_since));
        silence.min(ages / awaiting as f64)
    }
}

impl InFlightReport {
    /// Merges another worker's report.
    pub fn merge(&mut self, other: &InFlightReport) {
        let awaiting = self.awaiting.saturating_add(other.awaiting);
        if awaiting > 0 && other.mean_age.is_finite() {
            self.mean_age = (self.mean_age * self.awaiting as f32 + other.mean_age * other.awaiting as f32)
                / awaiting as f32;
        }
        self.awaiting = awaiting;
        self.total = self.total.saturating_add(other.total);
        self.quiet_since = self.quiet_since.max(other.quiet_since);
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn ms(ms: u64) -> Time {
        Time(1_000_000_000_000 + ms * 1_000_000)
    }

    #[test]
    fn mean_age_is_that_of_what_still_waits() {
        let mut load = InFlight::default();
        load.start(ms(0));
        load.start(ms(10));
        assert!((load.mean_age(ms(20)) - 0.015).abs() < 1e-6);
        load.answer(ms(0), ms(20));
        assert!((load.mean_age(ms(20)) - 0.010).abs() < 1e-6);
        assert_eq!((load.total(), load.awaiting()), (2, 1));
    }

    #[test]
    fn a_hung_endpoint_shows_before_any_time_out() {
        let mut load = InFlight::default();
        load.start(ms(0));
        load.start(ms(5));
        assert!(load.min_latency(&InFlightReport::default(), Time::ZERO, ms(100)) > 0.09);
    }

    #[test]
    fn a_slow_upload_is_not_the_endpoints_silence() {
        let mut load = InFlight::default();
        load.start(ms(0));
        load.stop_awaiting(ms(0));
        assert_eq!(
            (load.total(), load.min_latency(&InFlightReport::default(), Time::ZERO, ms(5_000))),
            (1, 0.0)
        );
        load.start_awaiting(ms(5_000));
        let floor = load.min_latency(&InFlightReport::default(), Time::ZERO, ms(5_100));
        assert!((floor - 0.1).abs() < 1e-6, "{floor}");
    }

    #[test]
    fn one_heavy_request_beside_answered_ones_is_no_alarm() {
        let mut load = InFlight::default();
        load.start(ms(0));
        load.start(ms(290));
        load.answer(ms(290), ms(300));
        assert!(load.min_latency(&InFlightReport::default(), Time::ZERO, ms(305)) < 0.006);
    }

    #[test]
    fn another_workers_answer_ends_the_silence_and_its_old_report_does_not_age() {
        let mut load = InFlight::default();
        load.start(ms(0));
        let others = InFlightReport { quiet_since: ms(95), ..InFlightReport::default() };
        assert!(load.min_latency(&others, ms(95), ms(100)) < 0.006);
        let waiting = InFlightReport { total: 1, awaiting: 1, mean_age: 0.01, quiet_since: ms(0) };
        assert!(InFlight::default().min_latency(&waiting, ms(20), ms(900)) <= 0.0101);
    }

    #[test]
    fn the_sum_may_wrap_and_the_clock_step_back() {
        let mut load = InFlight::default();
        let start = Time(u64::MAX / 3);
        (0..100_000).for_each(|_| load.start(start));
        assert!((load.mean_age(start.after_secs(2.0)) - 2.0).abs() < 1e-3);
        assert_eq!(load.mean_age(Time(start.0 - 5_000_000)), 0.0);
    }

    #[test]
    fn giving_back_more_than_was_taken_stays_at_zero() {
        let mut load = InFlight::default();
        load.finish();
        load.stop_awaiting(ms(3));
        assert_eq!((load.total(), load.awaiting(), load.mean_age(ms(9))), (0, 0, 0.0));
    }
}
