//! A stream as Envoy has it: the header maps that are there in each phase, what the module does to it, and the order of its events.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::sync::atomic::{AtomicU32, Ordering};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::envoy::{self, Bytes, Config, HeaderOut, broken};

type Headers = Vec<(String, Vec<u8>)>;

/// What the module answered instead of an endpoint.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u32,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

#[derive(Default)]
pub struct State {
    pub request: Option<Headers>,
    pub response: Option<Headers>,
    pub trailers: Option<Headers>,
    pub body: Vec<Vec<u8>>,
    /// The hosts that Envoy was told to take.
    pub hosts: Vec<String>,
    /// Whether Envoy was told that the cluster's policy is to decide without the engine.
    pub left: bool,
    pub filter_state: BTreeMap<String, Vec<u8>>,
    pub texts: BTreeMap<u32, Vec<u8>>,
    pub attempts: Option<u64>,
    pub reply: Option<Reply>,
    /// What the module was handed, which has to stay where it is until the event is over.
    handed: Vec<Box<[u8]>>,
}

/// One stream.
pub struct Stream {
    pub id: usize,
    pub config: usize,
    /// Events of it that run now.
    pub events: AtomicU32,
    pointer: Mutex<usize>,
    state: Mutex<State>,
}

mod offered {
    use super::{Bytes, c_void};

    type Pointer = *const c_void;

    unsafe extern "C" {
        pub fn envoy_dynamic_module_on_http_filter_new(config: Pointer, stream: *mut c_void) -> Pointer;
        pub fn envoy_dynamic_module_on_http_filter_destroy(request: Pointer);
        pub fn envoy_dynamic_module_on_http_filter_request_headers(
            stream: *mut c_void,
            request: Pointer,
            end: bool,
        ) -> u32;
        pub fn envoy_dynamic_module_on_http_filter_request_body(
            stream: *mut c_void,
            request: Pointer,
            end: bool,
        ) -> u32;
        pub fn envoy_dynamic_module_on_http_filter_request_trailers(
            stream: *mut c_void,
            request: Pointer,
        ) -> u32;
        pub fn envoy_dynamic_module_on_http_filter_response_headers(
            stream: *mut c_void,
            request: Pointer,
            end: bool,
        ) -> u32;
        pub fn envoy_dynamic_module_on_http_filter_response_body(
            stream: *mut c_void,
            request: Pointer,
            end: bool,
        ) -> u32;
        pub fn envoy_dynamic_module_on_http_filter_response_trailers(
            stream: *mut c_void,
            request: Pointer,
        ) -> u32;
        pub fn envoy_dynamic_module_on_http_filter_stream_complete(stream: *mut c_void, request: Pointer);
        pub fn envoy_dynamic_module_on_http_filter_local_reply(
            stream: *mut c_void,
            request: Pointer,
            status: u32,
            details: Bytes,
            reset: bool,
        ) -> u32;
    }
}

