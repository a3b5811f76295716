//! What a scenario can do to an Envoy with the filter, and observe of it.

use std::rc::Rc;
use std::time::Duration;

/// One worker thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thread(pub usize);

/// One plugin configuration in one worker thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Plugin(pub usize);

/// An outstanding HTTP call of the filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub thread: Thread,
    pub token: u32,
    pub cluster: String,
    pub authority: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// The body of a POST; `None` for a GET.
    pub form: Option<String>,
    pub timeout: Duration,
}

/// The response to a [`Call`].
#[derive(Clone, Debug)]
pub enum Answer<'a> {
    /// A status and a body.
    Http(u16, &'a [u8]),
    /// A successful response with another header.
    With(&'a str, &'a [u8]),
    /// A status and another header.
    Told(u16, &'a str, &'a str),
    /// Headers whose status is no number.
    NoStatus(&'a [u8]),
    /// Reset or timeout: `(token, 0, 0, 0)`.
    Failed,
}

/// What workers pass at each access to shared data; it is given the key, and says whether the worker lives on. If not,
/// the call of the test unwinds with [`wasmhost::Death`].
pub type Gate = Rc<dyn Fn(&str) -> bool>;

/// An Envoy process: threads that share data and a clock, and the clusters around it.
pub trait World: Sized {
    type Stream: Stream;
    /// What the threads of the process share.
    type Process: Clone + Send + 'static;

    /// The process, to be handed to another thread of the test.
    fn process(&self) -> Self::Process;

    /// The process again, with workers of its own that stay on this thread of the test.
    fn on_this_thread(process: &Self::Process) -> Self;

    /// Sets the gate of workers that are started from now on.
    fn gate(&mut self, gate: Gate);

    /// Sets the clock of a worker thread apart from that of the process.
    fn skew(&mut self, thread: Thread, nanoseconds: i64);

    /// Removes a configuration whose last request has ended.
    fn end(&mut self, plugin: Plugin);

    fn new(seed: u64) -> Self;

    /// Starts a worker thread.
    fn thread(&mut self) -> Thread;

    /// Loads a plugin configuration into a thread, or returns the lines that say why not.
    fn configure(&mut self, thread: Thread, name: &str, json: &str) -> Result<Plugin, Vec<String>>;

    /// The thread of this plugin.
    fn thread_of(&self, plugin: Plugin) -> Thread;

    /// Puts the filter among the upstream filters of a thread, too.
    fn follow(&mut self, thread: Thread) -> Plugin;

    /// The next attempt of `request`, as the upstream filter sees it: to this address, with the request's number.
    fn attempt(&mut self, upstream: Plugin, request: &Self::Stream, address: &str) -> Self::Stream;

    fn tick(&mut self, plugin: Plugin);

    fn stream(&mut self, plugin: Plugin, headers: &[(&str, &[u8])]) -> Self::Stream;

    /// Nanoseconds since 1970.
    fn now(&self) -> u64;

    fn set_now(&mut self, nanoseconds: u64);

    fn advance(&mut self, by: Duration) {
        self.set_now(self.now() + by.as_nanos() as u64);
    }

    fn shared_keys(&self) -> Vec<String>;

    fn shared(&self, key: &str) -> Vec<u8>;

    fn set_shared(&mut self, key: &str, value: &[u8]);

    /// Sets the zone of the proxy's own node.
    fn set_node_zone(&mut self, zone: &str);

    /// Makes a cluster known, so that it can be called.
    fn add_cluster(&mut self, name: &str);

    /// Makes a cluster take no more requests, as if none of its hosts were healthy.
    fn block_cluster(&mut self, name: &str);

    /// Sets an environment variable for plugins that are loaded from now on.
    fn set_environment(&mut self, variable: &str, value: &str);

    /// The outstanding calls.
    fn calls(&self) -> Vec<Call>;

    fn answer(&mut self, call: &Call, answer: &Answer<'_>);

    fn logs(&self) -> Vec<String>;

    /// A counter among the host's own metrics, if it is defined.
    fn counter(&self, name: &str) -> Option<u64>;

    /// A gauge among the host's own metrics, if it is defined.
    fn gauge(&self, name: &str) -> Option<u64>;

    /// The samples of a histogram among the host's own metrics.
    fn histogram(&self, name: &str) -> Vec<u64>;
}

/// One HTTP stream, phase by phase. If it is dropped without [`done`](Stream::done) it stays in flight.
pub trait Stream {
    /// From now on parts may come in an order that Envoy never uses.
    fn disorder(&mut self) {}

    fn property(&mut self, path: &[&str], value: &[u8]);

    /// Request headers of a request without a body; whether it continues.
    fn request_headers(&mut self) -> bool {
        self.request_headers_of(true)
    }

    /// Request headers; `complete` if no body follows. Returns whether the request continues.
    fn request_headers_of(&mut self, complete: bool) -> bool;

    fn request_body(&mut self, last: bool);

    fn request_trailers(&mut self);

    /// Response headers before a body.
    fn response_headers(&mut self, headers: &[(&str, &[u8])]) {
        self.response_headers_of(headers, false);
    }

    /// Response headers; `complete` if nothing follows.
    fn response_headers_of(&mut self, headers: &[(&str, &[u8])], complete: bool);

    fn response_body(&mut self, last: bool) {
        self.response_part(b"part", last);
    }

    /// A part of the response's body with these bytes.
    fn response_part(&mut self, part: &[u8], last: bool);

    fn response_trailers(&mut self, trailers: &[(&str, &[u8])]);

    fn log(&mut self);

    fn done(&mut self);

    /// Every value of a request header, as the upstream would see it.
    fn request_values(&self, name: &str) -> Vec<Vec<u8>>;

    /// Every value of a response header, as the client would see it.
    fn response_values(&self, name: &str) -> Vec<Vec<u8>>;

    /// The response that the filter sent itself.
    fn local_response(&self) -> Option<(u32, Vec<(String, String)>)>;

    /// The body of the response that the filter sent itself.
    fn local_body(&self) -> Vec<u8>;
}
