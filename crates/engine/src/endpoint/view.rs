//! An endpoint as all workers together know it.

use core::ops::Deref;

use crate::ablation::{Ablation, Part};
use crate::endpoint::EndpointState;
use crate::endpoint::{PeerReport, PeerState};
use crate::estimate::{Blend, ErrorRatio, InFlightReport, Queueing, freshness};
use crate::health::{Evidence, GoodRun};
use crate::time::Time;

/// How many of its own standard errors an estimate must differ from the fleet before it is believed to differ.
const CONFIDENCE_ERRORS: f64 = 1.5;
/// Few samples are doubted the more, by this part of one: a cold fleet does not run after its first answer.
const DOUBT_OF_FEW: f64 = 1.0;
/// Spread of the logarithm of latencies assumed where only the order of certainty matters.
const SPREAD: f64 = 0.5;
/// Latencies that differ by less than about this are equal, seconds: a thread switch or a fresh connection takes
/// as long.
pub const NOISE_S: f64 = 0.001;
/// How many standard deviations a failure ratio must exceed the fleet's.
const ERROR_CONFIDENCE: f64 = 2.5;
/// A single failure among good answers is the business of [`Health`](crate::health::Health), not of the price.
const ONE_FAILURE: f64 = 0.06;

/// What this worker knows of an endpoint, and what the others have told of it.
#[derive(Clone, Copy, Debug)]
pub struct EndpointView<'a> {
    member: &'a EndpointState,
    heard: Option<&'a PeerState>,
    told: Time,
}

impl Deref for EndpointView<'_> {
    type Target = EndpointState;

    fn deref(&self) -> &EndpointState {
        self.member
    }
}

