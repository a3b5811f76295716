//! A host that is to the module what Envoy is, in this process and as strict: the functions that Envoy offers to modules, defined
//! here, so that the linker binds the module to them.
//!
//! What Envoy would not survive, or forbids, ends the process: a configuration, a stream or a scheduler that is asked after its end, a
//! stream that is asked outside its events, a call from another thread than the main one, a metric that is defined late, a
//! second answer. Header maps are there in their phases and not before. A local reply runs the filter's events before it
//! returns, and a call may be answered before it returns, as in Envoy.
#![allow(unsafe_code)]

use core::cell::{Cell, RefCell};
use core::ffi::{CStr, c_char, c_void};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use crate::stream::Stream;

/// Bytes as both sides pass them.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Bytes {
    data: *const u8,
    size: usize,
}

impl Bytes {
    pub const NONE: Bytes = Bytes { data: core::ptr::null(), size: 0 };

    pub fn of(bytes: &[u8]) -> Bytes {
        Bytes { data: bytes.as_ptr(), size: bytes.len() }
    }

    pub fn is_none(self) -> bool {
        self.data.is_null()
    }

    pub fn to_vec(self) -> Vec<u8> {
        // SAFETY: the module hands over slices that live as long as the call.
        if self.is_none() {
            Vec::new()
        } else {
            unsafe { core::slice::from_raw_parts(self.data, self.size) }.to_vec()
        }
    }

    pub fn text(self) -> String {
        String::from_utf8(self.to_vec()).unwrap_or_else(|error| broken(&format!("no text: {error}")))
    }
}

/// A header as the module passes it.
#[repr(C)]
pub struct HeaderOut {
    name: *const u8,
    name_size: usize,
    value: *const u8,
    value_size: usize,
}

pub unsafe fn headers_out(headers: *const HeaderOut, count: usize) -> Vec<(String, String)> {
    // SAFETY: so the caller says.
    let all = if count == 0 { &[] } else { unsafe { core::slice::from_raw_parts(headers, count) } };
    let bytes = |data, size| Bytes { data, size }.text();
    all.iter().map(|h| (bytes(h.name, h.name_size), bytes(h.value, h.value_size))).collect()
}

/// What Envoy would not survive.
pub fn broken(what: &str) -> ! {
    eprintln!("the module broke a rule of Envoy's: {what}\n{}", std::backtrace::Backtrace::force_capture());
    std::process::abort()
}

/// The older of the two interfaces: it has no function that records outside a stream, and tells less.
pub const OLDER: &str = "EVENKEEL_TEST_OLDER_ENVOY";

pub fn is_older() -> bool {
    std::env::var_os(OLDER).is_some()
}

/// A call that has not been answered.
#[derive(Clone, Debug)]
pub struct Call {
    pub id: u64,
    pub cluster: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub timeout_ms: u64,
}

impl Call {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(of, _)| of == name).map_or("", |(_, value)| value)
    }
}

/// A metric: its kind (0 counter, 1 gauge, 2 histogram), its name and its labels' names.
pub type Metric = (u32, String, Vec<String>);

#[derive(Default)]
pub struct State {
    /// What `config_new` gave.
    pub pointer: usize,
    pub wakes: u32,
    pub calls: Vec<Call>,
    last_call: u64,
    pub metrics: Vec<Metric>,
    /// Values of series, by name and labels.
    pub series: BTreeMap<(String, Vec<String>), u64>,
}

/// One of Envoy's configurations.
pub struct Config {
    pub id: usize,
    main: ThreadId,
    pub state: Mutex<State>,
    pub woken: Condvar,
}

impl Config {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn record(&self, kind: u32, id: usize, labels: Vec<String>, value: u64) {
        let mut state = self.state();
        let Some((defined, name, names)) = state.metrics.get(id).cloned() else { broken("no such metric") };
        if defined != kind || names.len() != labels.len() {
            broken(&format!("{name} is of kind {defined} with {names:?}, and not {kind} with {labels:?}"));
        }
        let series = state.series.entry((name, labels)).or_default();
        *series = if kind == 0 { *series + value } else { value };
    }
}

type All<T> = LazyLock<Mutex<HashMap<usize, Arc<T>>>>;
static CONFIGS: All<Config> = LazyLock::new(Mutex::default);
static STREAMS: All<Stream> = LazyLock::new(Mutex::default);
static SCHEDULERS: All<usize> = LazyLock::new(Mutex::default);
static LAST: Mutex<usize> = Mutex::new(0x1000);

