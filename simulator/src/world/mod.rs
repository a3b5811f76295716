//! The event loop: requests arrive, are sent, served and completed.
//!
//! Messages with a constant delay (to an endpoint, back, a timeout) are in order by themselves and kept in plain
//! queues. Only other events go through the heap, which therefore remains small.

mod changes;
mod event;
mod service;
mod traffic;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use engine::rng::{self, Rng};
use engine::time::Time;
use engine::{Failure, Outcome};

use crate::balancer::{LoadBalancer, Moment, Reply, Sent};
use crate::contender::Contender;
use crate::run::{Record, Run};
use crate::scenario::{Long, Mode, Scenario};
use crate::server::{Server, Work};
use event::{Event, Inbound, Outbound, Timed};
use traffic::{Arrival, Traffic};

/// Start of the run; not the epoch, which the engine treats as "never".
const START: Time = Time(1_000_000_000_000);
/// Duration of a refusal, a fast error and the acceptance of a task, seconds.
const AT_ONCE_S: f64 = 0.001;
/// Work in an out-of-band probe, in multiples of a user request's mean work.
const OWN_WORK: f64 = 0.1;
/// Timeout of an out-of-band probe, seconds.
const OWN_TIMEOUT_S: f64 = 1.0;
/// Maximum time from the last arrival to the end, seconds.
const DRAIN_S: f64 = 30.0;

/// Runs `contender` through `scenario`; every contender gets the same traffic for the same seed.
pub fn run(scenario: &Scenario, contender: &Contender, seed: u64) -> Run {
    World::new(scenario, contender, seed).run()
}

struct Request {
    sent: Sent,
    began: Time,
    proxy: usize,
    generation: u32,
    live: bool,
    demand: f64,
    coin: u64,
    retries_left: u32,
    long: Option<Long>,
    opened: bool,
    /// Whether it is the balancer's own request.
    own: bool,
}

