//! A plugin: the workers of one configuration text, each behind a lock, with their calls and the thread that requests
//! ticks.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::{Fault, Legible, Via};
use engine::pattern;
use evenkeel::host::{Body, Host};
use evenkeel::telemetry::status::{Answer as Shown, Route};
use evenkeel::worker::Worker;

use crate::abi::{self, Answer, ConfigHandle, Waker};
use crate::attached::Attached;
use crate::calls::{Calls, Kept, Outstanding, Pieces};
use crate::guard::guarded;
use crate::pacer::Pacer;
use crate::stats::Series;
use crate::{clock, host};

/// Maximum number of Envoy's threads that share a worker and its lock. A decision holds it for microseconds, so
/// contention is rare up to here, and what one thread learns counts for the next request on all of them.
const THREADS_A_WORKER: usize = 4;
/// Minimum interval between ticks of a worker without peers, milliseconds. The filter's is shorter, because its workers
/// see each other's requests only in ticks.
const ALONE_MS: u64 = 20;
/// Number of panics after which the plugin stands aside until the next configuration.
const MAX_PANICS: u32 = 5;
/// Maximum size of an answer that is kept while the workers are locked, bytes.
const MAX_KEPT: usize = 1 << 20;
/// Ends of plugins' names that panic where a request does not come by, in debug builds only, for the tests of panics.
#[cfg(debug_assertions)]
const PANICS_IN_TICKS: &str = "(panics in ticks)";
#[cfg(debug_assertions)]
const PANICS_IN_ANSWERS: &str = "(panics in answers)";
#[cfg(debug_assertions)]
const PANICS_IN_HANDOVERS: &str = "(panics in handovers)";

/// A worker and its generation: state that a stream holds of an earlier generation is not used with a later one.
pub struct WorkerSlot {
    /// The worker.
    pub worker: Worker,
    /// Number of restarts before it.
    pub generation: u64,
}

/// The plugin of one configuration text.
pub struct Plugin {
    /// Name, the scope of its shared data.
    pub name: String,
    /// The configuration text.
    pub text: Vec<u8>,
    /// The steering header, which is removed from client requests.
    pub header: String,
    /// Whether the endpoint is passed to Envoy by a call rather than a header.
    pub by_call: bool,
    /// Names and patterns of the clusters that it balances.
    clusters: Vec<String>,
    /// The beginning of the keys that its workers share for its set of clusters; `None` without workers.
    pub scope: Option<String>,
    /// Its metric series.
    pub series: Series,
    /// Its outstanding calls.
    pub calls: Calls,
    slots: Vec<Mutex<WorkerSlot>>,
    attached: Mutex<Vec<ConfigHandle>>,
    pacer: Mutex<Option<Pacer>>,
    at_work: AtomicBool,
    kept: Mutex<Vec<Kept>>,
    panics: AtomicU32,
    /// Whether a worker panicked where it could not be restarted.
    broken: AtomicBool,
}

thread_local! {
    /// Whether this thread runs a tick, in which it holds a worker.
    static TICKS: Cell<bool> = const { Cell::new(false) };
}

fn seed() -> u64 {
    // Entropy from process start is enough: randomness here spreads load and guards no secret.
    RandomState::new().hash_one(clock::now().0)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Index of the worker that serves this thread, among `count`.
pub fn place(count: usize) -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = THREADS.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| number % count.max(1))
}

impl Plugin {
    /// Creates the plugin for this text, or returns every fault in it.
    pub fn configure(surroundings: &dyn Host, name: &str, text: &[u8]) -> Result<Plugin, Vec<Fault>> {
        // If the configuration names a header, it is used; otherwise the request need not be changed.
        let Legible { header_named: asked_for, clusters, .. } = config::legible(text);
        let workers = abi::concurrency().div_ceil(THREADS_A_WORKER).max(1);
        let mut plugin = Plugin { text: text.to_vec(), clusters, ..Plugin::absent(name) };
        for at in 0..workers {
            let mut worker = Worker::configure(surroundings, text, name, seed())?;
            if at == 0 {
                plugin.scope = Some(worker.scope().to_owned());
                plugin.header = worker.config().steering.header.clone();
                plugin.by_call = worker.config().steering.via == Via::OverrideHost && !asked_for;
            }
            plugin.settle(surroundings, &mut worker);
            plugin.slots.push(Mutex::new(WorkerSlot { worker, generation: 0 }));
        }
        Ok(plugin)
    }

    /// A plugin without workers, which lets all requests pass.
    pub fn absent(name: &str) -> Plugin {
        Plugin {
            name: name.into(),
            text: Vec::new(),
            header: String::new(),
            by_call: false,
            clusters: Vec::new(),
            scope: None,
            series: Series::default(),
            calls: Calls::default(),
            slots: Vec::new(),
            attached: Mutex::default(),
            pacer: Mutex::default(),
            at_work: AtomicBool::new(false),
            kept: Mutex::default(),
            panics: AtomicU32::new(0),
            broken: AtomicBool::new(false),
        }
    }

