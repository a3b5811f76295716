//! evenkeel itself: the engine that runs in Envoy, one for each worker.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use evenkeel::config::{self, Config};
use evenkeel::engine::{Decision, Engine};
use evenkeel::fleet::Spec;
use evenkeel::random::{self, Rng};
use evenkeel::time::Time;

use crate::balancer::{Balancer, Moment, Reply, Sent};
use crate::exchange::Exchange;
use crate::scenario::Scenario;

/// What the endpoints are called, the same for all proxies.
pub struct Names {
    specs: Vec<Spec>,
    hashes: Vec<u64>,
}

impl Names {
    /// Names for `endpoints` endpoints.
    pub fn new(endpoints: usize) -> Names {
        let specs: Vec<Spec> = (0..endpoints).map(|i| Spec::from(&fixed(i))).collect();
        let hashes = specs.iter().map(|s| random::hash(s.address.to_string().as_bytes())).collect();
        Names { specs, hashes }
    }
}

/// A proxy with the filter.
pub struct Proxy {
    workers: Vec<(Engine, Rng)>,
    exchange: Exchange,
    want: usize,
    names: Rc<Names>,
    /// By the index of the engine's fleet, which is the same in every worker: all hear the same news.
    endpoints: Vec<usize>,
    present: Vec<bool>,
    turn: usize,
}

impl Proxy {
    /// As configured for `scenario`, with `policy`.
    pub fn new(
        scenario: &Scenario,
        policy: &config::Policy,
        names: Rc<Names>,
        now: Time,
        seed: u64,
    ) -> Proxy {
        let config = configuration(scenario, policy);
        let mut rng = Rng::new(seed);
        let mut proxy = Proxy {
            workers: (0..scenario.workers)
                .map(|_| (Engine::new(&config, now), Rng::new(rng.next_u64())))
                .collect(),
            exchange: Exchange::new(scenario.workers),
            want: config.steering.candidates,
            names,
            endpoints: Vec::new(),
            present: (0..scenario.endpoints).map(|i| i < scenario.present).collect(),
            turn: 0,
        };
        proxy.map_endpoints();
        proxy
    }

    fn map_endpoints(&mut self) {
        let Some(upstream) = self.workers.first().and_then(|(engine, _)| engine.upstream(0)) else { return };
        self.endpoints.resize(upstream.fleet().places(), 0);
        for (endpoint, hash) in self.names.hashes.iter().enumerate() {
            if let Some(index) = upstream.fleet().index_of_hash(*hash) {
                self.endpoints[index as usize] = endpoint;
            }
        }
    }

    /// Where Envoy's round robin sends what the filter leaves to it.
    fn fallback(&mut self) -> usize {
        for _ in 0..self.present.len() {
            self.turn = (self.turn + 1) % self.present.len();
            if self.present[self.turn] {
                break;
            }
        }
        self.turn
    }
}

impl Balancer for Proxy {
    fn send(&mut self, worker: usize, moment: Moment<'_>) -> Sent {
        let now = moment.now;
        let (engine, rng) = &mut self.workers[worker];
        let index = match engine.pick(0, self.want, now, rng) {
            Decision::Steer(candidates) => candidates.first(),
            _ => None,
        };
        let (endpoint, ticket) = match index {
            Some(index) => (self.endpoints[index as usize], engine.started(0, index, now)),
            None => {
                let endpoint = self.fallback();
                let (engine, _) = &mut self.workers[worker];
                let index =
                    engine.upstream(0).and_then(|u| u.fleet().index_of_hash(self.names.hashes[endpoint]));
                (endpoint, index.and_then(|i| engine.started(0, i, now)))
            }
        };
        Sent { worker, endpoint, started: now, ticket }
    }

    fn ended(&mut self, sent: &Sent, reply: &Reply, now: Time) {
        let (engine, _) = &mut self.workers[sent.worker];
        if let Some(ticket) = &sent.ticket {
            engine.answered(ticket, reply.outcome, now);
            engine.finished(ticket, now);
        }
    }

    fn tick(&mut self, worker: usize, now: Time) {
        let (engine, _) = &mut self.workers[worker];
        let duty = self.exchange.swap(worker, engine, now);
        engine.tick(duty, now);
    }

    fn fleet(&mut self, present: &[bool], now: Time) {
        self.present.copy_from_slice(present);
        let there = self.names.specs.iter().zip(present).filter(|(_, p)| **p);
        let specs: Vec<Spec> = there.map(|(s, _)| s.clone()).collect();
        for (engine, _) in &mut self.workers {
            if let Some(upstream) = engine.upstream_mut(0) {
                upstream.set_fleet(&specs, now);
            }
        }
        self.map_endpoints();
    }

    fn signal(&mut self, endpoint: usize, value: f64, at: Time) {
        for (engine, _) in &mut self.workers {
            if let Some(upstream) = engine.upstream_mut(0) {
                upstream.set_signal(0, self.names.hashes[endpoint], value, at);
            }
        }
    }
}

fn fixed(endpoint: usize) -> config::StaticEndpoint {
    let address = Ipv4Addr::from(0x0A00_0001 + endpoint as u32);
    config::StaticEndpoint {
        address: SocketAddr::from((address, 8080)),
        weight: 1.0,
        zone: String::new(),
        priority: 0,
        version: String::new(),
    }
}

/// The contract's defaults.
fn configuration(scenario: &Scenario, policy: &config::Policy) -> Config {
    let signal = scenario.signal.map(|s| config::Signal {
        name: "queue_depth".into(),
        query: "task_queue_depth".into(),
        weight: 1.0,
        max: s.max,
        smoothing: 0.3,
        address_label: "instance".into(),
        port: None,
    });
    let prometheus = scenario.signal.map(|s| config::Prometheus {
        cluster: "prometheus".into(),
        authority: "prometheus".into(),
        path_prefix: String::new(),
        interval: Duration::from_secs_f64(s.poll),
        timeout: Duration::from_secs_f64(s.poll),
        headers: Vec::new(),
    });
    let upstream = config::Upstream {
        cluster: "*".into(),
        endpoints: config::Endpoints {
            fixed: (0..scenario.present).map(fixed).collect(),
            ..config::Endpoints::default()
        },
        policy: policy.clone(),
        signals: signal.into_iter().collect(),
        health: config::Health {
            suspect_after: 1,
            fail_after: 3,
            recover_after: 3,
            ejection: Duration::from_secs(30),
            max_ejected_percent: 50.0,
        },
        slow_start: Duration::from_secs(30),
        failover: config::Failover { none_eligible: config::NoneEligible::Envoy, panic_percent: 50.0 },
        zone: None,
        affinity: None,
        split: Vec::new(),
        autoscale: None,
    };
    Config {
        mode: config::Mode::Enforce,
        steering: config::Steering {
            via: config::Via::OverrideHost,
            header: "x-evenkeel-endpoint".into(),
            candidates: 2,
        },
        prometheus,
        upstreams: vec![upstream],
        status: None,
    }
}
