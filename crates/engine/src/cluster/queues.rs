//! Queues that only a signal shows. Where requests are answered before their work is done, latency says nothing about
//! the backlog. A share that falls in proportion to the queue settles where a slow endpoint's queue is long enough to
//! hold traffic back, and everything sent there waits that long. So an endpoint whose queue
//! [stands](crate::estimate::Standing) while the others' are empty is set aside.

use super::Cluster;
use crate::estimate::signal::MAX_NEWS_S;
use crate::estimate::{LAGS, Reading, Usual, news_a_window};
use crate::order;
use crate::settings::Signal;
use crate::time::Time;

/// Fraction of the update interval below which values belong to the same update.
const SAME_NEWS: f64 = 0.75;
/// Averaging window for the correlation of deviations, updates.
const LATEST: f32 = 16.0;
/// Mean cosine below which a negative correlation is chance, for many endpoints.
const OPPOSED: f32 = 0.2;
/// Standard deviations below which a negative mean cosine is chance, for few endpoints.
const CHANCE_DEVIATIONS: f32 = 3.3;
/// Mean cosine above which, at all lags, deviations are lasting differences between endpoints, and the signal is acted
/// on more firmly again.
const LASTING: f32 = 0.5;
/// Factor on the firmness per update while deviations last.
const FIRM_AGAIN: f32 = 1.5;
/// Maximum increase of the firmness per update without overshoot.
const FIRMER: f32 = 0.05;
/// Minimum increase of the firmness per update. Each update with overshoot halves the increase; after about a thousand
/// without, it is back at its maximum.
const MIN_FIRMER: f32 = 0.0005;
/// Factor by which the increase grows with each update without overshoot.
const FORGETS: f32 = 1.005;
/// Minimum firmness; the maximum is 1.
const MIN_FIRM: f32 = 1.0 / 32.0;
/// Exponent on the fraction of endpoints that did not fill up between two updates, out of those that had been less than
/// half full: the factor by which the firmness falls.
const FILLED: i32 = 4;

/// What the values of one signal have shown over time.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueWindow {
    began: Time,
    latest: Time,
    /// The usual maximum in the previous window.
    high: f32,
    /// When deviations were last compared.
    compared: Time,
    /// Mean cosine between deviations and those of earlier updates, by lag.
    cosines: [f32; LAGS],
    firmer: f32,
    /// Factor on the effect of the signal, up to 1.
    pub firmness: f32,
}

impl Default for QueueWindow {
    fn default() -> QueueWindow {
        let (never, cosines) = (Time::ZERO, [0.0; LAGS]);
        let (firmer, firmness) = (FIRMER, 1.0);
        QueueWindow { began: never, latest: never, high: 0.0, compared: never, cosines, firmer, firmness }
    }
}

impl QueueWindow {
    /// Caps timestamps at `now` after the clock stepped back.
    pub fn not_after(&mut self, now: Time) {
        (self.began, self.latest) = (self.began.min(now), self.latest.min(now));
        self.compared = self.compared.min(now);
    }

    /// Compares the values of endpoints in use with the previous ones, and adapts the firmness. Where the traffic that
    /// one endpoint lost filled the next, too much was moved: deviations from the mean change sign, or endpoints that
    /// had room are full. How much is too much depends on the request rate of all proxies, which none of them knows, so
    /// it is learnt.
    fn compare(&mut self, used: &mut [&mut Reading], max: Option<f64>) {
        let mean = used.iter().map(|reading| reading.latest()).sum::<f64>() / used.len().max(1) as f64;
        let norm = used.iter().map(|reading| (reading.latest() - mean).powi(2)).sum::<f64>().sqrt();
        let (mut cosines, mut had_room, mut filled) = ([0.0; LAGS], 0.0f32, 0.0f32);
        for reading in used.iter_mut() {
            let off = if norm > 0.0 { ((reading.latest() - mean) / norm) as f32 } else { 0.0 };
            let (before, was) = reading.standing.moved(reading.latest() as f32, off);
            cosines.iter_mut().zip(before).for_each(|(sum, before)| *sum += off * before);
            let Some(max) = max else { continue };
            if f64::from(was) < 0.5 * max {
                had_room += 1.0;
                filled += f32::from(u8::from(reading.latest() >= max));
            }
        }
        let others = used.len().saturating_sub(1).max(1) as f32;
        self.cosines.iter_mut().zip(cosines).for_each(|(mean, one)| *mean += (one - *mean) / LATEST);
        let opposed = -self.cosines.iter().copied().fold(0.0, f32::min);
        let chance = OPPOSED.max(CHANCE_DEVIATIONS / (LATEST * others).sqrt());
        let turned = if opposed > chance { opposed } else { 0.0 };
        let less = (-turned).exp() * (1.0 - filled / had_room.max(1.0)).powi(FILLED);
        let by = if less < 1.0 {
            self.firmer = (0.5 * self.firmer).max(MIN_FIRMER);
            less
        } else {
            self.firmer = (FORGETS * self.firmer).min(FIRMER);
            let lasts = self.cosines.iter().all(|cosine| *cosine > LASTING);
            if lasts { FIRM_AGAIN } else { 1.0 + self.firmer }
        };
        self.firmness = (self.firmness * by).clamp(MIN_FIRM, 1.0);
    }
}