/// What may happen while a call is being sent.
pub enum Meanwhile {
    /// It is answered at once, with a status and a body; then Envoy says that it was not sent.
    Answered(u32, Vec<u8>),
    /// Sending it ends the calls that wait, with an answer of this status and body: they share its connections.
    Others(u32, Vec<u8>),
    /// Its cluster's policy chooses a host for it.
    Chooses(Box<dyn FnOnce()>),
}

thread_local! {
    static LOGGED: RefCell<Vec<(u32, String)>> = const { RefCell::new(Vec::new()) };
    /// The configuration that is being made.
    static MAKING: Cell<usize> = const { Cell::new(0) };
    pub static CONCURRENCY: Cell<u32> = const { Cell::new(2) };
    /// What happens before the next call returns.
    pub static MEANWHILE: RefCell<Option<Meanwhile>> = const { RefCell::new(None) };
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn next_id() -> usize {
    let mut last = locked(&LAST);
    *last += 16;
    *last
}

fn config(handle: *mut c_void) -> Arc<Config> {
    let found = locked(&CONFIGS).get(&(handle as usize)).cloned();
    found.unwrap_or_else(|| broken("a configuration is asked that is gone"))
}

pub fn stream(handle: *mut c_void) -> Arc<Stream> {
    let found = locked(&STREAMS).get(&(handle as usize)).cloned();
    let stream = found.unwrap_or_else(|| broken("a stream is asked that is gone"));
    if stream.events.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        broken("a stream is asked outside its events");
    }
    stream
}

pub fn add_stream(make: impl FnOnce(usize) -> Stream) -> Arc<Stream> {
    let id = next_id();
    let stream = Arc::new(make(id));
    locked(&STREAMS).insert(id, stream.clone());
    stream
}

pub fn remove_stream(id: usize) {
    locked(&STREAMS).remove(&id);
}

pub fn config_of(id: usize) -> Arc<Config> {
    config(id as *mut c_void)
}

/// What this thread has logged.
pub fn logged() -> Vec<(u32, String)> {
    LOGGED.with_borrow(Clone::clone)
}

/// Schedulers of a configuration that have not been deleted.
pub fn schedulers_of(id: usize) -> usize {
    locked(&SCHEDULERS).values().filter(|of| ***of == id).count()
}

/// What the module offers to Envoy, as far as configurations are concerned.
mod offered {
    use super::{Bytes, c_char, c_void};

    unsafe extern "C" {
        pub fn envoy_dynamic_module_on_program_init() -> *const c_char;
        pub fn envoy_dynamic_module_on_http_filter_config_new(
            config: *mut c_void,
            name: Bytes,
            text: Bytes,
        ) -> *const c_void;
        pub fn envoy_dynamic_module_on_http_filter_config_destroy(pointer: *const c_void);
        pub fn envoy_dynamic_module_on_http_filter_config_scheduled(
            config: *mut c_void,
            pointer: *const c_void,
            event: u64,
        );
        pub fn envoy_dynamic_module_on_http_filter_config_http_callout_done(
            config: *mut c_void,
            pointer: *const c_void,
            id: u64,
            result: u32,
            headers: *const [Bytes; 2],
            header_count: usize,
            chunks: *const Bytes,
            chunk_count: usize,
        );
    }
}

/// The module's version of the interface.
pub fn load() -> String {
    static ONCE: LazyLock<String> = LazyLock::new(|| {
        let of_tests = std::panic::take_hook();
        // SAFETY: Envoy calls it once, and gets a text that lives on.
        let version = unsafe { CStr::from_ptr(offered::envoy_dynamic_module_on_program_init()) };
        let of_module = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            of_module(panic);
            of_tests(panic);
        }));
        version.to_string_lossy().into_owned()
    });
    ONCE.clone()
}

