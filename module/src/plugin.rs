//! What one configuration text makes: its workers behind locks, their calls, and the thread that asks for ticks.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::{Fault, Via};
use evenkeel::host::{Body, Host};
use evenkeel::worker::Worker;

use crate::abi::{self, Answer, ConfigHandle, Waker};
use crate::attached::Attached;
use crate::calls::{Calls, Kept, Outstanding, Pieces};
use crate::clock;
use crate::guard::guarded;
use crate::host;
use crate::pacer::Pacer;
use crate::stats::Series;

/// So many threads of Envoy share a worker and its lock. A decision takes microseconds under it, so that up to here
/// they seldom meet; and what one thread learns counts for the next request of all of them.
const THREADS_A_WORKER: usize = 4;
/// The shortest pause between ticks of a worker that has no peers, milliseconds: the filter's is shorter, because there
/// a tick is when workers see each other's requests.
const ALONE_MS: u64 = 20;
/// After so many panics the plugin stands aside until the next configuration.
const MAX_PANICS: u32 = 5;
/// The largest answer that is kept while the workers are at work.
const MAX_KEPT: usize = 1 << 20;

/// A worker, and how often it has been started anew: what a stream holds of an earlier one says nothing to it.
pub struct Seat {
    /// The worker.
    pub worker: Worker,
    /// Which one.
    pub generation: u64,
}

/// A configuration text at work.
pub struct Plugin {
    /// Its name, which scopes what is shared.
    pub name: String,
    /// The configuration.
    pub text: Vec<u8>,
    /// The steering header, which no client may send.
    pub header: String,
    /// Whether Envoy is told of the endpoint by a call, and not by a header.
    pub by_call: bool,
    /// The series of its metrics.
    pub series: Series,
    /// Its calls.
    pub calls: Calls,
    seats: Vec<Mutex<Seat>>,
    attached: Mutex<Vec<ConfigHandle>>,
    pacer: Mutex<Option<Pacer>>,
    at_work: AtomicBool,
    kept: Mutex<Vec<Kept>>,
    panics: AtomicU32,
}

fn seed() -> u64 {
    // Entropy of the process's start: randomness here spreads load, it guards nothing.
    RandomState::new().hash_one(clock::now().0)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which worker serves this thread, among `count`.
pub fn place(count: usize) -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = THREADS.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| number % count.max(1))
}

impl Plugin {
    /// The plugin for this text, or every fault in it.
    pub fn configure(surroundings: &dyn Host, name: &str, text: &[u8]) -> Result<Plugin, Vec<Fault>> {
        // A header that the configuration names is asked for; else nothing of the request needs to change.
        let asked_for = config::legible(text).header_named;
        let workers = abi::concurrency().div_ceil(THREADS_A_WORKER).max(1);
        let mut plugin = Plugin { text: text.to_vec(), ..Plugin::absent(name) };
        for at in 0..workers {
            let mut worker = Worker::configure(surroundings, text, name, seed())?;
            if at == 0 {
                plugin.header = worker.config().steering.header.clone();
                plugin.by_call = worker.config().steering.via == Via::OverrideHost && !asked_for;
            }
            plugin.settle(surroundings, &mut worker);
            plugin.seats.push(Mutex::new(Seat { worker, generation: 0 }));
        }
        Ok(plugin)
    }

    /// One without workers, whose requests pass.
    pub fn absent(name: &str) -> Plugin {
        Plugin {
            name: name.into(),
            text: Vec::new(),
            header: String::new(),
            by_call: false,
            series: Series::default(),
            calls: Calls::default(),
            seats: Vec::new(),
            attached: Mutex::default(),
            pacer: Mutex::default(),
            at_work: AtomicBool::new(false),
            kept: Mutex::default(),
            panics: AtomicU32::new(0),
        }
    }

    fn settle(&self, surroundings: &dyn Host, worker: &mut Worker) {
        if self.by_call {
            worker.name_one();
            worker.probe_none(surroundings);
        }
    }

    /// Whether it has workers and has not given up.
    pub fn is_at_work(&self) -> bool {
        !self.seats.is_empty() && self.panics.load(Ordering::Relaxed) < MAX_PANICS
    }

    /// How many workers it has.
    pub fn workers(&self) -> usize {
        self.seats.len()
    }

