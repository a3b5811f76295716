//! Workers on threads of their own, one of which runs at a time.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Result, spawn};

use testbed::serde_json::{Value, from_slice};
use wasmhost::Death;

use super::turns::{Plan, Turns};
use crate::scene::{Ending, address, begin, ms, respond, target};
use crate::world::{Answer, Call, Plugin, Stream, Thread, World};

/// Numbers of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub begun: u64,
    pub ended: u64,
    pub failed: u64,
}

/// A worker thread, and what it has done.
pub struct Member<W: World> {
    pub world: W,
    pub thread: Thread,
    pub plugin: Option<Plugin>,
    /// Requests whose end has not come.
    pub open: Vec<W::Stream>,
    /// The number of its requests that have begun and ended, and how many of those were failures.
    pub sent: Sent,
    /// How many requests the status pages that it has shown had counted.
    shown: u64,
    turns: Arc<Turns>,
    number: usize,
}

impl<W: World> Member<W> {
    fn new(process: &W::Process, turns: Arc<Turns>, number: usize) -> Member<W> {
        let mut world = W::on_this_thread(process);
        let gate = turns.clone();
        world.gate(Rc::new(move |key| gate.pass(number, key)));
        let thread = world.thread();
        Member {
            world,
            thread,
            plugin: None,
            open: Vec::new(),
            sent: Sent::default(),
            shown: 0,
            turns,
            number,
        }
    }

    /// Its VM is gone with its requests; another one takes its place.
    fn die(&mut self) {
        let process = self.world.process();
        let after = Member { sent: self.sent, ..Member::new(&process, self.turns.clone(), self.number) };
        *self = after;
    }

    /// Its place in the crew.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Its VM is gone without a sound, and no other takes its place.
    pub fn fall_silent(&mut self) {
        (self.plugin, self.open) = (None, Vec::new());
    }

    /// Loads a configuration, which must be accepted. That before it ends with its last request.
    pub fn load(&mut self, json: &str) {
        let plugin = crate::scene::load(&mut self.world, self.thread, json);
        let before = self.plugin.replace(plugin);
        self.finish_all();
        before.into_iter().for_each(|before| self.world.end(before));
    }

    /// Removes the configuration in force, after its last request.
    pub fn drain(&mut self) {
        self.finish_all();
        self.plugin.take().into_iter().for_each(|plugin| self.world.end(plugin));
    }

    /// Ends all requests.
    pub fn finish_all(&mut self) {
        while !self.open.is_empty() {
            self.finish(Ending::good());
        }
    }

    /// The configuration in force.
    pub fn plugin(&self) -> Plugin {
        self.plugin.expect("configured")
    }

    /// Ticks, if it is configured.
    pub fn tick(&mut self) {
        self.plugin.iter().for_each(|plugin| self.world.tick(*plugin));
    }

    /// Begins a request.
    pub fn begin(&mut self) {
        let plugin = self.plugin();
        let stream = begin(&mut self.world, plugin);
        self.sent.begun += 1;
        self.turns.begun.fetch_add(1, Ordering::Relaxed);
        self.open.push(stream);
    }

    /// Ends the oldest request, if there is any.
    pub fn finish(&mut self, ending: Ending) {
        if self.open.is_empty() {
            return;
        }
        let mut stream = self.open.remove(0);
        let served_by = target(&stream).is_empty().then(|| address(0));
        let ending = Ending { served_by, ..ending };
        self.sent.ended += 1;
        self.sent.failed += u64::from(ending.headers != Ending::good().headers);
        respond(&mut stream, &ending);
        stream.log();
        stream.done();
    }

    /// A request of 10 ms that succeeds.
    pub fn serve(&mut self) {
        self.begin();
        self.world.advance(ms(10));
        self.finish(Ending::good());
    }

    /// Its outstanding calls.
    pub fn calls(&self) -> Vec<Call> {
        self.world.calls().into_iter().filter(|call| call.thread == self.thread).collect()
    }

    /// Answers its outstanding calls; returns how many there were.
    pub fn answer(&mut self, answer: &Answer<'_>) -> usize {
        let calls = self.calls();
        calls.iter().for_each(|call| self.world.answer(call, answer));
        calls.len()
    }

    /// The status page that it shows.
    pub fn status(&mut self) -> Value {
        let headers: [(&str, &[u8]); 3] =
            [(":method", b"GET"), (":path", b"/_evenkeel/status.json"), (":authority", b"web")];
        let plugin = self.plugin();
        let mut stream = self.world.stream(plugin, &headers);
        assert!(!stream.request_headers(), "answered here");
        let body = stream.local_body();
        stream.done();
        from_slice::<Value>(&body).expect("JSON")["upstreams"][0].take()
    }

