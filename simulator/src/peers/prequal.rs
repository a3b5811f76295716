//! Prequal as published (Wydrowski, Kleinberg, Rumble, Archer: "Load is not what you should balance: Introducing
//! Prequal", NSDI 2024): asynchronous probes into a pool, and the hot/cold rule over it.

use std::collections::VecDeque;

use engine::rng::Rng;
use engine::time::Time;

use super::hosts::Hosts;
use crate::balancer::{LoadBalancer, Moment, Reply, Sent};
use crate::scenario::Scenario;

/// Probes sent with each query, r_probe.
const PROBES: usize = 3;
/// Answers removed with each query, r_remove, alternating between the oldest and the worst.
const REMOVES: f64 = 1.0;
/// Maximum size of the pool.
const POOL: usize = 16;
/// Maximum age of an answer that is used, seconds.
const OLDEST_S: f64 = 1.0;
/// Excess of answers gained over answers used up, δ.
const DELTA: f64 = 1.0;
/// Quantile of requests in flight above which an endpoint is hot.
const HOT: f64 = 0.84;
/// Number of answers that the quantile is taken over.
const SEEN: usize = 128;
/// Minimum size of the pool; below it, the choice is random.
const MIN_POOL: usize = 2;

#[derive(Clone, Copy, Debug)]
struct Answer {
    endpoint: usize,
    in_flight: u32,
    latency: f64,
    at: Time,
    uses_left: f64,
}

/// One client.
pub struct Prequal {
    hosts: Hosts,
    pool: Vec<Answer>,
    seen: VecDeque<u32>,
    sorted: Vec<u32>,
    worst_next: bool,
    rng: Rng,
}

impl Prequal {
    /// Creates a client for `scenario`.
    pub fn new(scenario: &Scenario, seed: u64) -> Prequal {
        Prequal {
            hosts: Hosts::new(scenario),
            pool: Vec::with_capacity(POOL),
            seen: VecDeque::with_capacity(SEEN),
            sorted: Vec::with_capacity(SEEN),
            worst_next: false,
            rng: Rng::new(seed),
        }
    }

    /// Maximum size of the pool: at most half the fleet, because the formula for reuse does not hold beyond that.
    fn most(&self) -> usize {
        POOL.min(self.hosts.all().len() / 2).max(MIN_POOL)
    }

    /// b_reuse in the paper, §4.
    fn uses(&self) -> f64 {
        let unpooled = 1.0 - self.most() as f64 / self.hosts.all().len() as f64;
        let net = unpooled * PROBES as f64 - REMOVES;
        if net <= 0.0 { f64::INFINITY } else { ((1.0 + DELTA) / net).max(1.0) }
    }

    /// Requests in flight above which an endpoint is hot.
    fn threshold(&mut self) -> u32 {
        self.sorted.clear();
        self.sorted.extend(&self.seen);
        let rank = (self.sorted.len() as f64 * HOT) as usize;
        match self.sorted.len() {
            0 => 0,
            len => *self.sorted.select_nth_unstable(rank.min(len - 1)).1,
        }
    }

    /// Order: cold before hot, cold ones by latency, hot ones by requests in flight.
    fn rank(answer: &Answer, threshold: u32) -> (bool, f64) {
        let hot = answer.in_flight > threshold;
        (hot, if hot { f64::from(answer.in_flight) } else { answer.latency })
    }

    fn best(&mut self) -> Option<usize> {
        let threshold = self.threshold();
        let order = |a: &Answer, b: &Answer| {
            let (a, b) = (Prequal::rank(a, threshold), Prequal::rank(b, threshold));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        };
        (0..self.pool.len()).min_by(|a, b| order(&self.pool[*a], &self.pool[*b]))
    }

    fn remove_one(&mut self) {
        let threshold = self.threshold();
        let key = |a: &Answer| Prequal::rank(a, threshold);
        let index = if self.worst_next {
            (0..self.pool.len()).max_by(|a, b| {
                let (a, b) = (key(&self.pool[*a]), key(&self.pool[*b]));
                a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
            })
        } else {
            (0..self.pool.len()).min_by_key(|i| self.pool[*i].at)
        };
        self.worst_next = !self.worst_next;
        if let Some(index) = index {
            self.pool.remove(index);
        }
    }
}

