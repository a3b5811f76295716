//! The world around the library: the same surroundings as Envoy's, in plain Rust.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};

use engine::time::Time;
use evenkeel::host::{self, CallError, Host, MetricKind, SharedError, StreamHost};
use evenkeel::request::Flow;
use evenkeel::worker::Worker;

use crate::world::{Answer, Call, Plugin, Stream, Thread, World};

/// A guest must not rely on a clock that starts at zero.
const START: u64 = 1_800_000_000_000_000_000;

#[derive(Default)]
struct State {
    now: u64,
    shared: BTreeMap<String, (Vec<u8>, u32)>,
    last_version: u32,
    clusters: BTreeSet<String>,
    blocked: BTreeSet<String>,
    environment: BTreeMap<String, String>,
    calls: Vec<(Call, usize)>,
    last_token: u32,
    logs: Vec<String>,
    node_zone: Option<String>,
    /// By number: kind, name, and what it has been told.
    metrics: Vec<(MetricKind, String, Vec<u64>)>,
}

impl State {
    fn metric(&self, kind: MetricKind, name: &str) -> Option<&[u64]> {
        let found = self.metrics.iter().find(|(k, n, _)| (*k, n.as_str()) == (kind, name));
        found.map(|(_, _, values)| values.as_slice())
    }
}

pub struct Native {
    state: Rc<RefCell<State>>,
    seed: u64,
    threads: usize,
    plugins: Vec<Loaded>,
    following: Vec<Thread>,
}

struct Loaded {
    thread: Thread,
    name: String,
    worker: Rc<RefCell<Worker>>,
}

/// The part of the filter that a stream goes through.
enum Part {
    Downstream(evenkeel::request::Stream),
    Upstream(evenkeel::request::UpstreamAttempt),
}

/// The [`Host`] of one plugin configuration.
struct Surroundings<'a> {
    state: &'a RefCell<State>,
    thread: Thread,
    plugin: usize,
}

impl Host for Surroundings<'_> {
    fn now(&self) -> Time {
        Time(self.state.borrow().now)
    }

    fn shared_get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.state.borrow().shared.get(key).filter(|(value, _)| !value.is_empty()).cloned()
    }

    fn shared_set(&self, key: &str, value: &[u8], version: Option<u32>) -> Result<(), SharedError> {
        let mut state = self.state.borrow_mut();
        let current = state.shared.get(key).map(|(_, version)| *version);
        if version.is_some_and(|version| current.is_some_and(|current| current != version)) {
            return Err(SharedError::Conflict);
        }
        state.last_version += 1;
        let version = state.last_version;
        state.shared.insert(key.into(), (value.into(), version));
        Ok(())
    }

    fn call(&self, call: &host::Call<'_>) -> Result<u32, CallError> {
        let mut state = self.state.borrow_mut();
        if !state.clusters.contains(call.cluster) {
            return Err(CallError::UnknownCluster);
        }
        if state.blocked.contains(call.cluster) {
            return Err(CallError::NotSent);
        }
        state.last_token += 1;
        let token = state.last_token;
        let call = Call {
            thread: self.thread,
            token,
            cluster: call.cluster.into(),
            authority: call.authority.into(),
            path: call.path.into(),
            headers: call.headers.to_vec(),
            form: call.form.map(str::to_owned),
            timeout: call.timeout,
        };
        state.calls.push((call, self.plugin));
        Ok(token)
    }

    fn environment(&self, variable: &str) -> Option<String> {
        self.state.borrow().environment.get(variable).cloned()
    }

    fn node_zone(&self) -> Option<String> {
        self.state.borrow().node_zone.clone()
    }

    fn log(&self, _level: log::Level, message: &str) {
        self.state.borrow_mut().logs.push(message.into());
    }

    fn metric(&self, kind: MetricKind, name: &str) -> Option<u32> {
        let metrics = &mut self.state.borrow_mut().metrics;
        let known = metrics.iter().position(|(k, n, _)| (*k, n.as_str()) == (kind, name));
        let at = known.unwrap_or_else(|| {
            metrics.push((kind, name.into(), Vec::new()));
            metrics.len() - 1
        });
        Some(at as u32)
    }

    fn count(&self, metric: u32, by: u64) {
        assert!(by > 0, "Envoy refuses to add nothing");
        let (kind, _, values) = &mut self.state.borrow_mut().metrics[metric as usize];
        assert_eq!(*kind, MetricKind::Counter);
        values.push(by);
    }

    fn record(&self, metric: u32, value: u64) {
        let (kind, _, values) = &mut self.state.borrow_mut().metrics[metric as usize];
        assert_ne!(*kind, MetricKind::Counter);
        values.push(value);
    }
}