fn headers(of: &[(&str, &str)]) -> Headers {
    of.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

impl Stream {
    /// A stream of a configuration; nothing has come of it yet.
    pub fn open(config: &Config) -> Arc<Stream> {
        let stream = envoy::add_stream(|id| Stream {
            id,
            config: config.id,
            events: AtomicU32::new(0),
            pointer: Mutex::new(0),
            state: Mutex::default(),
        });
        let pointer = config.state().pointer as *const c_void;
        // SAFETY: the configuration lives.
        let request =
            stream.event(|id, _| unsafe { offered::envoy_dynamic_module_on_http_filter_new(pointer, id) });
        *stream.pointer.lock().unwrap() = request as usize;
        stream
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event<R>(&self, run: impl FnOnce(*mut c_void, *const c_void) -> R) -> R {
        let pointer = *self.pointer.lock().unwrap();
        self.events.fetch_add(1, Ordering::SeqCst);
        let result = run(self.id as *mut c_void, pointer as *const c_void);
        if self.events.fetch_sub(1, Ordering::SeqCst) == 1 {
            // What the module keeps beyond the event is gone, and differs where it was not.
            self.state().handed.drain(..).for_each(|mut bytes| bytes.fill(b'?'));
        }
        result
    }

    /// Request headers, at the end of them; whether the request goes on.
    pub fn request(&self, fields: &[(&str, &str)]) -> bool {
        self.request_begins(fields, true)
    }

    pub fn request_begins(&self, fields: &[(&str, &str)], end: bool) -> bool {
        let mut all =
            headers(&[(":method", "GET"), (":path", "/"), (":authority", "web"), (":scheme", "http")]);
        all.retain(|(name, _)| fields.iter().all(|(of, _)| of != name));
        all.extend(headers(fields));
        self.state().request = Some(all);
        self.begins(end)
    }

    /// Request headers behind another filter of the chain, with what that one tells later ones.
    pub fn request_after(&self, before: &Stream, headers: Headers) -> bool {
        let filter_state = before.state().filter_state.clone();
        let mut state = self.state();
        (state.request, state.filter_state) = (Some(headers), filter_state);
        drop(state);
        self.begins(true)
    }

    fn begins(&self, end: bool) -> bool {
        // SAFETY: here and below: the stream lives.
        self.event(|id, of| unsafe {
            offered::envoy_dynamic_module_on_http_filter_request_headers(id, of, end)
        }) == 0
    }

    pub fn request_body(&self, end: bool) {
        self.goes_on(|id, of| unsafe {
            offered::envoy_dynamic_module_on_http_filter_request_body(id, of, end)
        });
    }

    pub fn request_trailers(&self) {
        self.goes_on(|id, of| unsafe {
            offered::envoy_dynamic_module_on_http_filter_request_trailers(id, of)
        });
    }

    fn goes_on(&self, run: impl FnOnce(*mut c_void, *const c_void) -> u32) {
        assert_eq!(self.event(run), 0, "everything but an answered request goes on");
    }

    /// The answer of `host`, after so many attempts.
    pub fn answer(&self, host: &str, status: &str, more: &[(&str, &str)], end: bool) {
        let mut state = self.state();
        state.response = Some([headers(&[(":status", status)]), headers(more)].concat());
        state.texts.insert(41, host.as_bytes().to_vec());
        state.texts.insert(16, b"via_upstream".to_vec());
        state.attempts.get_or_insert(1);
        drop(state);
        self.goes_on(|id, of| unsafe {
            offered::envoy_dynamic_module_on_http_filter_response_headers(id, of, end)
        });
    }

    pub fn response_body(&self, pieces: &[&[u8]], end: bool) {
        self.state().body = pieces.iter().map(|piece| piece.to_vec()).collect();
        self.goes_on(|id, of| unsafe {
            offered::envoy_dynamic_module_on_http_filter_response_body(id, of, end)
        });
        self.state().body.clear();
    }

    pub fn response_trailers(&self, fields: &[(&str, &str)]) {
        self.state().trailers = Some(headers(fields));
        self.goes_on(|id, of| unsafe {
            offered::envoy_dynamic_module_on_http_filter_response_trailers(id, of)
        });
    }

    /// Envoy answers by itself.
    pub fn local_reply(&self, status: u32, details: &str, more: &[(String, String)]) {
        let bytes = Bytes::of(details.as_bytes());
        self.goes_on(|id, of| unsafe {
            offered::envoy_dynamic_module_on_http_filter_local_reply(id, of, status, bytes, false)
        });
        let more = more.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes()));
        let mut state = self.state();
        state.response = Some(headers(&[(":status", &status.to_string())]).into_iter().chain(more).collect());
        state.texts.insert(16, details.as_bytes().to_vec());
        drop(state);
        self.goes_on(|id, of| unsafe {
            offered::envoy_dynamic_module_on_http_filter_response_headers(id, of, true)
        });
    }

    /// All has been sent, or the stream was reset: the access log is about to be written.
    pub fn complete(&self) {
        self.event(|id, of| unsafe { offered::envoy_dynamic_module_on_http_filter_stream_complete(id, of) });
    }

    /// The stream is gone, for the module already while it is told so.
    pub fn destroy(&self) {
        let pointer = *self.pointer.lock().unwrap();
        envoy::remove_stream(self.id);
        unsafe { offered::envoy_dynamic_module_on_http_filter_destroy(pointer as *const c_void) };
    }

    /// What a request has of a header.
    pub fn sent(&self, name: &str) -> Vec<String> {
        let state = self.state();
        let of = state.request.iter().flatten().filter(|(of, _)| of == name);
        of.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    }
}

impl State {
    fn map(&mut self, map: u32) -> Option<&mut Headers> {
        match map {
            0 => self.request.as_mut(),
            2 => self.response.as_mut(),
            3 => self.trailers.as_mut(),
            _ => broken(&format!("there is no use for header map {map}")),
        }
    }

    fn hand(&mut self, value: &[u8]) -> Bytes {
        self.handed.push(value.into());
        self.handed.last().map_or(Bytes::NONE, |bytes| Bytes::of(bytes))
    }

