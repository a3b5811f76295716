//! [`Host`] and [`StreamHost`], implemented with Envoy's functions.

use std::cell::RefCell;

use engine::time::Time;
use evenkeel::host::{Bytes, Call, CallError, Host, MetricKind, SharedError, StreamHost};
use evenkeel::request::MARK;

use crate::abi::{self, Attribute, Map, NotSent, StreamHandle};
use crate::calls::Calls;
use crate::stats::{Defined, Series};
use crate::{clock, left, shared};

/// Prefix of filter state keys, under which the access log finds a decision; the same as with the WebAssembly filter.
const STATE_PREFIX: &str = "wasm.";

fn state_key(path: &[&str]) -> String {
    format!("{STATE_PREFIX}{}", path.join("."))
}

/// The host of one worker.
pub struct Process<'a> {
    /// The metrics of the configuration.
    pub defined: &'a Defined,
    /// The metric series of the plugin.
    pub series: &'a Series,
    /// Outstanding calls and the worker's index; `None` outside the main thread, where no calls are sent.
    pub calls: Option<(&'a Calls, usize)>,
}

/// Writes a message of this module to Envoy's log.
pub fn log(level: log::Level, message: &str) {
    let level = match level {
        log::Level::Trace => 0,
        log::Level::Debug => 1,
        log::Level::Info => 2,
        log::Level::Warn => 3,
        log::Level::Error => 4,
    };
    abi::log(level, message);
}

impl Host for Process<'_> {
    fn now(&self) -> Time {
        clock::now()
    }

    fn wall(&self) -> Time {
        clock::wall()
    }

    fn shared_get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        shared::get(key)
    }

    fn shared_set(&self, key: &str, value: &[u8], version: Option<u32>) -> Result<(), SharedError> {
        shared::set(key, value, version)
    }

    fn call(&self, call: &Call<'_>) -> Result<u32, CallError> {
        let Some((calls, worker)) = self.calls else { return Err(CallError::NotSent) };
        let headers: Vec<(&str, &str)> = call.all_headers().collect();
        let body = call.form.map(str::as_bytes).unwrap_or_default();
        match self.defined.config().call(call.cluster, &headers, body, call.timeout) {
            Ok(id) => Ok(calls.note(self.defined.config(), id, worker)),
            Err(NotSent::UnknownCluster) => Err(CallError::UnknownCluster),
            Err(NotSent::NotNow) => Err(CallError::NotSent),
        }
    }

    fn environment(&self, variable: &str) -> Option<String> {
        std::env::var(variable).ok()
    }

    fn log(&self, level: log::Level, message: &str) {
        log(level, message);
    }

    fn metric(&self, kind: MetricKind, name: &str) -> Option<u32> {
        self.series.number(kind, name)
    }

    fn count(&self, metric: u32, by: u64) {
        self.series.record(self.defined, metric, by);
    }

    fn record(&self, metric: u32, value: u64) {
        self.series.record(self.defined, metric, value);
    }
}

/// The host of what only reads: no call, no metric.
pub struct Reader;

impl Host for Reader {
    fn now(&self) -> Time {
        clock::now()
    }

    fn shared_get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        shared::get(key)
    }

    fn shared_set(&self, _key: &str, _value: &[u8], _version: Option<u32>) -> Result<(), SharedError> {
        Err(SharedError::Refused)
    }

    fn call(&self, _call: &Call<'_>) -> Result<u32, CallError> {
        Err(CallError::NotSent)
    }

    fn log(&self, level: log::Level, message: &str) {
        log(level, message);
    }
}

/// A local reply, sent once no lock is held, because Envoy runs its filters in the call.
pub struct Reply {
    status: u32,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    /// Sends the reply.
    pub fn give(&self, stream: StreamHandle) {
        stream.respond(self.status, &self.headers, &self.body);
    }
}

/// The host of one stream during one of its events.
pub struct Surroundings<'a> {
    /// The worker's host.
    pub process: Process<'a>,
    /// `None` when the stream is being destroyed and can no longer be queried.
    pub stream: Option<StreamHandle>,
    /// Whether the endpoint is passed to Envoy by a call rather than a header.
    pub by_call: bool,
    /// Response code details, for versions of Envoy without the attribute.
    pub details: Option<Vec<u8>>,
    /// The reply, if the request is answered here.
    pub reply: RefCell<Option<Reply>>,
}

