//! The operator's threshold rules, evaluated on every tick.

use super::Cluster;
use crate::endpoint::EndpointView;
use crate::estimate::Reading;
use crate::settings::{Rule, RuleAction, RuleValue};
use crate::time::{LostTime, Time};

/// Fraction of its threshold at which an active rule is released: hysteresis against flapping.
const LETS_GO_AT: f64 = 0.9;

/// State of one rule for one endpoint.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    /// Since when the value has been above the threshold; [`Time::ZERO`] if it is not.
    since: Time,
    /// Whether the rule is active. Only then does the lower threshold apply.
    holds: bool,
}

/// The rules of one cluster and their state for each endpoint.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    /// By endpoint index, then rule.
    watches: Vec<Watch>,
}

impl Rules {
    /// Creates the rules, none of them active.
    pub fn new(rules: &[Rule]) -> Rules {
        Rules { rules: rules.to_vec(), watches: Vec::new() }
    }

    /// The strictest action of all active rules for the endpoint at `index`, whose recent failure ratio is `failing`. A
    /// signal without a fresh value is never above its threshold.
    pub fn judge(
        &mut self,
        index: usize,
        (endpoint, failing): (EndpointView<'_>, Option<f64>),
        readings: &[Reading],
        fresh_s: f64,
        now: Time,
    ) -> Option<RuleAction> {
        let width = self.rules.len();
        let start = index * width;
        if self.watches.len() < start + width {
            self.watches.resize(start + width, Watch::default());
        }
        let watches = self.watches.get_mut(start..start + width)?;
        let mut strictest = None;
        for (rule, watch) in self.rules.iter().zip(watches) {
            let threshold = if watch.holds { rule.above * LETS_GO_AT } else { rule.above };
            match value(rule.value, endpoint, failing, readings, fresh_s, now) {
                Some(value) if value > threshold => {
                    if watch.since == Time::ZERO {
                        watch.since = now;
                    }
                    watch.holds |= now.seconds_since(watch.since) >= rule.lasting.as_secs_f64();
                    if watch.holds {
                        strictest = strictest.max(Some(rule.action));
                    }
                }
                _ => *watch = Watch::default(),
            }
        }
        strictest
    }

    /// In a lost time no value was seen.
    pub fn lose_time(&mut self, lost: LostTime) {
        self.watches.iter_mut().for_each(|watch| watch.since = lost.shift(watch.since));
    }

    /// Caps timestamps at `now` after the clock stepped back.
    pub fn not_after(&mut self, now: Time) {
        self.watches.iter_mut().for_each(|watch| watch.since = watch.since.min(now));
    }

    /// Takes over the state of the endpoint that is at `was.0` in `old`; `was.1` names for each rule the same one there.
    fn take_over(&mut self, index: u32, old: &Rules, was: (u32, &[Option<usize>])) {
        let (start, before) = (index as usize * self.rules.len(), was.0 as usize * old.rules.len());
        if self.watches.len() < start + self.rules.len() {
            self.watches.resize(start + self.rules.len(), Watch::default());
        }
        for (watch, rule) in self.watches.iter_mut().skip(start).zip(was.1) {
            *watch = rule.and_then(|rule| old.watches.get(before + rule).copied()).unwrap_or_default();
        }
    }

    /// Resets the slot at `index` for another endpoint.
    pub fn forget(&mut self, index: u32) {
        let start = index as usize * self.rules.len();
        if let Some(watches) = self.watches.get_mut(start..start + self.rules.len()) {
            watches.fill(Watch::default());
        }
    }
}

impl Cluster {
    /// Takes over the rules that both configurations have, with the values that they compare: what one has ejected would
    /// otherwise be in traffic until its time has passed again.
    #[inline(never)]
    pub(super) fn take_over_rules(&mut self, old: &Cluster) {
        let signals: Vec<Option<usize>> = self
            .config
            .signals
            .iter()
            .map(|signal| old.config.signals.iter().position(|was| was == signal))
            .collect();
        let same = |rule: &Rule, was: &Rule| {
            let value = match (rule.value, was.value) {
                (RuleValue::Signal(at), RuleValue::Signal(was)) => signals.get(at) == Some(&Some(was)),
                (value, was) => value == was,
            };
            value && (rule.above, rule.lasting, rule.action) == (was.above, was.lasting, was.action)
        };
        let of_old = |rule: &Rule| old.config.rules.iter().position(|was| same(rule, was));
        let rules: Vec<Option<usize>> = self.config.rules.iter().map(of_old).collect();
        for (index, identity) in self.endpoints.set.present() {
            let Some(at) = old.endpoints.set.index_of_hash(identity) else { continue };
            self.rules.take_over(index, &old.rules, (at, &rules));
            self.endpoints.failings.take_over(index, &old.endpoints.failings, at);
            let start = index as usize * signals.len();
            let readings = self.endpoints.readings.iter_mut().skip(start);
            for (reading, was) in readings.zip(&signals) {
                let known = was.and_then(|was| old.endpoints.readings(at).get(was).copied());
                *reading = known.unwrap_or_default();
            }
        }
    }
}

fn value(
    of: RuleValue,
    endpoint: EndpointView<'_>,
    failing: Option<f64>,
    readings: &[Reading],
    fresh_s: f64,
    now: Time,
) -> Option<f64> {
    match of {
        RuleValue::ErrorPercent => Some(failing.unwrap_or(0.0).max(endpoint.error_ratio()) * 100.0),
        RuleValue::LatencyMs => endpoint.centre().map(|(centre, _)| centre.exp() * 1e3),
        RuleValue::InFlight => Some(f64::from(endpoint.total_in_flight())),
        RuleValue::Signal(at) => {
            let reading = readings.get(at).filter(|r| r.confidence(now, fresh_s) > 0.0)?;
            reading.get(now).map(|(value, _)| value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::EndpointState;
    use core::time::Duration;
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn s(seconds: u64) -> Time {
        Time(seconds * 1_000_000_000)
    }

    fn cpu(percent: f64, at: Time) -> [Reading; 1] {
        let mut reading = Reading::default();
        reading.observe(percent, at, 1.0, 10.0);
        [reading]
    }

    #[test]
    fn takes_hold_after_its_time_and_lets_go_below() {
        let rule = Rule {
            value: RuleValue::Signal(0),
            above: 85.0,
            lasting: Duration::from_secs(10),
            action: RuleAction::Eject,
        };
        let mut rules = Rules::new(&[rule]);
        let endpoint = EndpointState::default();
        let mut at = |t, percent| {
            rules.judge(3, (EndpointView::alone(&endpoint), None), &cpu(percent, s(t)), 5.0, s(t))
        };
        assert_eq!(at(10, 90.0), None);
        assert_eq!(at(19, 90.0), None);
        assert_eq!(at(20, 90.0), Some(RuleAction::Eject));
        assert_eq!(at(21, 80.0), Some(RuleAction::Eject), "within the hysteresis");
        assert_eq!(at(22, 70.0), None);
        assert_eq!(at(23, 90.0), None, "the time begins anew");
    }

    #[test]
    fn before_it_has_taken_hold_the_threshold_is_the_threshold() {
        let lasting = Duration::from_secs(10);
        let rule = Rule { value: RuleValue::Signal(0), above: 85.0, lasting, action: RuleAction::Eject };
        let mut rules = Rules::new(&[rule]);
        let endpoint = EndpointState::default();
        for t in 10..100 {
            // One value above the threshold, then values five percent below it.
            let percent = if t == 10 { 90.0 } else { 81.0 };
            let judged =
                rules.judge(0, (EndpointView::alone(&endpoint), None), &cpu(percent, s(t)), 5.0, s(t));
            assert_eq!(judged, None, "{t}");
        }
    }

    #[test]
    fn the_strictest_counts_and_the_unknown_is_never_above() {
        let rule = |action| Rule { value: RuleValue::Signal(0), above: 1.0, lasting: Duration::ZERO, action };
        let mut rules = Rules::new(&[rule(RuleAction::DownWeight), rule(RuleAction::Flag)]);
        let endpoint = EndpointState::default();
        assert_eq!(
            rules.judge(0, (EndpointView::alone(&endpoint), None), &cpu(5.0, s(9)), 5.0, s(9)),
            Some(RuleAction::DownWeight)
        );
        assert_eq!(
            rules.judge(0, (EndpointView::alone(&endpoint), None), &[Reading::default()], 5.0, s(9)),
            None
        );
        assert_eq!(
            rules.judge(0, (EndpointView::alone(&endpoint), None), &cpu(5.0, s(9)), 5.0, s(60)),
            None,
            "too old"
        );
    }
}
