//! The event loop: traffic in, decisions asked for, endpoints served, endings told.
//!
//! What travels with a constant delay (to an endpoint, back, a time-out) stays in order by itself and lives in
//! plain queues; only what does not goes through the heap, which therefore stays as small as the fleet is busy.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use engine::rng::{self, Rng};
use engine::time::Time;
use engine::{Failure, Outcome};

use crate::balancer::{LoadBalancer, Moment, Reply, Sent};
use crate::contender::Contender;
use crate::distribution::exponential;
use crate::run::{Fleet, Record, Run, Task};
use crate::scenario::{Long, Mode, Scenario, SignalFault, What};
use crate::server::{Due, Server, Work};

/// The run's beginning; not the epoch, which the engine takes for "never".
const START: Time = Time(1_000_000_000_000);
/// How long a refusal, a fast error and the acceptance of a task take, seconds.
const AT_ONCE_S: f64 = 0.001;
/// How long after the last arrival the rest may take, seconds.
const DRAIN_S: f64 = 30.0;

/// Runs `contender` through `scenario`; the same seed gives the same traffic to every contender.
pub fn run(scenario: &Scenario, contender: &Contender, seed: u64) -> Run {
    World::new(scenario, contender, seed).run()
}

/// What a request brings with it, drawn before anybody decides.
struct Arrival {
    at: Time,
    worker: usize,
    demand: f64,
    coin: u64,
    long: Option<Long>,
}

struct Traffic<'a> {
    scenario: &'a Scenario,
    rng: Rng,
    seconds: f64,
}

impl Iterator for Traffic<'_> {
    type Item = Arrival;

    /// Poisson, thinned to the rate of the moment (Lewis and Shedler, 1979).
    fn next(&mut self) -> Option<Arrival> {
        let Scenario { shape, rate, length, heavy, .. } = self.scenario;
        loop {
            self.seconds += exponential(&mut self.rng) / (rate * shape.most());
            if self.seconds >= *length {
                return None;
            }
            if self.rng.unit() * shape.most() < shape.at(self.seconds, *length) {
                break;
            }
        }
        let workers = (self.scenario.proxies * self.scenario.workers) as u32;
        let factor = if self.rng.unit() < heavy.0 { heavy.1 } else { 1.0 };
        Some(Arrival {
            at: START.after_secs(self.seconds),
            worker: self.rng.below(workers) as usize,
            demand: self.scenario.work.draw(&mut self.rng) * factor,
            coin: self.rng.next_u64(),
            long: self.scenario.long.filter(|long| self.rng.unit() < long.share),
        })
    }
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
}

enum Outbound {
    Request { endpoint: usize, work: Work },
    Probe { endpoint: usize, asker: usize },
}

enum Inbound {
    Reply { request: u32, generation: u32, reply: Reply },
    Probe { endpoint: usize, asker: usize, in_flight: u32, latency: f64 },
}

enum Event {
    Outbound(Outbound),
    Inbound(Inbound),
    Due { endpoint: usize, slot: usize, turn: u32 },
    Reply { request: u32, generation: u32, reply: Reply },
    Opened { request: u32, generation: u32, reply: Reply },
    Tick { worker: usize },
    Change { index: usize },
    Scale,
    Start { endpoint: usize },
    Scrape { endpoint: usize },
    Poll { proxy: usize },
}

