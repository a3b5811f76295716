//! The requests of a scenario, in order of arrival.

use engine::rng::Rng;
use engine::time::Time;

use super::START;
use crate::distribution::exponential;
use crate::scenario::{Long, Scenario};

/// A request, drawn before any decision.
pub(super) struct Arrival {
    pub(super) at: Time,
    pub(super) worker: usize,
    pub(super) demand: f64,
    pub(super) coin: u64,
    pub(super) long: Option<Long>,
}

pub(super) struct Traffic<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) rng: Rng,
    pub(super) seconds: f64,
}

impl Iterator for Traffic<'_> {
    type Item = Arrival;

    /// Poisson arrivals, thinned to the current rate (Lewis and Shedler, 1979).
    fn next(&mut self) -> Option<Arrival> {
        let Scenario { shape, rate, length, heavy, .. } = self.scenario;
        loop {
            self.seconds += exponential(&mut self.rng) / (rate * shape.most());
            if self.seconds >= *length {
                return None;
            }
            if self.rng.unit() * shape.most() < shape.at(self.seconds, *length) {
                break;
            }
        }
        let workers = (self.scenario.proxies * self.scenario.workers) as u32;
        let factor = if self.rng.unit() < heavy.0 { heavy.1 } else { 1.0 };
        Some(Arrival {
            at: START.after_secs(self.seconds),
            worker: self.rng.below(workers) as usize,
            demand: self.scenario.work.draw(&mut self.rng) * factor,
            coin: self.rng.next_u64(),
            long: self.scenario.long.filter(|long| self.rng.unit() < long.share),
        })
    }
}
