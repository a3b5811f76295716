//! The C interface of Envoy's dynamic modules, as far as an HTTP filter, a load balancer and an admin
//! handler need it: functions that Envoy provides.
//! The functions that it calls are in `events`.
//!
//! The declarations are this project's own, made from Envoy's documentation of the interface
//! (`source/extensions/dynamic_modules/abi/abi.h`) and checked against the symbols of the released binaries. Everything
//! in `import` exists in 1.38 and 1.39, whose interface is v0.1.0, and in 1.40, whose interface is v0.2.0. A shared
//! library is bound as a whole when it is loaded, so functions that only some versions have are looked up by
//! [`optional`].
#![allow(unsafe_code)]

mod config;
mod extension;
mod import;
mod lb;
mod stream;

use core::ffi::{CStr, c_void};
use core::ptr::{null, null_mut};
use std::sync::OnceLock;

use evenkeel::host::MetricKind;

pub use self::config::{Answer, ConfigHandle, EnvoyHeader, NotSent, Waker};
pub use extension::ExtensionHandle;
pub use lb::{Hosts, LbHandle, PolicyHandle, RequestContext};
pub use stream::{Attribute, Map, StreamHandle};

/// Result code of a successful call, also for metrics.
const SUCCESS: u32 = 0;

/// Bytes owned by Envoy, valid until the end of the event.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct EnvoyBuffer {
    data: *const u8,
    size: usize,
}

impl EnvoyBuffer {
    const NONE: EnvoyBuffer = EnvoyBuffer { data: null(), size: 0 };

    /// Its bytes.
    ///
    /// # Safety
    /// It must have been passed in the current event, with nothing set since.
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        match self.data.is_null() {
            true => &[],
            // SAFETY: guaranteed by the caller.
            false => unsafe { core::slice::from_raw_parts(self.data, self.size) },
        }
    }
}

/// Bytes owned by this module, which Envoy reads during a call.
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

/// Looks up a function that only newer versions of Envoy have.
fn optional(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name is zero-terminated; a null handle searches the whole process.
    let found = unsafe { import::dlsym(null_mut(), name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// A function that records a value without a stream; since 1.39.
type Record = unsafe extern "C" fn(*mut c_void, usize, *mut Buffer, usize, u64) -> u32;

fn recorder(kind: MetricKind) -> Option<Record> {
    static FOUND: OnceLock<[Option<Record>; 3]> = OnceLock::new();
    let names = [
        c"envoy_dynamic_module_callback_http_filter_config_increment_counter",
        c"envoy_dynamic_module_callback_http_filter_config_set_gauge",
        c"envoy_dynamic_module_callback_http_filter_config_record_histogram_value",
    ];
    let found = FOUND.get_or_init(|| {
        // SAFETY: Envoy's functions with these names have this type.
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

/// Whether this version of Envoy has every attribute used here. 1.38 has only the addresses, and logs a complaint about
/// each query of another one.
pub fn tells_all() -> bool {
    recorder(MetricKind::Counter).is_some()
}

/// The interface version that this Envoy expects; everything used here exists in both.
pub fn version() -> &'static CStr {
    match optional(c"envoy_dynamic_module_callback_http_get_upstream_hosts_attempted") {
        Some(_since_1_40) => c"v0.2.0",
        None => c"v0.1.0",
    }
}

// Where a pointer and a size are passed, here and in the submodules, both are of a slice that outlives the call, and
// Envoy only reads it. Where a buffer is returned, it is copied before any other call.

/// Writes a line to Envoy's log; levels from 0 (trace) to 5 (critical).
pub fn log(level: u32, message: &str) {
    if import::envoy_dynamic_module_callback_log_enabled(level) {
        // SAFETY: see above.
        unsafe { import::envoy_dynamic_module_callback_log(level, Buffer::of(message.as_bytes())) };
    }
}

/// Number of Envoy's worker threads; to be called on its main thread.
pub fn concurrency() -> usize {
    import::envoy_dynamic_module_callback_get_concurrency() as usize
}
