//! evenkeel itself: the engine that runs in Envoy, one per worker.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use config::Config;
use engine::ablation::Ablation;
use engine::endpoint::Spec;
use engine::policy::Request;
use engine::rng::{self, Rng};
use engine::settings::{Policy, Probe};
use engine::time::Time;
use engine::{Balancer, Decision};
use serde_json::json;

use crate::balancer::{LoadBalancer, Moment, Reply, Sent, Wish};
use crate::exchange::Exchange;
use crate::scenario::Scenario;

/// State that all proxies share: their configuration, and the addresses of the endpoints.
pub struct Common {
    config: Config,
    terms: Ablation,
    specs: Vec<Spec>,
    hashes: Vec<u64>,
}

impl Common {
    /// Creates the configuration for `scenario` with `policy`, the adaptive one with the parts in `terms`; everything
    /// else has its default.
    ///
    /// # Panics
    /// If the configuration is refused.
    pub fn new(scenario: &Scenario, policy: &Policy, terms: Ablation, probe: Option<Probe>) -> Common {
        let address = |e: usize| SocketAddr::from((Ipv4Addr::from(0x0A00_0001 + e as u32), 8080)).to_string();
        let addresses: Vec<String> = (0..scenario.endpoints).map(address).collect();
        let mut config = configuration(scenario, policy, &addresses);
        config.upstreams.iter_mut().for_each(|upstream| upstream.health.probe = probe.clone());
        let fixed = config.upstreams.iter().flat_map(|u| &u.endpoints.fixed);
        let specs = fixed.map(Spec::from).collect();
        let hashes = addresses.iter().map(|a| rng::hash(a.as_bytes())).collect();
        Common { config, terms, specs, hashes }
    }

    fn specs(&self, present: &[bool]) -> Vec<Spec> {
        self.specs.iter().zip(present).filter(|(_, there)| **there).map(|(spec, _)| spec.clone()).collect()
    }
}

/// A proxy with the filter.
pub struct Proxy {
    workers: Vec<(Balancer, Rng)>,
    exchange: Exchange,
    want: usize,
    common: Rc<Common>,
    /// Endpoint by the engine's index, which is the same in every worker, because all get the same updates.
    endpoints: Vec<usize>,
    present: Vec<bool>,
    turn: usize,
    sent: u64,
}

/// Number of clients that requests come from, for hashing policies; all equally active.
const USERS: u64 = 10_000;

impl Proxy {
    /// Creates a proxy for `scenario`, as configured in `common`.
    pub fn new(scenario: &Scenario, common: Rc<Common>, now: Time, seed: u64) -> Proxy {
        let mut rng = Rng::new(seed);
        let present: Vec<bool> = (0..scenario.endpoints).map(|i| i < scenario.present).collect();
        let mut config = common.config.clone();
        for upstream in &mut config.upstreams {
            upstream.endpoints.fixed.truncate(scenario.present);
        }
        let mut proxy = Proxy {
            workers: (0..scenario.workers)
                .map(|_| (Balancer::with_ablation(&config, common.terms, now), Rng::new(rng.next_u64())))
                .collect(),
            exchange: Exchange::new(scenario.workers),
            want: config.steering.candidates,
            common,
            endpoints: Vec::new(),
            present,
            turn: 0,
            sent: 0,
        };
        proxy.map_endpoints();
        proxy
    }

    fn map_endpoints(&mut self) {
        let Some(upstream) = self.workers.first().and_then(|(engine, _)| engine.upstream(0)) else { return };
        self.endpoints.resize(upstream.fleet().places(), 0);
        for (endpoint, hash) in self.common.hashes.iter().enumerate() {
            if let Some(index) = upstream.fleet().index_of_hash(*hash) {
                self.endpoints[index as usize] = endpoint;
            }
        }
    }

    /// Sends a request to `endpoint`, regardless of its state in the engine.
    fn to(&mut self, endpoint: usize, worker: usize, now: Time) -> Sent {
        let (engine, _) = &mut self.workers[worker];
        let index = engine.upstream(0).and_then(|u| u.fleet().index_of_hash(self.common.hashes[endpoint]));
        let handle = index.and_then(|i| engine.started(0, i, now));
        Sent { worker, endpoint, started: now, handle, second: None }
    }

    /// Sends a request that the filter leaves to Envoy, by round robin.
    fn fall_back(&mut self, worker: usize, now: Time) -> Sent {
        for _ in 0..self.present.len() {
            self.turn = (self.turn + 1) % self.present.len();
            if self.present[self.turn] {
                break;
            }
        }
        self.to(self.turn, worker, now)
    }
}

impl LoadBalancer for Proxy {
    fn send(&mut self, worker: usize, moment: Moment<'_>) -> Sent {
        let now = moment.now;
        let (engine, rng) = &mut self.workers[worker];
        self.sent += 1;
        let request = Request { key: Some(rng::mix(rng::mix(self.sent) % USERS)), want: self.want };
        let Decision::Steer(candidates) = engine.pick(0, request, now, rng) else {
            return self.fall_back(worker, now);
        };
        let Some(index) = candidates.first() else { return self.fall_back(worker, now) };
        let second = candidates.as_slice().get(1).map(|index| self.endpoints[*index as usize]);
        let handle = engine.started(0, index, now);
        Sent { worker, endpoint: self.endpoints[index as usize], started: now, handle, second }
    }

