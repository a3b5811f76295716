//! The failure ratios that operators set thresholds on, kept only where a threshold is set.

use crate::estimate::Failing;
use crate::settings::{self, PressureValue, RuleValue};
use crate::time::Time;

/// By endpoint; empty where neither a rule nor the pressure compares `error_percent`.
#[derive(Debug, Default)]
pub(super) struct Failings {
    wanted: bool,
    of: Vec<Failing>,
}

impl Failings {
    pub fn new(config: &settings::Upstream) -> Failings {
        let wanted = config.rules.iter().any(|rule| rule.value == RuleValue::ErrorPercent)
            || config.pressure.iter().any(|term| term.value == PressureValue::ErrorPercent);
        Failings { wanted, of: Vec::new() }
    }

    /// The endpoint at `index` answered.
    pub fn observe(&mut self, index: u32, failed: bool, now: Time) {
        if let Some(failing) = self.of.get_mut(index as usize) {
            failing.observe(failed, now);
        }
    }

    /// The ratio of the endpoint at `index`, if it is kept.
    pub fn ratio(&self, index: u32, now: Time) -> Option<f64> {
        self.of.get(index as usize).map(|failing| failing.ratio(now))
    }

    /// There are so many places for endpoints.
    pub fn make_room(&mut self, places: usize) {
        if self.wanted {
            self.of.resize(places, Failing::default());
        }
    }

    /// The place at `index` is another endpoint's.
    pub fn forget(&mut self, index: u32) {
        if let Some(failing) = self.of.get_mut(index as usize) {
            *failing = Failing::default();
        }
    }

    /// The clock stepped back to `now`.
    pub fn not_after(&mut self, now: Time) {
        self.of.iter_mut().for_each(|failing| failing.not_after(now));
    }
}
