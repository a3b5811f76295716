//! Shares, which say how often an endpoint is chosen: weight × signals × slow start × rule.

use core::time::Duration;

use super::Cluster;
use crate::ablation::Part;
use crate::cluster::probes::WORTH_EXPLORING;
use crate::endpoint::{EndpointRef, EndpointState};
use crate::estimate::{LearntWeight, Reading};
use crate::order::lower_median;
use crate::policy::{Home, Turns};
use crate::settings::RuleAction;
use crate::time::Time;

/// Slow start of a recovered endpoint as a fraction of a new endpoint's: it is still warm.
const WARM_START: f64 = 0.1;
/// Factor on the share at the beginning of a slow start.
const START_SHARE: f64 = 0.1;
/// Steepness of the share's fall with the sum of the signals, at one update per second: to e⁻¹ at a quarter above the
/// fleet's mean, so that a queue is kept short and not only from overflowing. Updates every T seconds are acted on 1/T
/// as steeply: the harm that a share can do before the next update grows with T, and all proxies do it at once
/// (Mitzenmacher, "How useful is old information?", 2000).
const SIGNAL_STEEPNESS: f64 = 4.0;
/// Range of a signal without a maximum, relative to one with a maximum.
const RELATIVE: f64 = 0.25;
/// Factor of the action `down_weight` of a rule on the share.
const DOWN_WEIGHTED: f64 = 0.25;
/// Minimum factor of signals on the share, so that bad data alone starves no endpoint.
pub(super) const MIN_SIGNAL_SHARE: f64 = 0.02;
/// Maximum part of the requests that reports of any endpoint may bring it, in multiples of its fair part.
const MAX_REPORTED_GAIN: f64 = 2.0;
/// Fraction of a signal's maximum above which the share falls in proportion to what is left: a full endpoint refuses
/// requests, whatever the others' queues are and however rare updates are.
const NEARLY_FULL: f64 = 0.75;
/// Minimum reduction of a share that is accounted for in turns; less is not worth the cost.
const HARDLY_HELD: f64 = 0.01;
/// Mean number of requests in flight at an endpoint below which a subset is at rest: a request seldom meets another.
const AT_REST: f64 = 0.25;

impl Cluster {
    /// Records the value of one signal for one endpoint, observed at `at`.
    pub fn set_signal(&mut self, signal: usize, hash: u64, value: f64, at: Time) {
        let width = self.config.signals.len();
        let Some(index) = self.endpoints.set.index_of_hash(hash) else { return };
        let Some(smoothing) = self.config.signals.get(signal).map(|s| s.smoothing) else { return };
        let memory_s = 3.0 * self.fresh_s();
        if let Some(reading) = self.endpoints.readings.get_mut(index as usize * width + signal) {
            reading.observe(value, at, smoothing, memory_s);
        }
    }

    /// Records an endpoint's own load report from an answer; unusable values are only counted.
    pub fn set_reported(&mut self, signal: usize, endpoint: EndpointRef, value: Option<f64>, now: Time) {
        let Some(value) = value.filter(|value| value.is_finite() && *value >= 0.0) else {
            self.stats.totals.unusable_reports += 1;
            return;
        };
        if let (true, Some(hash)) = (
            self.endpoints.set.is_current(endpoint),
            self.endpoints.set.identities().get(endpoint.index as usize).copied(),
        ) {
            self.set_signal(signal, hash, value, now);
        }
    }

    /// Records a poll of `signal` at `at` that had values for `known` endpoints.
    pub fn record_signal_answer(&mut self, signal: usize, known: usize, at: Time) {
        self.watch_queues(signal, at);
        let accuracy = known as f64 / self.endpoints.set.len().max(1) as f64;
        let interval_s = self.signals.poll_s;
        let learns = self.config.signals.get(signal).is_some_and(|s| s.learn);
        if let (true, Some(learnt)) = (learns, self.signals.learnt.get_mut(signal)) {
            learnt.observe(accuracy, at, interval_s);
        }
    }

    /// Age up to which a signal counts in full, seconds.
    pub fn fresh_s(&self) -> f64 {
        self.signals.fresh_s()
    }

    /// Updates the share of each endpoint: weight × signals × slow start × rule.
    #[inline(never)]
    pub(super) fn share(&mut self, now: Time) {
        let width = self.config.signals.len();
        let scales: Vec<Scale> = (0..width).map(|s| self.scale(s, now)).collect();
        let fresh_s = self.fresh_s();
        let news = if self.ablation.has(Part::News) { Some(self.signals.poll_s) } else { None };
        let mut reported = self.left_by_reports(&scales, now).into_iter();
        for (index, endpoint) in self.endpoints.states.iter_mut().enumerate().filter(|(_, m)| m.present) {
            let start = slow_start(endpoint, self.config.slow_start, now);
            let unsignalled = f64::from(endpoint.weight) * start * left_by_rule(endpoint);
            if width == 0 {
                endpoint.share = unsignalled as f32;
                continue;
            }
            let readings =
                self.endpoints.readings.get(index * width..(index + 1) * width).unwrap_or_default();
            let polled = left_by_signals(readings, &scales, false, (fresh_s, news), now);
            endpoint.share = (unsignalled * polled * reported.next().unwrap_or(1.0)) as f32;
            let signal = match (readings.get(self.signals.least), scales.get(self.signals.least)) {
                (Some(reading), Some(scale)) if reading.confidence(now, fresh_s) > 0.0 => {
                    reading.get(now).map_or(scale.median, |(value, _)| value)
                }
                (_, Some(scale)) => scale.median,
                _ => 0.0,
            };
            endpoint.signal = signal.max(0.0) as f32;
        }
        self.spare_slow(now);
        self.hold();
    }

