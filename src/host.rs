//! The host interface of the filter: Envoy through proxy-wasm or the native module, or a test.

pub mod bytes;
pub mod event;
pub(crate) mod retry_after;

use core::time::Duration;

pub use crate::host::bytes::Bytes;
use crate::host::event::Event;
use engine::time::Time;

/// Why shared data was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedError {
    /// Another worker has written in between.
    Conflict,
    /// The host refused the write.
    Refused,
}

/// The version of a key that has no value: written with it, a value that another worker has written meanwhile is a
/// conflict. Hosts count versions from 1, and accept any where there is no value.
pub const ABSENT: u32 = u32::MAX;

/// The process that a worker runs in.
pub trait Host {
    /// The current time, the same clock for all workers of the process.
    fn now(&self) -> Time;
    /// The wall-clock time, by which servers date what they say; it may step. It differs from [`now`](Host::now) only
    /// where that is monotonic.
    fn wall(&self) -> Time {
        self.now()
    }
    /// The value under `key` and its version; `None` if there is none. A value that was cleared is empty.
    fn shared_get(&self, key: &str) -> Option<(Vec<u8>, u32)>;
    /// Writes `value` under `key`; with `version`, only if that is still its version, or [`ABSENT`] and there is none.
    fn shared_set(&self, key: &str, value: &[u8], version: Option<u32>) -> Result<(), SharedError>;
    /// Writes `value` in place of what was read under `key`: of that version, or nothing. It is a conflict if another
    /// worker has written meanwhile.
    fn shared_replace(&self, key: &str, value: &[u8], read: Option<u32>) -> Result<(), SharedError> {
        self.shared_set(key, value, Some(read.unwrap_or(ABSENT)))
    }
    /// Sends an HTTP request to an Envoy cluster; the token identifies the response.
    fn call(&self, call: &Call<'_>) -> Result<u32, CallError>;
    /// The zone in the locality of the proxy's own node, if it has one.
    fn node_zone(&self) -> Option<String> {
        None
    }
    /// An environment variable, if the plugin can see it.
    fn environment(&self, _variable: &str) -> Option<String> {
        None
    }
    /// Writes a line to the log.
    fn log(&self, level: log::Level, message: &str);
    /// Writes an event to the log: its message, or JSON if the configuration asks for it.
    fn log_event(&self, event: &Event<'_>) {
        self.log(event.level, event.message);
    }
    /// The number of a metric of the host, defined at the first call with its name; `None` if the host keeps none.
    fn metric(&self, _kind: MetricKind, _name: &str) -> Option<u32> {
        None
    }
    /// Adds to a counter; `by` is not 0.
    fn count(&self, _metric: u32, _by: u64) {}
    /// Sets a gauge, or adds a value to a histogram.
    fn record(&self, _metric: u32, _value: u64) {}
}

/// The body of the response to a [`Call`], which may be too large to hold in memory.
pub trait Body {
    /// Its size, bytes.
    fn size(&self) -> usize;
    /// At most `most` bytes from position `from` on; empty beyond the end.
    fn part(&self, from: usize, most: usize) -> Vec<u8>;
    /// A header of the response, while it is being delivered.
    fn header(&self, _name: &str) -> Option<Bytes> {
        None
    }
}

impl Body for &[u8] {
    fn size(&self) -> usize {
        self.len()
    }

    fn part(&self, from: usize, most: usize) -> Vec<u8> {
        let rest = self.get(from..).unwrap_or_default();
        rest.get(..most.min(rest.len())).unwrap_or_default().to_vec()
    }
}

/// The kind of a metric. All workers of the process share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetricKind {
    /// A sum.
    Counter,
    /// The latest value.
    Gauge,
    /// A distribution of values.
    Histogram,
}

/// Why a call was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The process has no cluster of this name.
    UnknownCluster,
    /// The cluster took no request at that moment; Envoy does not say why.
    NotSent,
    /// Another call of the same callback was not sent, after which Envoy must not run upstream filters.
    Postponed,
}

/// An HTTP request to an Envoy cluster: a POST if there is a form, otherwise a GET.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The Envoy cluster.
    pub cluster: &'a str,
    /// `:authority`.
    pub authority: &'a str,
    /// `:path`.
    pub path: &'a str,
    /// Further headers; their values are secrets.
    pub headers: &'a [(String, String)],
    /// The body of a POST, a URL-encoded form; `None` for a GET.
    pub form: Option<&'a str>,
    /// The timeout of the response.
    pub timeout: Duration,
}

impl<'a> Call<'a> {
    /// All headers of the request, in the order in which they are sent.
    pub fn all_headers(&self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        let usual = [
            (":method", if self.form.is_some() { "POST" } else { "GET" }),
            (":scheme", "http"),
            (":path", self.path),
            (":authority", self.authority),
            ("accept", "application/json"),
        ];
        let form = self.form.map(|_| ("content-type", "application/x-www-form-urlencoded"));
        let more = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        usual.into_iter().chain(form).chain(more)
    }
}

/// One HTTP stream.
pub trait StreamHost {
    /// The current time.
    fn now(&self) -> Time;
    /// A request header's value; the first if there are several.
    fn request_header(&self, name: &str) -> Option<Bytes>;
    /// Every value of a request header, in order. Costs a copy of all headers, so it is not called for every request.
    fn request_headers(&self, name: &str) -> Vec<Vec<u8>>;
    /// Sets a request header, replacing all of its values.
    fn set_request_header(&self, name: &str, value: &[u8]);
    /// Names the endpoints of the request, best first, in the form of the steering header `header`; a header of that
    /// name from the client is replaced. A proxy with a call for this needs no header.
    fn steer(&self, header: &str, value: &[u8]) {
        self.set_request_header(header, value);
    }
    /// The request is left to the policy of its cluster; for a proxy where that policy may ask the engine in turn.
    fn leave(&self) {}
    /// Removes every occurrence of a request header.
    fn remove_request_header(&self, name: &str);
    /// A response header's value; the first if there are several.
    fn response_header(&self, name: &str) -> Option<Bytes>;
    /// Every value of a response header, in order. Costs a copy of all headers, so it is not called for every response.
    fn response_headers(&self, name: &str) -> Vec<Vec<u8>>;
    /// The last `most` bytes of the part of the response's body that is passing.
    fn response_body_end(&self, most: usize) -> Vec<u8>;
    /// Adds a response header beside others of the same name.
    fn add_response_header(&self, name: &str, value: &[u8]);
    /// Removes every occurrence of a response header.
    fn remove_response_header(&self, name: &str);
    /// A response trailer's value.
    fn response_trailer(&self, name: &str) -> Option<Bytes>;
    /// A property of the stream.
    fn property(&self, path: &[&str]) -> Option<Bytes>;
    /// The cluster of the request's route; read for every request.
    fn cluster(&self) -> Option<Bytes> {
        self.property(&["xds", "cluster_name"])
    }
    /// The address of the host that the request went to last; read for every response.
    fn served_by(&self) -> Option<Bytes> {
        self.property(&["upstream", "address"])
    }
    /// Sets a property of the stream, which all filters of the request can read, upstream filters too.
    fn set_property(&self, path: &[&str], value: &[u8]);
    /// Answers the request here and now.
    fn respond(&self, status: u32, headers: &[(&str, &str)], body: &[u8]);
    /// The process of the stream's worker; not for requests that pass.
    fn process(&self) -> &dyn Host;
}