impl Native {
    fn on<R>(&self, plugin: usize, act: impl FnOnce(&mut Worker, &dyn Host) -> R) -> R {
        let loaded = &self.plugins[plugin];
        let host = Surroundings { state: &self.state, thread: loaded.thread, plugin };
        act(&mut loaded.worker.borrow_mut(), &host)
    }
}

impl World for Native {
    type Stream = NativeStream;

    fn new(seed: u64) -> Native {
        let state = State { now: START, ..State::default() };
        Native {
            state: Rc::new(RefCell::new(state)),
            seed,
            threads: 0,
            plugins: Vec::new(),
            following: Vec::new(),
        }
    }

    fn thread(&mut self) -> Thread {
        self.threads += 1;
        Thread(self.threads - 1)
    }

    fn configure(&mut self, thread: Thread, name: &str, json: &str) -> Result<Plugin, Vec<String>> {
        let plugin = self.plugins.len();
        let host = Surroundings { state: &self.state, thread, plugin };
        let seed = self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ plugin as u64;
        let mut worker = Worker::configure(&host, json.as_bytes(), name, seed).map_err(|faults| {
            faults.iter().map(|fault| format!("configuration refused: {fault}")).collect::<Vec<_>>()
        })?;
        let old = self.plugins.iter().rev().find(|other| other.thread == thread && other.name == name);
        if let Some(old) = old {
            worker.take_over(&mut old.worker.borrow_mut(), host.now());
        }
        worker.follow_attempts(self.following.contains(&thread));
        self.plugins.push(Loaded { thread, name: name.into(), worker: Rc::new(RefCell::new(worker)) });
        Ok(Plugin(plugin))
    }

    fn thread_of(&self, plugin: Plugin) -> Thread {
        self.plugins[plugin.0].thread
    }

    /// Upstream filters have no worker of their own: the number is the thread's.
    fn follow(&mut self, thread: Thread) -> Plugin {
        self.following.push(thread);
        self.plugins
            .iter()
            .filter(|p| p.thread == thread)
            .for_each(|p| p.worker.borrow_mut().follow_attempts(true));
        Plugin(thread.0)
    }

    fn attempt(&mut self, upstream: Plugin, request: &NativeStream, address: &str) -> NativeStream {
        let properties = request.maps.borrow().properties.clone();
        let maps = Maps { request: request.maps.borrow().request.clone(), properties, ..Maps::default() };
        let maps = RefCell::new(maps);
        let workers =
            self.plugins.iter().filter(|p| p.thread == Thread(upstream.0)).map(|p| p.worker.clone());
        let now = self.state.borrow().now;
        let of = (Thread(upstream.0), upstream);
        let surroundings = Surroundings { state: &self.state, thread: of.0, plugin: upstream.0 };
        let worker =
            evenkeel::request::UpstreamAttempt::worker_of(&Phase { now, maps: &maps, surroundings }, workers);
        let worker = worker.map_or_else(Weak::new, |worker| Rc::downgrade(&worker));
        let part = Part::Upstream(evenkeel::request::UpstreamAttempt::default());
        let mut attempt = NativeStream { state: self.state.clone(), of, worker, part, maps };
        attempt.property(&["upstream", "address"], address.as_bytes());
        attempt
    }

    fn tick(&mut self, plugin: Plugin) {
        self.on(plugin.0, |worker, host| worker.tick(host));
    }

    fn stream(&mut self, plugin: Plugin, headers: &[(&str, &[u8])]) -> NativeStream {
        let maps = Maps { request: own(headers), ..Maps::default() };
        NativeStream {
            state: self.state.clone(),
            of: (self.plugins[plugin.0].thread, plugin),
            worker: Rc::downgrade(&self.plugins[plugin.0].worker),
            part: Part::Downstream(evenkeel::request::Stream::default()),
            maps: RefCell::new(maps),
        }
    }

    fn now(&self) -> u64 {
        self.state.borrow().now
    }

    fn set_now(&mut self, nanoseconds: u64) {
        self.state.borrow_mut().now = nanoseconds;
    }

    fn shared_keys(&self) -> Vec<String> {
        self.state.borrow().shared.keys().cloned().collect()
    }

    fn shared(&self, key: &str) -> Vec<u8> {
        self.state.borrow().shared.get(key).map(|(value, _)| value.clone()).unwrap_or_default()
    }

    fn set_shared(&mut self, key: &str, value: &[u8]) {
        let mut state = self.state.borrow_mut();
        state.last_version += 1;
        let version = state.last_version;
        state.shared.insert(key.into(), (value.into(), version));
    }

    fn set_node_zone(&mut self, zone: &str) {
        self.state.borrow_mut().node_zone = Some(zone.into());
    }

    fn add_cluster(&mut self, name: &str) {
        self.state.borrow_mut().clusters.insert(name.into());
    }

    fn block_cluster(&mut self, name: &str) {
        self.state.borrow_mut().blocked.insert(name.into());
    }

