//! The root context: one per worker and configuration.

use core::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use super::abi::{self, Buffer, Map};
use super::host::Envoy;
use super::wire;
use crate::host::{Body, Bytes, Host};
use crate::worker::Worker;
use crate::worker::aside::{self, Aside};
use crate::worker::successor::predecessor;
use config::{Fault, Role};

/// The pause before the tick that the first request after a rest asks for, milliseconds; the shortest possible.
const WAKE_MS: u64 = 1;
/// The tick period of a root whose worker another root ticks, once it has asked for a tick of its own, milliseconds.
const OUTLIVED_MS: u64 = 1000;
/// The largest response that is kept while the worker is busy, bytes.
const MAX_KEPT: usize = 1 << 20;

thread_local! {
    /// The workers by plugin name, the latest last: a new configuration is a new root context in the same VM, and takes
    /// over what the worker before it has learnt.
    static LATEST: RefCell<Vec<Latest>> = const { RefCell::new(Vec::new()) };
    /// Every live worker: an attempt may belong to a request of any.
    static WORKERS: RefCell<Vec<Weak<RefCell<Worker>>>> = const { RefCell::new(Vec::new()) };
    /// The number of root contexts among upstream filters.
    static FOLLOWING: Cell<usize> = const { Cell::new(0) };
    /// The number of the latest root.
    static NUMBER: Cell<u64> = const { Cell::new(0) };
    /// Whether this thread had workers of several filters at a time when the latest began.
    static SEVERAL: Cell<bool> = const { Cell::new(false) };
}

/// A worker of a plugin, and the roots that serve with it. Beside its own root, `first`, these are the roots of
/// configurations that were refused while it stays in force. The last of them ticks it.
struct Latest {
    name: String,
    worker: Weak<RefCell<Worker>>,
    first: u64,
    roots: Vec<u64>,
    /// The worker of a configuration for the same clusters that came after its own: no request passes both, as long as that
    /// one is there. If it is taken back Envoy uses the root of the one before again.
    successor: Weak<RefCell<Worker>>,
}

impl Latest {
    fn is_succeeded(&self) -> bool {
        self.successor.strong_count() > 0
    }
}

/// Whether attempts can be followed.
pub fn following() -> bool {
    FOLLOWING.get() > 0
}

/// Whether a request may pass several filters of this thread.
pub fn are_several() -> bool {
    SEVERAL.get()
}

/// Passes the live workers of this thread to `look`, the latest first.
pub fn with_workers<R>(
    look: impl FnOnce(&mut dyn Iterator<Item = Rc<RefCell<Worker>>>) -> Option<R>,
) -> Option<R> {
    WORKERS.with(|workers| look(&mut workers.try_borrow().ok()?.iter().rev().filter_map(Weak::upgrade)))
}

/// The response to one of the worker's calls: token, status and body.
type Answer = (u32, Option<u32>, Vec<u8>);

/// The root context. It has no worker until it is configured, and never one among upstream filters. Its callbacks may
/// come while another of them runs.
#[derive(Default)]
pub struct Root {
    worker: RefCell<Option<Rc<RefCell<Worker>>>>,
    tick_period_ms: Cell<u64>,
    /// Whether it has asked for a tick at once since the last one.
    woken: Cell<bool>,
    follows: Cell<bool>,
    /// Responses that arrived while the worker was busy: Envoy delivers some before it has returned from the call.
    answers: RefCell<Vec<Answer>>,
    /// Set if its configuration is refused and the VM's environment asks to stand aside.
    aside: RefCell<Option<Rc<Aside>>>,
    /// Its number among the roots of this thread.
    number: Cell<u64>,
}

impl Drop for Root {
    fn drop(&mut self) {
        if self.follows.get() {
            FOLLOWING.set(FOLLOWING.get().saturating_sub(1));
        }
    }
}

/// The body of the response that is being delivered, and its size.
struct CallBody(usize);

impl Body for CallBody {
    fn size(&self) -> usize {
        self.0
    }

    fn part(&self, from: usize, most: usize) -> Vec<u8> {
        let most = most.min(self.0.saturating_sub(from));
        if most == 0 {
            return Vec::new();
        }
        abi::buffer(Buffer::CallResponseBody, from, most).unwrap_or_default().into_vec()
    }

