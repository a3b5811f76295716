//! proxy-wasm's ABI 0.2.1 in C: the calls to the proxy and its callbacks. The only unsafe code of the crate.
//!
//! The SDK of the ABI is not used. Its wrappers panic on statuses that a proxy may return (a header map outside its
//! phase is a bad argument), and a panic ends the VM with all of its requests. Its dispatcher keeps its tables borrowed
//! while a callback runs; but a call to a cluster with upstream filters makes Envoy run these at once, inside that
//! callback and in this VM.
#![allow(unsafe_code)]

use core::cell::{Cell, UnsafeCell};
use core::ptr::null_mut;
use std::alloc::{Layout, alloc};

use super::dispatch;
use crate::host::Bytes;

/// A status of the proxy other than OK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// The object does not exist, or not now: an unknown cluster, a header map outside its phase.
    pub const BAD_ARGUMENT: Status = Status(2);
    /// Shared data has changed since the given version.
    pub const CAS_MISMATCH: Status = Status(8);

    fn of(status: u32) -> Result<(), Status> {
        if status == 0 { Ok(()) } else { Err(Status(status)) }
    }
}

/// Header maps, by their numbers in the ABI.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Map {
    RequestHeaders = 0,
    ResponseHeaders = 2,
    ResponseTrailers = 3,
    CallResponseHeaders = 6,
}

/// Buffers, by their numbers in the ABI.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Buffer {
    ResponseBody = 1,
    CallResponseBody = 4,
    PluginConfiguration = 7,
}