    fn set_environment(&mut self, variable: &str, value: &str) {
        self.state.borrow_mut().environment.insert(variable.into(), value.into());
    }

    fn calls(&self) -> Vec<Call> {
        self.state.borrow().calls.iter().map(|(call, _)| call.clone()).collect()
    }

    fn answer(&mut self, call: &Call, answer: &Answer<'_>) {
        let mut state = self.state.borrow_mut();
        let at = state.calls.iter().position(|(other, _)| other == call).expect("an outstanding call");
        let (call, plugin) = state.calls.remove(at);
        drop(state);
        let (status, body): (_, &[u8]) = match answer {
            Answer::Http(status, body) => (Some(u32::from(*status)), body),
            Answer::NoStatus(_) => (None, b"{}"),
            Answer::Failed => (None, b""),
        };
        self.on(plugin, |worker, host| worker.call_answered(host, call.token, status, &body));
    }

    fn logs(&self) -> Vec<String> {
        self.state.borrow().logs.clone()
    }

    fn counter(&self, name: &str) -> Option<u64> {
        self.state.borrow().metric(MetricKind::Counter, name).map(|added| added.iter().sum())
    }

    fn gauge(&self, name: &str) -> Option<u64> {
        self.state.borrow().metric(MetricKind::Gauge, name)?.last().copied()
    }

    fn histogram(&self, name: &str) -> Vec<u64> {
        self.state.borrow().metric(MetricKind::Histogram, name).unwrap_or_default().to_vec()
    }
}

/// Header names with values, in order.
type HeaderMap = Vec<(String, Vec<u8>)>;

/// The header map that the running callback may touch; in the access log phase all can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Open {
    #[default]
    Nothing,
    Request,
    Response,
    Trailers,
    Log,
}

#[derive(Default)]
struct Maps {
    open: Open,
    request: HeaderMap,
    response: HeaderMap,
    trailers: HeaderMap,
    properties: BTreeMap<Vec<String>, Vec<u8>>,
    answered: Option<(u32, Vec<(String, String)>)>,
    body: Vec<u8>,
    /// The part of the response's body that passes.
    part: Vec<u8>,
}

pub struct NativeStream {
    state: Rc<RefCell<State>>,
    of: (Thread, Plugin),
    worker: Weak<RefCell<Worker>>,
    part: Part,
    maps: RefCell<Maps>,
}

/// The [`StreamHost`] of one stream.
struct Phase<'a> {
    now: u64,
    maps: &'a RefCell<Maps>,
    surroundings: Surroundings<'a>,
}

fn own(headers: &[(&str, &[u8])]) -> HeaderMap {
    headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect()
}

fn all(map: &HeaderMap, name: &str) -> Vec<Vec<u8>> {
    map.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
}

fn first(map: &HeaderMap, name: &str) -> Option<Vec<u8>> {
    all(map, name).into_iter().next()
}

impl Phase<'_> {
    /// A header map outside its phase is nothing that the filter may ask for: Envoy refuses it.
    fn may_write(&self, map: Open, name: &str) {
        let open = self.maps.borrow().open;
        assert_eq!(open, map, "{name} is asked for outside its phase");
    }

    fn may_read(&self, map: Open, name: &str) {
        if self.maps.borrow().open != Open::Log {
            self.may_write(map, name);
        }
    }
}

impl StreamHost for Phase<'_> {
    fn now(&self) -> Time {
        Time(self.now)
    }

    fn request_header(&self, name: &str) -> Option<Vec<u8>> {
        self.may_read(Open::Request, name);
        first(&self.maps.borrow().request, name)
    }

    fn request_headers(&self, name: &str) -> Vec<Vec<u8>> {
        self.may_read(Open::Request, name);
        all(&self.maps.borrow().request, name)
    }

    fn set_request_header(&self, name: &str, value: &[u8]) {
        self.remove_request_header(name);
        self.maps.borrow_mut().request.push((name.into(), value.into()));
    }

    fn remove_request_header(&self, name: &str) {
        self.may_write(Open::Request, name);
        self.maps.borrow_mut().request.retain(|(key, _)| key != name);
    }

    fn response_header(&self, name: &str) -> Option<Vec<u8>> {
        self.may_read(Open::Response, name);
        first(&self.maps.borrow().response, name)
    }

    fn response_headers(&self, name: &str) -> Vec<Vec<u8>> {
        self.may_read(Open::Response, name);
        all(&self.maps.borrow().response, name)
    }

    fn response_body_end(&self, most: usize) -> Vec<u8> {
        let part = &self.maps.borrow().part;
        part[part.len().saturating_sub(most)..].to_vec()
    }

    fn add_response_header(&self, name: &str, value: &[u8]) {
        self.may_write(Open::Response, name);
        self.maps.borrow_mut().response.push((name.into(), value.into()));
    }

    fn remove_response_header(&self, name: &str) {
        self.may_write(Open::Response, name);
        self.maps.borrow_mut().response.retain(|(key, _)| key != name);
    }

    fn response_trailer(&self, name: &str) -> Option<Vec<u8>> {
        self.may_read(Open::Trailers, name);
        first(&self.maps.borrow().trailers, name)
    }

    fn property(&self, path: &[&str]) -> Option<Vec<u8>> {
        let path: Vec<String> = path.iter().map(|part| (*part).into()).collect();
        self.maps.borrow().properties.get(&path).cloned()
    }

    fn set_property(&self, path: &[&str], value: &[u8]) {
        let path = path.iter().map(|part| (*part).into()).collect();
        self.maps.borrow_mut().properties.insert(path, value.into());
    }

    fn respond(&self, status: u32, headers: &[(&str, &str)], body: &[u8]) {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        self.maps.borrow_mut().answered = Some((status, headers));
        self.maps.borrow_mut().body = body.to_vec();
    }

    fn process(&self) -> &dyn Host {
        &self.surroundings
    }
}