impl Surroundings<'_> {
    fn header(&self, map: Map, name: &str) -> Option<Vec<u8>> {
        self.stream?.header(map, name)
    }

    fn headers(&self, map: Map, name: &str) -> Vec<Vec<u8>> {
        self.stream.map(|stream| stream.headers(map, name)).unwrap_or_default()
    }

    fn set(&self, map: Map, name: &str, value: Option<&[u8]>) {
        if let Some(stream) = self.stream {
            stream.set_header(map, name, value);
        }
    }
}

impl StreamHost for Surroundings<'_> {
    fn now(&self) -> Time {
        clock::now()
    }

    fn request_header(&self, name: &str) -> Option<Bytes> {
        self.header(Map::RequestHeaders, name).map(Bytes::from)
    }

    fn request_headers(&self, name: &str) -> Vec<Vec<u8>> {
        self.headers(Map::RequestHeaders, name)
    }

    fn set_request_header(&self, name: &str, value: &[u8]) {
        self.set(Map::RequestHeaders, name, Some(value));
    }

    fn steer(&self, header: &str, value: &[u8]) {
        if !self.by_call {
            return self.set_request_header(header, value);
        }
        self.remove_request_header(header);
        // Envoy takes a single host. If it cannot use it, its own policy decides, and the answer shows that.
        let first = value.split(|byte| *byte == b',').next().unwrap_or_default();
        let _followed = self.stream.is_some_and(|stream| stream.override_host(first));
    }

    fn leave(&self) {
        if self.by_call && left::are_marked() {
            let _marked = self.stream.is_some_and(|stream| stream.override_host(left::ADDRESS));
        }
    }

    fn remove_request_header(&self, name: &str) {
        self.set(Map::RequestHeaders, name, None);
    }

    fn response_header(&self, name: &str) -> Option<Bytes> {
        self.header(Map::ResponseHeaders, name).map(Bytes::from)
    }

    fn response_headers(&self, name: &str) -> Vec<Vec<u8>> {
        self.headers(Map::ResponseHeaders, name)
    }

    fn response_body_end(&self, most: usize) -> Vec<u8> {
        self.stream.map(|stream| stream.response_body_end(most)).unwrap_or_default()
    }

    fn add_response_header(&self, name: &str, value: &[u8]) {
        if let Some(stream) = self.stream {
            stream.add_header(Map::ResponseHeaders, name, value);
        }
    }

    fn remove_response_header(&self, name: &str) {
        self.set(Map::ResponseHeaders, name, None);
    }

    fn response_trailer(&self, name: &str) -> Option<Bytes> {
        self.header(Map::ResponseTrailers, name).map(Bytes::from)
    }

    fn property(&self, path: &[&str]) -> Option<Bytes> {
        let stream = self.stream?;
        let value = match path {
            ["xds", "cluster_name"] => stream.cluster_name(),
            ["upstream", "address"] => stream.attribute(Attribute::UpstreamAddress),
            ["response", "code_details"] if !abi::tells_all() => self.details.clone(),
            ["upstream", "local_address" | "transport_failure_reason"] if !abi::tells_all() => None,
            ["upstream", "local_address"] => stream.attribute(Attribute::UpstreamLocalAddress),
            ["upstream", "transport_failure_reason"] => {
                stream.attribute(Attribute::UpstreamTransportFailureReason)
            }
            ["upstream", "request_attempt_count"] => {
                // Zero means before the first attempt; proxy-wasm has no value then.
                let attempts = stream.attempts().filter(|attempts| *attempts > 0);
                attempts.map(|attempts| attempts.to_le_bytes().to_vec())
            }
            ["response", "code_details"] => stream.attribute(Attribute::ResponseCodeDetails),
            ["source", "address"] => stream.attribute(Attribute::SourceAddress),
            MARK => stream.filter_state(&state_key(path)),
            _ => None,
        };
        value.filter(|value| !value.is_empty()).map(Bytes::from)
    }

    fn set_property(&self, path: &[&str], value: &[u8]) {
        let Some(stream) = self.stream else { return };
        let key = state_key(path);
        // A call leaves no header to mark, and Envoy reports a value that is set twice as a bug: by two filters for the
        // same cluster, perhaps.
        if (path == MARK && self.by_call) || stream.filter_state(&key).is_some() {
            return;
        }
        stream.set_filter_state(&key, value);
    }

    fn respond(&self, status: u32, headers: &[(&str, &str)], body: &[u8]) {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let headers = headers.iter().map(own).collect();
        self.reply.replace(Some(Reply { status, headers, body: body.to_vec() }));
    }

    fn process(&self) -> &dyn Host {
        &self.process
    }
}
