//! Load balancers as Envoy has them: the hosts of a cluster by priority and health, the request that one is chosen for, and the
//! order of the events. What Envoy would not survive ends the process, and so does a choice that Envoy could not follow.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::ffi::c_void;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use crate::envoy::{self, Bytes, broken};

/// A host of a cluster.
#[derive(Clone, Debug)]
pub struct Host {
    pub address: String,
    pub weight: u32,
    pub healthy: bool,
    pub zone: &'static str,
}

impl Host {
    pub fn new(address: &str) -> Host {
        Host { address: address.to_owned(), weight: 1, healthy: true, zone: "" }
    }
}

/// The hosts of a priority, and the weights of its zones, in their order.
#[derive(Clone, Debug, Default)]
pub struct Level {
    pub hosts: Vec<Host>,
    pub zones: Vec<(&'static str, u32)>,
}

impl Level {
    pub fn of(addresses: &[&str]) -> Level {
        Level { hosts: addresses.iter().map(|address| Host::new(address)).collect(), zones: Vec::new() }
    }

    fn healthy(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(|host| host.healthy)
    }

    fn of_zone(&self, at: usize) -> Vec<&Host> {
        let Some((zone, _)) = self.zones.get(at) else { return Vec::new() };
        self.healthy().filter(|host| host.zone == *zone).collect()
    }
}

/// The request that a host is chosen for.
#[derive(Clone, Debug, Default)]
pub struct Attempt {
    /// The host that a filter has named by a call, and Envoy did not take.
    pub named: Option<String>,
    /// The hosts that the retry policy excludes.
    pub excluded: Vec<String>,
    pub headers: Vec<(&'static str, &'static str)>,
}

/// A configuration of the policy.
pub struct Policy {
    id: usize,
    pointer: usize,
    counters: Arc<Mutex<Counters>>,
}

#[derive(Default)]
struct Counters {
    names: Vec<String>,
    values: BTreeMap<String, u64>,
}

struct State {
    name: String,
    levels: Vec<Level>,
    thread: ThreadId,
    /// The request of the event that runs.
    attempt: Option<Attempt>,
    /// Events that run.
    events: usize,
    /// Functions of Envoy's that were called.
    calls: usize,
}

/// A load balancer: one cluster's, on this thread.
pub struct Lb {
    id: usize,
    pointer: usize,
}

static LBS: LazyLock<Mutex<HashMap<usize, Arc<Mutex<State>>>>> = LazyLock::new(Mutex::default);
static POLICIES: LazyLock<Mutex<HashMap<usize, Arc<Mutex<Counters>>>>> = LazyLock::new(Mutex::default);

thread_local! {
    static MAKING: Cell<usize> = const { Cell::new(0) };
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the module offers to Envoy for load balancers.
mod offered {
    use super::{Bytes, c_void};

    type Pointer = *const c_void;

    unsafe extern "C" {
        pub fn envoy_dynamic_module_on_lb_config_new(
            config: *mut c_void,
            name: Bytes,
            text: Bytes,
        ) -> Pointer;
        pub fn envoy_dynamic_module_on_lb_config_destroy(policy: Pointer);
        pub fn envoy_dynamic_module_on_lb_new(policy: Pointer, lb: *mut c_void) -> Pointer;
        pub fn envoy_dynamic_module_on_lb_destroy(lb: Pointer);
        pub fn envoy_dynamic_module_on_lb_choose_host(
            lb: *mut c_void,
            pointer: Pointer,
            context: *mut c_void,
            priority: *mut u32,
            index: *mut u32,
        ) -> bool;
        pub fn envoy_dynamic_module_on_lb_on_host_membership_update(
            lb: *mut c_void,
            pointer: Pointer,
            added: usize,
            removed: usize,
        );
    }
}

impl Policy {
    /// A configuration of this text, if the module takes it.
    pub fn of(text: &str) -> Option<Policy> {
        envoy::load();
        let id = envoy::next_id();
        let counters: Arc<Mutex<Counters>> = Arc::default();
        locked(&POLICIES).insert(id, counters.clone());
        MAKING.set(id);
        let (name, text) = (Bytes::of(b"evenkeel"), Bytes::of(text.as_bytes()));
        // SAFETY: both live as long as the call.
        let pointer =
            unsafe { offered::envoy_dynamic_module_on_lb_config_new(id as *mut c_void, name, text) } as usize;
        MAKING.set(0);
        if pointer == 0 {
            locked(&POLICIES).remove(&id);
            return None;
        }
        Some(Policy { id, pointer, counters })
    }

    /// The load balancer of a cluster, on this thread.
    pub fn balance(&self, name: &str, levels: Vec<Level>) -> Lb {
        let id = envoy::next_id();
        let thread = std::thread::current().id();
        let state = State { name: name.to_owned(), levels, thread, attempt: None, events: 1, calls: 0 };
        locked(&LBS).insert(id, Arc::new(Mutex::new(state)));
        // SAFETY: the policy lives.
        let pointer = unsafe {
            offered::envoy_dynamic_module_on_lb_new(self.pointer as *const c_void, id as *mut c_void)
        } as usize;
        assert_ne!(pointer, 0, "a load balancer");
        let lb = Lb { id, pointer };
        locked(&lb.state()).events = 0;
        lb
    }

    /// How often a host was chosen in this way.
    pub fn counted(&self, name: &str) -> u64 {
        let counters = locked(&self.counters);
        let name = format!("evenkeel.lb_{name}_total");
        assert!(counters.names.contains(&name), "no counter {name}: {:?}", counters.names);
        counters.values.get(&name).copied().unwrap_or_default()
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        // SAFETY: it is what `config_new` gave, once.
        unsafe { offered::envoy_dynamic_module_on_lb_config_destroy(self.pointer as *const c_void) };
        locked(&POLICIES).remove(&self.id);
    }
}

impl Lb {
    fn state(&self) -> Arc<Mutex<State>> {
        locked(&LBS).get(&self.id).cloned().expect("it lives")
    }

    fn event<R>(&self, attempt: Option<&Attempt>, run: impl FnOnce(*mut c_void, *const c_void) -> R) -> R {
        let state = self.state();
        {
            let mut state = locked(&state);
            state.events += 1;
            state.attempt = attempt.cloned();
        }
        let result = run(self.id as *mut c_void, self.pointer as *const c_void);
        let mut state = locked(&state);
        state.events -= 1;
        state.attempt = None;
        result
    }

    /// The hosts change, and Envoy says so.
    pub fn update(&self, levels: Vec<Level>) {
        self.change(levels);
        // SAFETY: it lives.
        self.event(None, |lb, pointer| unsafe {
            offered::envoy_dynamic_module_on_lb_on_host_membership_update(lb, pointer, 0, 0);
        });
    }

    /// The hosts change before Envoy says so.
    pub fn change(&self, levels: Vec<Level>) {
        locked(&self.state()).levels = levels;
    }

    /// The address of the host for an attempt.
    pub fn choose(&self, attempt: &Attempt) -> Option<String> {
        let (mut priority, mut index) = (u32::MAX, u32::MAX);
        // SAFETY: it lives, and the context is this load balancer's as long as the event runs.
        let chosen = self.event(Some(attempt), |lb, pointer| unsafe {
            offered::envoy_dynamic_module_on_lb_choose_host(lb, pointer, lb, &mut priority, &mut index)
        });
        let state = self.state();
        let state = locked(&state);
        chosen.then(|| {
            let host = state.levels.get(priority as usize).and_then(|l| l.healthy().nth(index as usize));
            let Some(host) = host else { broken(&format!("no healthy host {index} of priority {priority}")) };
            host.address.clone()
        })
    }

    /// Number of Envoy's functions that were called so far.
    pub fn calls(&self) -> usize {
        locked(&self.state()).calls
    }
}

impl Drop for Lb {
    fn drop(&mut self) {
        // SAFETY: it is what `lb_new` gave, once.
        unsafe { offered::envoy_dynamic_module_on_lb_destroy(self.pointer as *const c_void) };
        locked(&LBS).remove(&self.id);
    }
}

/// The state of a load balancer that is asked in one of its events.
fn with<R>(handle: *mut c_void, read: impl FnOnce(&State) -> R) -> R {
    let found = locked(&LBS).get(&(handle as usize)).cloned();
    let Some(state) = found else { broken("a load balancer is asked that is gone") };
    let mut state = locked(&state);
    state.calls += 1;
    if state.events == 0 {
        broken("a load balancer is asked outside its events");
    }
    if state.thread != std::thread::current().id() {
        broken("a load balancer is asked on another thread than its own");
    }
    read(&state)
}

fn of_attempt<R>(handle: *mut c_void, read: impl FnOnce(&Attempt) -> R) -> R {
    with(handle, |state| match &state.attempt {
        Some(attempt) => read(attempt),
        None => broken("a request is asked for where no host is chosen"),
    })
}

fn level<R>(handle: *mut c_void, priority: u32, read: impl FnOnce(&Level) -> R) -> Option<R> {
    with(handle, |state| state.levels.get(priority as usize).map(read))
}

/// Hands out a text that Envoy owns, nothing where there is none. It stays where it is until the hosts change, as in Envoy.
unsafe fn hand(text: Option<&str>, to: *mut Bytes) -> bool {
    // SAFETY: the module passes a valid place.
    unsafe { *to = text.map_or(Bytes::NONE, |text| Bytes::of(text.as_bytes())) };
    text.is_some()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_callback_lb_get_cluster_name(lb: *mut c_void, to: *mut Bytes) {
    // SAFETY: see `hand`.
    with(lb, |state| unsafe { hand(Some(&state.name), to) });
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_lb_get_priority_set_size(lb: *mut c_void) -> usize {
    with(lb, |state| state.levels.len())
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_lb_get_hosts_count(lb: *mut c_void, priority: u32) -> usize {
    level(lb, priority, |level| level.hosts.len()).unwrap_or(0)
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_lb_get_healthy_hosts_count(
    lb: *mut c_void,
    priority: u32,
) -> usize {
    level(lb, priority, |level| level.healthy().count()).unwrap_or(0)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_callback_lb_get_host_address(
    lb: *mut c_void,
    priority: u32,
    index: usize,
    to: *mut Bytes,
) -> bool {
    // SAFETY: see `hand`.
    level(lb, priority, |level| unsafe { hand(level.hosts.get(index).map(|host| &*host.address), to) })
        .unwrap_or(false)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_callback_lb_get_healthy_host_address(
    lb: *mut c_void,
    priority: u32,
    index: usize,
    to: *mut Bytes,
) -> bool {
    // SAFETY: see `hand`.
    level(lb, priority, |level| unsafe { hand(level.healthy().nth(index).map(|host| &*host.address), to) })
        .unwrap_or(false)
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_lb_get_healthy_host_weight(
    lb: *mut c_void,
    priority: u32,
    index: usize,
) -> u32 {
    level(lb, priority, |level| level.healthy().nth(index).map_or(0, |host| host.weight)).unwrap_or(0)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_callback_lb_get_host_locality(
    lb: *mut c_void,
    priority: u32,
    index: usize,
    region: *mut Bytes,
    zone: *mut Bytes,
    sub_zone: *mut Bytes,
) -> bool {
    let of = |level: &Level| {
        let Some(host) = level.hosts.get(index) else { return false };
        // SAFETY: see `hand`.
        unsafe { hand(Some(""), region) && hand(Some(host.zone), zone) && hand(Some(""), sub_zone) }
    };
    level(lb, priority, of).unwrap_or(false)
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_lb_get_locality_count(lb: *mut c_void, priority: u32) -> usize {
    level(lb, priority, |level| level.zones.len()).unwrap_or(0)
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_lb_get_locality_host_count(
    lb: *mut c_void,
    priority: u32,
    locality: usize,
) -> usize {
    level(lb, priority, |level| level.of_zone(locality).len()).unwrap_or(0)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_callback_lb_get_locality_host_address(
    lb: *mut c_void,
    priority: u32,
    locality: usize,
    index: usize,
    to: *mut Bytes,
) -> bool {
    let of = |level: &Level| {
        // SAFETY: see `hand`.
        unsafe { hand(level.of_zone(locality).get(index).map(|host| &*host.address), to) }
    };
    level(lb, priority, of).unwrap_or(false)
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_lb_get_locality_weight(
    lb: *mut c_void,
    priority: u32,
    locality: usize,
) -> u32 {
    level(lb, priority, |level| level.zones.get(locality).map_or(0, |(_, weight)| *weight)).unwrap_or(0)
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_lb_context_should_select_another_host(
    lb: *mut c_void,
    context: *mut c_void,
    priority: u32,
    index: usize,
) -> bool {
    let address =
        level(lb, priority, |level| level.hosts.get(index).map(|host| host.address.clone())).flatten();
    let Some(address) = address else { return false };
    of_attempt(context, |attempt| attempt.excluded.contains(&address))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_callback_lb_context_get_override_host(
    context: *mut c_void,
    to: *mut Bytes,
    strict: *mut bool,
) -> bool {
    of_attempt(context, |attempt| match &attempt.named {
        // SAFETY: see `hand`.
        Some(named) => unsafe {
            *strict = false;
            hand(Some(named), to)
        },
        // Envoy writes nothing.
        None => false,
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_callback_lb_context_get_downstream_header(
    context: *mut c_void,
    name: Bytes,
    to: *mut Bytes,
    nth: usize,
    count: *mut usize,
) -> bool {
    let name = name.text();
    of_attempt(context, |attempt| {
        let values: Vec<&str> =
            attempt.headers.iter().filter(|(of, _)| *of == name).map(|(_, v)| *v).collect();
        // SAFETY: the module passes valid places.
        unsafe {
            *count = values.len();
            hand(values.get(nth).copied(), to)
        }
    })
}

fn counters(config: *mut c_void) -> Arc<Mutex<Counters>> {
    let found = locked(&POLICIES).get(&(config as usize)).cloned();
    found.unwrap_or_else(|| broken("a policy is asked that is gone"))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_callback_lb_config_define_counter(
    config: *mut c_void,
    name: Bytes,
    _labels: *const Bytes,
    count: usize,
    id: *mut usize,
) -> u32 {
    if MAKING.get() != config as usize {
        broken("a counter is defined after its policy was made");
    }
    if count > 0 {
        broken("a label of a counter is kept for the life of the process");
    }
    let counters = counters(config);
    let mut counters = locked(&counters);
    counters.names.push(name.text());
    // SAFETY: a place of the module's. Numbers begin at 1.
    unsafe { *id = counters.names.len() };
    0
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_lb_config_increment_counter(
    config: *mut c_void,
    id: usize,
    _labels: *const Bytes,
    count: usize,
    by: u64,
) -> u32 {
    let counters = counters(config);
    let mut counters = locked(&counters);
    let name = id.checked_sub(1).and_then(|at| counters.names.get(at)).cloned();
    let (Some(name), 0) = (name, count) else { broken("no such counter") };
    *counters.values.entry(name).or_default() += by;
    0
}