/// Whether a signal may be a polled queue length.
fn may_queue(signal: &Signal) -> bool {
    signal.weight > 0.0 && signal.report.is_none() && signal.builtin.is_none()
}

impl Cluster {
    /// Factor on the effect of the signal, up to 1: lowered while traffic moved on its account overshoots before the
    /// next update.
    pub fn signal_firmness(&self, signal: usize) -> f64 {
        self.signals.windows.get(signal).map_or(1.0, |window| f64::from(window.firmness))
    }

    /// Whether the endpoint at `index` is set aside because its queue stands while the others' are empty.
    pub fn set_aside(&self, index: u32) -> bool {
        self.readings(index).iter().any(|reading| reading.standing.aside())
    }

    /// Processes a poll of `signal` at `at`: sets aside endpoints whose queue stands, and tries them again.
    #[inline(never)]
    pub(super) fn watch_queues(&mut self, signal: usize, at: Time) {
        let (width, fresh_s) = (self.config.signals.len(), self.fresh_s());
        let Some(window) = self.signals.windows.get_mut(signal) else { return };
        if at <= window.latest || !self.config.signals.get(signal).is_some_and(may_queue) {
            return;
        }
        window.latest = at;
        let max = self.config.signals.get(signal).and_then(|s| s.max);
        let places = self.endpoints.states.iter().zip(self.endpoints.set.identities());
        let readings = self.endpoints.readings.iter_mut().skip(signal).step_by(width);
        let known = readings
            .zip(places)
            .filter(|(reading, (m, _))| m.present && reading.confidence(at, fresh_s) > 0.0);
        let mut known: Vec<(&mut Reading, u64)> =
            known.map(|(reading, (_, identity))| (reading, *identity)).collect();
        let (mut usual, in_use) = usual(&mut known);
        let now_high = usual.high;
        usual.high = now_high.max(window.high);
        let news_s = known.iter().map(|(r, _)| r.news_s()).filter(|s| *s > 0.0).fold(f64::INFINITY, f64::min);
        let news_s = if news_s.is_finite() { news_s.max(self.signals.poll_s).max(1.0) } else { MAX_NEWS_S };
        if at.seconds_since(window.compared) >= SAME_NEWS * news_s {
            window.compared = at;
            let mut used: Vec<&mut Reading> =
                known.iter_mut().map(|(r, _)| &mut **r).filter(|reading| !reading.standing.aside()).collect();
            window.compare(&mut used, max);
        }
        let over = at.seconds_since(window.began) >= f64::from(news_a_window(in_use)) * news_s;
        let whole = over && window.began != Time::ZERO;
        // A queue length is a whole number. A fraction is a load, such as the part of the time spent on garbage
        // collection: it may stay high at one endpoint and at 0 at others for long, and is acted on in proportion.
        let counted = known.iter().all(|(reading, _)| reading.latest().fract() == 0.0);
        // At least half of the endpoints remain in use.
        let mut may_go = if counted { (known.len() / 2).saturating_sub(known.len() - in_use) } else { 0 };
        for (reading, identity) in known {
            let value = reading.latest() as f32;
            reading.standing.look(value, usual, (at, news_s), identity);
            if let Some(max) = max.filter(|_| may_go > 0 && !reading.standing.aside()) {
                reading.standing.judge((value, max as f32), usual, whole, (at, news_s));
                may_go -= usize::from(reading.standing.aside());
            }
            if over {
                reading.standing.begin(value);
            }
        }
        if over {
            (window.began, window.high) = (at, now_high);
        }
    }
}

