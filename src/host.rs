//! What the logic needs from its host: Envoy through proxy-wasm, or a test.

pub mod bytes;
pub mod event;

use core::time::Duration;

pub use crate::host::bytes::Bytes;
use crate::host::event::Event;
use engine::time::Time;

/// Why shared data was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedError {
    /// Another worker wrote in between.
    Conflict,
    /// The host refused.
    Refused,
}

/// The surroundings of a worker.
pub trait Host {
    /// The current time, common to all workers of the process.
    fn now(&self) -> Time;
    /// The value under `key` and its version, if there is one; an empty value counts as none.
    fn shared_get(&self, key: &str) -> Option<(Vec<u8>, u32)>;
    /// Writes `value` under `key`; with `version`, only if it was not written since that version.
    fn shared_set(&self, key: &str, value: &[u8], version: Option<u32>) -> Result<(), SharedError>;
    /// Sends an HTTP request to an Envoy cluster; the token comes back with the answer.
    fn call(&self, call: &Call<'_>) -> Result<u32, CallError>;
    /// The zone in the locality of the proxy's own node, if it has one.
    fn node_zone(&self) -> Option<String> {
        None
    }
    /// A variable of the process's environment, as far as it is shown to the plugin.
    fn environment(&self, _variable: &str) -> Option<String> {
        None
    }
    /// Writes to the log.
    fn log(&self, level: log::Level, message: &str);
    /// Writes an event to the log: its sentence, unless the log is to have another form.
    fn tell(&self, event: &Event<'_>) {
        self.log(event.level, event.message);
    }
    /// The number of a metric of the host's own, made if there is none of this name; `None` if it keeps none.
    fn metric(&self, _kind: MetricKind, _name: &str) -> Option<u32> {
        None
    }
    /// Adds to a counter; `by` is not 0.
    fn count(&self, _metric: u32, _by: u64) {}
    /// Sets a gauge, or takes a value into a histogram.
    fn record(&self, _metric: u32, _value: u64) {}
}

/// The body of an answer to a [`Call`], which may be larger than what is to be held in memory.
pub trait Body {
    /// How many bytes it has.
    fn size(&self) -> usize;
    /// At most so many bytes from this position on; empty behind the end.
    fn part(&self, from: usize, most: usize) -> Vec<u8>;
    /// A header of the answer, while it is being handed over.
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

/// What a metric of the host's is. All workers of the process share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetricKind {
    /// Adds up.
    Counter,
    /// The latest value.
    Gauge,
    /// The distribution of the values.
    Histogram,
}

/// Why a call was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The process has no cluster of this name.
    UnknownCluster,
    /// The cluster took no request at that moment; why is not told.
    NotSent,
}

/// An HTTP request to an Envoy cluster: a GET, or a POST where there is a body.
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
    /// The fields of a form, URL-encoded; with none the request is a GET.
    pub form: Option<&'a str>,
    /// How long an answer is waited for.
    pub timeout: Duration,
}

impl<'a> Call<'a> {
    /// Every header of the request, in the order in which it is sent.
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
    /// A request header's value; the first, where there are several.
    fn request_header(&self, name: &str) -> Option<Bytes>;
    /// Every value of a request header, in order. It costs a copy of all headers: not for every request.
    fn request_headers(&self, name: &str) -> Vec<Vec<u8>>;
    /// Sets a request header, whatever was there before.
    fn set_request_header(&self, name: &str, value: &[u8]);
    /// Names the endpoints of the request, best first, as the steering header `header` would name them in `value`; what the
    /// client sent under that name is gone. A proxy that has a call for it needs no header.
    fn steer(&self, header: &str, value: &[u8]) {
        self.set_request_header(header, value);
    }
    /// Removes every occurrence of a request header.
    fn remove_request_header(&self, name: &str);
    /// A response header's value; the first, where there are several.
    fn response_header(&self, name: &str) -> Option<Bytes>;
    /// Every value of a response header, in order. It costs a copy of all headers: not for every response.
    fn response_headers(&self, name: &str) -> Vec<Vec<u8>>;
    /// The last bytes, at most so many, of the part of the response's body that passes.
    fn response_body_end(&self, most: usize) -> Vec<u8>;
    /// Adds a response header beside those of the same name.
    fn add_response_header(&self, name: &str, value: &[u8]);
    /// Removes every occurrence of a response header.
    fn remove_response_header(&self, name: &str);
    /// A response trailer's value.
    fn response_trailer(&self, name: &str) -> Option<Bytes>;
    /// A property of the stream.
    fn property(&self, path: &[&str]) -> Option<Bytes>;
    /// The cluster of the request's route; asked for with every request.
    fn cluster(&self) -> Option<Bytes> {
        self.property(&["xds", "cluster_name"])
    }
    /// The address of the host that the request went to last; asked for with every response.
    fn served_by(&self) -> Option<Bytes> {
        self.property(&["upstream", "address"])
    }
    /// Sets a property of the stream, which all filters of the request can read, upstream filters as well.
    fn set_property(&self, path: &[&str], value: &[u8]);
    /// Answers the request here and now.
    fn respond(&self, status: u32, headers: &[(&str, &str)], body: &[u8]);
    /// The surroundings of the worker; not for the way of a request that goes on.
    fn process(&self) -> &dyn Host;
}