struct Timed {
    at: Time,
    order: u64,
    event: Event,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Timed) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Timed) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Timed) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
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
    /// Endpoints on their way to being there.
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
            sent: Sent { worker, endpoint: 0, started: self.now, ticket: None },
            began: self.now,
            proxy,
            generation: 0,
            live: true,
            demand: arrival.demand,
            coin: arrival.coin,
            retries_left: self.scenario.retries,
            long: arrival.long,
            opened: false,
        };
        let id = match self.vacant.pop() {
            Some(id) => {
                let generation = self.requests[id as usize].generation;
                self.requests[id as usize] = Request { generation, ..request };
                id
            }
            None => {
                self.requests.push(request);
                (self.requests.len() - 1) as u32
            }
        };
        self.open += usize::from(arrival.long.is_none());
        self.send(id);
    }

    fn send(&mut self, id: u32) {
        let request = &mut self.requests[id as usize];
        let (proxy, worker) = (request.proxy, request.sent.worker);
        let moment = Moment { now: self.now, servers: &self.servers, probes: &mut self.probes };
        request.generation += 1;
        request.opened = false;
        request.sent = self.balancers[proxy].send(worker, moment);
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

    /// On the way to `endpoint`.
    fn go(&mut self, endpoint: usize, what: Outbound) {
        let way = self.scenario.way(endpoint);
        let at = self.now.after_secs(way);
        if way > self.scenario.network {
            self.at(at, Event::Outbound(what));
        } else {
            self.outbound.push_back((at, what));
        }
    }

    /// On the way back from `endpoint`.
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

    fn serve(&mut self, endpoint: usize, mut work: Work) {
        work.arrived = self.now;
        self.servers[endpoint].coming -= 1;
        match self.servers[endpoint].mode {
            Mode::Hole => return,
            Mode::Refuse => return self.reply_at_once(endpoint, &work, Outcome::Failed(Failure::Refused)),
            Mode::Errors(share) if self.coin(&work) < share => {
                return self.reply_at_once(endpoint, &work, Outcome::Failed(Failure::Status5xx));
            }
            Mode::Limits(share) if self.coin(&work) < share => {
                return self.reply_at_once(endpoint, &work, Outcome::Failed(Failure::TooMany));
            }
            _ => {}
        }
        if self.scenario.errors > 0.0 && 1.0 - self.coin(&work) <= self.scenario.errors {
            return self.reply_at_once(endpoint, &work, Outcome::Failed(Failure::Status5xx));
        }
        if let Some(long) = self.requests[work.request as usize].long {
            return self.serve_long(endpoint, &work, long);
        }
        if let Some(longest) = self.scenario.asynchronous {
            if self.servers[endpoint].queue.len() >= longest {
                return self.reply_at_once(endpoint, &work, Outcome::Failed(Failure::Status5xx));
            }
            self.reply_at_once(endpoint, &work, Outcome::Good);
            self.open += 1;
        }
        if let Some((slot, running)) = self.servers[endpoint].accept(work, self.now) {
            self.at(running.finish, Event::Due { endpoint, slot, turn: running.turn });
        }
    }

    /// Needs no slot: headers now or at the end, which comes after a time that belongs to the request.
    fn serve_long(&mut self, endpoint: usize, work: &Work, long: Long) {
        let (request, generation) = (work.request, work.generation);
        let reply = self.report(endpoint, AT_ONCE_S, Outcome::Good);
        if long.streams {
            let at = self.now.after_secs(AT_ONCE_S + self.scenario.way(endpoint));
            self.at(
                at.max(self.servers[endpoint].paused_until),
                Event::Opened { request, generation, reply },
            );
        }
        let mut rng = Rng::new(self.requests[request as usize].coin);
        let seconds = 2.0 * AT_ONCE_S + long.seconds * exponential(&mut rng);
        let at = self.now.after_secs(seconds + self.scenario.way(endpoint));
        self.at(at.max(self.servers[endpoint].paused_until), Event::Reply { request, generation, reply });
    }

    /// Uniform in 0..1, the same for the same attempt of the same request whichever endpoint serves it.
    fn coin(&self, work: &Work) -> f64 {
        let request = &self.requests[work.request as usize];
        Rng::new(request.coin.wrapping_add(u64::from(request.retries_left))).unit()
    }

    fn reply_at_once(&mut self, endpoint: usize, work: &Work, outcome: Outcome) {
        let after = AT_ONCE_S + 2.0 * self.scenario.way(endpoint);
        let at = self.requests[work.request as usize].sent.started.after_secs(after);
        let reply = self.report(endpoint, AT_ONCE_S, outcome);
        let (request, generation) = (work.request, work.generation);
        self.at(at.max(self.servers[endpoint].paused_until), Event::Reply { request, generation, reply });
    }

    fn report(&mut self, endpoint: usize, service: f64, outcome: Outcome) -> Reply {
        let server = &mut self.servers[endpoint];
        server.complete(outcome == Outcome::Good, self.now);
        let load = server.load();
        Reply {
            outcome,
            service: service as f32,
            queue: server.queue.len() as f32,
            utilisation: load.utilisation as f32,
            qps: load.qps as f32,
            eps: load.eps as f32,
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
        if request.opened {
            balancer.closed(&request.sent, &reply, self.now);
        } else {
            balancer.ended(&request.sent, &reply, self.now);
        }
        if !reply.good() && request.retries_left > 0 {
            request.retries_left -= 1;
            return self.send(id);
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
                    self.balancers[request.proxy].opened(&request.sent, &reply, self.now);
                }
            }
            Event::Tick { worker } => {
                let (proxy, place) = (worker / self.scenario.workers, worker % self.scenario.workers);
                self.balancers[proxy].tick(place, self.now);
                self.at(self.now.after_secs(self.scenario.tick()), Event::Tick { worker });
            }
            Event::Change { index } => self.change(index),
            Event::Scale => self.scale(),
            Event::Start { endpoint } => self.start(endpoint),
            Event::Scrape { endpoint } => self.scrape(endpoint),
            Event::Poll { proxy } => self.poll(proxy),
        }
    }

    fn due(&mut self, endpoint: usize, slot: usize, turn: u32) {
        match self.servers[endpoint].due(slot, turn, self.now) {
            Due::Gone => {}
            Due::Later(at) => self.at(at, Event::Due { endpoint, slot, turn }),
            Due::Done { work, next } => {
                if let Some(running) = next {
                    self.at(running.finish, Event::Due { endpoint, slot, turn: running.turn });
                }
                if self.scenario.asynchronous.is_some() {
                    self.open -= 1;
                    self.run.tasks.push(Task {
                        accepted_us: ((work.arrived.0 - START.0) / 1000) as u32,
                        sojourn_us: ((self.now.0 - work.arrived.0) / 1000) as u32,
                    });
                    return;
                }
                let reply = self.report(endpoint, work.takes, Outcome::Good);
                let (request, generation) = (work.request, work.generation);
                self.come(endpoint, Inbound::Reply { request, generation, reply });
            }
        }
    }

    fn change(&mut self, index: usize) {
        let change = self.scenario.changes[index];
        let server = &mut self.servers[change.endpoint];
        match change.what {
            What::Slow(factor) => server.slow = factor,
            What::Pause(seconds) => server.pause(seconds, self.now),
            What::Mode(mode) => {
                server.mode = mode;
                if mode == Mode::Refuse {
                    self.crash(change.endpoint);
                }
            }
            What::Join | What::Leave => {
                server.present = change.what == What::Join;
                self.announce();
            }
        }
    }

    /// Every proxy hears which endpoints are there.
    fn announce(&mut self) {
        let present: Vec<bool> = self.servers.iter().map(|s| s.present).collect();
        self.balancers.iter_mut().for_each(|b| b.fleet(&present, self.now));
    }

    /// Starts and stops endpoints as the proxies ask: the most that any of them wants.
    fn scale(&mut self) {
        let Some(scaling) = self.scenario.scaling else { return };
        let wishes: Vec<_> = self.balancers.iter().map(|b| b.wish()).collect();
        let wanted = wishes.iter().filter_map(|wish| wish.replicas).max();
        let there = self.servers.iter().filter(|s| s.present).count();
        if let Some(wanted) = wanted.map(|wanted| wanted as usize) {
            for _ in there + self.starting.len()..wanted {
                let absent = |e: &usize| !self.servers[*e].present && !self.starting.contains(e);
                let Some(endpoint) = (0..self.servers.len()).find(absent) else { break };
                self.starting.push(endpoint);
                self.at(self.now.after_secs(scaling.start), Event::Start { endpoint });
            }
            // The last to come goes first, and one that is not there yet does not come.
            for _ in wanted..there + self.starting.len() {
                if self.starting.pop().is_none()
                    && let Some(server) = self.servers.iter_mut().rfind(|s| s.present)
                {
                    server.present = false;
                }
            }
            if self.servers.iter().filter(|s| s.present).count() != there {
                self.announce();
            }
        }
        self.run.fleet.push(Fleet {
            at: self.now.seconds_since(START),
            present: self.servers.iter().filter(|s| s.present).count(),
            starting: self.starting.len(),
            wanted,
            pressure: wishes.iter().filter_map(|wish| wish.pressure).reduce(f64::max),
        });
        self.at(self.now.after_secs(1.0), Event::Scale);
    }

    fn start(&mut self, endpoint: usize) {
        let before = self.starting.len();
        self.starting.retain(|starting| *starting != endpoint);
        if self.starting.len() < before {
            self.servers[endpoint].present = true;
            self.announce();
        }
    }

    fn crash(&mut self, endpoint: usize) {
        for work in self.servers[endpoint].crash(self.now) {
            if self.scenario.asynchronous.is_some() {
                self.open -= 1;
                continue;
            }
            let (request, generation) = (work.request, work.generation);
            // Every request has a connection of its own.
            let reply = Reply::bare(Outcome::Failed(Failure::Broken(request as u64 + 1)));
            self.come(endpoint, Inbound::Reply { request, generation, reply });
        }
    }

    fn scrape(&mut self, endpoint: usize) {
        let Some(signal) = self.scenario.signal else { return };
        let server = &self.servers[endpoint];
        let depth = server.queue.len() as f64;
        let told = match signal.fault {
            SignalFault::AbsentFrom(seconds) if self.now >= START.after_secs(seconds) => None,
            SignalFault::Lies => Some(if server.in_flight() > 0 { 0.0 } else { signal.max.unwrap_or(100.0) }),
            _ => Some(depth),
        };
        if let Some(value) = told.filter(|_| server.mode != Mode::Refuse) {
            self.samples[endpoint] = Some((value, self.now));
        }
        self.at(self.now.after_secs(signal.scrape), Event::Scrape { endpoint });
    }

    fn poll(&mut self, proxy: usize) {
        let Some(signal) = self.scenario.signal else { return };
        for (endpoint, sample) in self.samples.iter().enumerate() {
            if let Some((value, at)) = sample.filter(|_| self.servers[endpoint].present) {
                self.balancers[proxy].signal(endpoint, value, at);
            }
        }
        self.at(self.now.after_secs(signal.poll), Event::Poll { proxy });
    }
}