    /// Factors of load reports on the shares of the present endpoints, in their order; empty if no signal is reported.
    /// None brings an endpoint more than [`MAX_REPORTED_GAIN`] times the part that its weight gives it.
    #[inline(never)]
    fn left_by_reports(&self, scales: &[Scale], now: Time) -> Vec<f64> {
        if !scales.iter().any(|scale| scale.reported) {
            return Vec::new();
        }
        let rows = self
            .endpoints
            .readings
            .chunks_exact(scales.len())
            .zip(&self.endpoints.states)
            .filter(|(_, m)| m.present);
        let news = if self.ablation.has(Part::News) { Some(self.signals.poll_s) } else { None };
        let left: Vec<(f64, f64)> = rows
            .map(|(row, endpoint)| {
                let share = left_by_signals(row, scales, true, (self.fresh_s(), news), now);
                (f64::from(endpoint.weight), share)
            })
            .collect();
        let most = cap(&left);
        left.into_iter().map(|(_, share)| share.min(most)).collect()
    }

    /// Updates how far each endpoint's share is below its subset's mean per weight, and the length of a turn.
    fn hold(&mut self) {
        let home = self.traffic.home();
        // Little's law.
        let in_flight = self.traffic.rate_of_all() * self.ejection.overflow.usual_s().unwrap_or(self.typical);
        // A home of fewer endpoints than are compared would be in every draw, and its endpoints' loads would follow the
        // errors of the workers' rates.
        let enough = self.ablation.choices * self.traffic.workers as usize;
        for subset in &mut self.subsets.list {
            let (mut weights, mut shares, mut count) = (0.0, 0.0, 0.0);
            for index in subset.pool.all() {
                if let Some(endpoint) = self.endpoints.states.get(*index as usize).filter(|m| m.eligible) {
                    weights += f64::from(endpoint.weight);
                    shares += f64::from(endpoint.share);
                    count += 1.0;
                }
            }
            let usual = shares / f64::max(weights, f64::MIN_POSITIVE);
            for index in subset.pool.all() {
                if let Some(endpoint) = self.endpoints.states.get_mut(*index as usize) {
                    let held = 1.0 - f64::from(endpoint.share) / (f64::from(endpoint.weight) * usual);
                    endpoint.turn.held = if held > HARDLY_HELD { held.min(1.0) as f32 } else { 0.0 };
                }
            }
            // A subset without load gets no requests; its turns are counted as if it had a minimal load.
            let part =
                (self.subsets.split.share(subset.key.version) * subset.division.load).max(WORTH_EXPLORING);
            // Those that are out take no turns.
            let all = if weights > 0.0 { weights } else { subset.division.weight };
            subset.turns = Turns {
                requests: 0,
                apart: (all / part) as f32,
                unit: if count > 0.0 { (weights / count) as f32 } else { 1.0 },
                workers: self.traffic.workers as f32,
                rank: self.traffic.rank,
                home: if subset.pool.len() >= enough { home } else { Home::default() },
                at_rest: part * in_flight < AT_REST * count,
            };
        }
    }

    /// What the values of signal `at` are compared with.
    fn scale(&self, at: usize, now: Time) -> Scale {
        let width = self.config.signals.len();
        let fresh_s = self.fresh_s();
        let rows = self
            .endpoints
            .readings
            .chunks_exact(width.max(1))
            .zip(&self.endpoints.states)
            .filter(|(_, m)| m.present);
        let known = rows.filter_map(|(row, _)| {
            let reading = row.get(at).filter(|r| r.confidence(now, fresh_s) > 0.0)?;
            reading.get(now).map(|(value, _)| value)
        });
        let mut values: Vec<f64> = known.collect();
        let signal = self.config.signals.get(at);
        let max = signal.and_then(|s| s.max);
        let learnt = self.signals.learnt.get(at).map_or(1.0, LearntWeight::get);
        // The fleet's latency is not a load and is handled in `fleet_view`.
        let weight = signal.filter(|s| s.builtin.is_none()).map_or(0.0, |s| s.weight) * learnt;
        let reported = signal.is_some_and(|s| s.report.is_some());
        let firmness = self.signal_firmness(at);
        let unknown = Scale { weight, max, median: 0.0, mean: 0.0, reported, firmness };
        let Some(median) = lower_median(&mut values) else { return unknown };
        let mut scale = Scale { median, ..unknown };
        scale.mean = values.iter().map(|v| scale.of(*v)).sum::<f64>() / values.len() as f64;
        scale
    }
}

