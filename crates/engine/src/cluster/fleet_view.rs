//! Latencies that other proxies measured, as a signal that all of them share (`fleet_latency`).
//!
//! Only the ratio to the subset's median counts, so the unit does not matter. The signal is seconds old and the same
//! for all proxies, so it only takes share away and never attracts traffic: an endpoint that is slow for all is chosen
//! less often where this proxy has no fresh samples of its own, and is explored less often, because other proxies
//! explore it too. One that the others find faster than this proxy does is explored sooner.

use super::shares::{MIN_SIGNAL_SHARE, cap};
use super::{Cluster, GOOD_MULTIPLE};
use crate::endpoint::{EndpointView, NOISE_S};
use crate::estimate::Reading;
use crate::order::lower_median;
use crate::rng;
use crate::settings::{Builtin, Signal};
use crate::time::Time;

/// Exponent by which the share falls with the ratio beyond [`GOOD_MULTIPLE`].
const STEEPNESS: f64 = 2.0;
/// Factor on the exploration pause: longer for an endpoint that others find slow too, shorter for one that they find
/// faster.
const PATIENCE: f64 = 4.0;

/// The signal with the fleet's latencies, and its median in each subset.
#[derive(Debug, Default)]
pub(super) struct FleetView {
    /// Index of the signal; `None` if it is not configured or has no weight.
    signal: Option<usize>,
    /// Number of signals, the width of a row of readings.
    width: usize,
    /// Age up to which a value counts in full, seconds.
    fresh_s: f64,
    /// Median by subset; zero where no value is known.
    medians: Vec<f64>,
}

impl FleetView {
    /// Selects the fleet latency signal among `signals`, if it has a weight.
    pub fn of(signals: &[Signal]) -> FleetView {
        let wanted = |signal: &Signal| signal.builtin == Some(Builtin::FleetLatency) && signal.weight > 0.0;
        let signal = signals.iter().position(wanted);
        FleetView { signal, width: signals.len(), fresh_s: 0.0, medians: Vec::new() }
    }

    /// Factor on the exploration pause of `known`, an endpoint of subset `at` with the baseline `typical`: above 1
    /// while the others find it slow as well, because they explore it too; below 1 once they find it faster than this
    /// proxy does. `readings` holds the rows of all endpoints, and `index` selects this one's.
    #[inline(never)]
    pub fn patience(
        &self,
        (at, typical): (usize, f64),
        readings: &[Reading],
        (index, identity): (u32, u64),
        known: EndpointView<'_>,
        now: Time,
    ) -> f64 {
        let Some(signal) = self.signal else { return 1.0 };
        let median = self.medians.get(at).copied().unwrap_or(0.0);
        let Some(reading) = readings.get(index as usize * self.width + signal) else { return 1.0 };
        let confidence = reading.confidence(now, self.fresh_s);
        if confidence <= 0.0 || median <= 0.0 {
            return 1.0;
        }
        let ratio = reading.get(now).map_or(1.0, |(value, _)| (value / median).max(1.0));
        if f64::from(known.expected) > GOOD_MULTIPLE * ratio * typical + NOISE_S {
            return PATIENCE.powf(-confidence);
        }
        if ratio <= GOOD_MULTIPLE {
            return 1.0;
        }
        // All proxies read the same value at the same time; the hash spreads their explorations.
        let chance = rng::mix(identity ^ u64::from(known.turn.asked)) as f64 / u64::MAX as f64;
        (PATIENCE * (0.5 + chance)).powf(confidence)
    }
}

/// The fleet's latency of one endpoint.
struct FleetLatency {
    index: u32,
    weight: f64,
    value: f64,
    /// Confidence in it, 0..=1: falls with its age and with this proxy's own fresh samples.
    confidence: f64,
}

impl Cluster {
    /// Lowers the shares of endpoints that are slow for all proxies. No other endpoint's part grows by that to more
    /// than twice its fair part.
    #[inline(never)]
    pub(super) fn spare_slow(&mut self, now: Time) {
        let Some(signal) = self.signals.fleet.signal else { return };
        self.signals.fleet.fresh_s = self.fresh_s();
        self.signals.fleet.medians.clear();
        for at in 0..self.subsets.list.len() {
            let latencies = self.fleet_latencies(signal, at, now);
            let median = median_of(&latencies);
            self.signals.fleet.medians.push(median);
            let weight = self.config.signals.get(signal).map_or(0.0, |signal| signal.weight);
            let left: Vec<(f64, f64)> =
                latencies.iter().map(|one| (one.weight, left_of(one, median, weight))).collect();
            let most = cap(&left);
            for (one, (_, left)) in latencies.iter().zip(left) {
                if let Some(endpoint) = self.endpoints.states.get_mut(one.index as usize) {
                    endpoint.share *= left.min(most) as f32;
                }
            }
        }
    }

    /// The fleet's latencies of the eligible endpoints of subset `at`.
    fn fleet_latencies(&self, signal: usize, at: usize, now: Time) -> Vec<FleetLatency> {
        let fresh_s = self.fresh_s();
        let all = self.subsets.list.get(at).map_or(&[][..], |subset| subset.pool.all());
        let of = |index: &u32| {
            let endpoint = self.endpoints.states.get(*index as usize).filter(|m| m.present && m.eligible)?;
            let reading = self.endpoints.readings(*index).get(signal).copied().unwrap_or_default();
            let own = self.endpoints.peers.of(*index, endpoint).fresh_samples(now);
            Some(FleetLatency {
                index: *index,
                weight: f64::from(endpoint.weight),
                value: reading.get(now).map_or(0.0, |(value, _)| value.max(0.0)),
                confidence: reading.confidence(now, fresh_s) / (1.0 + own),
            })
        };
        all.iter().filter_map(of).collect()
    }
}

/// Lower median of the values with any confidence; zero without any.
fn median_of(latencies: &[FleetLatency]) -> f64 {
    let mut values: Vec<f64> =
        latencies.iter().filter(|one| one.confidence > 0.0).map(|one| one.value).collect();
    lower_median(&mut values).unwrap_or(0.0)
}

/// Factor on the share of an endpoint; 1 if it is not slow.
fn left_of(one: &FleetLatency, median: f64, weight: f64) -> f64 {
    if one.confidence <= 0.0 || median <= 0.0 || one.value <= GOOD_MULTIPLE * median {
        return 1.0;
    }
    let beyond = one.value / (GOOD_MULTIPLE * median);
    beyond.powf(-STEEPNESS * weight * one.confidence).clamp(MIN_SIGNAL_SHARE, 1.0)
}