/// A new configuration of this text, if the module takes it; this thread is its main thread.
pub fn configure(name: &str, text: &str) -> Option<Arc<Config>> {
    load();
    let id = next_id();
    let main = std::thread::current().id();
    let made = Arc::new(Config { id, main, state: Mutex::default(), woken: Condvar::new() });
    locked(&CONFIGS).insert(id, made.clone());
    MAKING.set(id);
    let (name, text) = (Bytes::of(name.as_bytes()), Bytes::of(text.as_bytes()));
    // SAFETY: both live as long as the call.
    let pointer =
        unsafe { offered::envoy_dynamic_module_on_http_filter_config_new(id as *mut c_void, name, text) };
    MAKING.set(0);
    if pointer.is_null() {
        locked(&CONFIGS).remove(&id);
        return None;
    }
    made.state().pointer = pointer as usize;
    Some(made)
}

/// Envoy lets go of a configuration. It is gone when the module has returned.
pub fn destroy(config: &Config) {
    let pointer = config.state().pointer;
    // SAFETY: it is what `config_new` gave, once.
    unsafe { offered::envoy_dynamic_module_on_http_filter_config_destroy(pointer as *const c_void) };
    // The thread that asks for ticks may be about to let go of it.
    let until = Instant::now() + Duration::from_secs(20);
    while schedulers_of(config.id) > 0 {
        if Instant::now() > until {
            broken("a scheduler outlives its configuration");
        }
        std::thread::yield_now();
    }
    locked(&CONFIGS).remove(&config.id);
}

/// The event that a scheduler asked for.
pub fn scheduled(config: &Config) {
    let pointer = config.state().pointer;
    // SAFETY: it lives.
    unsafe {
        offered::envoy_dynamic_module_on_http_filter_config_scheduled(
            config.id as *mut c_void,
            pointer as *const c_void,
            0,
        )
    };
}

/// The answer to a call: with a status, or none where the call failed.
pub fn answer(config: &Config, id: u64, status: Option<u32>, more: &[(&str, &str)], pieces: &[&[u8]]) {
    let pointer = config.state().pointer;
    let text = status.unwrap_or_default().to_string();
    let headers = [(":status", text.as_str())].into_iter().chain(more.iter().copied());
    let headers: Vec<[Bytes; 2]> =
        headers.map(|(n, v)| [Bytes::of(n.as_bytes()), Bytes::of(v.as_bytes())]).collect();
    let chunks: Vec<Bytes> = pieces.iter().map(|piece| Bytes::of(piece)).collect();
    let (result, headers, count) = match status {
        Some(_) => (0, headers.as_ptr(), headers.len()),
        None => (1, core::ptr::null(), 0),
    };
    // SAFETY: everything lives as long as the call.
    unsafe {
        offered::envoy_dynamic_module_on_http_filter_config_http_callout_done(
            config.id as *mut c_void,
            pointer as *const c_void,
            id,
            result,
            headers,
            count,
            chunks.as_ptr(),
            chunks.len(),
        );
    }
}