    fn settle(&self, surroundings: &dyn Host, worker: &mut Worker) {
        if self.by_call {
            worker.name_one();
            worker.probe_none(surroundings);
        }
    }

    /// Whether it has workers and has not stepped aside.
    pub fn is_at_work(&self) -> bool {
        !self.slots.is_empty() && self.panics.load(Ordering::Relaxed) < MAX_PANICS
    }

    /// The clusters and patterns of its configuration.
    pub fn clusters(&self) -> impl Iterator<Item = &str> {
        self.clusters.iter().map(String::as_str)
    }

    /// Whether its configuration names the cluster.
    pub fn balances(&self, cluster: &str) -> bool {
        self.clusters.iter().any(|pattern| pattern::matches(pattern, cluster))
    }

    /// Whether one of Envoy's configurations uses it; streams of earlier ones may keep it alive for a while.
    pub fn is_attached(&self) -> bool {
        !self.slots.is_empty() && self.is_used()
    }

    /// The same, also if it has no workers because its configuration was refused.
    pub fn is_used(&self) -> bool {
        !locked(&self.attached).is_empty()
    }

    /// A resource of the status page; `None` if there is no worker to tell it.
    pub fn status(&self, host: &dyn Host, route: Route) -> Option<Shown> {
        let status = || Some(self.slot(0)?.worker.status(host, route));
        guarded(status, || {
            self.broke();
            None
        })
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.slots.len()
    }

