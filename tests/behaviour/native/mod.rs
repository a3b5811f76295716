//! The world of the library: the same surroundings as Envoy's, in plain Rust.

mod stream;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::time::Time;
use evenkeel::host::{self, Body, Bytes, CallError, Host, MetricKind, SharedError};
use evenkeel::worker::Worker;
use evenkeel::worker::successor::predecessor;

use crate::world::{Answer, Call, Gate, Plugin, Stream, Thread, World};
use stream::{Maps, NativeStream, Part, Phase, own};

/// The first time of the clock: a guest must not rely on a clock that begins at zero.
const START: u64 = 1_800_000_000_000_000_000;

#[derive(Default)]
pub struct State {
    now: u64,
    /// By thread: how far its clock is from the process's.
    skews: BTreeMap<Thread, i64>,
    threads: usize,
    /// The number of configurations that were accepted or refused.
    configured: u64,
    shared: BTreeMap<String, (Vec<u8>, u32)>,
    last_version: u32,
    clusters: BTreeSet<String>,
    blocked: BTreeSet<String>,
    environment: BTreeMap<String, String>,
    calls: Vec<(Call, usize)>,
    last_token: u32,
    logs: Vec<String>,
    node_zone: Option<String>,
    /// By number: kind, name, and samples.
    metrics: Vec<(MetricKind, String, Vec<u64>)>,
}

impl State {
    fn metric(&self, kind: MetricKind, name: &str) -> Option<&[u64]> {
        let found = self.metrics.iter().find(|(k, n, _)| (*k, n.as_str()) == (kind, name));
        found.map(|(_, _, values)| values.as_slice())
    }
}

/// The state that all threads of the process share.
#[derive(Clone)]
pub struct Common {
    state: Arc<Mutex<State>>,
    seed: u64,
}

impl Common {
    /// A test that fails leaves the state as it was.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self, thread: Thread) -> u64 {
        let state = self.lock();
        state.now.saturating_add_signed(state.skews.get(&thread).copied().unwrap_or(0))
    }
}

pub struct Native {
    state: Common,
    gate: Option<Gate>,
    plugins: Vec<Loaded>,
    following: Vec<Thread>,
}

struct Loaded {
    thread: Thread,
    name: String,
    worker: Rc<RefCell<Worker>>,
}

/// The [`Host`] of one plugin configuration.
struct Surroundings<'a> {
    state: &'a Common,
    gate: Option<&'a Gate>,
    thread: Thread,
    plugin: usize,
}

impl Surroundings<'_> {
    /// Passes the gate in front of shared data.
    fn pass(&self, key: &str) {
        if self.gate.is_some_and(|gate| !gate(key)) {
            std::panic::resume_unwind(Box::new(wasmhost::Death));
        }
    }
}

impl Host for Surroundings<'_> {
    fn now(&self) -> Time {
        Time(self.state.now(self.thread))
    }

    fn shared_get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.pass(key);
        self.state.lock().shared.get(key).cloned()
    }

    fn shared_set(&self, key: &str, value: &[u8], version: Option<u32>) -> Result<(), SharedError> {
        self.pass(key);
        let mut state = self.state.lock();
        let current = state.shared.get(key).map(|(_, version)| *version);
        if version.is_some_and(|version| current.is_some_and(|current| current != version)) {
            return Err(SharedError::Conflict);
        }
        state.last_version += 1;
        let version = state.last_version;
        state.shared.insert(key.into(), (value.into(), version));
        Ok(())
    }

    fn call(&self, call: &host::Call<'_>) -> Result<u32, CallError> {
        let mut state = self.state.lock();
        if !state.clusters.contains(call.cluster) {
            return Err(CallError::UnknownCluster);
        }
        if state.blocked.contains(call.cluster) {
            return Err(CallError::NotSent);
        }
        state.last_token += 1;
        let token = state.last_token;
        let call = Call {
            thread: self.thread,
            token,
            cluster: call.cluster.into(),
            authority: call.authority.into(),
            path: call.path.into(),
            headers: call.headers.to_vec(),
            form: call.form.map(str::to_owned),
            timeout: call.timeout,
        };
        state.calls.push((call, self.plugin));
        Ok(token)
    }

    fn environment(&self, variable: &str) -> Option<String> {
        self.state.lock().environment.get(variable).cloned()
    }

    fn node_zone(&self) -> Option<String> {
        self.state.lock().node_zone.clone()
    }

    fn log(&self, _level: log::Level, message: &str) {
        self.state.lock().logs.push(message.into());
    }

    fn metric(&self, kind: MetricKind, name: &str) -> Option<u32> {
        let metrics = &mut self.state.lock().metrics;
        let known = metrics.iter().position(|(k, n, _)| (*k, n.as_str()) == (kind, name));
        let at = known.unwrap_or_else(|| {
            metrics.push((kind, name.into(), Vec::new()));
            metrics.len() - 1
        });
        Some(at as u32)
    }

    fn count(&self, metric: u32, by: u64) {
        assert!(by > 0, "Envoy refuses to add nothing");
        let (kind, _, values) = &mut self.state.lock().metrics[metric as usize];
        assert_eq!(*kind, MetricKind::Counter);
        values.push(by);
    }

    fn record(&self, metric: u32, value: u64) {
        let (kind, _, values) = &mut self.state.lock().metrics[metric as usize];
        assert_ne!(*kind, MetricKind::Counter);
        values.push(value);
    }
}

