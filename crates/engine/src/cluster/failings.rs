//! Recent failure ratios for thresholds in the configuration, kept only where there is one.

use crate::estimate::Failing;
use crate::settings::{self, PressureValue, RuleValue};
use crate::time::Time;

/// Failure ratio by endpoint index; empty unless a rule or the pressure uses `error_percent`.
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

    /// Whether there are any.
    #[inline]
    pub fn any(&self) -> bool {
        !self.of.is_empty()
    }

    /// Records an answer of the endpoint at `index`, which is `out` of traffic by a rule, or is not.
    #[inline(never)]
    pub fn observe(&mut self, index: u32, failed: bool, out: bool, now: Time) {
        if let Some(failing) = self.of.get_mut(index as usize) {
            failing.observe(failed, out, now);
        }
    }

    /// Failure ratio of the endpoint at `index`, 0..=1, if it is kept.
    pub fn ratio(&self, index: u32, now: Time) -> Option<f64> {
        self.of.get(index as usize).map(|failing| failing.ratio(now))
    }

    /// Makes room for `places` endpoints.
    pub fn make_room(&mut self, places: usize) {
        if self.wanted {
            self.of.resize(places, Failing::default());
        }
    }

    /// Takes over the ratio of the endpoint that is at `at` in `old`.
    pub fn take_over(&mut self, index: u32, old: &Failings, at: u32) {
        if let (Some(failing), Some(known)) = (self.of.get_mut(index as usize), old.of.get(at as usize)) {
            *failing = *known;
        }
    }

    /// Resets the slot at `index` for another endpoint.
    pub fn forget(&mut self, index: u32) {
        if let Some(failing) = self.of.get_mut(index as usize) {
            *failing = Failing::default();
        }
    }

    /// Caps timestamps at `now` after the clock stepped back.
    pub fn not_after(&mut self, now: Time) {
        self.of.iter_mut().for_each(|failing| failing.not_after(now));
    }
}