    /// Locks a worker; `None` if the plugin stands aside or the worker is being restarted.
    pub fn slot(&self, at: usize) -> Option<MutexGuard<'_, WorkerSlot>> {
        if !self.is_at_work() {
            return None;
        }
        // A poisoned worker is about to be restarted by the thread in which it panicked.
        self.slots.get(at)?.lock().ok()
    }

    /// Locks a worker as [`slot`](Plugin::slot) does; `None` also while this thread runs a tick: a call that a worker
    /// sends may need a host of a cluster that asks a worker.
    pub fn slot_beside_ticks(&self, at: usize) -> Option<MutexGuard<'_, WorkerSlot>> {
        if TICKS.get() { None } else { self.slot(at) }
    }

    /// Records that a worker panicked where it cannot be restarted; the next tick does that.
    pub fn broke(&self) {
        self.broken.store(true, Ordering::Release);
        self.hurry();
    }

    fn mend(&self, attached: &Attached) {
        if self.broken.swap(false, Ordering::AcqRel) {
            let poisoned = |at: &usize| self.slots.get(*at).is_some_and(Mutex::is_poisoned);
            (0..self.slots.len()).filter(poisoned).for_each(|at| self.panicked(attached, at));
        }
    }

    /// Takes over what the plugin of an older configuration has learnt.
    pub fn adopt(&self, surroundings: &dyn Host, old: &Plugin) {
        let now = clock::now();
        for at in 0..self.slots.len() {
            let take_over = || {
                if let (Some(mut new), Some(mut old)) = (self.slot(at), old.slot(at)) {
                    #[cfg(debug_assertions)]
                    crate::guard::provoked(self.name.ends_with(PANICS_IN_HANDOVERS));
                    new.worker.take_over(surroundings, &mut old.worker, now);
                }
            };
            guarded(take_over, || {
                self.broke();
                old.broke();
            });
        }
    }

    /// Records that a later configuration was refused for faults at these paths, and this one stays in force; none if it
    /// has been taken back.
    pub fn outlive(&self, refused: &[String]) {
        for at in 0..self.slots.len() {
            let outlive =
                || self.slot(at).into_iter().for_each(|mut slot| slot.worker.outlive(refused.to_vec()));
            guarded(outlive, || self.broke());
        }
    }

    /// Adds one of Envoy's configurations to this plugin. It takes over the ticks: Envoy may be about to drain the listener
    /// of an earlier one.
    pub fn attach(&self, attached: &Attached) {
        let config = attached.defined.config();
        locked(&self.attached).push(config);
        let mut pacer = locked(&self.pacer);
        if let Some(pacer) = &*pacer {
            return pacer.ask(Waker::of(config));
        }
        *pacer = Pacer::start(Waker::of(config), Duration::from_millis(1));
        if pacer.is_none() {
            host::log(log::Level::Error, "evenkeel: cannot start a thread: polling disabled");
        }
    }

    /// Removes one of Envoy's configurations, which is about to be destroyed. The latest of the others takes over
    /// the ticks; after the last one, the workers end.
    pub fn detach(&self, attached: &Attached) {
        let config = attached.defined.config();
        let next = {
            let mut all = locked(&self.attached);
            all.retain(|other| *other != config);
            all.last().copied()
        };
        for lost in self.calls.take_all(config) {
            locked(&self.kept).push(Kept { call: lost, answer: None });
        }
        match next {
            Some(next) => locked(&self.pacer).iter().for_each(|pacer| pacer.ask(Waker::of(next))),
            None => {
                // Without the lock, because this waits for the thread.
                let pacer = locked(&self.pacer).take();
                drop(pacer);
                for at in 0..self.slots.len() {
                    let end =
                        || self.slot(at).into_iter().for_each(|mut s| s.worker.end(&attached.process(None)));
                    guarded(end, || self.panicked(attached, at));
                }
            }
        }
    }

    /// Sets the time until the next tick.
    pub fn pace(&self, period: Duration) {
        locked(&self.pacer).iter().for_each(|pacer| pacer.ticked(period));
    }

    /// Requests the next tick at once.
    pub fn hurry(&self) {
        locked(&self.pacer).iter().for_each(Pacer::hurry);
    }

    /// Runs a tick of all workers; returns the time until the next one, if there are any.
    pub fn tick(&self, attached: &Attached) -> Option<Duration> {
        self.mend(attached);
        self.at_work.store(true, Ordering::Relaxed);
        TICKS.set(true);
        let periods = (0..self.slots.len()).filter_map(|at| {
            let tick = || {
                let mut slot = self.slot(at)?;
                #[cfg(debug_assertions)]
                crate::guard::provoked(self.name.ends_with(PANICS_IN_TICKS));
                slot.worker.tick(&attached.process(Some(at)));
                Some(slot.worker.tick_period_ms())
            };
            guarded(tick, || {
                self.panicked(attached, at);
                // The worker that comes after it ticks as soon as any other.
                self.slot(at).map(|slot| slot.worker.tick_period_ms())
            })
        });
        let period = periods.min();
        TICKS.set(false);
        self.at_work.store(false, Ordering::Relaxed);
        let kept = core::mem::take(&mut *locked(&self.kept));
        for Kept { call, answer } in kept {
            match answer {
                Some((status, body)) => {
                    self.deliver(attached, &call, status, &Pieces { body: &[&body], headers: &[] });
                }
                None => {
                    self.to_its_worker(attached, &call, |worker, host| worker.lose_call(host, call.token))
                }
            }
        }
        let shortest = if self.slots.len() == 1 { ALONE_MS } else { 0 };
        Some(Duration::from_millis(period?.max(shortest)))
    }

    /// Delivers the answer to a call.
    pub fn answered(&self, attached: &Attached, id: u64, answer: &Answer<'_>) {
        let Some(call) = self.calls.take(attached.defined.config(), id) else { return };
        let body = Pieces { body: &answer.body, headers: &answer.headers };
        if self.at_work.load(Ordering::Relaxed) {
            // Envoy delivers some answers before the call has returned, while the worker is locked.
            let kept = if body.size() <= MAX_KEPT {
                (answer.status, body.part(0, MAX_KEPT))
            } else {
                (None, Vec::new())
            };
            locked(&self.kept).push(Kept { call, answer: Some(kept) });
            return;
        }
        self.deliver(attached, &call, answer.status, &body);
    }

    fn deliver(&self, attached: &Attached, call: &Outstanding, status: Option<u32>, body: &dyn Body) {
        self.to_its_worker(attached, call, |worker, host| {
            #[cfg(debug_assertions)]
            crate::guard::provoked(self.name.ends_with(PANICS_IN_ANSWERS));
            worker.receive_response(host, call.token, status, body);
        });
    }

    fn to_its_worker(
        &self,
        attached: &Attached,
        call: &Outstanding,
        act: impl FnOnce(&mut Worker, &dyn Host),
    ) {
        let act = || {
            if let Some(mut slot) = self.slot(call.worker) {
                act(&mut slot.worker, &attached.process(None));
            }
        };
        guarded(act, || self.panicked(attached, call.worker));
    }

    /// Restarts a worker after a panic, without state that may be half changed.
    pub fn panicked(&self, attached: &Attached, at: usize) {
        let panics = self.panics.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        attached.defined.count_panic();
        if panics >= MAX_PANICS {
            let message = format!(
                "evenkeel: panicked {panics} times: requests pass unbalanced until the next configuration"
            );
            return host::log(log::Level::Error, &message);
        }
        host::log(
            log::Level::Error,
            &format!(
                "evenkeel: panicked, {panics} of {MAX_PANICS} times: the request continues, the worker restarts"
            ),
        );
        let Some(slot) = self.slots.get(at) else { return };
        let anew = || Worker::configure(&attached.process(None), &self.text, &self.name, seed()).ok();
        let worker = guarded(anew, || None);
        if let Some(mut worker) = worker {
            self.settle(&attached.process(None), &mut worker);
            let mut locked = locked(slot);
            let generation = locked.generation.wrapping_add(1);
            let old = core::mem::replace(&mut *locked, WorkerSlot { worker, generation });
            drop(locked);
            slot.clear_poison();
            // Its destructors may panic as well.
            guarded(|| drop(old), || ());
        }
    }
}