// What Envoy offers to the module.

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_log(level: u32, message: Bytes) {
    let _a_thread_that_ends = LOGGED.try_with(|logged| logged.borrow_mut().push((level, message.text())));
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_log_enabled(level: u32) -> bool {
    level >= 2
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_get_concurrency() -> u32 {
    if MAKING.get() == 0 {
        broken("the number of threads is asked for elsewhere than on the main thread");
    }
    CONCURRENCY.get()
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_http_filter_config_scheduler_new(of: *mut c_void) -> *mut c_void {
    let of = config(of);
    let id = next_id();
    locked(&SCHEDULERS).insert(id, Arc::new(of.id));
    id as *mut c_void
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_http_filter_config_scheduler_delete(scheduler: *mut c_void) {
    if locked(&SCHEDULERS).remove(&(scheduler as usize)).is_none() {
        broken("a scheduler is deleted twice");
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_http_filter_config_scheduler_commit(
    scheduler: *mut c_void,
    _event: u64,
) {
    let of = locked(&SCHEDULERS).get(&(scheduler as usize)).map(|of| **of);
    let Some(of) = of else { broken("a scheduler is asked that is deleted") };
    let config = config_of(of);
    config.state().wakes += 1;
    config.woken.notify_all();
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_config_http_callout(
    of: *mut c_void,
    id: *mut u64,
    cluster: Bytes,
    headers: *const HeaderOut,
    count: usize,
    body: Bytes,
    timeout_ms: u64,
) -> u32 {
    let of = config(of);
    if of.main != std::thread::current().id() || MAKING.get() != 0 {
        broken("a call from elsewhere than an event of the main thread");
    }
    // SAFETY: the module hands over what it says.
    let (headers, cluster) = (unsafe { headers_out(headers, count) }, cluster.text());
    let names = |name: &str| headers.iter().any(|(of, value)| of == name && !value.is_empty());
    match cluster.as_str() {
        "absent" => return 2,
        "full" => return 5,
        _ if ![":method", ":path", ":authority"].into_iter().all(names) => return 1,
        _ => {}
    }
    let mut state = of.state();
    state.last_call += 1;
    let call = Call { id: state.last_call, cluster, headers, body: body.to_vec(), timeout_ms };
    // SAFETY: a place of the module's.
    unsafe { *id = call.id };
    match MEANWHILE.with_borrow_mut(Option::take) {
        Some(Meanwhile::Answered(status, body)) => {
            drop(state);
            answer(&of, call.id, Some(status), &[], &[&body]);
            return 4;
        }
        Some(Meanwhile::Others(status, body)) => {
            let others = core::mem::take(&mut state.calls);
            state.calls.push(call);
            drop(state);
            others.iter().for_each(|other| answer(&of, other.id, Some(status), &[], &[&body]));
        }
        Some(Meanwhile::Chooses(choose)) => {
            state.calls.push(call);
            drop(state);
            choose();
        }
        None => state.calls.push(call),
    }
    0
}

pub unsafe fn texts(labels: *const Bytes, count: usize) -> Vec<String> {
    // SAFETY: so the caller says.
    let labels = if count == 0 { &[] } else { unsafe { core::slice::from_raw_parts(labels, count) } };
    labels.iter().map(|label| label.text()).collect()
}

macro_rules! metrics {
    ($($kind:literal $define:ident $record:ident $by_stream:ident)+) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $define(of: *mut c_void, name: Bytes, labels: *const Bytes, count: usize, id: *mut usize) -> u32 {
            let of = config(of);
            if MAKING.get() != of.id {
                broken("a metric is defined after its configuration was made");
            }
            // SAFETY: the module hands over what it says, and a place for the number.
            let labels = unsafe { texts(labels, count) };
            let mut state = of.state();
            unsafe { *id = state.metrics.len() };
            state.metrics.push(($kind, name.text(), labels));
            0
        }

        unsafe extern "C" fn $record(of: *mut c_void, id: usize, labels: *const Bytes, count: usize, value: u64) -> u32 {
            // SAFETY: the module hands over what it says.
            config(of).record($kind, id, unsafe { texts(labels, count) }, value);
            0
        }

        #[unsafe(no_mangle)]
        unsafe extern "C" fn $by_stream(of: *mut c_void, id: usize, labels: *const Bytes, count: usize, value: u64) -> u32 {
            // SAFETY: the module hands over what it says.
            config_of(stream(of).config).record($kind, id, unsafe { texts(labels, count) }, value);
            0
        }
    )+};
}

metrics! {
    0 envoy_dynamic_module_callback_http_filter_config_define_counter record_counter
      envoy_dynamic_module_callback_http_filter_increment_counter
    1 envoy_dynamic_module_callback_http_filter_config_define_gauge record_gauge
      envoy_dynamic_module_callback_http_filter_set_gauge
    2 envoy_dynamic_module_callback_http_filter_config_define_histogram record_histogram
      envoy_dynamic_module_callback_http_filter_record_histogram_value
}

/// The C library's, as it answers in Envoy: what only newer versions have is looked up by name. (What Rust's own library asks of it,
/// it can do without.)
#[cfg_attr(not(feature = "own-dlsym"), unsafe(no_mangle))]
#[cfg_attr(feature = "own-dlsym", unsafe(export_name = "evenkeel_test_dlsym"))]
unsafe extern "C" fn dlsym(_: *mut c_void, name: *const c_char) -> *mut c_void {
    // SAFETY: a text that ends with a zero.
    let name = unsafe { CStr::from_ptr(name) }.to_str().unwrap_or_default();
    match name.strip_prefix("envoy_dynamic_module_callback_http_") {
        _ if is_older() => core::ptr::null_mut(),
        Some("filter_config_increment_counter") => record_counter as *mut c_void,
        Some("filter_config_set_gauge") => record_gauge as *mut c_void,
        Some("filter_config_record_histogram_value") => record_histogram as *mut c_void,
        Some("get_upstream_hosts_attempted") => core::ptr::dangling_mut(),
        _ => core::ptr::null_mut(),
    }
}