impl LoadBalancer for Prequal {
    fn send(&mut self, worker: usize, moment: Moment<'_>) -> Sent {
        let Moment { now, probes, .. } = moment;
        self.pool.retain(|a| now.seconds_since(a.at) <= OLDEST_S);
        let best = if self.pool.len() < MIN_POOL { None } else { self.best() };
        let endpoint = match best {
            Some(index) => {
                let answer = &mut self.pool[index];
                answer.in_flight += 1;
                answer.uses_left -= 1.0;
                let endpoint = answer.endpoint;
                if answer.uses_left < self.rng.unit() {
                    self.pool.remove(index);
                }
                endpoint
            }
            None => self.hosts.draw(1, &mut self.rng)[0],
        };
        if self.pool.len() > MIN_POOL {
            self.remove_one();
        }
        probes.extend_from_slice(self.hosts.draw(PROBES, &mut self.rng));
        Sent::first(worker, endpoint, now)
    }

    fn ended(&mut self, _sent: &Sent, _reply: &Reply, _now: Time) {}

    fn probed(&mut self, _worker: usize, endpoint: usize, in_flight: u32, latency: f64, now: Time) {
        if self.seen.len() == SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(in_flight);
        self.pool.retain(|a| a.endpoint != endpoint);
        if self.pool.len() >= self.most() {
            let oldest = (0..self.pool.len()).min_by_key(|i| self.pool[*i].at);
            oldest.map(|i| self.pool.remove(i));
        }
        let uses_left = self.uses();
        self.pool.push(Answer { endpoint, in_flight, latency, at: now, uses_left });
    }

    fn fleet(&mut self, present: &[bool], _now: Time) {
        self.hosts.set(present);
        self.pool.retain(|a| present[a.endpoint]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(endpoints: usize) -> Prequal {
        Prequal::new(&Scenario { endpoints, present: endpoints, ..Scenario::default() }, 1)
    }

    fn send(client: &mut Prequal, now: Time) -> (usize, Vec<usize>) {
        let mut probes = Vec::new();
        let endpoint = client.send(0, Moment { now, servers: &[], probes: &mut probes }).endpoint;
        (endpoint, probes)
    }

    #[test]
    fn cold_goes_by_latency_hot_by_requests_in_flight() {
        let now = Time(1_000_000_000_000);
        let mut cold = client(20);
        for (endpoint, in_flight, latency) in [(1, 3, 0.030), (2, 2, 0.040), (3, 3, 0.020), (4, 9, 0.001)] {
            cold.probed(0, endpoint, in_flight, latency, now);
        }
        (0..10).for_each(|_| cold.seen.push_back(3));
        assert_eq!(send(&mut cold, now).0, 3, "the fastest of those with at most three in flight");
        let mut hot = client(20);
        hot.probed(0, 5, 7, 0.001, now);
        hot.probed(0, 6, 6, 0.900, now);
        hot.seen = vec![1; 100].into();
        assert_eq!(send(&mut hot, now).0, 6, "all hot: the fewest in flight");
    }

    #[test]
    fn old_answers_are_not_used_and_three_are_asked() {
        let now = Time(1_000_000_000_000);
        let mut client = client(20);
        (0..8).for_each(|e| client.probed(0, e, 0, 0.01, now));
        let (_, probes) = send(&mut client, now.after_secs(1.1));
        assert!(client.pool.is_empty());
        assert_eq!(probes.len(), PROBES);
        assert!(probes[0] != probes[1] && probes[1] != probes[2] && probes[0] != probes[2]);
    }

    #[test]
    fn the_pool_is_bounded_and_reuse_follows_the_papers_formula() {
        let now = Time(1_000_000_000_000);
        let mut client = client(100);
        (0..100).for_each(|e| client.probed(0, e, 0, 0.01, now.after_secs(e as f64 * 1e-3)));
        assert_eq!(client.pool.len(), POOL);
        assert_eq!(client.pool.iter().map(|a| a.endpoint).min(), Some(84), "the newest stay");
        // (1 + 1) / ((1 − 16/100) · 3 − 1)
        assert!((client.uses() - 2.0 / 1.52).abs() < 1e-9);
    }
}
