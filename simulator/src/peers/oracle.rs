//! The oracle, a bound: it knows every queue, every fault and the requests in transit, and takes the endpoint where the
//! request is expected to be done first. It knows neither the future nor the work in the request.

use engine::rng::Rng;
use engine::time::Time;

use crate::balancer::{LoadBalancer, Moment, Reply, Sent};
use crate::scenario::{Mode, Scenario};

/// Maximum number of endpoints considered, starting from a random one.
const LOOKS_AT: usize = 200;

/// An all-knowing proxy.
pub struct Oracle {
    mean: f64,
    network: f64,
    rng: Rng,
}

impl Oracle {
    /// Creates an oracle for `scenario`.
    pub fn new(scenario: &Scenario, seed: u64) -> Oracle {
        Oracle { mean: scenario.mean_work(), network: scenario.network, rng: Rng::new(seed) }
    }
}

impl LoadBalancer for Oracle {
    fn send(&mut self, worker: usize, moment: Moment<'_>) -> Sent {
        let Moment { now, servers, .. } = moment;
        let arrives = now.after_secs(self.network);
        let mut best = (f64::INFINITY, 0);
        let first = self.rng.below(servers.len() as u32) as usize;
        for step in 0..servers.len().min(LOOKS_AT) {
            let endpoint = (first + step) % servers.len();
            let server = &servers[endpoint];
            let failing = match server.mode {
                Mode::Serve => 0.0,
                Mode::Errors(share) | Mode::Limits(share) => share,
                Mode::Refuse | Mode::Hole => 1.0,
            };
            let absent = if server.present { 0.0 } else { 1e6 };
            let cost = server.wait(self.mean, arrives) + self.mean * server.slow + 1000.0 * failing + absent;
            if cost < best.0 {
                best = (cost, endpoint);
            }
        }
        Sent::first(worker, best.1, now)
    }

    fn ended(&mut self, _sent: &Sent, _reply: &Reply, _now: Time) {}
}
