//! What the other proxies have measured of the endpoints, as a signal that all of them share.
//!
//! Only the ratio to the subset's median counts, so there is no scale. It is old by seconds and the same for all, so it
//! spares and never attracts: an endpoint that all find slow is drawn less often where this proxy knows nothing fresh of
//! its own, and is explored the less often, because others do it, too; one that the others find faster than this proxy
//! does is explored the sooner.

use super::shares::{MIN_SIGNAL_SHARE, cap};
use super::{Cluster, GOOD_MULTIPLE};
use crate::endpoint::{EndpointView, NOISE_S};
use crate::estimate::Reading;
use crate::rng;
use crate::settings::{Builtin, Signal};
use crate::time::Time;

/// The share falls with this power of how far the ratio lies beyond what is no difference.
const STEEPNESS: f64 = 2.0;
/// An endpoint that others find slow, too, is explored so many times less often by each; one that they find faster so
/// many times sooner.
const PATIENCE: f64 = 4.0;

/// The signal that tells it, and what is usual of its values.
#[derive(Debug, Default)]
pub(super) struct FleetView {
    /// Its position among the signals, if it is to be used.
    signal: Option<usize>,
    /// How many signals there are.
    width: usize,
    /// How long a value counts in full, seconds.
    fresh_s: f64,
    /// By subset: the median; zero where there is none.
    medians: Vec<f64>,
}

impl FleetView {
    /// That of these signals which counts.
    pub fn of(signals: &[Signal]) -> FleetView {
        let wanted = |signal: &Signal| signal.builtin == Some(Builtin::FleetLatency) && signal.weight > 0.0;
        let signal = signals.iter().position(wanted);
        FleetView { signal, width: signals.len(), fresh_s: 0.0, medians: Vec::new() }
    }

    /// By how much longer `known`, an endpoint of the subset at `at` in which `typical` is usual, is left alone between
    /// single requests than it would be without the others: they look after it, too, or have found that it has healed.
    /// `readings` are of all endpoints, and this is the one at `index`.
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
        let trust = reading.trust(now, self.fresh_s);
        if trust <= 0.0 || median <= 0.0 {
            return 1.0;
        }
        let ratio = reading.get(now).map_or(1.0, |(value, _)| (value / median).max(1.0));
        if f64::from(known.expected) > GOOD_MULTIPLE * ratio * typical + NOISE_S {
            return PATIENCE.powf(-trust);
        }
        if ratio <= GOOD_MULTIPLE {
            return 1.0;
        }
        // All proxies read this at the same time, and are not to look at the same time.
        let chance = rng::mix(identity ^ u64::from(known.turn.asked)) as f64 / u64::MAX as f64;
        (PATIENCE * (0.5 + chance)).powf(trust)
    }
}

/// What is known of an endpoint from others.
struct Told {
    index: u32,
    weight: f64,
    value: f64,
    /// How far it counts, 0 to 1: as it is old, and as this proxy knows better.
    believed: f64,
}

impl Cluster {
    /// Spares the endpoints that all proxies find slow. None of the others gets more than twice its part by that.
    #[inline(never)]
    pub(super) fn spare_slow(&mut self, now: Time) {
        let Some(signal) = self.signals.fleet.signal else { return };
        self.signals.fleet.fresh_s = self.fresh_s();
        self.signals.fleet.medians.clear();
        for at in 0..self.subsets.list.len() {
            let told = self.told(signal, at, now);
            let median = median_of(&told);
            self.signals.fleet.medians.push(median);
            let weight = self.config.signals.get(signal).map_or(0.0, |signal| signal.weight);
            let left: Vec<(f64, f64)> =
                told.iter().map(|one| (one.weight, left_of(one, median, weight))).collect();
            let most = cap(&left);
            for (one, (_, left)) in told.iter().zip(left) {
                if let Some(member) = self.endpoints.states.get_mut(one.index as usize) {
                    member.share *= left.min(most) as f32;
                }
            }
        }
    }

    /// What the endpoints of the subset at `at` that may be chosen are told to take.
    fn told(&self, signal: usize, at: usize, now: Time) -> Vec<Told> {
        let fresh_s = self.fresh_s();
        let all = self.subsets.list.get(at).map_or(&[][..], |subset| subset.pool.all());
        let of = |index: &u32| {
            let member = self.endpoints.states.get(*index as usize).filter(|m| m.present && m.eligible)?;
            let reading = self.endpoints.readings(*index).get(signal).copied().unwrap_or_default();
            let own = self.endpoints.peers.of(*index, member).fresh_samples(now);
            Some(Told {
                index: *index,
                weight: f64::from(member.weight),
                value: reading.get(now).map_or(0.0, |(value, _)| value.max(0.0)),
                believed: reading.trust(now, fresh_s) / (1.0 + own),
            })
        };
        all.iter().filter_map(of).collect()
    }
}

/// The lower median of what is believed at all; zero where that is nothing.
fn median_of(told: &[Told]) -> f64 {
    let mut values: Vec<f64> = told.iter().filter(|one| one.believed > 0.0).map(|one| one.value).collect();
    let middle = values.len().checked_sub(1).map(|last| last / 2);
    middle.map_or(0.0, |middle| *values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

/// What is left of the share of an endpoint, 1 if it is not slow.
fn left_of(one: &Told, median: f64, weight: f64) -> f64 {
    if one.believed <= 0.0 || median <= 0.0 || one.value <= GOOD_MULTIPLE * median {
        return 1.0;
    }
    let beyond = one.value / (GOOD_MULTIPLE * median);
    beyond.powf(-STEEPNESS * weight * one.believed).clamp(MIN_SIGNAL_SHARE, 1.0)
}
