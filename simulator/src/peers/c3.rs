//! C3's replica ranking (Suresh, Canini, Schmid, Feldmann: "C3: Cutting Tail Latency in Cloud Data Stores via
//! Adaptive Replica Selection", NSDI 2015): the lowest of
//! R − 1/μ + q̂³/μ with q̂ = 1 + outstanding · clients + q, where R is the response time, 1/μ the service time and q
//! the queue that the endpoint reports, each smoothed. Its rate control is left out, as in the Prequal paper's
//! comparison: it never binds below saturation.

use engine::rng::Rng;
use engine::time::Time;

use super::hosts::Hosts;
use crate::balancer::{LoadBalancer, Moment, Reply, Sent};
use crate::scenario::Scenario;

/// Weight of the newest value in the authors' implementation.
const ALPHA: f64 = 0.9;
/// Number of endpoints ranked for a request: the replica group. Smaller fleets are ranked as a whole.
const GROUP: usize = 10;

/// Service time assumed before the first answer, seconds: with zero, everything would go to an endpoint that has not
/// answered.
const FIRST_S: f64 = 0.030;

#[derive(Clone, Copy, Debug)]
struct Replica {
    response: f64,
    service: f64,
    queue: f64,
    outstanding: u32,
}

const UNKNOWN: Replica = Replica { response: FIRST_S, service: FIRST_S, queue: 0.0, outstanding: 0 };

/// One client.
pub struct C3 {
    hosts: Hosts,
    replicas: Vec<Replica>,
    clients: f64,
    rng: Rng,
}

impl C3 {
    /// Creates a client for `scenario`.
    pub fn new(scenario: &Scenario, seed: u64) -> C3 {
        C3 {
            hosts: Hosts::new(scenario),
            replicas: vec![UNKNOWN; scenario.endpoints],
            clients: scenario.proxies as f64,
            rng: Rng::new(seed),
        }
    }
}

impl LoadBalancer for C3 {
    fn send(&mut self, worker: usize, moment: Moment<'_>) -> Sent {
        let mut best = (f64::INFINITY, 0);
        for endpoint in self.hosts.draw(GROUP, &mut self.rng) {
            let replica = &self.replicas[*endpoint];
            let queue = 1.0 + f64::from(replica.outstanding) * self.clients + replica.queue;
            let score = replica.response - replica.service + queue.powi(3) * replica.service;
            if score < best.0 {
                best = (score, *endpoint);
            }
        }
        self.replicas[best.1].outstanding += 1;
        Sent::first(worker, best.1, moment.now)
    }

    fn ended(&mut self, sent: &Sent, reply: &Reply, now: Time) {
        let replica = &mut self.replicas[sent.endpoint];
        replica.outstanding -= 1;
        if reply.service == 0.0 {
            return; // without an answer there is no report
        }
        let smooth = |old: &mut f64, new: f64| *old += ALPHA * (new - *old);
        smooth(&mut replica.response, now.seconds_since(sent.started));
        smooth(&mut replica.service, f64::from(reply.service));
        smooth(&mut replica.queue, f64::from(reply.queue));
    }

    fn fleet(&mut self, present: &[bool], _now: Time) {
        self.hosts.set(present);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Outcome;

    #[test]
    fn queues_count_by_their_cube_and_outstanding_requests_for_every_client() {
        let scenario = Scenario { endpoints: 2, present: 2, proxies: 3, ..Scenario::default() };
        let now = Time(1_000_000_000_000);
        let mut client = C3::new(&scenario, 1);
        let send = |client: &mut C3| {
            let mut probes = Vec::new();
            client.send(0, Moment { now, servers: &[], probes: &mut probes })
        };
        for (endpoint, service, queue) in [(0, 0.010, 2.0), (1, 0.030, 0.0)] {
            let sent = Sent::first(0, endpoint, now);
            client.replicas[endpoint] = Replica { response: service, service, queue, outstanding: 1 };
            let reply = Reply { service: service as f32, queue: queue as f32, ..Reply::bare(Outcome::Good) };
            client.ended(&sent, &reply, now.after_secs(service));
        }
        // 10 ms · 3³ = 270 ms against 30 ms · 1³.
        assert_eq!(send(&mut client).endpoint, 1);
        // Now 30 ms · (1 + 3)³ = 1,920 ms.
        assert_eq!(send(&mut client).endpoint, 0);
    }
}