    fn header(&self, name: &str) -> Option<Bytes> {
        abi::header(Map::CallResponseHeaders, name).ok()
    }
}

/// The plugin's name in Envoy's configuration: it scopes what workers share.
fn plugin_name() -> String {
    let name = wire::with_path(&["plugin_name"], abi::property).unwrap_or_default();
    String::from_utf8_lossy(&name).into_owned()
}

/// Sets the tick period of the active context's root; returns whether the host took it.
fn set_tick_period(ms: u64) -> bool {
    abi::set_tick_period(u32::try_from(ms).unwrap_or(u32::MAX)).is_ok()
}

fn seed() -> u64 {
    // Without entropy the workers still differ in time; this randomness spreads load and guards nothing.
    getrandom::u64().unwrap_or_else(|_| engine::rng::mix(Host::now(&Envoy).0))
}

#[inline(never)]
fn refuse(faults: Vec<Fault>) -> bool {
    for fault in faults {
        Envoy.log(log::Level::Error, &format!("configuration refused: {fault}"));
    }
    false
}

impl Root {
    /// Whether this root is among upstream filters.
    pub fn follows(&self) -> bool {
        self.follows.get()
    }

    /// The worker, once the root is configured.
    pub fn worker(&self) -> Option<Rc<RefCell<Worker>>> {
        self.worker.try_borrow().ok()?.clone()
    }

    fn with<R>(&self, act: impl FnOnce(&mut Worker) -> R) -> Option<R> {
        let worker = self.worker()?;
        let mut worker = worker.try_borrow_mut().ok()?;
        Some(act(&mut worker))
    }

    /// The worker in force of plugin `name` for one of these clusters.
    #[inline(never)]
    fn latest(name: &str, clusters: &[String]) -> Option<Rc<RefCell<Worker>>> {
        LATEST.with(|latest| {
            let latest = latest.try_borrow().ok()?;
            let of_name = latest.iter().rev().filter(|of| of.name == name);
            let workers: Vec<_> = of_name.filter_map(|of| of.worker.upgrade()).collect();
            let meets = |worker: &Rc<RefCell<Worker>>, clusters: &[String], loosely| {
                worker.try_borrow().is_ok_and(|worker| worker.meets(clusters, loosely))
            };
            workers.get(predecessor(&workers, clusters, meets)?).cloned()
        })
    }

    /// Makes this root the last one of the plugin's worker.
    fn put(&self, name: String, worker: &Rc<RefCell<Worker>>) {
        self.leave();
        let number = self.count();
        LATEST.with(|latest| {
            let Ok(mut latest) = latest.try_borrow_mut() else { return };
            latest.retain(|of| of.worker.strong_count() > 0);
            let it = Rc::downgrade(worker);
            let at = latest.iter().position(|of| of.worker.ptr_eq(&it));
            let before = at.map(|at| latest.remove(at));
            let (first, mut roots) = before.map_or((number, Vec::new()), |of| (of.first, of.roots));
            roots.push(number);
            latest.push(Latest { name, worker: it, first, roots, successor: Weak::new() });
        });
        self.worker.replace(Some(worker.clone()));
    }

    /// Gives this root the next number.
    fn count(&self) -> u64 {
        NUMBER.set(NUMBER.get() + 1);
        self.number.set(NUMBER.get());
        NUMBER.get()
    }

    /// Takes this root from its worker; returns which root ticks the worker then, and whether that is its own.
    fn leave(&self) -> Option<(u64, bool)> {
        let number = self.number.get();
        LATEST.with(|latest| {
            let mut latest = latest.try_borrow_mut().ok()?;
            let of = latest.iter_mut().find(|of| of.roots.contains(&number))?;
            of.roots.retain(|root| *root != number);
            of.roots.last().map(|last| (*last, *last == of.first))
        })
    }

    /// Whether another root ticks this one's worker now.
    fn is_outlived(&self) -> bool {
        let Some(worker) = self.worker() else { return false };
        LATEST.with(|latest| {
            let Ok(latest) = latest.try_borrow() else { return false };
            let it = Rc::downgrade(&worker);
            latest.iter().any(|of| of.worker.ptr_eq(&it) && of.roots.last() != Some(&self.number.get()))
        })
    }

