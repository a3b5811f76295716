//! Client-side weighted round robin by ORCA load reports, as in gRPC proposal A58
//! (<https://github.com/grpc/proposal/blob/master/A58-client-side-weighted-round-robin-lb-policy.md>) and in Envoy.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use engine::rng::Rng;
use engine::time::Time;

use crate::balancer::Reply;

/// `weight_update_period`, seconds.
const UPDATE_S: f64 = 1.0;
/// `error_utilization_penalty`.
const ERROR_PENALTY: f64 = 1.0;

#[derive(Clone, Copy, Debug, Default)]
struct Reported {
    weight: f64,
    since: Option<Time>,
}

/// The reports of all endpoints, shared by the workers, and each worker's order.
#[derive(Clone, Debug)]
pub struct Orca {
    blackout_s: f64,
    reported: Vec<Reported>,
    weights: Vec<f64>,
    updated: Time,
    orders: Vec<Order>,
}

impl Orca {
    /// Creates it; reports count from `blackout_s` seconds after an endpoint's first one.
    pub fn new(endpoints: usize, workers: usize, blackout_s: f64, now: Time) -> Orca {
        Orca {
            blackout_s,
            reported: vec![Reported::default(); endpoints],
            weights: vec![1.0; endpoints],
            updated: now,
            orders: vec![Order::default(); workers],
        }
    }

    /// Records the report in `reply`.
    pub fn ended(&mut self, endpoint: usize, reply: &Reply, now: Time) {
        let errors = if reply.qps > 0.0 { f64::from(reply.eps / reply.qps) } else { 0.0 };
        let utilisation = f64::from(reply.utilisation) + errors * ERROR_PENALTY;
        if reply.qps > 0.0 && utilisation > 0.0 {
            let reported = &mut self.reported[endpoint];
            reported.weight = f64::from(reply.qps) / utilisation;
            reported.since.get_or_insert(now);
        }
    }

    /// Updates the weights when that is due.
    pub fn tick(&mut self, hosts: &[usize], rng: &mut Rng, now: Time) {
        if now.seconds_since(self.updated) < UPDATE_S {
            return;
        }
        self.updated = now;
        let usable = |r: &Reported| r.since.is_some_and(|s| now.seconds_since(s) >= self.blackout_s);
        let known: Vec<f64> =
            hosts.iter().map(|h| &self.reported[*h]).filter(|r| usable(r)).map(|r| r.weight).collect();
        // With fewer than two known weights, A58 falls back to round robin.
        let mean = if known.len() < 2 { 1.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
        for host in hosts {
            let reported = &self.reported[*host];
            let own = known.len() >= 2 && usable(reported);
            self.weights[*host] = if own { reported.weight } else { mean };
        }
        self.rebuild(hosts, rng);
    }

    /// Restarts the order of all workers over `hosts`.
    pub fn rebuild(&mut self, hosts: &[usize], rng: &mut Rng) {
        for order in &mut self.orders {
            order.rebuild(hosts, &self.weights, rng);
        }
    }

    /// The next endpoint for `worker`.
    pub fn next(&mut self, worker: usize) -> usize {
        self.orders[worker].next(&self.weights)
    }
}

/// Earliest deadline first: an endpoint's next turn is 1/weight after its last. Deadlines are positive, so they can be
/// compared by their bits.
#[derive(Clone, Debug, Default)]
struct Order {
    heap: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Order {
    fn rebuild(&mut self, hosts: &[usize], weights: &[f64], rng: &mut Rng) {
        self.heap.clear();
        for host in hosts {
            // A random phase, so that workers do not run in step.
            let first = (1.0 - rng.unit()) / weights[*host];
            self.heap.push(Reverse((first.to_bits(), *host)));
        }
    }

    fn next(&mut self, weights: &[f64]) -> usize {
        let Some(mut first) = self.heap.peek_mut() else { return 0 };
        let Reverse((deadline, host)) = *first;
        *first = Reverse(((f64::from_bits(deadline) + 1.0 / weights[host]).to_bits(), host));
        host
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Outcome;

    fn s(seconds: f64) -> Time {
        Time::from_secs_f64(1000.0 + seconds)
    }

    fn report(qps: f32, eps: f32, utilisation: f32) -> Reply {
        Reply { qps, eps, utilisation, ..Reply::bare(Outcome::Good) }
    }

    fn counts(orca: &mut Orca, picks: usize) -> [usize; 3] {
        let mut counts = [0; 3];
        (0..picks).for_each(|_| counts[orca.next(0)] += 1);
        counts
    }

    #[test]
    fn turns_follow_what_a_unit_of_utilisation_yields() {
        let (hosts, mut rng) = ([0, 1, 2], Rng::new(1));
        let mut orca = Orca::new(3, 1, 10.0, s(0.0));
        orca.rebuild(&hosts, &mut rng);
        for (host, qps, eps) in [(0, 60.0, 0.0), (1, 30.0, 0.0), (2, 60.0, 30.0)] {
            orca.ended(host, &report(qps, eps, 0.5), s(1.0));
        }
        orca.tick(&hosts, &mut rng, s(5.0));
        assert_eq!(counts(&mut orca, 300), [100, 100, 100], "within the blackout");
        orca.tick(&hosts, &mut rng, s(11.5));
        // 60/0.5 = 120, 30/0.5 = 60, and with half of the answers errors, 60/(0.5 + 0.5) = 60.
        let found = counts(&mut orca, 400);
        assert!(found.iter().zip([200, 100, 100]).all(|(f, e)| f.abs_diff(e) <= 1), "{found:?}");
    }

    #[test]
    fn endpoint_without_report_gets_the_mean() {
        let (hosts, mut rng) = ([0, 1, 2], Rng::new(1));
        let mut orca = Orca::new(3, 1, 0.0, s(0.0));
        orca.rebuild(&hosts, &mut rng);
        orca.ended(0, &report(90.0, 0.0, 0.5), s(0.5));
        orca.ended(1, &report(30.0, 0.0, 0.5), s(0.5));
        orca.tick(&hosts, &mut rng, s(1.0));
        let found = counts(&mut orca, 600);
        assert!(found.iter().zip([300, 100, 200]).all(|(f, e)| f.abs_diff(e) <= 1), "{found:?}");
    }
}
