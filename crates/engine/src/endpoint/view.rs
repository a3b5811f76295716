//! An endpoint as all workers together know it.

use core::ops::Deref;

use crate::ablation::Ablation;
use crate::endpoint::EndpointState;
use crate::endpoint::{PeerReport, PeerState};
use crate::estimate::{Blend, ErrorRatio, InFlightReport};
use crate::health::{Evidence, GoodRun};
use crate::time::Time;

/// How many of its own standard errors an estimate must differ from the fleet before it is believed to differ.
const CONFIDENCE_ERRORS: f64 = 1.5;
/// Spread of the logarithm of latencies assumed when judging an estimate's standard error.
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

    /// The failure ratio over all workers.
    pub fn error_ratio(&self) -> f64 {
        self.errors.ratio().max(self.heard.map_or(0.0, |heard| f64::from(heard.error_ratio())))
    }

    /// How far (natural log) the estimate lies above `typical` seconds, and the standard error of that.
    pub fn deviation(&self, typical: f64) -> Option<(f64, f64)> {
        self.ratio(typical).map(|(ratio, error)| (ratio.ln(), error))
    }

    /// The estimate over `typical` seconds, and the standard error of its logarithm. What the proxy itself takes
    /// now and then is no difference between endpoints.
    fn ratio(&self, typical: f64) -> Option<(f64, f64)> {
        let (centre, samples) = self.centre()?;
        Some(((centre.exp() + NOISE_S) / (typical + NOISE_S), SPREAD / samples.max(1.0).sqrt()))
    }

    /// What is expected of it against `typical`, the fleet's median in seconds.
    ///
    /// The estimate counts only as far as it differs by more than its own uncertainty (soft threshold at
    /// 1.5 standard errors of the mean logarithm): equal endpoints look equal, and in-flight decides.
    /// A failure ratio beyond the fleet's adds its expected cost: a request that fails costs a retry by
    /// some endpoint, priced at ten typical requests or a second, whichever is more.
    pub fn expected_cost(&self, typical: f64, background_errors: f64, ablation: &Ablation) -> f32 {
        let doubt = if ablation.doubt { CONFIDENCE_ERRORS } else { 0.0 };
        let differs = self.ratio(typical).map_or(1.0, |(ratio, error)| beyond_doubt(ratio, doubt * error));
        (typical * differs + self.error_penalty(typical, background_errors, ablation)) as f32
    }

    /// The part of the [expected cost](EndpointView::expected_cost) that is for failures, seconds.
    pub fn error_penalty(&self, typical: f64, background_errors: f64, ablation: &Ablation) -> f64 {
        let usual = background_errors + ERROR_CONFIDENCE * ErrorRatio::spread(background_errors);
        let excess = if ablation.errors { (self.error_ratio() - usual - ONE_FAILURE).max(0.0) } else { 0.0 };
        excess * (10.0 * typical).max(1.0)
    }
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
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_difference_counts_as_far_as_it_is_beyond_doubt() {
        for ratio in [0.01f64, 0.5, 0.83, 0.99, 1.0, 1.01, 1.2, 2.0, 100.0] {
            for doubt in [0.0, 0.1875, 0.75] {
                let (deviation, found) = (ratio.ln(), beyond_doubt(ratio, doubt).ln());
                let wanted = deviation.signum() * (deviation.abs() - doubt).max(0.0);
                assert!((found - wanted).abs() < 1e-9, "{ratio} {doubt}: {found}, not {wanted}");
            }
        }
    }
}
