//! The state that all workers of one Envoy share, and the means by which a test plays its surroundings.

use crate::abi::Level;
use crate::calls::{CallAnswer, HttpCall};
use crate::contexts::Contexts;
use crate::core::Core;
use crate::headers::Headers;
use crate::metrics::{Kind, Metrics};
use crate::module::{LoadError, Module};
use crate::property::{Properties, PropertyValue, join};
use crate::random::Random;
use crate::shared_data::SharedData;
use crate::vm::Vm;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The first time of the clock, January 2027: a guest must not rely on a clock that begins at zero.
const START: Duration = Duration::from_secs(1_800_000_000);

/// One Envoy process: any number of VMs with common shared data, clock, metrics and surroundings.
///
/// A VM stays on the thread of the test that started it; [`Process::shared`] takes the process to another one.
#[derive(Clone, Debug)]
pub struct Process {
    shared: SharedProcess,
    /// The VMs that were started on this thread.
    vms: Rc<RefCell<BTreeMap<usize, Weak<RefCell<Core>>>>>,
}

/// A process without its VMs, to be handed to another thread of the test.
#[derive(Clone, Debug)]
pub struct SharedProcess(Arc<Mutex<State>>);

impl SharedProcess {
    /// The process, for VMs on this thread.
    pub fn process(&self) -> Process {
        Process { shared: self.clone(), vms: Rc::default() }
    }

    /// A test that fails leaves the state as it was.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line that a guest has logged or printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The VM that wrote it.
    pub vm: usize,
    /// Its severity.
    pub level: Level,
    /// Its text.
    pub message: String,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) now: u64,
    pub(crate) shared_data: SharedData,
    pub(crate) metrics: Metrics,
    pub(crate) clusters: BTreeSet<String>,
    pub(crate) blocked: BTreeSet<String>,
    /// Clusters whose calls fail before the hostcall returns.
    pub(crate) hasty: BTreeSet<String>,
    /// By key: what another worker writes right before the next write.
    pub(crate) races: BTreeMap<String, Vec<u8>>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) calls: Vec<HttpCall>,
    pub(crate) logs: Vec<LogLine>,
    pub(crate) properties: Properties,
    /// By VM: how far its clock is from that of the process, nanoseconds.
    pub(crate) skews: BTreeMap<usize, i64>,
    seed: u64,
    /// The number of VMs that were started, dead ones included.
    started: usize,
}

impl State {
    pub(crate) fn log(&mut self, vm: usize, level: Level, message: String) {
        self.logs.push(LogLine { vm, level, message });
    }

    /// The time that this VM reads, nanoseconds since 1970.
    pub(crate) fn time_of(&self, vm: usize) -> u64 {
        self.now.saturating_add_signed(self.skews.get(&vm).copied().unwrap_or(0))
    }

    /// Cancels the calls of a root or VM that ends, as Envoy does, and returns them.
    pub(crate) fn cancel_calls(&mut self, vm: usize, context: Option<u32>) -> Vec<HttpCall> {
        let ends =
            |call: &mut HttpCall| call.vm == vm && context.is_none_or(|context| call.context == context);
        self.calls.extract_if(.., ends).collect()
    }
}

impl Process {
    /// An Envoy without workers; `seed` determines all randomness of guests.
    pub fn new(seed: u64) -> Process {
        let state = State {
            now: START.as_nanos() as u64,
            shared_data: SharedData::default(),
            metrics: Metrics::default(),
            clusters: BTreeSet::new(),
            blocked: BTreeSet::new(),
            hasty: BTreeSet::new(),
            races: BTreeMap::new(),
            environment: BTreeMap::new(),
            calls: Vec::new(),
            logs: Vec::new(),
            properties: Properties::default(),
            skews: BTreeMap::new(),
            seed,
            started: 0,
        };
        SharedProcess(Arc::new(Mutex::new(state))).process()
    }

