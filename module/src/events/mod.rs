//! Events: the functions that Envoy calls. It refuses a module that lacks one of the required ones. Each catches
//! panics. With `abi`, whose types they take, the only unsafe code in the crate.
#![allow(unsafe_code)]

// Events that are not used, but required by Envoy.
macro_rules! unused {
    ($($name:ident($($argument:ty),*);)+) => {
        $(#[unsafe(no_mangle)] extern "C" fn $name($(_: $argument),*) {})+
    };
}

mod extension;
mod lb;

use core::ffi::{c_char, c_void};
use core::ptr::null;
use std::sync::Arc;

use crate::abi::{Answer, ConfigHandle, EnvoyBuffer, EnvoyHeader, StreamHandle, log, version};
use crate::attached::Attached;
use crate::guard::guarded;
use crate::registry;
use crate::request::{Flow, Request};

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    guarded(
        || {
            const CRITICAL: u32 = 5;
            std::panic::set_hook(Box::new(|panic| log(CRITICAL, &format!("evenkeel: {panic}"))));
        },
        || (),
    );
    version().as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    config: *mut c_void,
    name: EnvoyBuffer,
    text: EnvoyBuffer,
) -> *const c_void {
    // SAFETY: Envoy passes both in this event.
    let (name, text) = unsafe { (name.bytes(), text.bytes()) };
    let attach = || registry::attach(ConfigHandle(config), &String::from_utf8_lossy(name), text);
    match guarded(attach, || None) {
        Some(attached) => Arc::into_raw(attached).cast(),
        None => null(),
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(attached: *const c_void) {
    if attached.is_null() {
        return;
    }
    // SAFETY: Envoy returns the pointer from `config_new`, once.
    let attached = unsafe { Arc::from_raw(attached.cast::<Attached>()) };
    guarded(|| registry::detach(&attached), || ());
}

/// # Safety
/// The pointer must come from `config_new` and not be destroyed yet.
unsafe fn attached<'a>(pointer: *const c_void) -> Option<&'a Attached> {
    // SAFETY: guaranteed by the caller.
    unsafe { pointer.cast::<Attached>().as_ref() }
}

/// # Safety
/// The pointer must come from `config_new` and not be destroyed yet.
unsafe fn shared(pointer: *const c_void) -> Option<Arc<Attached>> {
    let pointer = pointer.cast::<Attached>();
    (!pointer.is_null()).then(|| {
        // SAFETY: `config_new` gave away one reference count, so there is at least one.
        unsafe {
            Arc::increment_strong_count(pointer);
            Arc::from_raw(pointer)
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_scheduled(
    _config: *mut c_void,
    pointer: *const c_void,
    _event: u64,
) {
    // SAFETY: Envoy passes a live configuration.
    if let Some(attached) = unsafe { attached(pointer) } {
        guarded(|| attached.tick(), || ());
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_http_callout_done(
    _config: *mut c_void,
    pointer: *const c_void,
    id: u64,
    result: u32,
    headers: *const EnvoyHeader,
    header_count: usize,
    chunks: *const EnvoyBuffer,
    chunk_count: usize,
) {
    // SAFETY: Envoy passes a live configuration.
    if let Some(attached) = unsafe { attached(pointer) } {
        let answered = || {
            // SAFETY: Envoy passes both in this event.
            let answer = unsafe { Answer::of(result, (headers, header_count), (chunks, chunk_count)) };
            attached.answered(id, &answer);
        };
        guarded(answered, || ());
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_new(
    pointer: *const c_void,
    _stream: *mut c_void,
) -> *const c_void {
    // SAFETY: Envoy passes a live configuration, which outlives its streams.
    let Some(attached) = (unsafe { shared(pointer) }) else { return null() };
    guarded(|| Box::into_raw(Box::new(Request::of(attached))).cast_const().cast(), null)
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_destroy(request: *const c_void) {
    if request.is_null() {
        return;
    }
    // SAFETY: Envoy returns the pointer from `filter_new`, once.
    let request = unsafe { Box::from_raw(request.cast_mut().cast::<Request>()) };
    guarded(|| request.end(), || ());
}

/// # Safety
/// The pointer must come from `filter_new` and not be destroyed yet.
unsafe fn request<'a>(pointer: *const c_void) -> Option<&'a Request> {
    // SAFETY: guaranteed by the caller. All other references are shared as well: mutable state is in cells.
    unsafe { pointer.cast::<Request>().as_ref() }
}

/// Events of a stream: each calls a method of [`Request`] and returns a status to Envoy.
macro_rules! events {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = |$request:ident, $stream:ident| $act:expr;)+) => {
        $(#[unsafe(no_mangle)]
        extern "C" fn $name(stream: *mut c_void, request: *const c_void $(, $argument: $type)*) $(-> $result)? {
            // SAFETY: Envoy passes a live stream, and the pointer that `filter_new` returned for it.
            match unsafe { self::request(request) } {
                Some($request) => {
                    let $stream = StreamHandle(stream);
                    guarded(|| $act, Default::default)
                }
                None => Default::default(),
            }
        })+
    };
}

/// Status: headers, body and trailers go on.
const CONTINUE: u32 = 0;
/// Status: nothing goes on, because the request has been answered.
const STOP: u32 = 1;

events! {
    envoy_dynamic_module_on_http_filter_request_headers(end: bool) -> u32 =
        |request, stream| match request.request_headers(stream, end) {
            Flow::Continue => CONTINUE,
            Flow::Answered => STOP,
        };
    envoy_dynamic_module_on_http_filter_request_body(end: bool) -> u32 = |request, stream| {
        request.request_body(stream, end);
        CONTINUE
    };
    envoy_dynamic_module_on_http_filter_request_trailers() -> u32 = |request, stream| {
        request.request_body(stream, true);
        CONTINUE
    };
    envoy_dynamic_module_on_http_filter_response_headers(end: bool) -> u32 = |request, stream| {
        request.response_headers(stream, end);
        CONTINUE
    };
    envoy_dynamic_module_on_http_filter_response_body(end: bool) -> u32 = |request, stream| {
        request.response_body(stream, end);
        CONTINUE
    };
    envoy_dynamic_module_on_http_filter_response_trailers() -> u32 = |request, stream| {
        request.response_trailers(stream);
        CONTINUE
    };
    envoy_dynamic_module_on_http_filter_stream_complete() = |request, stream| request.finish(stream);
}

unused! {
    envoy_dynamic_module_on_http_filter_scheduled(*mut c_void, *const c_void, u64);
    envoy_dynamic_module_on_http_filter_http_callout_done(*mut c_void, *const c_void, u64, u32, *const c_void, usize, *const c_void, usize);
    envoy_dynamic_module_on_http_filter_http_stream_headers(*mut c_void, *const c_void, u64, *const c_void, usize, bool);
    envoy_dynamic_module_on_http_filter_http_stream_data(*mut c_void, *const c_void, u64, *const c_void, usize, bool);
    envoy_dynamic_module_on_http_filter_http_stream_trailers(*mut c_void, *const c_void, u64, *const c_void, usize);
    envoy_dynamic_module_on_http_filter_http_stream_complete(*mut c_void, *const c_void, u64);
    envoy_dynamic_module_on_http_filter_http_stream_reset(*mut c_void, *const c_void, u64, u32);
    envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(*mut c_void, *const c_void);
    envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(*mut c_void, *const c_void);
}

/// Records the details of a local reply, which is sent unchanged.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_local_reply(
    _stream: *mut c_void,
    pointer: *const c_void,
    _status: u32,
    details: EnvoyBuffer,
    _reset: bool,
) -> u32 {
    // SAFETY: Envoy passes the pointer from `filter_new`, and the details in this event.
    if let (Some(request), details) = unsafe { (request(pointer), details.bytes()) } {
        guarded(|| request.local_reply(details), || ());
    }
    CONTINUE
}
