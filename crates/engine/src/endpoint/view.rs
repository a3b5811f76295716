//! The view of an endpoint by all workers together.

use core::ops::Deref;

use crate::ablation::{Ablation, Part};
use crate::endpoint::{EndpointState, PeerReport, PeerState};
use crate::estimate::{Blend, ErrorRatio, InFlightReport, Queueing, freshness};
use crate::health::{Evidence, GoodRun};
use crate::time::Time;

/// Number of standard errors by which an estimate must differ from the baseline to count as different.
const CONFIDENCE_ERRORS: f64 = 1.5;
/// Additional margin for few samples, as a fraction of the margin at one sample: a cold cluster must not chase its
/// first answer.
const DOUBT_OF_FEW: f64 = 1.0;
/// Assumed standard deviation of log latencies where only the order of certainty matters.
const SPREAD: f64 = 0.5;
/// Latency difference below which endpoints are equal, seconds: a thread switch or a new connection takes as long.
pub const NOISE_S: f64 = 0.001;
/// Number of standard deviations by which a failure ratio must exceed the subset's to add a penalty.
const ERROR_CONFIDENCE: f64 = 2.5;
/// Age at which half of a peer's requests in flight count, as a part of the time that a request takes. Most of them are
/// still there then, but all workers have meanwhile sent others to the endpoints that looked free: stale loads are to be
/// interpreted by their age (M. Dahlin, "Interpreting stale load information", 2000). Of 0.25, 0.5 and 1, 0.25 kept
/// queues shortest in simulation.
const STALE_AFTER: f32 = 0.25;
/// Failure ratio that adds no penalty: about a single failure among good answers, which
/// [`Health`](crate::health::Health) handles.
const ONE_FAILURE: f64 = 0.06;

/// This worker's state of an endpoint together with its peer reports.
#[derive(Clone, Copy, Debug)]
pub struct EndpointView<'a> {
    state: &'a EndpointState,
    peers: Option<&'a PeerState>,
    merged_at: Time,
    lag_s: f32,
}

impl Deref for EndpointView<'_> {
    type Target = EndpointState;

    fn deref(&self) -> &EndpointState {
        self.state
    }
}