    /// Whether a later configuration is in force where this root's was refused.
    #[inline(never)]
    fn is_replaced(&self, aside: &Aside) -> bool {
        LATEST.with(|latest| {
            let Ok(latest) = latest.try_borrow() else { return false };
            let is_later = |of: &&Latest| of.roots.last().is_some_and(|last| *last > self.number.get());
            let mut later = latest.iter().filter(is_later).filter_map(|of| Some((of, of.worker.upgrade()?)));
            later.any(|(of, worker)| {
                let meets = |clusters: &[String]| worker.try_borrow().is_ok_and(|w| w.meets(clusters, true));
                aside.is_of(&of.name, meets)
            })
        })
    }

    /// A configuration of `size` bytes; returns whether it is accepted.
    pub fn configure(&self, size: usize) -> bool {
        let json = abi::buffer(Buffer::PluginConfiguration, 0, size).unwrap_or_default();
        let name = plugin_name();
        let stands_aside = aside::wanted(&Envoy, std::env::var(aside::VARIABLE).ok().as_deref());
        let read = match config::role(&json) {
            Role::Upstream => config::parse_upstream(&json).map(|()| None),
            Role::Downstream => Worker::configure(&Envoy, &json, &name, seed()).map(Some),
        };
        match read {
            Ok(worker) => {
                if stands_aside {
                    aside::accepted(&Envoy);
                }
                self.aside.replace(None);
                worker.map_or_else(|| self.follow(), |worker| self.begin(name, worker))
            }
            Err(faults) if stands_aside => self.stand_aside(&json, name, faults),
            Err(faults) => refuse(faults),
        }
    }

    fn follow(&self) -> bool {
        if !self.follows.replace(true) {
            FOLLOWING.set(FOLLOWING.get() + 1);
        }
        true
    }

    #[inline(never)]
    fn begin(&self, name: String, mut worker: Worker) -> bool {
        let named = worker.named();
        let old = Root::latest(&name, &named);
        if let Some(old) = &old
            && let Ok(mut old) = old.try_borrow_mut()
        {
            worker.take_over(&Envoy, &mut old, Host::now(&Envoy));
        }
        // One that observes may stand beside one that steers.
        let comes_before = |old: &Worker| old.named() == named && old.config().mode == worker.config().mode;
        let before = old.filter(|old| old.try_borrow().is_ok_and(|old| comes_before(&old)));
        self.tick_period_ms.set(worker.tick_period_ms());
        let worker = Rc::new(RefCell::new(worker));
        Root::succeed(before.as_ref(), &worker);
        WORKERS.with(|workers| {
            let Ok(mut workers) = workers.try_borrow_mut() else { return };
            workers.retain(|old| old.strong_count() > 0);
            workers.push(Rc::downgrade(&worker));
        });
        self.put(name, &worker);
        set_tick_period(self.tick_period_ms.get())
    }

    /// Notes that the configuration of worker `new` comes after that of worker `old`, and whether there are other filters
    /// beside it.
    fn succeed(old: Option<&Rc<RefCell<Worker>>>, new: &Rc<RefCell<Worker>>) {
        LATEST.with(|latest| {
            let Ok(mut latest) = latest.try_borrow_mut() else { return };
            for of in
                latest.iter_mut().filter(|of| old.is_some_and(|old| of.worker.ptr_eq(&Rc::downgrade(old))))
            {
                of.successor = Rc::downgrade(new);
            }
            SEVERAL.set(latest.iter().any(|of| !of.is_succeeded() && of.worker.strong_count() > 0));
        });
    }

    /// Lets requests pass, or keeps the worker of the configuration before in force.
    #[inline(never)]
    fn stand_aside(&self, json: &[u8], name: String, faults: Vec<Fault>) -> bool {
        let kept = Root::latest(&name, &config::legible(json).clusters);
        let aside = Aside::from(&Envoy, json, &name, faults, kept.is_some());
        if let Some(worker) = kept {
            if let Ok(mut worker) = worker.try_borrow_mut() {
                worker.outlive(aside.places());
            }
            self.put(name, &worker);
        }
        if self.worker().is_none() {
            self.count();
        }
        self.aside.replace(Some(Rc::new(aside)));
        self.tick_period_ms.set(self.with(|worker| worker.tick_period_ms()).unwrap_or(aside::TICK_MS));
        set_tick_period(self.tick_period_ms.get())
    }