struct World<'a> {
    scenario: &'a Scenario,
    now: Time,
    end: Time,
    servers: Vec<Server>,
    balancers: Vec<Box<dyn LoadBalancer>>,
    traffic: Traffic<'a>,
    next: Option<Arrival>,
    outbound: VecDeque<(Time, Outbound)>,
    inbound: VecDeque<(Time, Inbound)>,
    timeouts: VecDeque<(Time, u32, u32)>,
    heap: BinaryHeap<Reverse<Timed>>,
    order: u64,
    requests: Vec<Request>,
    vacant: Vec<u32>,
    samples: Vec<Option<(f64, Time)>>,
    probes: Vec<usize>,
    /// Endpoints that are starting.
    starting: Vec<usize>,
    open: usize,
    run: Run,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, contender: &Contender, seed: u64) -> World<'a> {
        let mut rng = Rng::new(rng::mix(seed));
        let mut traffic = Traffic { scenario, rng: Rng::new(rng.next_u64()), seconds: 0.0 };
        let mut world = World {
            now: START,
            end: START.after_secs(scenario.length),
            servers: (0..scenario.endpoints)
                .map(|i| Server::new(scenario.slots_at(i), i < scenario.present))
                .collect(),
            balancers: contender.proxies(scenario, START, &mut rng),
            next: traffic.next(),
            traffic,
            outbound: VecDeque::new(),
            inbound: VecDeque::new(),
            timeouts: VecDeque::new(),
            heap: BinaryHeap::new(),
            order: 0,
            requests: Vec::new(),
            vacant: Vec::new(),
            samples: vec![None; scenario.endpoints],
            probes: Vec::new(),
            starting: Vec::new(),
            open: 0,
            run: Run { endpoints: scenario.endpoints, ..Run::default() },
            scenario,
        };
        world.run.records.reserve((scenario.rate * scenario.length) as usize + 64);
        world.first_events(&mut rng);
        world
    }

    fn first_events(&mut self, rng: &mut Rng) {
        for index in 0..self.scenario.changes.len() {
            self.at(START.after_secs(self.scenario.changes[index].at), Event::Change { index });
        }
        for worker in 0..self.scenario.proxies * self.scenario.workers {
            self.at(START.after_secs(self.scenario.tick() * rng.unit()), Event::Tick { worker });
        }
        if self.scenario.scaling.is_some() {
            self.at(START, Event::Scale);
        }
        if let Some(signal) = self.scenario.signal {
            for endpoint in 0..self.scenario.endpoints {
                self.at(START.after_secs(signal.scrape * rng.unit()), Event::Scrape { endpoint });
            }
            for proxy in 0..self.scenario.proxies {
                self.at(START.after_secs(signal.poll * rng.unit()), Event::Poll { proxy });
            }
        }
    }

    fn at(&mut self, at: Time, event: Event) {
        self.order += 1;
        self.heap.push(Reverse(Timed { at, order: self.order, event }));
    }

    fn run(mut self) -> Run {
        let last = self.end.after_secs(DRAIN_S);
        while self.next.is_some() || self.open > 0 {
            let times = [
                self.next.as_ref().map(|a| a.at),
                self.outbound.front().map(|m| m.0),
                self.inbound.front().map(|m| m.0),
                self.timeouts.front().map(|t| t.0),
                self.heap.peek().map(|e| e.0.at),
            ];
            let first = times.iter().enumerate().filter_map(|(i, t)| t.map(|t| (t, i))).min();
            let Some((at, source)) = first else { break };
            if at > last {
                break;
            }
            self.now = at;
            match source {
                0 => self.arrive(),
                1 => self.reach_endpoint(),
                2 => self.reach_proxy(),
                3 => self.give_up(),
                _ => self.happen(),
            }
        }
        self.run
    }

    fn arrive(&mut self) {
        let Some(arrival) = std::mem::replace(&mut self.next, self.traffic.next()) else { return };
        let proxy = arrival.worker / self.scenario.workers;
        let worker = arrival.worker % self.scenario.workers;
        let request = Request {
            sent: Sent::first(worker, 0, self.now),
            began: self.now,
            proxy,
            generation: 0,
            live: true,
            demand: arrival.demand,
            coin: arrival.coin,
            retries_left: self.scenario.retries,
            long: arrival.long,
            opened: false,
            own: false,
        };
        let id = self.enter(request);
        self.open += usize::from(arrival.long.is_none());
        self.send(id, |balancer, sent, moment| balancer.send(sent.worker, moment));
    }

    fn enter(&mut self, request: Request) -> u32 {
        match self.vacant.pop() {
            Some(id) => {
                let generation = self.requests[id as usize].generation;
                self.requests[id as usize] = Request { generation, ..request };
                id
            }
            None => {
                self.requests.push(request);
                (self.requests.len() - 1) as u32
            }
        }
    }

    /// Sends a request of the balancer's own, which is cheaper than a user's and not part of the results.
    fn send_own(&mut self, proxy: usize, sent: Sent) {
        let request = Request {
            sent,
            began: self.now,
            proxy,
            generation: 0,
            live: true,
            demand: OWN_WORK * self.scenario.mean_work(),
            coin: rng::mix(self.order),
            retries_left: 0,
            long: None,
            opened: false,
            own: true,
        };
        let id = self.enter(request);
        let request = &mut self.requests[id as usize];
        request.generation += 1;
        let (generation, endpoint) = (request.generation, sent.endpoint);
        let work = Work { request: id, generation, demand: request.demand, ..Work::NONE };
        self.servers[endpoint].coming += 1;
        self.go(endpoint, Outbound::Request { endpoint, work });
        self.at(self.now.after_secs(OWN_TIMEOUT_S), Event::GiveUp { request: id, generation });
    }

    fn send(&mut self, id: u32, choose: impl FnOnce(&mut dyn LoadBalancer, &Sent, Moment<'_>) -> Sent) {
        let request = &mut self.requests[id as usize];
        let (proxy, worker) = (request.proxy, request.sent.worker);
        let moment = Moment { now: self.now, servers: &self.servers, probes: &mut self.probes };
        request.generation += 1;
        request.opened = false;
        request.sent = choose(&mut *self.balancers[proxy], &request.sent, moment);
        let (endpoint, generation, long) = (request.sent.endpoint, request.generation, request.long);
        let work = Work { request: id, generation, demand: request.demand, ..Work::NONE };
        self.servers[endpoint].coming += 1;
        self.go(endpoint, Outbound::Request { endpoint, work });
        if long.is_none() {
            self.timeouts.push_back((self.now.after_secs(self.scenario.timeout), id, generation));
        }
        let asker = proxy * self.scenario.workers + worker;
        for endpoint in std::mem::take(&mut self.probes) {
            self.go(endpoint, Outbound::Probe { endpoint, asker });
        }
    }

    /// Puts a message in transit to `endpoint`.
    fn go(&mut self, endpoint: usize, what: Outbound) {
        let way = self.scenario.way(endpoint);
        let at = self.now.after_secs(way);
        if way > self.scenario.network {
            self.at(at, Event::Outbound(what));
        } else {
            self.outbound.push_back((at, what));
        }
    }

    /// Puts a message in transit from `endpoint`.
    fn come(&mut self, endpoint: usize, what: Inbound) {
        let way = self.scenario.way(endpoint);
        let at = self.now.after_secs(way);
        if way > self.scenario.network {
            self.at(at, Event::Inbound(what));
        } else {
            self.inbound.push_back((at, what));
        }
    }

    fn reach_endpoint(&mut self) {
        if let Some((_, what)) = self.outbound.pop_front() {
            self.arrive_at_endpoint(what);
        }
    }

    fn arrive_at_endpoint(&mut self, what: Outbound) {
        match what {
            Outbound::Request { endpoint, work } => self.serve(endpoint, work),
            Outbound::Probe { endpoint, asker } => {
                let server = &self.servers[endpoint];
                let answers = matches!(server.mode, Mode::Serve | Mode::Errors(_) | Mode::Limits(_));
                if answers && server.paused_until <= self.now {
                    let (in_flight, latency) = server.probe(self.now);
                    self.come(endpoint, Inbound::Probe { endpoint, asker, in_flight, latency });
                }
            }
        }
    }

    fn reach_proxy(&mut self) {
        if let Some((_, what)) = self.inbound.pop_front() {
            self.arrive_at_proxy(what);
        }
    }

    fn arrive_at_proxy(&mut self, what: Inbound) {
        match what {
            Inbound::Reply { request, generation, reply } => self.end(request, generation, reply),
            Inbound::Probe { endpoint, asker, in_flight, latency } => {
                let (proxy, worker) = (asker / self.scenario.workers, asker % self.scenario.workers);
                self.balancers[proxy].probed(worker, endpoint, in_flight, latency, self.now);
            }
        }
    }

    fn give_up(&mut self) {
        if let Some((_, request, generation)) = self.timeouts.pop_front() {
            self.end(request, generation, Reply::bare(Outcome::Failed(Failure::Timeout)));
        }
    }

    fn end(&mut self, id: u32, generation: u32, reply: Reply) {
        let request = &mut self.requests[id as usize];
        if !request.live || request.generation != generation {
            return;
        }
        let balancer = &mut self.balancers[request.proxy];
        if request.own {
            balancer.own_ended(&request.sent, &reply, self.now);
            request.live = false;
            self.vacant.push(id);
            return;
        }
        if !reply.good() && !request.opened && request.retries_left > 0 {
            request.retries_left -= 1;
            return self.send(id, |balancer, failed, moment| balancer.send_again(failed, &reply, moment));
        }
        if request.opened {
            balancer.closed(&request.sent, &reply, self.now);
        } else {
            balancer.ended(&request.sent, &reply, self.now);
        }
        request.live = false;
        if request.long.is_some() {
            self.vacant.push(id);
            return;
        }
        self.run.records.push(Record {
            started_us: ((request.began.0 - START.0) / 1000) as u32,
            latency_us: ((self.now.0 - request.began.0) / 1000) as u32,
            endpoint: request.sent.endpoint as u32,
            failed: !reply.good(),
        });
        self.open -= 1;
        self.vacant.push(id);
    }

    fn happen(&mut self) {
        let Some(Reverse(timed)) = self.heap.pop() else { return };
        match timed.event {
            Event::Outbound(what) => self.arrive_at_endpoint(what),
            Event::Inbound(what) => self.arrive_at_proxy(what),
            Event::Due { endpoint, slot, turn } => self.due(endpoint, slot, turn),
            Event::Reply { request, generation, reply } => self.end(request, generation, reply),
            Event::Opened { request, generation, reply } => {
                let request = &mut self.requests[request as usize];
                if request.live && request.generation == generation && !request.opened {
                    request.opened = true;
                    self.balancers[request.proxy].opened(&mut request.sent, &reply, self.now);
                }
            }
            Event::Tick { worker } => {
                let (proxy, place) = (worker / self.scenario.workers, worker % self.scenario.workers);
                self.balancers[proxy].tick(place, self.now);
                while let Some(sent) = self.balancers[proxy].own(place, self.now) {
                    self.send_own(proxy, sent);
                }
                self.at(self.now.after_secs(self.scenario.tick()), Event::Tick { worker });
            }
            Event::GiveUp { request, generation } => {
                self.end(request, generation, Reply::bare(Outcome::Failed(Failure::Timeout)));
            }
            Event::Change { index } => self.change(index),
            Event::Scale => self.scale(),
            Event::Start { endpoint } => self.start(endpoint),
            Event::Scrape { endpoint } => self.scrape(endpoint),
            Event::Poll { proxy } => self.poll(proxy),
        }
    }
}