mod import {
    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
        pub fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
        pub safe fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
        pub fn proxy_get_buffer_bytes(
            kind: u32,
            start: usize,
            most: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub fn proxy_get_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
        pub fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
        pub fn proxy_replace_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub fn proxy_add_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub fn proxy_get_property(
            path: *const u8,
            path_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub fn proxy_set_property(
            path: *const u8,
            path_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub fn proxy_get_shared_data(
            key: *const u8,
            key_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
            version: *mut u32,
        ) -> u32;
        pub fn proxy_set_shared_data(
            key: *const u8,
            key_size: usize,
            value: *const u8,
            value_size: usize,
            version: u32,
        ) -> u32;
        pub fn proxy_http_call(
            cluster: *const u8,
            cluster_size: usize,
            headers: *const u8,
            headers_size: usize,
            body: *const u8,
            body_size: usize,
            trailers: *const u8,
            trailers_size: usize,
            timeout_ms: u32,
            token: *mut u32,
        ) -> u32;
        pub fn proxy_send_local_response(
            status: u32,
            details: *const u8,
            details_size: usize,
            body: *const u8,
            body_size: usize,
            headers: *const u8,
            headers_size: usize,
            grpc_status: i32,
        ) -> u32;
        pub fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
        pub safe fn proxy_increment_metric(id: u32, by: i64) -> u32;
        pub safe fn proxy_record_metric(id: u32, value: u64) -> u32;
    }
}

// Where a pointer and a size are passed below, both are of a slice that outlives the call, and the proxy only reads it.

/// Memory for short values from the proxy, so that most of what a request reads takes no allocation. It belongs to one
/// call, from before that call until its result has been copied out; a call inside another gets memory of its own.
struct Scratch {
    bytes: UnsafeCell<[u8; Bytes::FEW]>,
    offered: Cell<bool>,
    lent: Cell<bool>,
}

// SAFETY: a VM has one thread.
unsafe impl Sync for Scratch {}

static SCRATCH: Scratch =
    Scratch { bytes: UnsafeCell::new([0; Bytes::FEW]), offered: Cell::new(false), lent: Cell::new(false) };

impl Scratch {
    fn at(&self) -> *mut u8 {
        self.bytes.get().cast()
    }

    /// The memory, at most once per call.
    fn lend(&self, size: usize) -> Option<*mut u8> {
        (size <= Bytes::FEW && self.offered.replace(false)).then(|| {
            self.lent.set(true);
            self.at()
        })
    }
}

/// Calls the proxy and takes the value that it hands over.
fn taken(ask: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Bytes, Status> {
    let (mut data, mut size) = (null_mut(), 0);
    let nested = SCRATCH.lent.get();
    SCRATCH.offered.set(!nested);
    let status = ask(&mut data, &mut size);
    SCRATCH.offered.set(false);
    let bytes = if data.is_null() {
        Bytes::default()
    } else if data == SCRATCH.at() {
        // SAFETY: the proxy has filled at most this many bytes of it, and nothing else writes there until it is lent
        // again.
        Bytes::from(unsafe { core::slice::from_raw_parts(data, size.min(Bytes::FEW)) })
    } else {
        // SAFETY: the proxy has filled memory that it got from `proxy_on_memory_allocate` with this size, and gives it
        // up.
        Bytes::from(unsafe { Vec::from_raw_parts(data, size, size) })
    };
    SCRATCH.lent.set(nested);
    Status::of(status).map(|()| bytes)
}

/// Writes a line to the log; `level` is 0 (trace) to 5 (critical).
pub fn log(level: u32, message: &str) {
    // SAFETY: see above. A failure to log cannot be logged.
    let _status = unsafe { import::proxy_log(level, message.as_ptr(), message.len()) };
}

/// Nanoseconds since 1970.
pub fn now() -> Option<u64> {
    let mut time = 0;
    // SAFETY: the proxy writes a number to a place for one.
    let status = unsafe { import::proxy_get_current_time_nanoseconds(&mut time) };
    (status == 0).then_some(time)
}

/// Sets the tick period of the active root context, milliseconds.
pub fn set_tick_period(ms: u32) -> Result<(), Status> {
    Status::of(import::proxy_set_tick_period_milliseconds(ms))
}

/// At most `most` bytes of a buffer, from position `from` on.
pub fn buffer(buffer: Buffer, from: usize, most: usize) -> Result<Bytes, Status> {
    // SAFETY: see `taken`.
    taken(|data, size| unsafe { import::proxy_get_buffer_bytes(buffer as u32, from, most, data, size) })
}

/// A header's first value.
pub fn header(map: Map, name: &str) -> Result<Bytes, Status> {
    // SAFETY: see above and `taken`.
    taken(|data, size| unsafe {
        import::proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, size)
    })
}

/// All headers, encoded as [`values`](super::wire::values) reads them.
pub fn headers(map: Map) -> Result<Bytes, Status> {
    // SAFETY: see `taken`.
    taken(|data, size| unsafe { import::proxy_get_header_map_pairs(map as u32, data, size) })
}

/// Removes every value of a header.
pub fn remove_header(map: Map, name: &str) -> Result<(), Status> {
    // SAFETY: see above.
    Status::of(unsafe { import::proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

/// Makes this the only value of a header.
pub fn set_header(map: Map, name: &str, value: &[u8]) -> Result<(), Status> {
    let (value, size) = (value.as_ptr(), value.len());
    // SAFETY: see above.
    Status::of(unsafe {
        import::proxy_replace_header_map_value(map as u32, name.as_ptr(), name.len(), value, size)
    })
}

/// Adds a value to those of a header.
pub fn add_header(map: Map, name: &str, value: &[u8]) -> Result<(), Status> {
    let (value, size) = (value.as_ptr(), value.len());
    // SAFETY: see above.
    Status::of(unsafe {
        import::proxy_add_header_map_value(map as u32, name.as_ptr(), name.len(), value, size)
    })
}

/// A property; `path` is its parts, separated by zero bytes.
pub fn property(path: &[u8]) -> Result<Bytes, Status> {
    // SAFETY: see above and `taken`.
    taken(|data, size| unsafe { import::proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// Sets a property; `path` as for [`property`].
pub fn set_property(path: &[u8], value: &[u8]) -> Result<(), Status> {
    // SAFETY: see above.
    Status::of(unsafe { import::proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) })
}

/// A shared value and its version.
pub fn shared_data(key: &str) -> Result<(Vec<u8>, u32), Status> {
    let mut version = 0;
    // SAFETY: see above and `taken`.
    let value = taken(|data, size| unsafe {
        import::proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &mut version)
    })?;
    Ok((value.into_vec(), version))
}

/// Sets a shared value; with `version`, only if that is still its version.
pub fn set_shared_data(key: &str, value: &[u8], version: Option<u32>) -> Result<(), Status> {
    let (value, size) = (value.as_ptr(), value.len());
    // SAFETY: see above.
    Status::of(unsafe {
        import::proxy_set_shared_data(key.as_ptr(), key.len(), value, size, version.unwrap_or(0))
    })
}

/// Sends a request to a cluster; the token identifies the response.
pub fn http_call(cluster: &str, headers: &[u8], body: &[u8], timeout_ms: u32) -> Result<u32, Status> {
    let mut token = 0;
    let no_trailers = 0u32.to_le_bytes();
    // SAFETY: see above; the proxy writes a number to a place for one.
    let status = unsafe {
        import::proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            no_trailers.as_ptr(),
            no_trailers.len(),
            timeout_ms,
            &mut token,
        )
    };
    Status::of(status).map(|()| token)
}

/// Answers the request of the active stream.
pub fn respond(status: u32, headers: &[u8], body: &[u8]) -> Result<(), Status> {
    const NO_GRPC_STATUS: i32 = -1;
    // SAFETY: see above.
    Status::of(unsafe {
        import::proxy_send_local_response(
            status,
            null_mut(),
            0,
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            NO_GRPC_STATUS,
        )
    })
}

/// Defines a metric and returns its number; `kind` is 0 (counter), 1 (gauge) or 2 (histogram).
pub fn define_metric(kind: u32, name: &str) -> Result<u32, Status> {
    let mut id = 0;
    // SAFETY: see above; the proxy writes a number to a place for one.
    let status = unsafe { import::proxy_define_metric(kind, name.as_ptr(), name.len(), &mut id) };
    Status::of(status).map(|()| id)
}

/// Adds to a counter.
pub fn increment_metric(id: u32, by: i64) -> Result<(), Status> {
    Status::of(import::proxy_increment_metric(id, by))
}

/// Sets a gauge, or adds a value to a histogram.
pub fn record_metric(id: u32, value: u64) -> Result<(), Status> {
    Status::of(import::proxy_record_metric(id, value))
}

// Callbacks from the proxy. Envoy does not require those that are absent here.

#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    unsafe extern "C" {
        fn __wasm_call_ctors();
    }
    // SAFETY: constructors of a WASI reactor have to run once, before anything else.
    unsafe { __wasm_call_ctors() };
    const CRITICAL: u32 = 5;
    std::panic::set_hook(Box::new(|panic| log(CRITICAL, &panic.to_string())));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

/// Memory for a value that the proxy hands over; [`taken`] owns it.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    if let Some(scratch) = SCRATCH.lend(size) {
        return scratch;
    }
    match Layout::array::<u8>(size) {
        Ok(layout) if size > 0 => {
            // SAFETY: the layout is not empty.
            unsafe { alloc(layout) }
        }
        Ok(_) => core::ptr::dangling_mut(),
        Err(_) => null_mut(),
    }
}

macro_rules! callbacks {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $act:expr;)+) => {
        $(#[unsafe(no_mangle)] extern "C" fn $name($($argument: $type),*) $(-> $result)? { $act })+
    };
}

callbacks! {
    proxy_on_context_create(context: u32, root: u32) = dispatch::create(context, root);
    proxy_on_vm_start(_context: u32, _size: usize) -> u32 = 1;
    proxy_on_configure(context: u32, size: usize) -> u32 = dispatch::configure(context, size).into();
    proxy_on_tick(context: u32) = dispatch::tick(context);
    proxy_on_http_call_response(context: u32, token: u32, headers: u32, body: usize, _trailers: u32) =
        dispatch::receive_response(context, token, headers > 0, body);
    proxy_on_request_headers(context: u32, _headers: u32, end: u32) -> u32 =
        dispatch::request_headers(context, end != 0) as u32;
    proxy_on_request_body(context: u32, _size: usize, end: u32) -> u32 =
        dispatch::request_body(context, end != 0) as u32;
    proxy_on_request_trailers(context: u32, _trailers: u32) -> u32 = dispatch::request_body(context, true) as u32;
    proxy_on_response_headers(context: u32, _headers: u32, end: u32) -> u32 =
        dispatch::response_headers(context, end != 0) as u32;
    proxy_on_response_body(context: u32, _size: usize, end: u32) -> u32 =
        dispatch::response_body(context, end != 0) as u32;
    proxy_on_response_trailers(context: u32, _trailers: u32) -> u32 = dispatch::response_trailers(context) as u32;
    proxy_on_delete(context: u32) = dispatch::delete(context);
}