    /// The process without its VMs, to be handed to another thread of the test.
    pub fn shared(&self) -> SharedProcess {
        self.shared.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    /// Starts a worker's VM. Dropping it ends the worker and cancels its outstanding calls.
    pub fn vm(&self, module: &Module) -> Result<Vm, LoadError> {
        let mut state = self.state();
        // The number is used up even if starting fails, so that log lines of two VMs never mix.
        let (id, seed) = (state.started, state.seed);
        state.started += 1;
        drop(state);
        let contexts = Contexts::new(id, self.shared(), Random::new(seed, id as u64));
        let core = Rc::new(RefCell::new(Core::start(module, contexts)?));
        self.vms.borrow_mut().insert(id, Rc::downgrade(&core));
        Ok(Vm { id, core })
    }

    /// The fake time in nanoseconds since 1970.
    pub fn now(&self) -> u64 {
        self.state().now
    }

    /// Sets the fake time; it may step back, as a wall clock may.
    pub fn set_now(&self, nanoseconds: u64) {
        self.state().now = nanoseconds;
    }

    /// Sets the clock of one VM apart from that of the process.
    pub fn skew(&self, vm: usize, nanoseconds: i64) {
        self.state().skews.insert(vm, nanoseconds);
    }

    /// Moves the fake time forward. No tick fires by itself.
    pub fn advance(&self, by: Duration) {
        self.state().now += by.as_nanos() as u64;
    }

    /// Makes a known cluster take no more calls, like one without healthy hosts.
    pub fn block_cluster(&self, name: &str) {
        self.state().blocked.insert(name.into());
    }

    /// Makes the calls of a known cluster fail before the hostcall has returned, as Envoy does with what it defers until
    /// the callback of an upstream filter in the middle of the call is over.
    pub fn fail_at_once(&self, name: &str) {
        self.state().hasty.insert(name.into());
    }

    /// Has another worker write this value right before the next write under `key`, after that one's writer has read.
    pub fn race(&self, key: &str, value: &[u8]) {
        self.state().races.insert(key.into(), value.to_vec());
    }

    /// Sets an environment variable of VMs that have not read their environment yet.
    pub fn set_environment(&self, variable: &str, value: &str) {
        self.state().environment.insert(variable.into(), value.into());
    }

    /// Makes a cluster known; calls to unknown ones fail at once with a bad argument.
    pub fn add_cluster(&self, name: &str) {
        self.state().clusters.insert(name.to_owned());
    }

    /// Sets a property that every context of every VM can read.
    pub fn property(&self, path: &[&str], value: &(impl PropertyValue + ?Sized)) {
        self.state().properties.set(join(path), value.encode());
    }

    /// A shared value with its compare-and-swap number.
    pub fn shared_data(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.state().shared_data.get(key)
    }

    /// The keys of all shared data, sorted.
    pub fn shared_data_keys(&self) -> Vec<String> {
        self.state().shared_data.keys()
    }

    /// Overwrites a shared value, as another plugin or an older version might.
    pub fn set_shared_data(&self, key: &str, value: &[u8]) {
        let stored = self.state().shared_data.set(key, value.to_vec(), 0);
        debug_assert!(stored, "cas 0 always overwrites");
    }

    /// The outstanding HTTP calls, oldest first.
    pub fn calls(&self) -> Vec<HttpCall> {
        self.state().calls.clone()
    }

    /// Answers a call with a status and a body.
    pub fn answer(&self, call: &HttpCall, status: u16, body: impl AsRef<[u8]>) {
        self.answer_with(call, Headers::new(&[(":status", &status.to_string())]), body);
    }

    /// Answers a call with these headers and this body.
    pub fn answer_with(&self, call: &HttpCall, headers: Headers, body: impl AsRef<[u8]>) {
        self.deliver(call, Some(CallAnswer { headers, body: body.as_ref().to_vec() }));
    }

    /// Fails a call as a reset or timeout does: the guest sees no headers, body or trailers.
    pub fn fail(&self, call: &HttpCall) {
        self.deliver(call, None);
    }

    fn deliver(&self, call: &HttpCall, answer: Option<CallAnswer>) {
        let mut state = self.state();
        let place = state.calls.iter().position(|other| (other.vm, other.token) == (call.vm, call.token));
        let place =
            place.unwrap_or_else(|| panic!("call {} of VM {} is not outstanding", call.token, call.vm));
        let call = state.calls.remove(place);
        drop(state);
        let vm = self.vms.borrow().get(&call.vm).and_then(Weak::upgrade);
        if let Some(core) = vm {
            core.borrow_mut().deliver(&call, answer);
        }
    }

    /// Everything logged so far, oldest first.
    pub fn logs(&self) -> Vec<LogLine> {
        self.state().logs.clone()
    }

    /// Removes and returns everything logged so far.
    pub fn take_logs(&self) -> Vec<LogLine> {
        std::mem::take(&mut self.state().logs)
    }

    /// Whether any line contains `part`.
    pub fn has_logged(&self, part: &str) -> bool {
        self.state().logs.iter().any(|line| line.message.contains(part))
    }

    /// A counter's value, `None` if no VM has defined it.
    pub fn counter(&self, name: &str) -> Option<u64> {
        self.state().metrics.value(&(Kind::Counter, name.to_owned()))
    }

    /// A gauge's value, `None` if no VM has defined it.
    pub fn gauge(&self, name: &str) -> Option<u64> {
        self.state().metrics.value(&(Kind::Gauge, name.to_owned()))
    }

    /// Every value recorded in a histogram, in order.
    pub fn histogram(&self, name: &str) -> Vec<u64> {
        self.state().metrics.samples(name)
    }

    /// The names of all metrics ever defined.
    pub fn metric_names(&self) -> Vec<String> {
        self.state().metrics.names()
    }
}