impl Native {
    fn surroundings(&self, thread: Thread, plugin: usize) -> Surroundings<'_> {
        Surroundings { state: &self.state, gate: self.gate.as_ref(), thread, plugin }
    }

    fn on<R>(&self, plugin: usize, act: impl FnOnce(&mut Worker, &dyn Host) -> R) -> R {
        let loaded = &self.plugins[plugin];
        let host = self.surroundings(loaded.thread, plugin);
        act(&mut loaded.worker.borrow_mut(), &host)
    }
}

/// A response during its delivery.
struct Handed<'a> {
    body: &'a [u8],
    header: Option<(&'a str, &'a [u8])>,
}

impl Body for Handed<'_> {
    fn size(&self) -> usize {
        self.body.size()
    }

    fn part(&self, from: usize, most: usize) -> Vec<u8> {
        self.body.part(from, most)
    }

    fn header(&self, name: &str) -> Option<Bytes> {
        self.header.filter(|(of, _)| *of == name).map(|(_, value)| value.into())
    }
}

impl World for Native {
    type Stream = NativeStream;
    type Process = Common;

    fn process(&self) -> Common {
        self.state.clone()
    }

    fn on_this_thread(process: &Common) -> Native {
        Native { state: process.clone(), gate: None, plugins: Vec::new(), following: Vec::new() }
    }

    fn gate(&mut self, gate: Gate) {
        self.gate = Some(gate);
    }

    fn skew(&mut self, thread: Thread, nanoseconds: i64) {
        self.state.lock().skews.insert(thread, nanoseconds);
    }

    fn end(&mut self, plugin: Plugin) {
        self.on(plugin.0, |worker, host| worker.end(host));
    }

    fn new(seed: u64) -> Native {
        let state = State { now: START, ..State::default() };
        Native::on_this_thread(&Common { state: Arc::new(Mutex::new(state)), seed })
    }

    fn thread(&mut self) -> Thread {
        let threads = &mut self.state.lock().threads;
        *threads += 1;
        Thread(*threads - 1)
    }

    fn configure(&mut self, thread: Thread, name: &str, json: &str) -> Result<Plugin, Vec<String>> {
        let plugin = self.plugins.len();
        let host = self.surroundings(thread, plugin);
        let mut state = self.state.lock();
        let seed = self.state.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ state.configured;
        state.configured += 1;
        drop(state);
        let mut worker = Worker::configure(&host, json.as_bytes(), name, seed).map_err(|faults| {
            faults.iter().map(|fault| format!("configuration refused: {fault}")).collect::<Vec<_>>()
        })?;
        let of_name = self.plugins.iter().rev().filter(|other| other.thread == thread && other.name == name);
        let of_name: Vec<&Loaded> = of_name.collect();
        let meets = |old: &&Loaded, named: &[String], loosely| old.worker.borrow().meets(named, loosely);
        if let Some(old) = predecessor(&of_name, &worker.named(), meets).map(|at| of_name[at]) {
            worker.take_over(&host, &mut old.worker.borrow_mut(), host.now());
        }
        worker.follow_attempts(self.following.contains(&thread));
        self.plugins.push(Loaded { thread, name: name.into(), worker: Rc::new(RefCell::new(worker)) });
        Ok(Plugin(plugin))
    }

    fn thread_of(&self, plugin: Plugin) -> Thread {
        self.plugins[plugin.0].thread
    }

    /// Upstream filters have no worker of their own, so the thread stands for it.
    fn follow(&mut self, thread: Thread) -> Plugin {
        self.following.push(thread);
        self.plugins
            .iter()
            .filter(|p| p.thread == thread)
            .for_each(|p| p.worker.borrow_mut().follow_attempts(true));
        Plugin(thread.0)
    }

