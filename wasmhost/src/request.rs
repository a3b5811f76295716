//! One request, driven phase by phase in Envoy's order.

use crate::abi::{Action, buffer, map};
use crate::core::Core;
use crate::cost::Cost;
use crate::headers::Headers;
use crate::property::{PropertyValue, join};
use crate::stream::{LocalResponse, Stream};
use std::cell::RefCell;
use std::rc::Rc;

const GRPC: &str = "application/grpc";

/// The gRPC status of a local reply: as given, or as Envoy takes it from the HTTP status.
fn grpc_status(response: &LocalResponse) -> i32 {
    match (response.grpc_status, response.status) {
        (given @ 0..=16, _) => given,
        (_, 400) => 13,
        (_, 401) => 16,
        (_, 403) => 7,
        (_, 404) => 12,
        (_, 429 | 502..=504) => 14,
        _ => 2,
    }
}

/// What has come of a stream: Envoy never lets anything follow an end, or anything but headers come first.
#[derive(Debug, Default)]
struct Progress {
    /// Whether the request's headers are held, and its other parts with them.
    held: bool,
    /// Whether the test wants an order that Envoy never uses.
    disorderly: bool,
    request_over: bool,
    answered: bool,
    response_over: bool,
}

/// Whether these headers only announce the response: Envoy shows them to no plugin.
fn are_informational(headers: &Headers) -> bool {
    matches!(headers.get(":status"), Some(b"100" | b"102" | b"103"))
}

/// A stream context. Dropping it without [`Request::finish`] leaves the request in flight.
///
/// Its headers and costs stay readable after the guest has deleted its side.
#[derive(Debug)]
pub struct Request {
    core: Rc<RefCell<Core>>,
    root: u32,
    context: Option<u32>,
    stream: Rc<RefCell<Stream>>,
    costs: Vec<Cost>,
    progress: Progress,
    started: bool,
    logged: bool,
    done: bool,
    deleted: bool,
}

impl Request {
    pub(crate) fn new(core: Rc<RefCell<Core>>, root: u32, headers: Headers) -> Request {
        let mut stream = Stream::default();
        stream.maps[map::REQUEST_HEADERS as usize].headers = Some(headers);
        Request {
            core,
            root,
            context: None,
            stream: Rc::new(RefCell::new(stream)),
            costs: Vec::new(),
            progress: Progress::default(),
            started: false,
            logged: false,
            done: false,
            deleted: false,
        }
    }

    /// Sets a property, visible from the next phase on. No property is derived from the headers: set those that the
    /// guest reads.
    pub fn property(&mut self, path: &[&str], value: &(impl PropertyValue + ?Sized)) {
        self.stream.borrow_mut().properties.set(join(path), value.encode());
    }

    /// Copies the properties of another stream, as an upstream filter sees those of its request.
    pub fn share_properties(&mut self, other: &Request) {
        let other = other.stream.borrow();
        let (properties, state) = (other.properties.clone(), other.state.clone());
        drop(other);
        let mut stream = self.stream.borrow_mut();
        (stream.properties, stream.state) = (properties, state);
    }

    /// From now on parts may come in an order that Envoy never uses.
    pub fn disorder(&mut self) {
        self.progress.disorderly = true;
    }

    /// Request headers of a request without a body.
    pub fn headers_phase(&mut self) -> Action {
        self.request_headers(true)
    }

    /// Request headers; `end_of_stream` if no body follows.
    pub fn request_headers(&mut self, end_of_stream: bool) -> Action {
        assert!(!self.started, "request headers come once");
        self.started = true;
        self.progress.request_over = end_of_stream;
        let headers = self.headers();
        let action = self.headers_callback(
            "proxy_on_request_headers",
            map::REQUEST_HEADERS,
            headers,
            Some(end_of_stream),
        );
        self.progress.held = action == Action::Pause;
        action
    }

    /// Another part of the request comes, which is the last if it is `over`.
    fn request_goes_on(&mut self, over: bool) {
        let Progress { held, request_over, disorderly, .. } = &mut self.progress;
        assert!(*disorderly || !*request_over, "the request has ended");
        assert!(
            *disorderly || !*held || self.stream.borrow().resumed,
            "Envoy keeps the rest of a request that is held"
        );
        *request_over = over;
    }

    /// Another part of the response comes.
    fn response_goes_on(&mut self, over: bool) {
        let Progress { answered, response_over, disorderly, .. } = &mut self.progress;
        let goes_on = *disorderly || (*answered && !*response_over);
        assert!(goes_on, "this is no part of a response that has begun and not ended");
        *response_over = over;
    }