    /// How a stream without a worker behaves, if a configuration was refused.
    pub fn aside(&self) -> Option<Rc<Aside>> {
        self.aside.try_borrow().ok()?.clone()
    }

    /// Asks for a tick at once; that tick sets the period anew. One of its streams is active.
    pub fn wake(&self) {
        self.woken.set(true);
        let _else_it_comes_a_little_later = set_tick_period(WAKE_MS);
    }

    /// The tick of this root.
    pub fn tick(&self) {
        if let Some(aside) = self.aside().filter(|aside| !self.is_replaced(aside)) {
            aside.tick(&Envoy);
        }
        let woken = self.woken.take();
        let period_ms = if self.is_outlived() {
            // Only where a request of its own has ended a rest: otherwise nothing is left to do.
            woken.then_some(OUTLIVED_MS)
        } else {
            let period_ms = self.with(|worker| {
                worker.tick(&Envoy);
                worker.tick_period_ms()
            });
            self.deliver_answers();
            period_ms
        };
        match period_ms {
            Some(period_ms) if self.tick_period_ms.replace(period_ms) != period_ms || woken => {
                set_tick_period(period_ms);
            }
            Some(_) => {}
            None => self.woken.set(woken),
        }
    }

    /// The response to one of the worker's calls; `answered` says whether it has headers, without which the call has
    /// failed, and `size` is that of its body.
    pub fn receive_response(&self, token: u32, answered: bool, size: usize) {
        let status = answered
            .then(|| abi::header(Map::CallResponseHeaders, ":status").ok())
            .flatten()
            .and_then(|status| core::str::from_utf8(&status).ok()?.parse().ok());
        let body = CallBody(size);
        let Some(()) = self.with(|worker| worker.receive_response(&Envoy, token, status, &body)) else {
            // Kept until the worker is free; a large response counts as failed and is requested again.
            let kept = if size <= MAX_KEPT { (status, body.part(0, size)) } else { (None, Vec::new()) };
            if let Ok(mut answers) = self.answers.try_borrow_mut() {
                answers.push((token, kept.0, kept.1));
            }
            return;
        };
    }

    /// Delivers the responses that were kept, unless the worker is busy.
    fn deliver_answers(&self) {
        self.with(|worker| {
            for (token, status, body) in self.answers.take() {
                worker.receive_response(&Envoy, token, status, &body.as_slice());
            }
        });
    }

    /// The configuration is no longer in force and its last request has ended. Another root may serve on with its worker:
    /// if a refused configuration is taken back while the one before it drains, Envoy uses that one's root again.
    pub fn end(&self) {
        let was_last = !self.is_outlived();
        match self.leave() {
            None if was_last => {
                self.pass_on();
                self.with(|worker| worker.end(&Envoy));
            }
            None => {}
            Some((_, is_first)) => {
                self.with(|worker| worker.lose_probes(&Envoy));
                if is_first && was_last {
                    self.give_back();
                }
            }
        }
    }

    /// Its worker ends: what came before it is succeeded by what came after it, if anything has.
    #[inline(never)]
    fn pass_on(&self) {
        let Some(worker) = self.worker() else { return };
        let ends = Rc::downgrade(&worker);
        LATEST.with(|latest| {
            let Ok(mut latest) = latest.try_borrow_mut() else { return };
            let of = latest.iter().find(|of| of.worker.ptr_eq(&ends));
            let after = of.map(|of| of.successor.clone()).unwrap_or_default();
            let before = latest.iter_mut().filter(|of| of.successor.ptr_eq(&ends));
            before.for_each(|of| of.successor = after.clone());
        });
    }

    /// The configuration was refused and has been taken back: the one before it is the latest again.
    #[inline(never)]
    fn give_back(&self) {
        self.with(|worker| worker.outlive(Vec::new()));
        if self.aside().is_some_and(|aside| !self.is_replaced(&aside)) {
            aside::accepted(&Envoy);
        }
    }
}