    /// As with `override_host`, and with the filter among the cluster's upstream filters: the second attempt goes to
    /// the header's second endpoint, further ones by Envoy's own policy, and each attempt is measured.
    fn send_again(&mut self, failed: &Sent, moment: Moment<'_>) -> Sent {
        match failed.second {
            Some(endpoint) => self.to(endpoint, failed.worker, moment.now),
            None => self.fall_back(failed.worker, moment.now),
        }
    }

    fn ended(&mut self, sent: &Sent, reply: &Reply, now: Time) {
        let (engine, _) = &mut self.workers[sent.worker];
        if let Some(handle) = &sent.handle {
            engine.record_response(handle, reply.outcome, now);
            engine.finished(handle, now);
        }
    }

    fn opened(&mut self, sent: &Sent, reply: &Reply, now: Time) {
        let (engine, _) = &mut self.workers[sent.worker];
        sent.handle.iter().for_each(|handle| engine.record_response(handle, reply.outcome, now));
    }

    fn closed(&mut self, sent: &Sent, _reply: &Reply, now: Time) {
        let (engine, _) = &mut self.workers[sent.worker];
        sent.handle.iter().for_each(|handle| engine.finished(handle, now));
    }

    fn tick(&mut self, worker: usize, now: Time) {
        let (engine, _) = &mut self.workers[worker];
        let shard = self.exchange.swap(worker, engine, now);
        engine.tick(shard, now);
        // The worker that would hold the lease.
        if worker == 0 {
            engine.scale_replicas(now);
        }
    }

    fn own(&mut self, worker: usize, now: Time) -> Option<Sent> {
        let (engine, _) = &mut self.workers[worker];
        let handle = engine.take_probe(0, now)?;
        let endpoint = self.endpoints[handle.endpoint.index as usize];
        Some(Sent { worker, endpoint, started: now, handle: Some(handle), second: None })
    }

    fn own_ended(&mut self, sent: &Sent, reply: &Reply, now: Time) {
        let (engine, _) = &mut self.workers[sent.worker];
        sent.handle.iter().for_each(|handle| engine.record_probe(handle, reply.outcome, now));
    }

    fn wish(&self) -> Wish {
        let upstream = self.workers.first().and_then(|(engine, _)| engine.upstream(0));
        upstream.map_or(Wish::default(), |upstream| Wish {
            pressure: upstream.pressure(),
            replicas: upstream.desired_replicas(),
        })
    }

    fn fleet(&mut self, present: &[bool], now: Time) {
        self.present.copy_from_slice(present);
        let specs = self.common.specs(present);
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
                upstream.set_signal(0, self.common.hashes[endpoint], value, at);
            }
        }
    }

    fn signals_told(&mut self, known: usize, at: Time) {
        for (engine, _) in &mut self.workers {
            if let Some(upstream) = engine.upstream_mut(0) {
                upstream.record_signal_answer(0, known, at);
            }
        }
    }
}

fn configuration(scenario: &Scenario, policy: &Policy, addresses: &[String]) -> Config {
    let mut upstream = json!({
        "cluster": "*",
        "endpoints": { "static": addresses },
    });
    if let Some(zones) = scenario.zones {
        let zone = |e: usize| if e < zones.local { "near" } else { "far" };
        let placed = addresses.iter().enumerate().map(|(e, a)| json!({ "address": a, "zone": zone(e) }));
        upstream["endpoints"]["static"] = placed.collect();
        upstream["zone"] = json!({ "local": "near" });
    }
    if !scenario.weights.is_empty() {
        let told = addresses.iter().enumerate();
        let told = told.map(|(e, a)| json!({ "address": a, "weight": scenario.weight(e) }));
        upstream["endpoints"]["static"] = told.collect();
    }
    let mut root = json!({});
    if let Some(signal) = scenario.signal {
        let poll = format!("{}ms", (signal.poll * 1000.0).round());
        root["prometheus"] = json!({ "cluster": "prometheus", "interval": poll, "timeout": poll });
        upstream["signals"] =
            json!([{ "name": "queue_depth", "query": "task_queue_depth", "smoothing": 0.3 }]);
        if let Some(max) = signal.max {
            upstream["signals"][0]["max"] = json!(max);
        }
    }
    if let Some(scaling) = scenario.scaling {
        let seconds = |seconds: f64| format!("{}ms", (seconds * 1000.0).round());
        upstream["autoscale"] = json!({
            "min": scaling.min, "max": scenario.endpoints, "target_pressure": scaling.target,
            "period": seconds(scaling.period), "cool_down": seconds(scaling.cool_down),
            "look_ahead": seconds(scaling.look_ahead),
        });
        // Requested replicas are wanted soon.
        upstream["slow_start"] = json!(seconds(scaling.period));
    }
    root["upstreams"] = json!([upstream]);
    match config::parse(root.to_string().as_bytes()) {
        Ok(mut config) => {
            config.upstreams.iter_mut().for_each(|u| u.policy = policy.clone());
            config
        }
        Err(faults) => panic!("the scenario {} makes no configuration: {faults:?}", scenario.name),
    }
}