    /// A part of the request's body.
    pub fn request_body(&mut self, body: &[u8], end_of_stream: bool) -> Action {
        self.request_goes_on(end_of_stream);
        self.body_callback("proxy_on_request_body", buffer::REQUEST_BODY, body, end_of_stream)
    }

    /// Request trailers.
    pub fn request_trailers(&mut self, trailers: &[(&str, &str)]) -> Action {
        self.request_goes_on(true);
        let trailers = Headers::new(trailers);
        self.headers_callback("proxy_on_request_trailers", map::REQUEST_TRAILERS, trailers, None)
    }

    /// Response headers with `:status`; also for local replies of Envoy.
    pub fn response_headers(&mut self, headers: &[(&str, &str)], end_of_stream: bool) -> Action {
        self.response_headers_of(Headers::new(headers), end_of_stream)
    }

    /// Response headers whose values need not be text.
    pub fn response_headers_of(&mut self, headers: Headers, end_of_stream: bool) -> Action {
        if are_informational(&headers) {
            return Action::Continue;
        }
        assert!(self.progress.disorderly || !self.progress.answered, "a request has one response");
        (self.progress.answered, self.progress.response_over) = (true, end_of_stream);
        self.headers_callback(
            "proxy_on_response_headers",
            map::RESPONSE_HEADERS,
            headers,
            Some(end_of_stream),
        )
    }

    /// Response headers with only a status, which is also set as property `response.code`.
    pub fn respond(&mut self, status: u16) -> Action {
        self.property(&["response", "code"], &i64::from(status));
        self.response_headers(&[(":status", &status.to_string())], true)
    }

    /// A part of the response's body.
    pub fn response_body(&mut self, body: &[u8], end_of_stream: bool) -> Action {
        self.response_goes_on(end_of_stream);
        self.body_callback("proxy_on_response_body", buffer::RESPONSE_BODY, body, end_of_stream)
    }

    /// Response trailers.
    pub fn response_trailers(&mut self, trailers: &[(&str, &str)]) -> Action {
        self.response_trailers_of(Headers::new(trailers))
    }

    /// Response trailers whose values need not be text.
    pub fn response_trailers_of(&mut self, trailers: Headers) -> Action {
        self.response_goes_on(true);
        self.headers_callback("proxy_on_response_trailers", map::RESPONSE_TRAILERS, trailers, None)
    }

    /// Sends the guest's own response through the guest, as Envoy does, or in place of a response that had begun, past the
    /// guest; true if there was one.
    pub fn deliver_local_response(&mut self) -> bool {
        let Some(response) = self.local_response() else { return false };
        let grpc_status = grpc_status(&response).to_string();
        let mut headers = response.headers;
        let kind = self.header("content-type").unwrap_or_default();
        let is_grpc = kind == GRPC || kind.starts_with("application/grpc+");
        let status = if is_grpc { 200 } else { response.status };
        headers.replace(":status", status.to_string().as_bytes());
        self.property(&["response", "code"], &i64::from(status));
        self.property(&["response", "code_details"], response.details.as_str());
        let ends = is_grpc || response.body.is_empty();
        if is_grpc {
            headers.replace("content-type", GRPC.as_bytes());
            headers.replace("grpc-status", grpc_status.as_bytes());
            if !response.body.is_empty() {
                headers.replace("grpc-message", &response.body);
            }
        } else if !ends {
            headers.replace("content-length", response.body.len().to_string().as_bytes());
            if headers.get("content-type").is_none() {
                headers.add("content-type", b"text/plain");
            }
        }
        if self.stream.borrow().maps[map::RESPONSE_HEADERS as usize].headers.is_some() {
            self.stream.borrow_mut().sent = Some(headers);
            return true;
        }
        self.response_headers_of(headers, ends);
        if !ends {
            self.response_body(&response.body, true);
        }
        true
    }

    /// The access log phase. A stream without request headers is created in the guest only now.
    pub fn log(&mut self) {
        assert!(!self.logged && !self.done, "on_log comes once, before on_done");
        self.logged = true;
        let context = self.created();
        self.stream.borrow_mut().logging = true;
        self.call("proxy_on_log", &[context]);
        self.stream.borrow_mut().logging = false;
    }

    /// The end of the stream. Envoy deletes it next, whatever the guest returns.
    pub fn done(&mut self) -> bool {
        assert!(!self.done, "on_done comes once");
        self.done = true;
        self.context.and_then(|context| self.call("proxy_on_done", &[context])) != Some(0)
    }

    /// Deletes the stream in the guest and cancels its HTTP calls.
    pub fn delete(&mut self) {
        assert!(self.done && !self.deleted, "on_delete comes once, after on_done");
        self.deleted = true;
        if let Some(context) = self.context {
            self.call("proxy_on_delete", &[context]);
            self.core.borrow_mut().forget(context);
        }
    }

