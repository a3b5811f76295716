//! Signals of a cluster: freshness, and how much each has proved to be worth.

use core::time::Duration;

use super::fleet_view::FleetView;
use super::queues::QueueWindow;
use crate::estimate::LearntWeight;
use crate::settings;
use crate::time::Time;

/// Poll interval assumed if none is configured, seconds.
const USUAL_POLL_S: f64 = 5.0;

/// State of the signals that is common to all endpoints.
pub(super) struct Signals {
    /// Poll interval, seconds.
    pub poll_s: f64,
    /// Index of the signal that the policy `least_signal` compares.
    pub least: usize,
    /// Learnt weight of each signal.
    pub learnt: Vec<LearntWeight>,
    /// State of the queue watch for each signal.
    pub windows: Vec<QueueWindow>,
    /// Latencies measured by other proxies.
    pub fleet: FleetView,
}

impl Signals {
    /// Creates the state from the configuration, with nothing learnt.
    pub fn new(config: &settings::Upstream, poll_interval: Option<Duration>) -> Signals {
        let least = match &config.policy {
            settings::Policy::LeastSignal { signal } => config.signals.iter().position(|s| s.name == *signal),
            _ => None,
        };
        Signals {
            poll_s: poll_interval.map_or(USUAL_POLL_S, |interval| interval.as_secs_f64()),
            least: least.unwrap_or(0),
            learnt: vec![LearntWeight::default(); config.signals.len()],
            windows: vec![QueueWindow::default(); config.signals.len()],
            fleet: FleetView::of(&config.signals),
        }
    }

    /// Age up to which a signal counts in full, seconds: 2.5 polls, so that one lost poll changes nothing.
    pub fn fresh_s(&self) -> f64 {
        2.5 * self.poll_s
    }

    /// Caps timestamps at `now` after the clock stepped back.
    pub fn not_after(&mut self, now: Time) {
        self.learnt.iter_mut().for_each(|weight| weight.not_after(now));
        self.windows.iter_mut().for_each(|window| window.not_after(now));
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_lost_poll_changes_nothing() {
        let signals = Signals {
            poll_s: 2.0,
            least: 0,
            learnt: Vec::new(),
            windows: Vec::new(),
            fleet: FleetView::default(),
        };
        assert!(signals.fresh_s() > 2.0 * 2.0, "one lost");
        assert!(signals.fresh_s() < 3.0 * 2.0, "two lost");
    }
}