    /// A worker, while nothing else has it; none where the plugin stands aside.
    pub fn seat(&self, at: usize) -> Option<MutexGuard<'_, Seat>> {
        if !self.is_at_work() {
            return None;
        }
        // One that is poisoned is about to be started anew by whichever thread it panicked in.
        self.seats.get(at)?.lock().ok()
    }

    /// Takes over what the plugin of an older configuration has learnt.
    pub fn adopt(&self, old: &Plugin) {
        let now = clock::now();
        for (at, _) in self.seats.iter().enumerate() {
            if let (Some(mut new), Some(mut old)) = (self.seat(at), old.seat(at)) {
                new.worker.take_over(&mut old.worker, now);
            }
        }
    }

    /// A later configuration was refused, with faults at these places: this one stays in force.
    pub fn outlive(&self, refused: &[String]) {
        for at in 0..self.seats.len() {
            self.seat(at).into_iter().for_each(|mut seat| seat.worker.outlive(refused.to_vec()));
        }
    }

    /// One more of Envoy's configurations has this plugin.
    pub fn attach(&self, attached: &Attached) {
        let config = attached.defined.config();
        locked(&self.attached).push(config);
        let mut pacer = locked(&self.pacer);
        if pacer.is_none() {
            *pacer = Pacer::start(Waker::of(config), Duration::from_millis(1));
            if pacer.is_none() {
                host::log(log::Level::Error, "evenkeel: the system has no further thread: nothing is polled");
            }
        }
    }

    /// One of them is about to be gone: another one asks for the ticks, or nothing is left.
    pub fn detach(&self, attached: &Attached) {
        let config = attached.defined.config();
        let next = {
            let mut all = locked(&self.attached);
            all.retain(|other| *other != config);
            all.first().copied()
        };
        for lost in self.calls.take_all(config) {
            locked(&self.kept).push(Kept { call: lost, status: None, body: Vec::new() });
        }
        match next {
            Some(next) => locked(&self.pacer).iter().for_each(|pacer| pacer.ask(Waker::of(next))),
            None => {
                // Outside the lock: the thread is waited for.
                let pacer = locked(&self.pacer).take();
                drop(pacer);
                for at in 0..self.seats.len() {
                    let end =
                        || self.seat(at).into_iter().for_each(|mut s| s.worker.end(&attached.process(None)));
                    guarded(end, || self.panicked(attached, at));
                }
            }
        }
    }

    /// The next tick comes after this.
    pub fn pace(&self, period: Duration) {
        locked(&self.pacer).iter().for_each(|pacer| pacer.ticked(period));
    }

    /// The next tick is wanted at once.
    pub fn hurry(&self) {
        locked(&self.pacer).iter().for_each(Pacer::hurry);
    }

    /// Time passes; how long until the next tick, if anything is at work.
    pub fn tick(&self, attached: &Attached) -> Option<Duration> {
        self.at_work.store(true, Ordering::Relaxed);
        let periods = (0..self.seats.len()).filter_map(|at| {
            let tick = || {
                let mut seat = self.seat(at)?;
                seat.worker.tick(&attached.process(Some(at)));
                Some(seat.worker.tick_period_ms())
            };
            guarded(tick, || {
                self.panicked(attached, at);
                None
            })
        });
        let period = periods.min();
        self.at_work.store(false, Ordering::Relaxed);
        let kept = core::mem::take(&mut *locked(&self.kept));
        for Kept { call, status, body } in kept {
            self.deliver(attached, &call, status, &Pieces { body: &[&body], headers: &[] });
        }
        let shortest = if self.seats.len() == 1 { ALONE_MS } else { 0 };
        Some(Duration::from_millis(period?.max(shortest)))
    }

    /// An answer to a call.
    pub fn answered(&self, attached: &Attached, id: u64, answer: &Answer<'_>) {
        let Some(call) = self.calls.take(attached.defined.config(), id) else { return };
        let body = Pieces { body: &answer.body, headers: &answer.headers };
        if self.at_work.load(Ordering::Relaxed) {
            // Envoy gives some answers before it has even returned from the call, while the worker is locked.
            let kept = if body.size() <= MAX_KEPT {
                (answer.status, body.part(0, MAX_KEPT))
            } else {
                (None, Vec::new())
            };
            locked(&self.kept).push(Kept { call, status: kept.0, body: kept.1 });
            return;
        }
        self.deliver(attached, &call, answer.status, &body);
    }

    fn deliver(&self, attached: &Attached, call: &Outstanding, status: Option<u32>, body: &dyn Body) {
        let deliver = || {
            if let Some(mut seat) = self.seat(call.worker) {
                seat.worker.call_answered(&attached.process(None), call.token, status, body);
            }
        };
        guarded(deliver, || self.panicked(attached, call.worker));
    }

    /// Code of this module panicked while it had this worker: it is started anew, without what may be half changed.
    pub fn panicked(&self, attached: &Attached, at: usize) {
        let panics = self.panics.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        attached.defined.count_panic();
        if panics >= MAX_PANICS {
            let message = format!(
                "evenkeel panicked {panics} times: it stands aside, requests pass unbalanced until the next configuration"
            );
            return host::log(log::Level::Error, &message);
        }
        host::log(
            log::Level::Error,
            &format!(
                "evenkeel panicked, {panics} of {MAX_PANICS} times: the request goes on, the worker starts anew"
            ),
        );
        let Some(seat) = self.seats.get(at) else { return };
        let anew = || Worker::configure(&attached.process(None), &self.text, &self.name, seed()).ok();
        let worker = guarded(anew, || None);
        if let Some(mut worker) = worker {
            self.settle(&attached.process(None), &mut worker);
            let mut locked = locked(seat);
            let generation = locked.generation.wrapping_add(1);
            let old = core::mem::replace(&mut *locked, Seat { worker, generation });
            drop(locked);
            seat.clear_poison();
            // Its parts are dropped where a panic does no harm either.
            guarded(|| drop(old), || ());
        }
    }
}