/// Does to whichever part the stream has what both can do.
macro_rules! either {
    ($self:ident, $open:expr, |$part:ident, $worker:ident, $host:ident| $act:expr) => {
        if let Some(worker) = $self.worker.upgrade() {
            let now = $self.state.borrow().now;
            let (thread, Plugin(plugin)) = $self.of;
            let surroundings = Surroundings { state: &$self.state, thread, plugin };
            let phase = Phase { now, maps: &$self.maps, surroundings };
            let ($worker, $host) = (&mut *worker.borrow_mut(), &phase);
            $self.maps.borrow_mut().open = $open;
            match &mut $self.part {
                Part::Downstream($part) => _ = $act,
                Part::Upstream($part) => _ = $act,
            }
            $self.maps.borrow_mut().open = Open::Nothing;
        }
    };
}

impl Stream for NativeStream {
    fn property(&mut self, path: &[&str], value: &[u8]) {
        let path = path.iter().map(|part| (*part).into()).collect();
        self.maps.borrow_mut().properties.insert(path, value.into());
    }

    fn request_headers_of(&mut self, complete: bool) -> bool {
        let Some(worker) = self.worker.upgrade() else { return true };
        let (thread, Plugin(plugin)) = self.of;
        let surroundings = Surroundings { state: &self.state, thread, plugin };
        let host = Phase { now: self.state.borrow().now, maps: &self.maps, surroundings };
        self.maps.borrow_mut().open = Open::Request;
        let goes_on = match &mut self.part {
            Part::Downstream(stream) => {
                stream.request_headers(&mut worker.borrow_mut(), &host, complete) == Flow::Continue
            }
            Part::Upstream(attempt) => {
                attempt.request_headers(&mut worker.borrow_mut(), &host, complete);
                true
            }
        };
        self.maps.borrow_mut().open = Open::Nothing;
        goes_on
    }

    fn request_body(&mut self, last: bool) {
        either!(self, Open::Nothing, |part, worker, host| part.request_body(worker, host, last));
    }

    fn request_trailers(&mut self) {
        self.request_body(true);
    }

    fn response_headers_of(&mut self, headers: &[(&str, &[u8])], complete: bool) {
        self.maps.borrow_mut().response = own(headers);
        either!(self, Open::Response, |part, worker, host| part.response_headers(worker, host, complete));
    }

    fn response_part(&mut self, part: &[u8], last: bool) {
        self.maps.borrow_mut().part = part.to_vec();
        either!(self, Open::Nothing, |part, worker, host| part.response_body(worker, host, last));
    }

    fn response_trailers(&mut self, trailers: &[(&str, &[u8])]) {
        self.maps.borrow_mut().trailers = own(trailers);
        either!(self, Open::Trailers, |part, worker, host| part.response_trailers(worker, host));
    }

    fn log(&mut self) {
        // Upstream filters have no access log phase.
        if matches!(self.part, Part::Downstream(_)) {
            either!(self, Open::Log, |part, worker, host| part.finish(worker, host));
        }
    }

    fn done(&mut self) {
        either!(self, Open::Nothing, |part, worker, host| part.finish(worker, host));
    }

    fn request_values(&self, name: &str) -> Vec<Vec<u8>> {
        all(&self.maps.borrow().request, name)
    }

    fn response_values(&self, name: &str) -> Vec<Vec<u8>> {
        all(&self.maps.borrow().response, name)
    }

    fn local_response(&self) -> Option<(u32, Vec<(String, String)>)> {
        self.maps.borrow().answered.clone()
    }

    fn local_body(&self) -> Vec<u8> {
        self.maps.borrow().body.clone()
    }
}