/// Scale on which the values of one signal are compared.
#[derive(Clone, Copy, Debug)]
struct Scale {
    weight: f64,
    max: Option<f64>,
    median: f64,
    mean: f64,
    /// Whether endpoints report it themselves.
    reported: bool,
    /// Factor on its effect, up to 1.
    firmness: f64,
}

/// Factor of the `reported` signals, or of the others, on a share. Polled signals are updated once per poll, at most
/// every `polls` seconds; reports with every answer.
#[inline(never)]
fn left_by_signals(
    readings: &[Reading],
    scales: &[Scale],
    reported: bool,
    (fresh_s, polls): (f64, Option<f64>),
    now: Time,
) -> f64 {
    let (mut burden, mut room) = (0.0, 1.0f64);
    for (reading, scale) in readings.iter().zip(scales).filter(|(_, scale)| scale.reported == reported) {
        let above = scale.of(reading.burden()) - scale.mean;
        let news_s = polls.map_or(1.0, |polls| {
            let seldom = if scale.reported { 1.0 } else { polls.max(1.0) };
            reading.news_s().max(seldom)
        });
        let believed = scale.weight * scale.firmness * reading.confidence(now, fresh_s);
        burden += believed * above / news_s;
        room *= scale.room(reading.burden()).powf(believed.min(1.0));
        if reading.standing.aside() {
            room *= MIN_SIGNAL_SHARE.powf((believed / scale.firmness).min(1.0));
        }
    }
    (room * (-SIGNAL_STEEPNESS * burden).exp()).clamp(MIN_SIGNAL_SHARE, 1.0 / MIN_SIGNAL_SHARE)
}

/// The cap on factors, given as (weight, factor), such that no endpoint's part of Σ weight · factor exceeds
/// [`MAX_REPORTED_GAIN`] times its part of Σ weight. Newton's method on a concave function converges to the root in a
/// few steps. Where half of the weights are capped, none of them can exceed it.
pub(super) fn cap(left: &[(f64, f64)]) -> f64 {
    let mut most = f64::INFINITY;
    for _ in 0..32 {
        let (mut weights, mut below) = (0.0, 0.0);
        for (weight, factor) in left {
            if *factor > most {
                weights -= weight * (MAX_REPORTED_GAIN - 1.0);
            } else {
                weights += weight;
                below += weight * factor;
            }
        }
        let next = MAX_REPORTED_GAIN * below / weights;
        if weights <= 0.0 || next >= most {
            break;
        }
        most = next;
    }
    most
}

impl Scale {
    /// Factor of a single value on the share as it nears the maximum; 1 without a maximum.
    fn room(&self, value: f64) -> f64 {
        let full = self.max.map_or(0.0, |max| value.max(0.0) / max);
        ((1.0 - full) / (1.0 - NEARLY_FULL)).clamp(MIN_SIGNAL_SHARE, 1.0)
    }

    /// The value on a scale where 0 is best and 1 is full. Without a maximum, full is unknown: the whole range, with
    /// the median in its middle, is only a quarter as wide, because a busy endpoint in an idle fleet is no overload.
    fn of(&self, value: f64) -> f64 {
        let value = value.max(0.0);
        match self.max {
            Some(max) => (value / max).min(2.0),
            None if value + self.median.max(0.0) > 0.0 => RELATIVE * value / (value + self.median.max(0.0)),
            None => 0.5 * RELATIVE,
        }
    }
}

/// Factor of a rule on the share.
pub(super) fn left_by_rule(endpoint: &EndpointState) -> f64 {
    if endpoint.constraints.ruled == Some(RuleAction::DownWeight) { DOWN_WEIGHTED } else { 1.0 }
}

/// Factor of a slow start on the share.
pub(super) fn slow_start(endpoint: &EndpointState, newcomer: Duration, now: Time) -> f64 {
    let ramp = |since: Time, over: f64| match since {
        Time::ZERO => 1.0,
        _ if over <= 0.0 => 1.0,
        _ => (now.seconds_since(since) / over).clamp(START_SHARE, 1.0),
    };
    let newcomer = newcomer.as_secs_f64();
    ramp(endpoint.health.joined(), newcomer).min(ramp(endpoint.health.returned(), newcomer * WARM_START))
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    /// For fleets of every size, whatever the reports of the others.
    #[test]
    fn a_report_brings_at_most_twice_the_fair_part() {
        for n in 2..40 {
            for flatterers in 1..n {
                let left: Vec<(f64, f64)> = (0..n)
                    .map(|i| (f64::from(1 + i % 3), if i < flatterers { 50.0 } else { MIN_SIGNAL_SHARE }))
                    .collect();
                let most = cap(&left);
                let parts: Vec<f64> = left.iter().map(|(weight, factor)| weight * factor.min(most)).collect();
                let weights: f64 = left.iter().map(|(weight, _)| weight).sum();
                for ((weight, _), part) in left.iter().zip(&parts) {
                    let gain = part / parts.iter().sum::<f64>() / (weight / weights);
                    assert!(gain <= 2.05, "{flatterers} of {n}: {gain}");
                }
            }
        }
    }
}
