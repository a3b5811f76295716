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
use engine::{Balancer, Decision, Outcome, RequestHandle, RetryHint};
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
    /// Whether the filter is among the cluster's upstream filters, too, and sees each attempt.
    sees_attempts: bool,
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
        Common { config, terms, specs, hashes, sees_attempts: false }
    }

    /// With the filter among the cluster's upstream filters.
    pub fn seeing_attempts(self) -> Common {
        Common { sees_attempts: true, ..self }
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

    /// Sends a request that evenkeel does not steer to `endpoint`.
    fn unsteered(&mut self, endpoint: usize, worker: usize, now: Time) -> Sent {
        let handle = if self.common.sees_attempts { self.started(worker, endpoint, now) } else { None };
        Sent { handle, ..Sent::first(worker, endpoint, now) }
    }

    fn started(&mut self, worker: usize, endpoint: usize, at: Time) -> Option<RequestHandle> {
        let (engine, _) = &mut self.workers[worker];
        let index = engine.upstream(0)?.fleet().index_of_hash(self.common.hashes[endpoint])?;
        engine.started(0, index, at)
    }

    /// The endpoint that Envoy's fallback chooses: round robin.
    fn fallback(&mut self) -> usize {
        for _ in 0..self.present.len() {
            self.turn = (self.turn + 1) % self.present.len();
            if self.present[self.turn] {
                break;
            }
        }
        self.turn
    }

    /// The handle and the outcome to record for an answer, as the filter finds them from the last attempt.
    fn attributed(&mut self, sent: &Sent, outcome: Outcome, now: Time) -> Option<(RequestHandle, Outcome)> {
        let later =
            if sent.again && !self.common.sees_attempts { Outcome::of_a_later_attempt } else { |o| o };
        let Some(handle) = sent.handle else {
            return Some((self.started(sent.worker, sent.endpoint, sent.started)?, later(outcome)));
        };
        let (engine, _) = &mut self.workers[sent.worker];
        let index = engine.upstream(0)?.fleet().index_of_hash(self.common.hashes[sent.endpoint]);
        match index {
            Some(index) if !engine.names(&handle, index) => {
                let moved = engine.reassigned(&handle, index)?;
                engine.record_failed_attempt(&handle, RetryHint::of(outcome, 0), now);
                Some((moved, later(outcome)))
            }
            Some(_) => Some((handle, outcome)),
            None => Some((handle, Outcome::Unrelated)),
        }
    }

    /// Response headers, whose `outcome` is final if it is a failure.
    fn headers(&mut self, sent: &Sent, outcome: Outcome, now: Time) -> Option<(RequestHandle, Outcome)> {
        let outcome = if outcome == Outcome::Good { Outcome::Undecided } else { outcome };
        let (handle, outcome) = self.attributed(sent, outcome, now)?;
        let (engine, _) = &mut self.workers[sent.worker];
        engine.record_response(&handle, outcome, now);
        Some((handle, outcome))
    }

    fn end(&mut self, worker: usize, (handle, outcome): (RequestHandle, Outcome), now: Time) {
        let (engine, _) = &mut self.workers[worker];
        if outcome == Outcome::Undecided {
            engine.record_outcome(&handle, None, now);
        }
        engine.finished(&handle, now);
    }
}

impl LoadBalancer for Proxy {
    fn send(&mut self, worker: usize, moment: Moment<'_>) -> Sent {
        let now = moment.now;
        let (engine, rng) = &mut self.workers[worker];
        self.sent += 1;
        let request = Request { key: Some(rng::mix(rng::mix(self.sent) % USERS)), want: self.want };
        let decision = engine.pick(0, request, now, rng);
        let Decision::Steer(candidates) = decision else {
            let endpoint = self.fallback();
            return self.unsteered(endpoint, worker, now);
        };
        let mut named = candidates.as_slice().iter().map(|index| self.endpoints[*index as usize]);
        let (first, next) = (named.next(), [named.next(), named.next()]);
        let handle = candidates.first().and_then(|index| engine.started(0, index, now));
        Sent { handle, next, ..Sent::first(worker, first.unwrap_or_default(), now) }
    }