    fn attempt(&mut self, upstream: Plugin, request: &NativeStream, address: &str) -> NativeStream {
        let properties = request.maps.borrow().properties.clone();
        let maps = Maps { request: request.maps.borrow().request.clone(), properties, ..Maps::default() };
        let maps = RefCell::new(maps);
        let workers =
            self.plugins.iter().filter(|p| p.thread == Thread(upstream.0)).map(|p| p.worker.clone());
        let of = (Thread(upstream.0), upstream);
        let now = self.state.now(of.0);
        let surroundings = self.surroundings(of.0, upstream.0);
        let worker =
            evenkeel::request::UpstreamAttempt::worker_of(&Phase { now, maps: &maps, surroundings }, workers);
        let worker = worker.map_or_else(Weak::new, |worker| Rc::downgrade(&worker));
        let part = Part::Upstream(evenkeel::request::UpstreamAttempt::default());
        let mut attempt =
            NativeStream { state: self.state.clone(), gate: self.gate.clone(), of, worker, part, maps };
        attempt.property(&["upstream", "address"], address.as_bytes());
        attempt
    }

    fn tick(&mut self, plugin: Plugin) {
        self.on(plugin.0, |worker, host| worker.tick(host));
    }

    fn stream(&mut self, plugin: Plugin, headers: &[(&str, &[u8])]) -> NativeStream {
        let maps = Maps { request: own(headers), ..Maps::default() };
        NativeStream {
            state: self.state.clone(),
            gate: self.gate.clone(),
            of: (self.plugins[plugin.0].thread, plugin),
            worker: Rc::downgrade(&self.plugins[plugin.0].worker),
            part: Part::Downstream(evenkeel::request::Stream::default()),
            maps: RefCell::new(maps),
        }
    }

    fn now(&self) -> u64 {
        self.state.lock().now
    }

    fn set_now(&mut self, nanoseconds: u64) {
        self.state.lock().now = nanoseconds;
    }

    fn shared_keys(&self) -> Vec<String> {
        self.state.lock().shared.keys().cloned().collect()
    }

    fn shared(&self, key: &str) -> Vec<u8> {
        self.state.lock().shared.get(key).map(|(value, _)| value.clone()).unwrap_or_default()
    }

    fn set_shared(&mut self, key: &str, value: &[u8]) {
        let mut state = self.state.lock();
        state.last_version += 1;
        let version = state.last_version;
        state.shared.insert(key.into(), (value.into(), version));
    }

    fn set_node_zone(&mut self, zone: &str) {
        self.state.lock().node_zone = Some(zone.into());
    }

    fn add_cluster(&mut self, name: &str) {
        self.state.lock().clusters.insert(name.into());
    }

    fn block_cluster(&mut self, name: &str) {
        self.state.lock().blocked.insert(name.into());
    }

    fn set_environment(&mut self, variable: &str, value: &str) {
        self.state.lock().environment.insert(variable.into(), value.into());
    }

    fn calls(&self) -> Vec<Call> {
        self.state.lock().calls.iter().map(|(call, _)| call.clone()).collect()
    }

    fn answer(&mut self, call: &Call, answer: &Answer<'_>) {
        let mut state = self.state.lock();
        let at = state.calls.iter().position(|(other, _)| other == call).expect("an outstanding call");
        let (call, plugin) = state.calls.remove(at);
        drop(state);
        let (status, body): (_, &[u8]) = match answer {
            Answer::Http(status, body) => (Some(u32::from(*status)), body),
            Answer::With(..) => (Some(200), b""),
            Answer::Told(status, ..) => (Some(u32::from(*status)), b""),
            Answer::NoStatus(_) => (None, b"{}"),
            Answer::Failed => (None, b""),
        };
        let header = match answer {
            Answer::With(name, value) => Some((*name, *value)),
            Answer::Told(_, name, value) => Some((*name, value.as_bytes())),
            _ => None,
        };
        let body = Handed { body, header };
        self.on(plugin, |worker, host| worker.receive_response(host, call.token, status, &body));
    }

    fn logs(&self) -> Vec<String> {
        self.state.lock().logs.clone()
    }

    fn counter(&self, name: &str) -> Option<u64> {
        self.state.lock().metric(MetricKind::Counter, name).map(|added| added.iter().sum())
    }

    fn gauge(&self, name: &str) -> Option<u64> {
        self.state.lock().metric(MetricKind::Gauge, name)?.last().copied()
    }

    fn histogram(&self, name: &str) -> Vec<u64> {
        self.state.lock().metric(MetricKind::Histogram, name).unwrap_or_default().to_vec()
    }
}