    fn give(&mut self, value: Option<Vec<u8>>, place: *mut Bytes) -> bool {
        let there = value.is_some();
        // SAFETY: a place of the module's.
        unsafe { *place = value.map_or(Bytes::NONE, |value| self.hand(&value)) };
        there
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_callback_http_get_header(
    stream: *mut c_void,
    map: u32,
    name: Bytes,
    value: *mut Bytes,
    nth: usize,
    count: *mut usize,
) -> bool {
    let (stream, name) = (envoy::stream(stream), name.text());
    let mut state = stream.state();
    let all: Headers = state.map(map).cloned().unwrap_or_default();
    let all: Vec<Vec<u8>> = all.into_iter().filter(|(of, _)| *of == name).map(|(_, value)| value).collect();
    // SAFETY: a place of the module's.
    unsafe { *count = all.len() };
    state.give(all.get(nth).cloned(), value)
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_http_set_header(
    of: *mut c_void,
    map: u32,
    name: Bytes,
    value: Bytes,
) -> bool {
    let (stream, name) = (envoy::stream(of), name.text());
    if name.is_empty() {
        broken("a header without a name");
    }
    let mut state = stream.state();
    let Some(headers) = state.map(map) else { return false };
    headers.retain(|(of, _)| *of != name);
    if !value.is_none() {
        headers.push((name, value.to_vec()));
    }
    true
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_http_add_header(
    of: *mut c_void,
    map: u32,
    name: Bytes,
    value: Bytes,
) -> bool {
    let stream = envoy::stream(of);
    let mut state = stream.state();
    let Some(headers) = state.map(map) else { return false };
    headers.push((name.text(), value.to_vec()));
    true
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_http_get_body_chunks_size(of: *mut c_void, body: u32) -> usize {
    if body != 2 {
        broken("the module reads what has just come of the response's body, and nothing else");
    }
    envoy::stream(of).state().body.len()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_callback_http_get_body_chunks(
    of: *mut c_void,
    _: u32,
    places: *mut Bytes,
) -> bool {
    let stream = envoy::stream(of);
    let mut state = stream.state();
    for (at, piece) in state.body.clone().iter().enumerate() {
        // SAFETY: there is a place for each.
        unsafe { *places.add(at) = state.hand(piece) };
    }
    true
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_http_filter_get_attribute_string(
    of: *mut c_void,
    attribute: u32,
    place: *mut Bytes,
) -> bool {
    if envoy::is_older() && !matches!(attribute, 24 | 41) {
        broken(&format!("this version complains in its log when it is asked for attribute {attribute}"));
    }
    let stream = envoy::stream(of);
    let mut state = stream.state();
    let value = state.texts.get(&attribute).cloned();
    state.give(value, place)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_get_attribute_int(
    of: *mut c_void,
    attribute: u32,
    place: *mut u64,
) -> bool {
    if envoy::is_older() || attribute != 53 {
        broken(&format!("a number that this version does not tell: {attribute}"));
    }
    let attempts = envoy::stream(of).state().attempts;
    // SAFETY: a place of the module's.
    unsafe { *place = attempts.unwrap_or(0) };
    true
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_http_get_cluster_name(
    of: *mut c_void,
    place: *mut Bytes,
) -> bool {
    let stream = envoy::stream(of);
    stream.state().give(Some(b"web".to_vec()), place)
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_http_set_upstream_override_host(
    of: *mut c_void,
    host: Bytes,
    _: bool,
) -> bool {
    let host = host.text();
    let is_address = host.parse::<std::net::SocketAddr>().is_ok();
    let stream = envoy::stream(of);
    match host.as_str() {
        // An address that no host has.
        "0.0.0.0:0" => stream.state().left = true,
        _ if is_address => stream.state().hosts.push(host),
        _ => {}
    }
    is_address
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_http_set_filter_state_bytes(
    of: *mut c_void,
    key: Bytes,
    value: Bytes,
) -> bool {
    let stream = envoy::stream(of);
    if stream.state().filter_state.insert(key.text(), value.to_vec()).is_some() {
        broken("what is set for later filters is set anew, though it is to be read only");
    }
    true
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_callback_http_get_filter_state_bytes(
    of: *mut c_void,
    key: Bytes,
    place: *mut Bytes,
) -> bool {
    let stream = envoy::stream(of);
    let mut state = stream.state();
    let value = state.filter_state.get(&key.text()).cloned();
    state.give(value, place)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_callback_http_send_response(
    of: *mut c_void,
    status: u32,
    headers: *const HeaderOut,
    count: usize,
    body: Bytes,
    details: Bytes,
) {
    let stream = envoy::stream(of);
    // SAFETY: the module hands over what it says.
    let headers = unsafe { envoy::headers_out(headers, count) };
    let reply = Reply { status, headers: headers.clone(), body: body.to_vec() };
    {
        let mut state = stream.state();
        if state.response.is_some() || state.reply.replace(reply).is_some() {
            broken("a second answer");
        }
    }
    stream.local_reply(status, &details.text(), &headers);
}
