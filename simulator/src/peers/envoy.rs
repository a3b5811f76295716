//! Envoy's own policies. Each worker has its own balancer, but the number of active requests belongs to the host and is
//! shared by the process, as in Envoy.

use engine::rng::Rng;
use engine::time::Time;

use super::orca::Orca;
use super::outlier::Outlier;
use crate::balancer::{LoadBalancer, Moment, Reply, Sent};
use crate::scenario::Scenario;

/// Fraction of healthy hosts below which Envoy ignores health (`healthy_panic_threshold`).
const PANIC: f64 = 0.5;

/// The policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Each host in turn, from a random start.
    RoundRobin,
    /// A random host.
    Random,
    /// The host with fewer active requests of two drawn with replacement.
    LeastRequest,
    /// Client-side weighted round robin by ORCA load reports, which count after this many seconds.
    Orca(f64),
}

/// One Envoy.
pub struct Proxy {
    kind: Kind,
    outlier: Option<Outlier>,
    present: Vec<bool>,
    hosts: Vec<usize>,
    active: Vec<u32>,
    weights: Vec<f64>,
    /// Next turn of each host in the worker's own time, by worker; if weights differ.
    deadlines: Vec<Vec<f64>>,
    turns: Vec<usize>,
    orca: Orca,
    rng: Rng,
}

impl Proxy {
    /// Creates a proxy for `scenario`.
    pub fn new(kind: Kind, outlier: bool, scenario: &Scenario, now: Time, seed: u64) -> Proxy {
        let mut rng = Rng::new(seed);
        let blackout_s = if let Kind::Orca(seconds) = kind { seconds } else { 0.0 };
        let mut proxy = Proxy {
            kind,
            outlier: outlier.then(|| Outlier::new(scenario.endpoints, now)),
            present: (0..scenario.endpoints).map(|i| i < scenario.present).collect(),
            hosts: Vec::new(),
            active: vec![0; scenario.endpoints],
            weights: scenario.weights.clone(),
            deadlines: Vec::new(),
            turns: (0..scenario.workers).map(|_| rng.below(scenario.present as u32) as usize).collect(),
            orca: Orca::new(scenario.endpoints, scenario.workers, blackout_s, now),
            rng,
        };
        if !proxy.weights.is_empty() {
            let mut staggered = || proxy.weights.iter().map(|w| proxy.rng.unit() / w).collect();
            proxy.deadlines = (0..scenario.workers).map(|_| staggered()).collect();
        }
        proxy.refresh();
        proxy
    }

    fn refresh(&mut self) {
        let there = self.present.iter().enumerate().filter(|(_, p)| **p).map(|(i, _)| i);
        let all: Vec<usize> = there.collect();
        let healthy = |i: &usize| self.outlier.as_ref().is_none_or(|o| !o.ejected(*i));
        let well: Vec<usize> = all.iter().copied().filter(healthy).collect();
        let hosts = if (well.len() as f64) < PANIC * all.len() as f64 { all } else { well };
        for deadlines in &mut self.deadlines {
            // A host that returns does not catch up on missed turns.
            let next = self.hosts.iter().map(|h| deadlines[*h]).fold(f64::INFINITY, f64::min);
            let new = hosts.iter().filter(|h| next.is_finite() && !self.hosts.contains(h));
            new.for_each(|host| deadlines[*host] = deadlines[*host].max(next));
        }
        self.hosts = hosts;
        if matches!(self.kind, Kind::Orca(_)) {
            self.orca.rebuild(&self.hosts, &mut self.rng);
        }
    }

    fn any(&mut self) -> usize {
        self.hosts[self.rng.below(self.hosts.len() as u32) as usize]
    }
}

impl Proxy {
    /// Earliest deadline first, with turns 1/weight apart; for least request, a host's weight is divided by its active
    /// requests plus one. `None` if weights are equal, or not used.
    fn weighted(&mut self, worker: usize) -> Option<usize> {
        let least = match self.kind {
            Kind::LeastRequest => true,
            Kind::RoundRobin => false,
            Kind::Random | Kind::Orca(_) => return None,
        };
        let deadlines = self.deadlines.get_mut(worker)?;
        let first = *self.hosts.iter().min_by(|a, b| deadlines[**a].total_cmp(&deadlines[**b]))?;
        let active = if least { f64::from(self.active[first]) + 1.0 } else { 1.0 };
        deadlines[first] += active / self.weights[first];
        Some(first)
    }
}

impl LoadBalancer for Proxy {
    fn send(&mut self, worker: usize, moment: Moment<'_>) -> Sent {
        let weighted = self.weighted(worker);
        let endpoint = match self.kind {
            _ if weighted.is_some() => weighted.unwrap_or_default(),
            Kind::RoundRobin => {
                self.turns[worker] = (self.turns[worker] + 1) % self.hosts.len();
                self.hosts[self.turns[worker]]
            }
            Kind::Random => self.any(),
            Kind::LeastRequest => {
                let (first, second) = (self.any(), self.any());
                if self.active[second] < self.active[first] { second } else { first }
            }
            Kind::Orca(_) => self.orca.next(worker),
        };
        self.active[endpoint] += 1;
        Sent::first(worker, endpoint, moment.now)
    }

    fn ended(&mut self, sent: &Sent, reply: &Reply, now: Time) {
        self.active[sent.endpoint] -= 1;
        if matches!(self.kind, Kind::Orca(_)) {
            self.orca.ended(sent.endpoint, reply, now);
        }
        let ejected = self
            .outlier
            .as_mut()
            .is_some_and(|o| o.ended(sent.endpoint, reply.good() || reply.limited(), now));
        if ejected {
            self.refresh();
        }
    }

    fn tick(&mut self, _worker: usize, now: Time) {
        if self.outlier.as_mut().is_some_and(|o| o.tick(now)) {
            self.refresh();
        }
        if matches!(self.kind, Kind::Orca(_)) {
            self.orca.tick(&self.hosts, &mut self.rng, now);
        }
    }

    fn fleet(&mut self, present: &[bool], _now: Time) {
        self.present.copy_from_slice(present);
        self.refresh();
    }
}