impl<'a> EndpointView<'a> {
    /// Combines `state` with the reports `peers`, which were merged at `merged_at` and were `lag_s` seconds old then.
    pub fn new(
        state: &'a EndpointState,
        peers: Option<&'a PeerState>,
        (merged_at, lag_s): (Time, f32),
    ) -> EndpointView<'a> {
        EndpointView { state, peers, merged_at, lag_s }
    }

    /// The view of `state` without other workers.
    pub fn alone(state: &'a EndpointState) -> EndpointView<'a> {
        EndpointView::new(state, None, (Time::ZERO, 0.0))
    }

    /// The peers' measurements.
    pub fn others(&self) -> PeerReport {
        self.peers.map_or_else(PeerReport::default, |peers| PeerReport {
            in_flight: peers.in_flight(self.merged_at),
            latency: peers.latency(self.merged_at),
            error_ratio: peers.error_ratio(),
        })
    }

    /// The peers' good answers.
    pub fn good(&self) -> GoodRun {
        self.peers.map_or_else(GoodRun::default, |peers| peers.good(self.merged_at))
    }

    /// The peers' health evidence.
    pub fn others_evidence(&self) -> Evidence {
        self.health.others(self.good())
    }

    /// Requests in flight of all workers.
    pub fn total_in_flight(&self) -> u32 {
        self.in_flight.total().saturating_add(self.peers.map_or(0, PeerState::total))
    }

    /// Requests of all workers that await response headers.
    pub fn awaiting(&self) -> u32 {
        self.in_flight.awaiting().saturating_add(self.others_awaiting())
    }

    /// Requests of all workers that the endpoint is assumed to work on: those that await response headers, except those
    /// that it holds while it answers others.
    pub fn pending(&self) -> u32 {
        self.own_pending().saturating_add(self.others_awaiting())
    }

    /// This worker's part of [`pending`](EndpointView::pending).
    pub fn own_pending(&self) -> u32 {
        self.state.pending()
    }

    /// Requests of the other workers that await response headers, as reported.
    pub fn others_awaiting(&self) -> u32 {
        self.peers.map_or(0, PeerState::awaiting)
    }

    /// The same, discounted by the age of the reports at `now`, where a request takes `lasts_s` seconds. If requests end
    /// sooner than other workers learn of them, workers that trust each other's reports turn to the same endpoints at
    /// once.
    pub fn others_awaiting_now(&self, lasts_s: f32, now: Time) -> f32 {
        let reported = self.others_awaiting();
        if reported == 0 {
            return 0.0;
        }
        let age_s = now.seconds_since(self.merged_at) as f32 + self.lag_s;
        let stale = age_s / (STALE_AFTER * lasts_s).max(f32::MIN_POSITIVE);
        reported as f32 / (1.0 + stale * stale)
    }

    /// When it last answered, or went from idle to busy.
    #[inline]
    pub fn quiet_since(&self) -> Time {
        let others = self.peers.map_or(Time::ZERO, |peers| peers.quiet_since(self.merged_at));
        self.in_flight.quiet_since().max(others)
    }

    /// Latency estimate of all workers: mean logarithm of seconds, and the number of samples behind it.
    #[inline]
    pub fn centre(&self) -> Option<(f64, f64)> {
        match self.peers {
            Some(peers) if peers.has_latency() => self.blended(peers.latency(self.merged_at)),
            _ => self.latency.centre(),
        }
    }

    /// Number of samples of all workers behind the estimate, weighted by freshness.
    pub fn fresh_samples(&self, now: Time) -> f64 {
        let mut all = self.peers.map_or_else(Blend::default, |peers| peers.latency(self.merged_at));
        all.add(self.latency.parts());
        let (_, samples, newest) = all.parts();
        f64::from(samples) * freshness(newest, now)
    }

    fn blended(&self, mut others: Blend) -> Option<(f64, f64)> {
        others.add(self.latency.parts());
        others.centre()
    }

    /// Lower bound of the latency from unanswered requests, seconds; 0 without any.
    pub fn min_latency(&self, now: Time) -> f64 {
        if self.awaiting() == 0 { 0.0 } else { self.waited(now) }
    }

    /// The lower bound where there is an unanswered request.
    fn waited(&self, now: Time) -> f64 {
        match self.peers {
            Some(peers) => self.in_flight.min_latency(&peers.in_flight(self.merged_at), self.merged_at, now),
            None => self.in_flight.min_latency(&InFlightReport::default(), Time::ZERO, now),
        }
    }

    /// Lower bound of the latency from unanswered requests, seconds, weighted by how improbable the silence is given
    /// the cluster's usual latencies and the number of requests. Zero where it does not exceed the expected latency.
    pub fn silent(&self, queueing: &Queueing, now: Time) -> f32 {
        if self.pending() == 0 { 0.0 } else { self.unexplained(queueing, now) }
    }

    #[inline(never)]
    fn unexplained(&self, queueing: &Queueing, now: Time) -> f32 {
        let floor = self.waited(now) as f32;
        if floor <= self.expected { 0.0 } else { floor * self.belief(queueing, now) }
    }

    /// Number of unanswered requests sent since its last answer, at least one.
    pub fn unanswered(&self) -> u32 {
        let others = self.peers.map_or(0, |peers| {
            let silence = self.merged_at.seconds_since(self.quiet_since());
            let new = f64::from(peers.in_flight(self.merged_at).mean_age) <= silence;
            if new { peers.awaiting() } else { 0 }
        });
        u32::from(self.health.unanswered().requests()).saturating_add(others).max(1)
    }

    fn belief(&self, queueing: &Queueing, now: Time) -> f32 {
        let survival = &queueing.noise.survival;
        let mut log = 0.0;
        let (waiting, pending) = (self.in_flight.awaiting(), self.state.pending());
        if pending > 0 {
            let (all, age) = (f64::from(waiting), self.in_flight.mean_age(now));
            let silence = now.seconds_since(self.quiet_since());
            // Those sent since its last answer are assumed at even distances; the others are older than the silence.
            let new = f64::from(u32::from(self.health.unanswered().requests()).min(waiting));
            let own_silence = now.seconds_since(self.in_flight.quiet_since());
            let since = if new < all { own_silence * (new + 1.0) / (2.0 * new.max(1.0)) } else { age };
            if new > 0.0 {
                log += new as f32 * survival.silent(since, silence);
            }
            if new < all {
                let old = ((all * age - new * since) / (all - new)).max(silence);
                let older = (f64::from(pending) - new).max(0.0);
                log += older as f32 * survival.silent(old, silence);
            }
        }
        if let Some(peers) = self.peers.filter(|peers| peers.awaiting() > 0) {
            let silence = self.merged_at.seconds_since(self.quiet_since());
            let age = f64::from(peers.in_flight(self.merged_at).mean_age.max(0.0));
            log += peers.awaiting() as f32 * survival.silent(age, silence);
        }
        // Requests queued behind a heavy one are silent for the same reason.
        let together = queueing.delay(self.pending().saturating_sub(1)).max(1.0);
        survival.belief(log / together)
    }

    /// Failure ratio over all workers, 0..=1.
    pub fn error_ratio(&self) -> f64 {
        self.errors.ratio().max(self.peers.map_or(0.0, |peers| f64::from(peers.error_ratio())))
    }

    /// Log ratio of the estimate to `typical` seconds, and its standard error.
    pub fn deviation(&self, typical: f64) -> Option<(f64, f64)> {
        let (centre, samples) = self.centre()?;
        Some((over(centre, typical).ln(), SPREAD / samples.max(1.0).sqrt()))
    }

    /// Expected cost against `typical`, the subset's median latency, seconds.
    ///
    /// The estimate counts only as far as it differs by more than its own uncertainty (soft threshold at 1.5 standard
    /// errors of the mean logarithm, by the `spread` of the cluster's own answers, more with few samples): equal
    /// endpoints look equal, and the requests in flight decide. A failure ratio beyond the subset's adds its expected
    /// cost: a failed request costs a retry at some endpoint, priced at ten typical requests or one second, whichever
    /// is more.
    pub fn expected_cost(
        &self,
        typical: f64,
        spread: f64,
        background_errors: f64,
        ablation: &Ablation,
    ) -> f32 {
        let differs = self.centre().map_or(1.0, |(centre, samples)| {
            let samples = samples.max(1.0);
            let doubt = if ablation.has(Part::ConfidenceMargin) {
                CONFIDENCE_ERRORS * (1.0 + DOUBT_OF_FEW / samples)
            } else {
                0.0
            };
            beyond_doubt(over(centre, typical), doubt * spread / samples.sqrt())
        });
        (typical * differs + self.error_penalty(typical, background_errors, ablation)) as f32
    }

    /// The requests counted by [`pending`](EndpointView::pending), and the total time that they have waited, seconds.
    pub fn backlog(&self, now: Time) -> (f64, f64) {
        let own = self.state.report(now);
        let others = self.peers.map_or_else(InFlightReport::default, |peers| peers.in_flight(self.merged_at));
        let of = |report: &InFlightReport| f64::from(report.awaiting);
        let waited = |report: &InFlightReport| of(report) * f64::from(report.mean_age.max(0.0));
        (of(&own) + of(&others), waited(&own) + waited(&others))
    }

    /// The `expected` cost, raised as far as unanswered requests contradict an endpoint that looks quicker than `typical`
    /// seconds: to `typical`, if they have waited as long as those of all endpoints, `usual` seconds on average, or as
    /// long as is typical; and to a part of it, if they have waited for a part of that.
    ///
    /// Where an endpoint serves quick requests beside slow ones, the quick are answered first. An estimate from answers
    /// alone falls while the slow ones wait, the endpoint gets more requests, and more of them wait.
    #[inline(never)]
    pub fn no_quicker_than_it_shows(&self, expected: f32, (typical, usual): (f64, f64), now: Time) -> f32 {
        let (pending, waited) = self.backlog(now);
        let part = if pending > 0.0 { waited / pending / usual.max(typical) } else { 0.0 };
        expected.max((typical * part.min(1.0)) as f32)
    }

    /// The part of the [expected cost](EndpointView::expected_cost) that is due to failures, seconds.
    pub fn error_penalty(&self, typical: f64, background_errors: f64, ablation: &Ablation) -> f64 {
        let beyond_one = self.error_ratio() - ONE_FAILURE;
        if beyond_one <= 0.0 || !ablation.has(Part::Errors) {
            return 0.0;
        }
        let usual = background_errors + ERROR_CONFIDENCE * ErrorRatio::spread(background_errors);
        (beyond_one - usual).max(0.0) * (10.0 * typical).max(1.0)
    }
}

/// Ratio of the latency with logarithm `centre` to the `typical` one. Delays in the proxy itself are no difference
/// between endpoints.
fn over(centre: f64, typical: f64) -> f64 {
    (centre.exp() + NOISE_S) / (typical + NOISE_S)
}

/// Moves `ratio` towards 1 by `doubt` on the logarithmic scale, but not beyond: e^(±(|ln ratio| − doubt)). Avoids
/// logarithm and exponential where nothing is left, as for most endpoints on most ticks.
fn beyond_doubt(ratio: f64, doubt: f64) -> f64 {
    // ln x ≤ x − 1.
    if ratio.max(1.0 / ratio) - 1.0 <= doubt {
        1.0
    } else if ratio > 1.0 {
        (ratio * (-doubt).exp()).max(1.0)
    } else {
        (ratio * doubt.exp()).min(1.0)
    }
}

#[cfg(test)]
mod tests;