/// Records the latest values; returns the usual ones among the endpoints in use, and the number of these.
fn usual(known: &mut [(&mut Reading, u64)]) -> (Usual, usize) {
    let (mut latest, mut low, mut high) = (Vec::new(), Vec::new(), Vec::new());
    for (reading, _) in known {
        let value = reading.latest() as f32;
        reading.standing.observe(value);
        if !reading.standing.aside() {
            let (least, most) = reading.standing.range();
            latest.push(f64::from(value));
            low.push(f64::from(least));
            high.push(f64::from(most));
        }
    }
    let in_use = latest.len();
    let median = |values: &mut [f64]| order::lower_median(values).map_or(0.0, |median| median as f32);
    (Usual { latest: median(&mut latest), low: median(&mut low), high: median(&mut high) }, in_use)
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::rng::Rng;

    /// The firmness after a series of values, where `next` derives each value from the previous one.
    fn after(
        news: u64,
        endpoints: usize,
        max: Option<f64>,
        mut next: impl FnMut(u64, f64) -> f64,
    ) -> Vec<f32> {
        let mut window = QueueWindow::default();
        let mut all = vec![Reading::default(); endpoints];
        let mut course = Vec::new();
        for second in 1..=news {
            for reading in &mut all {
                let value = next(second, reading.latest());
                reading.observe(value, Time(second * 1_000_000_000), 1.0, 100.0);
            }
            window.compare(&mut all.iter_mut().collect::<Vec<_>>(), max);
            course.push(window.firmness);
        }
        course
    }

    #[test]
    fn chance_makes_nothing_less_firm() {
        let mut rng = Rng::new(11);
        for endpoints in [2, 3, 10, 50] {
            let course = after(10_000, endpoints, Some(100.0), |_, _| 40.0 * rng.unit());
            let mean = course.iter().sum::<f32>() / 10_000.0;
            assert!(mean > 0.9, "{endpoints}: {mean}");
        }
        let mut nth = 0;
        let lasting = after(100, 10, Some(100.0), |_, _| {
            nth += 1;
            f64::from(nth % 10) * 9.0
        });
        assert!(lasting.iter().all(|firmness| *firmness == 1.0));
    }

    #[test]
    fn what_turns_round_is_acted_on_less() {
        for (endpoints, period) in
            [2usize, 3, 10, 50].into_iter().flat_map(|n| [2u64, 4, 6].map(|period| (n, period)))
        {
            let mut nth = 0;
            let course = after(400, endpoints, None, |second, _| {
                nth += 1;
                let phase = (second * 2 / period + nth % endpoints as u64) % 2;
                50.0 + 40.0 * phase as f64
            });
            let least = course.iter().copied().fold(1.0, f32::min);
            assert!(least < 0.1, "{endpoints} endpoints, every {period}: {least}");
        }
    }

    #[test]
    fn what_lasts_is_acted_on_again() {
        for endpoints in [2, 3, 10, 50] {
            let mut nth = 0;
            let course = after(600, endpoints, None, |second, _| {
                nth += 1;
                let at = nth % endpoints as u64;
                let turns = (second + at) % 2;
                if second < 500 {
                    50.0 + 40.0 * turns as f64
                } else {
                    10.0 + 80.0 * f64::from(u8::from(at == 0))
                }
            });
            assert!(
                course[498] < 0.1 && course[599] == 1.0,
                "{endpoints}: {} then {}",
                course[498],
                course[599]
            );
        }
    }

    #[test]
    fn what_had_room_and_is_full_was_given_too_much() {
        let herd = |filled: u64| {
            let mut nth = 0;
            let course = after(2, 10, Some(20.0), move |second, _| {
                nth += 1;
                if second == 2 && nth % 10 < filled { 30.0 } else { 2.0 }
            });
            course[1]
        };
        assert!(herd(0) >= 1.0);
        assert!(herd(1) > 0.6, "one endpoint may have become slow");
        assert!(herd(5) < 0.1 && herd(5) > 0.03);
        assert_eq!(herd(10), MIN_FIRM);
    }
}
