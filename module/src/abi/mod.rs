//! The C interface of Envoy's dynamic modules, as far as an HTTP filter needs it: what Envoy offers, and what it calls.
//! The only unsafe code of the crate.
//!
//! The declarations are this project's own, made from Envoy's documentation of the interface
//! (`source/extensions/dynamic_modules/abi/abi.h`) and held against the symbols of the released binaries. What `import`
//! names is there in 1.38 and 1.39, which call their interface v0.1.0, and in 1.40, which calls it v0.2.0; a shared library is
//! bound as a whole when it is loaded, so what one of them lacks is looked up by [`optional`] instead.
#![allow(unsafe_code)]

mod config;
mod events;
mod import;
mod stream;

use core::ffi::{CStr, c_void};
use core::ptr::{null, null_mut};
use std::sync::OnceLock;

use evenkeel::host::MetricKind;

pub use self::config::{ConfigHandle, NotSent, Waker};
pub use events::Answer;
pub use stream::{Attribute, Map, StreamHandle};

/// A result that says that all went well, of calls and of metrics alike.
const SUCCESS: u32 = 0;

/// Bytes that Envoy owns until the event is over.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct EnvoyBuffer {
    data: *const u8,
    size: usize,
}

impl EnvoyBuffer {
    const NONE: EnvoyBuffer = EnvoyBuffer { data: null(), size: 0 };

    /// # Safety
    /// It was handed over in the running event, and nothing was set since.
    unsafe fn bytes<'a>(self) -> &'a [u8] {
        match self.data.is_null() {
            true => &[],
            // SAFETY: so the caller says.
            false => unsafe { core::slice::from_raw_parts(self.data, self.size) },
        }
    }
}

/// Bytes of ours that Envoy reads while it is called.
#[derive(Clone, Copy)]
#[repr(C)]
struct Buffer {
    data: *const u8,
    size: usize,
}

impl Buffer {
    const NONE: Buffer = Buffer { data: null(), size: 0 };

    fn of(bytes: &[u8]) -> Buffer {
        Buffer { data: bytes.as_ptr(), size: bytes.len() }
    }
}

#[repr(C)]
struct Header {
    name: *const u8,
    name_size: usize,
    value: *const u8,
    value_size: usize,
}

impl Header {
    fn of(name: &str, value: &str) -> Header {
        let (name_size, value_size) = (name.len(), value.len());
        Header { name: name.as_ptr(), name_size, value: value.as_ptr(), value_size }
    }
}

/// What only newer versions of Envoy have is looked up when it is first asked for.
fn optional(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: it only asks, for a name that ends with a zero; no handle means everything that the process has.
    let found = unsafe { import::dlsym(null_mut(), name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// A function that records a value outside any stream: since 1.39.
type Record = unsafe extern "C" fn(*mut c_void, usize, *mut Buffer, usize, u64) -> u32;

fn recorder(kind: MetricKind) -> Option<Record> {
    static FOUND: OnceLock<[Option<Record>; 3]> = OnceLock::new();
    let names = [
        c"envoy_dynamic_module_callback_http_filter_config_increment_counter",
        c"envoy_dynamic_module_callback_http_filter_config_set_gauge",
        c"envoy_dynamic_module_callback_http_filter_config_record_histogram_value",
    ];
    let found = FOUND.get_or_init(|| {
        // SAFETY: under these names Envoy has functions of this type.
        names.map(|name| {
            optional(name).map(|found| unsafe { core::mem::transmute::<*mut c_void, Record>(found) })
        })
    });
    let [counter, gauge, histogram] = found;
    match kind {
        MetricKind::Counter => *counter,
        MetricKind::Gauge => *gauge,
        MetricKind::Histogram => *histogram,
    }
}

/// Whether this version tells of every attribute that is named here. 1.38 knows the addresses alone, and complains in its log of
/// each question for another one.
pub fn tells_all() -> bool {
    recorder(MetricKind::Counter).is_some()
}

/// The version of the interface that this Envoy wants to hear: all that is named here is there in both.
fn version() -> &'static CStr {
    match optional(c"envoy_dynamic_module_callback_http_get_upstream_hosts_attempted") {
        Some(_since_1_40) => c"v0.2.0",
        None => c"v0.1.0",
    }
}

// Where a pointer and a size go out, here and in the modules below, both are of a slice that outlives the call, and Envoy only reads it. Where a
// buffer comes back, it is copied before anything else is asked.

/// Writes a line to the log; levels from 0 (trace) to 5 (critical).
pub fn log(level: u32, message: &str) {
    if import::envoy_dynamic_module_callback_log_enabled(level) {
        // SAFETY: see above.
        unsafe { import::envoy_dynamic_module_callback_log(level, Buffer::of(message.as_bytes())) };
    }
}

/// How many workers Envoy has; to be asked on its main thread.
pub fn concurrency() -> usize {
    import::envoy_dynamic_module_callback_get_concurrency() as usize
}