impl<'a> EndpointView<'a> {
    /// `member` and what was `heard` of it when all was gathered, at `told`.
    pub fn new(member: &'a EndpointState, heard: Option<&'a PeerState>, told: Time) -> EndpointView<'a> {
        EndpointView { member, heard, told }
    }

    /// `member` where there are no other workers.
    pub fn alone(member: &'a EndpointState) -> EndpointView<'a> {
        EndpointView::new(member, None, Time::ZERO)
    }

    /// What the other workers know.
    pub fn others(&self) -> PeerReport {
        self.heard.map_or_else(PeerReport::default, |heard| PeerReport {
            in_flight: heard.in_flight(self.told),
            latency: heard.latency(self.told),
            error_ratio: heard.error_ratio(),
        })
    }

    /// What went well with the other workers.
    pub fn good(&self) -> GoodRun {
        self.heard.map_or_else(GoodRun::default, |heard| heard.good(self.told))
    }

    /// What the other workers have seen of its health.
    pub fn others_evidence(&self) -> Evidence {
        self.health.others(self.good())
    }

    /// Requests on their way from all workers.
    pub fn total_in_flight(&self) -> u32 {
        self.in_flight.total().saturating_add(self.heard.map_or(0, PeerState::total))
    }

    /// Requests of all workers that await response headers.
    pub fn awaiting(&self) -> u32 {
        self.in_flight.awaiting().saturating_add(self.heard.map_or(0, PeerState::awaiting))
    }

    /// Requests of all workers that the endpoint is taken to work on: those that await response headers, but for what
    /// it keeps while it answers others.
    pub fn pending(&self) -> u32 {
        self.member.pending().saturating_add(self.heard.map_or(0, PeerState::awaiting))
    }

    /// The same, and the seconds that all of them together have waited.
    pub fn backlog(&self, now: Time) -> (f64, f64) {
        let own = f64::from(self.member.pending());
        let (others, age) = self.heard.map_or((0.0, 0.0), |heard| {
            (f64::from(heard.awaiting()), f64::from(heard.in_flight(self.told).mean_age.max(0.0)))
        });
        (own + others, own * self.in_flight.mean_age(now).max(0.0) + others * age)
    }

    /// When it last showed life, or went from idle to busy.
    #[inline]
    pub fn quiet_since(&self) -> Time {
        let others = self.heard.map_or(Time::ZERO, |heard| heard.quiet_since(self.told));
        self.in_flight.quiet_since().max(others)
    }

    /// The common latency estimate of all workers: logarithm of seconds, and the samples it rests on.
    #[inline]
    pub fn centre(&self) -> Option<(f64, f64)> {
        match self.heard {
            Some(heard) if heard.has_latency() => self.blended(heard.latency(self.told)),
            _ => self.latency.centre(),
        }
    }

    /// The samples of all workers that it rests on, as far as they are fresh.
    pub fn fresh_samples(&self, now: Time) -> f64 {
        let mut all = self.heard.map_or_else(Blend::default, |heard| heard.latency(self.told));
        all.add(self.latency.parts());
        let (_, samples, newest) = all.parts();
        f64::from(samples) * freshness(newest, now)
    }

    fn blended(&self, mut others: Blend) -> Option<(f64, f64)> {
        others.add(self.latency.parts());
        others.centre()
    }

    /// A lower bound of the latency in seconds from what has not been answered.
    pub fn min_latency(&self, now: Time) -> f64 {
        if self.awaiting() == 0 { 0.0 } else { self.waited(now) }
    }

    /// The same where there is something that has not.
    fn waited(&self, now: Time) -> f64 {
        match self.heard {
            Some(heard) => self.in_flight.min_latency(&heard.in_flight(self.told), self.told, now),
            None => self.in_flight.min_latency(&InFlightReport::default(), Time::ZERO, now),
        }
    }

    /// A lower bound of the latency in seconds from what has not been answered, as far as chance does not explain the
    /// silence: by how long this upstream's answers take, and what this endpoint owes. Zero where it is no more than is
    /// expected of it anyway.
    pub fn silent(&self, queueing: &Queueing, now: Time) -> f32 {
        if self.pending() == 0 { 0.0 } else { self.unexplained(queueing, now) }
    }

    #[inline(never)]
    fn unexplained(&self, queueing: &Queueing, now: Time) -> f32 {
        let floor = self.waited(now) as f32;
        if floor <= self.expected { 0.0 } else { floor * self.belief(queueing, now) }
    }

    /// How many answers it owes to requests that were sent since its last, at least one.
    pub fn unanswered(&self) -> u32 {
        let others = self.heard.map_or(0, |heard| {
            let silence = self.told.seconds_since(self.quiet_since());
            let new = f64::from(heard.in_flight(self.told).mean_age) <= silence;
            if new { heard.awaiting() } else { 0 }
        });
        u32::from(self.health.unanswered().requests()).saturating_add(others).max(1)
    }

    fn belief(&self, queueing: &Queueing, now: Time) -> f32 {
        let survival = &queueing.noise.survival;
        let mut log = 0.0;
        let (waiting, pending) = (self.in_flight.awaiting(), self.member.pending());
        if pending > 0 {
            let (all, age) = (f64::from(waiting), self.in_flight.mean_age(now));
            let silence = now.seconds_since(self.quiet_since());
            // Sent since its last answer, at even distances; the others are older than the silence.
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
        if let Some(heard) = self.heard.filter(|heard| heard.awaiting() > 0) {
            let silence = self.told.seconds_since(self.quiet_since());
            let age = f64::from(heard.in_flight(self.told).mean_age.max(0.0));
            log += heard.awaiting() as f32 * survival.silent(age, silence);
        }
        // What waits in line behind one heavy request is silent for the same reason as that.
        let together = queueing.delay(self.pending().saturating_sub(1)).max(1.0);
        survival.belief(log / together)
    }

    /// The failure ratio over all workers.
    pub fn error_ratio(&self) -> f64 {
        self.errors.ratio().max(self.heard.map_or(0.0, |heard| f64::from(heard.error_ratio())))
    }

    /// How far (natural log) the estimate lies above `typical` seconds, and the standard error of that.
    pub fn deviation(&self, typical: f64) -> Option<(f64, f64)> {
        let (centre, samples) = self.centre()?;
        Some((over(centre, typical).ln(), SPREAD / samples.max(1.0).sqrt()))
    }

    /// What is expected of it against `typical`, the fleet's median in seconds.
    ///
    /// The estimate counts only as far as it differs by more than its own uncertainty (soft threshold at
    /// 1.5 standard errors of the mean logarithm by the `spread` of the upstream's own answers, more where samples are
    /// few): equal endpoints look equal, and in-flight decides.
    /// A failure ratio beyond the fleet's adds its expected cost: a request that fails costs a retry by
    /// some endpoint, priced at ten typical requests or a second, whichever is more.
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

    /// The part of the [expected cost](EndpointView::expected_cost) that is for failures, seconds.
    pub fn error_penalty(&self, typical: f64, background_errors: f64, ablation: &Ablation) -> f64 {
        let beyond_one = self.error_ratio() - ONE_FAILURE;
        if beyond_one <= 0.0 || !ablation.has(Part::Errors) {
            return 0.0;
        }
        let usual = background_errors + ERROR_CONFIDENCE * ErrorRatio::spread(background_errors);
        (beyond_one - usual).max(0.0) * (10.0 * typical).max(1.0)
    }
}

/// The latency whose logarithm is `centre` over the `typical` one. What the proxy itself takes now and then is no
/// difference between endpoints.
fn over(centre: f64, typical: f64) -> f64 {
    (centre.exp() + NOISE_S) / (typical + NOISE_S)
}

/// `ratio` moved towards 1 by `doubt` on the logarithmic scale, and not beyond: e^(±(|ln ratio| − doubt)), without
/// logarithm or exponential where nothing is left, as for most endpoints on most ticks.
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