    /// As with `override_host`: each attempt goes to the next endpoint of the header, further ones by Envoy's own policy.
    fn send_again(&mut self, failed: &Sent, reply: &Reply, moment: Moment<'_>) -> Sent {
        let endpoint = failed.next[0].unwrap_or_else(|| self.fallback());
        let next = [failed.next[1], None];
        if self.common.sees_attempts {
            self.ended(failed, reply, moment.now);
            return Sent { next, ..self.unsteered(endpoint, failed.worker, moment.now) };
        }
        // The handle stays where it is until the last attempt is answered.
        Sent { endpoint, next, again: true, ..*failed }
    }

    fn ended(&mut self, sent: &Sent, reply: &Reply, now: Time) {
        if let Some(answered) = self.headers(sent, reply.outcome, now) {
            self.end(sent.worker, answered, now);
        }
    }

    fn opened(&mut self, sent: &mut Sent, reply: &Reply, now: Time) {
        sent.handle = self.headers(sent, reply.outcome, now).map(|(handle, _)| handle);
    }

    fn closed(&mut self, sent: &Sent, _reply: &Reply, now: Time) {
        if let Some(handle) = sent.handle {
            self.end(sent.worker, (handle, Outcome::Undecided), now);
        }
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
        Some(Sent { handle: Some(handle), ..Sent::first(worker, endpoint, now) })
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
    // One more than retries, as the documentation advises.
    let mut root = json!({ "steering": { "candidates": scenario.retries.max(1) + 1 } });
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

#[cfg(test)]
mod tests {
    use engine::Failure;

    use super::*;

    fn proxy(scenario: &Scenario, sees_attempts: bool) -> Proxy {
        let common = Common::new(scenario, &Policy::RoundRobin, Ablation::ALL, None);
        let common = if sees_attempts { common.seeing_attempts() } else { common };
        Proxy::new(scenario, Rc::new(common), Time(1_000_000_000), 1)
    }

    fn send(proxy: &mut Proxy, now: Time) -> Sent {
        proxy.send(0, Moment { now, servers: &[], probes: &mut Vec::new() })
    }

    /// What the engine knows of `endpoint`: requests in flight, whether a latency, failed requests.
    fn known(proxy: &Proxy, endpoint: usize) -> (u32, bool, u32) {
        let upstream = proxy.workers[0].0.upstream(0).unwrap();
        let index = upstream.fleet().index_of_hash(proxy.common.hashes[endpoint]).unwrap();
        let view = upstream.endpoint(index).unwrap();
        (view.total_in_flight(), view.latency.estimate().is_some(), view.counters.failures)
    }

    fn retried(sees_attempts: bool) -> [(u32, bool, u32); 2] {
        let scenario = Scenario { endpoints: 2, present: 2, workers: 1, ..Scenario::default() };
        let mut proxy = proxy(&scenario, sees_attempts);
        let now = Time(2_000_000_000);
        let sent = send(&mut proxy, now);
        let refused = Reply::bare(Outcome::Failed(Failure::Refused));
        let moment = Moment { now: now.after_secs(0.001), servers: &[], probes: &mut Vec::new() };
        let again = proxy.send_again(&sent, &refused, moment);
        assert_ne!(again.endpoint, sent.endpoint, "the second candidate");
        proxy.ended(&again, &Reply::bare(Outcome::Good), now.after_secs(0.021));
        [known(&proxy, sent.endpoint), known(&proxy, again.endpoint)]
    }

    #[test]
    fn without_the_upstream_filter_a_retry_is_known_by_its_last_answer() {
        let [first, last] = retried(false);
        assert_eq!((first.0, first.2), (0, 1), "the first endpoint failed");
        assert_eq!(last, (0, false, 0), "the last one's latency includes the first attempt");
    }

    #[test]
    fn with_the_upstream_filter_each_attempt_counts() {
        let [first, last] = retried(true);
        assert_eq!((first.0, first.2), (0, 1));
        assert_eq!(last, (0, true, 0));
    }

    #[test]
    fn a_stream_is_in_flight_until_its_end() {
        let scenario = Scenario { endpoints: 2, present: 2, workers: 1, ..Scenario::default() };
        let mut proxy = proxy(&scenario, false);
        let now = Time(2_000_000_000);
        let mut sent = send(&mut proxy, now);
        let reply = Reply::bare(Outcome::Good);
        proxy.opened(&mut sent, &reply, now.after_secs(0.01));
        assert_eq!(known(&proxy, sent.endpoint).0, 1);
        proxy.closed(&sent, &reply, now.after_secs(5.0));
        assert_eq!(known(&proxy, sent.endpoint), (0, true, 0));
    }
}