    /// Runs those of log, done and delete that have not run yet. Without response phases before, the client has
    /// cancelled.
    pub fn finish(&mut self) {
        if !self.logged && !self.done {
            self.log();
        }
        if !self.done {
            self.done();
        }
        if !self.deleted {
            self.delete();
        }
    }

    /// The request headers as they are now, for the upstream.
    pub fn headers(&self) -> Headers {
        self.map(map::REQUEST_HEADERS)
    }

    /// The first value of a request header, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers().text(name)
    }

    /// The response headers as they are now, for the client.
    pub fn response_map(&self) -> Headers {
        self.map(map::RESPONSE_HEADERS)
    }

    /// The first value of a response header as it is now, as text.
    pub fn response_header(&self, name: &str) -> Option<String> {
        self.map(map::RESPONSE_HEADERS).text(name)
    }

    /// The response that the guest sent itself.
    pub fn local_response(&self) -> Option<LocalResponse> {
        self.stream.borrow().local_response.clone()
    }

    /// Whether the guest has resumed the stream.
    pub fn is_resumed(&self) -> bool {
        self.stream.borrow().resumed
    }

    /// Whether the guest has reset the stream.
    pub fn is_reset(&self) -> bool {
        self.stream.borrow().reset
    }

    /// The cost of each callback of this request, in order.
    pub fn costs(&self) -> &[Cost] {
        &self.costs
    }

    /// Fuel used by all callbacks of this request.
    pub fn fuel(&self) -> u64 {
        self.costs.iter().map(|cost| cost.fuel).sum()
    }

    /// Number of times that this request's callbacks have used a hostcall.
    pub fn hostcalls(&self, name: &str) -> u64 {
        self.costs.iter().filter_map(|cost| cost.hostcalls.get(name)).sum()
    }

    fn map(&self, kind: u32) -> Headers {
        self.stream.borrow().maps[kind as usize].headers.clone().unwrap_or_default()
    }

    fn created(&mut self) -> u32 {
        if let Some(context) = self.context {
            return context;
        }
        let mut core = self.core.borrow_mut();
        let context = core.contexts().next_context();
        core.contexts().streams.insert(context, (self.root, self.stream.clone()));
        drop(core);
        self.context = Some(context);
        self.call("proxy_on_context_create", &[context, self.root]);
        context
    }

    fn headers_callback(
        &mut self,
        callback: &'static str,
        kind: u32,
        headers: Headers,
        end_of_stream: Option<bool>,
    ) -> Action {
        let count = headers.len() as u32;
        if self.started {
            // The guest learns of the stream before there is a map.
            self.created();
        }
        let mut stream = self.stream.borrow_mut();
        stream.maps[kind as usize].arrive(headers);
        stream.ended = end_of_stream.unwrap_or(stream.ended);
        drop(stream);
        let action = self.phase(callback, count, end_of_stream);
        if action == Action::Continue {
            // Envoy takes the map away as soon as the guest continues the stream.
            self.stream.borrow_mut().maps[kind as usize].open = false;
        }
        action
    }

    fn body_callback(
        &mut self,
        callback: &'static str,
        kind: u32,
        body: &[u8],
        end_of_stream: bool,
    ) -> Action {
        let mut stream = self.stream.borrow_mut();
        let whole = stream.bodies[kind as usize].get_or_insert_default();
        whole.extend_from_slice(body);
        let size = whole.len() as u32;
        drop(stream);
        self.stream.borrow_mut().ended = end_of_stream;
        let action = self.phase(callback, size, Some(end_of_stream));
        if action == Action::Continue {
            self.stream.borrow_mut().bodies[kind as usize] = None;
        }
        action
    }

    /// Runs a phase. As in Envoy's host, a stream without request headers has no phases.
    fn phase(&mut self, callback: &'static str, size: u32, end_of_stream: Option<bool>) -> Action {
        assert!(!self.logged && !self.done, "{callback} comes before on_log and on_done");
        if !self.started {
            return Action::Continue;
        }
        let context = self.created();
        let answered_before = self.local_response().is_some();
        let mut arguments = vec![context, size];
        arguments.extend(end_of_stream.map(u32::from));
        let asked = self.call(callback, &arguments).unwrap_or(0);
        let answers = self.local_response().is_some() && !answered_before;
        if asked == 0 && !answers { Action::Continue } else { Action::Pause }
    }

    fn call(&mut self, callback: &'static str, arguments: &[u32]) -> Option<u32> {
        let mut core = self.core.borrow_mut();
        let result = core.call(callback, arguments[0], arguments);
        self.costs.push(core.last_cost.clone());
        result
    }
}