    /// The requests and failures of all workers that its status page shows.
    pub fn counted(&mut self) -> (u64, u64) {
        let status = self.status();
        let endpoints = status["endpoints"].as_array().expect("endpoints").iter();
        let number = |of: &Value, what: &str| of[what].as_u64().expect("a number");
        endpoints.fold((0, 0), |(requests, failures), of| {
            (requests + number(of, "requests"), failures + number(of, "failures"))
        })
    }
}

impl<W: World> Member<W> {
    /// Looks at its status page: it shows no request that there was not, and none less than before.
    pub fn look(&mut self) {
        let before = self.shown;
        self.look_anew();
        assert!(self.shown >= before, "{before} before, now {}", self.shown);
    }

    /// Looks at its status page: it shows no request that there was not.
    pub fn look_anew(&mut self) {
        (self.shown, _) = self.counted();
        let begun = self.turns.begun.load(Ordering::Relaxed);
        assert!(self.shown <= begun, "{} are shown, {begun} begun", self.shown);
    }
}

type Job<W> = Box<dyn FnOnce(&mut Member<W>) + Send>;
type Line<W> = (Sender<Job<W>>, Receiver<Result<()>>);

/// Workers on threads of their own over one process.
pub struct Crew<W: World> {
    pub world: W,
    /// By member: where its jobs go, and how they ended.
    jobs: Vec<Line<W>>,
    turns: Arc<Turns>,
}

/// Runs the jobs of a member until there are no more.
fn work<W: World>(mut member: Member<W>, jobs: &Receiver<Job<W>>, done: &Sender<Result<()>>) {
    while let Ok(job) = jobs.recv() {
        let mut outcome = catch_unwind(AssertUnwindSafe(|| job(&mut member)));
        if outcome.as_ref().is_err_and(|payload| payload.is::<Death>()) {
            member.die();
            outcome = Ok(());
        }
        member.turns.leave(member.number);
        if done.send(outcome).is_err() {
            return;
        }
    }
}

impl<W: World + 'static> Crew<W> {
    /// So many worker threads without a configuration.
    pub fn new(members: usize, seed: u64) -> Crew<W> {
        let mut world = W::new(seed);
        world.add_cluster("prometheus");
        let turns = Arc::new(Turns::default());
        let member = |number| {
            let (process, turns) = (world.process(), turns.clone());
            let ((job, jobs), (done, outcomes)) = (channel(), channel());
            spawn(move || work(Member::new(&process, turns, number), &jobs, &done));
            (job, outcomes)
        };
        let jobs = (0..members).map(member).collect();
        Crew { world, jobs, turns }
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    fn start(&self, member: usize, job: Job<W>) {
        self.jobs[member].0.send(job).expect("the member's thread lives");
    }

    /// Has a member do something while all others wait.
    pub fn on<R: Send + 'static>(
        &self,
        member: usize,
        act: impl FnOnce(&mut Member<W>) -> R + Send + 'static,
    ) -> R {
        let (result, results) = channel();
        self.start(member, Box::new(move |of| _ = result.send(act(of))));
        let outcome = self.jobs[member].1.recv().expect("the member's thread lives");
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
        results.recv().expect("a result")
    }

    /// Has each member do this, one after the other.
    pub fn each<R: Send + 'static>(
        &self,
        act: impl Fn(&mut Member<W>) -> R + Clone + Send + 'static,
    ) -> Vec<R> {
        (0..self.len()).map(|member| self.on(member, act.clone())).collect()
    }

    /// Has the last members do their parts at the same time, in the order of the plan, which is returned.
    pub fn race(&self, plan: Plan, parts: Vec<Job<W>>) -> Plan {
        let racing = self.len() - parts.len()..self.len();
        self.turns.begin(plan, racing.clone().collect());
        for (member, part) in racing.clone().zip(parts) {
            let turns = self.turns.clone();
            self.start(
                member,
                Box::new(move |of| {
                    turns.enter(member);
                    part(of);
                }),
            );
        }
        let outcomes: Vec<_> =
            self.jobs[racing].iter().map(|(_, done)| done.recv().expect("it lives")).collect();
        let plan = self.turns.end();
        for outcome in outcomes {
            outcome.unwrap_or_else(|panic| {
                eprintln!("in the schedule {plan:?}");
                resume_unwind(panic)
            });
        }
        plan
    }
}
