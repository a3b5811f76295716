//! Linkerd's balancer, as `load::PeakEwma` and `p2c` in tower define it
//! (<https://docs.rs/tower/latest/tower/load/peak_ewma/>): the cheaper of two random endpoints by latency × (pending +
//! 1), where the latency follows every peak at once, falls with a time constant of ten seconds, and decays towards zero
//! without answers.

use engine::rng::Rng;
use engine::time::Time;

use super::hosts::Hosts;
use crate::balancer::{LoadBalancer, Moment, Reply, Sent};
use crate::scenario::Scenario;

/// Linkerd's `decay`, seconds.
const DECAY_S: f64 = 10.0;
/// Linkerd's `default_rtt`, seconds.
const FIRST_S: f64 = 0.030;

#[derive(Clone, Copy, Debug)]
struct Estimate {
    seconds: f64,
    updated: Time,
    pending: u32,
}

impl Estimate {
    fn update(&mut self, seconds: f64, now: Time) {
        if seconds > self.seconds {
            self.seconds = seconds;
        } else {
            let keep = (-now.seconds_since(self.updated) / DECAY_S).exp();
            self.seconds = self.seconds * keep + seconds * (1.0 - keep);
        }
        self.updated = now;
    }

    fn cost(&mut self, now: Time) -> f64 {
        self.update(0.0, now);
        self.seconds * f64::from(self.pending + 1)
    }
}

/// One proxy; all its workers share one balancer, as in linkerd.
pub struct PeakEwma {
    hosts: Hosts,
    estimates: Vec<Estimate>,
    rng: Rng,
}

impl PeakEwma {
    /// Creates a proxy for `scenario`.
    pub fn new(scenario: &Scenario, now: Time, seed: u64) -> PeakEwma {
        let first = Estimate { seconds: FIRST_S, updated: now, pending: 0 };
        PeakEwma {
            hosts: Hosts::new(scenario),
            estimates: vec![first; scenario.endpoints],
            rng: Rng::new(seed),
        }
    }
}

impl LoadBalancer for PeakEwma {
    fn send(&mut self, worker: usize, moment: Moment<'_>) -> Sent {
        let now = moment.now;
        let drawn = self.hosts.draw(2, &mut self.rng);
        let (first, second) = (drawn[0], drawn[drawn.len() - 1]);
        let cheaper = self.estimates[second].cost(now) < self.estimates[first].cost(now);
        let endpoint = if cheaper { second } else { first };
        self.estimates[endpoint].pending += 1;
        Sent::first(worker, endpoint, now)
    }

    fn ended(&mut self, sent: &Sent, _reply: &Reply, now: Time) {
        let estimate = &mut self.estimates[sent.endpoint];
        estimate.pending -= 1;
        estimate.update(now.seconds_since(sent.started), now);
    }

    fn fleet(&mut self, present: &[bool], _now: Time) {
        self.hosts.set(present);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_count_at_once_and_fade_with_ten_seconds() {
        let start = Time(1_000_000_000_000);
        let mut estimate = Estimate { seconds: FIRST_S, updated: start, pending: 0 };
        estimate.update(0.4, start);
        assert_eq!(estimate.seconds, 0.4);
        estimate.update(0.02, start.after_secs(10.0));
        let expected = 0.4 / std::f64::consts::E + 0.02 * (1.0 - 1.0 / std::f64::consts::E);
        assert!((estimate.seconds - expected).abs() < 1e-9);
        estimate.pending = 2;
        let idle = estimate.cost(start.after_secs(20.0));
        assert!((idle - 3.0 * expected / std::f64::consts::E).abs() < 1e-9, "falls while nothing is heard");
    }
}
