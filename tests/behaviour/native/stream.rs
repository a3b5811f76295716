//! One stream: its header maps, which the filter may use only in their phases.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Weak;

use engine::time::Time;
use evenkeel::host::{Bytes, Host, StreamHost};
use evenkeel::request::Flow;
use evenkeel::worker::Worker;

use super::{Common, Surroundings};
use crate::world::{Gate, Plugin, Stream, Thread};

/// The part of the filter that a stream goes through.
pub(super) enum Part {
    Downstream(evenkeel::request::Stream),
    Upstream(evenkeel::request::UpstreamAttempt),
}

/// Header names with values, in order.
pub(super) type HeaderMap = Vec<(String, Vec<u8>)>;

/// The header map that the running callback may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Open {
    #[default]
    Nothing,
    Request,
    Response,
    Trailers,
}

#[derive(Default)]
pub(super) struct Maps {
    pub(super) open: Open,
    pub(super) request: HeaderMap,
    pub(super) response: HeaderMap,
    pub(super) trailers: HeaderMap,
    pub(super) properties: BTreeMap<Vec<String>, Vec<u8>>,
    pub(super) answered: Option<(u32, Vec<(String, String)>)>,
    pub(super) body: Vec<u8>,
    /// The part of the response's body that is passing.
    pub(super) part: Vec<u8>,
}

pub struct NativeStream {
    pub(super) state: Common,
    pub(super) gate: Option<Gate>,
    pub(super) of: (Thread, Plugin),
    pub(super) worker: Weak<RefCell<Worker>>,
    pub(super) part: Part,
    pub(super) maps: RefCell<Maps>,
}

/// The [`StreamHost`] of one stream.
pub(super) struct Phase<'a> {
    pub(super) now: u64,
    pub(super) maps: &'a RefCell<Maps>,
    pub(super) surroundings: Surroundings<'a>,
}

pub(super) fn own(headers: &[(&str, &[u8])]) -> HeaderMap {
    headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect()
}

fn all(map: &HeaderMap, name: &str) -> Vec<Vec<u8>> {
    map.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
}

fn first(map: &HeaderMap, name: &str) -> Option<Vec<u8>> {
    all(map, name).into_iter().next()
}

impl Phase<'_> {
    /// The filter must not ask for a header map outside its phase: Envoy refuses that.
    fn may_touch(&self, map: Open, name: &str) {
        let open = self.maps.borrow().open;
        assert_eq!(open, map, "{name} is asked for outside its phase");
    }
}

impl StreamHost for Phase<'_> {
    fn now(&self) -> Time {
        Time(self.now)
    }

    fn request_header(&self, name: &str) -> Option<Bytes> {
        self.may_touch(Open::Request, name);
        first(&self.maps.borrow().request, name).map(Bytes::from)
    }

    fn request_headers(&self, name: &str) -> Vec<Vec<u8>> {
        self.may_touch(Open::Request, name);
        all(&self.maps.borrow().request, name)
    }

    fn set_request_header(&self, name: &str, value: &[u8]) {
        self.remove_request_header(name);
        self.maps.borrow_mut().request.push((name.into(), value.into()));
    }

    fn remove_request_header(&self, name: &str) {
        self.may_touch(Open::Request, name);
        self.maps.borrow_mut().request.retain(|(key, _)| key != name);
    }

    fn response_header(&self, name: &str) -> Option<Bytes> {
        self.may_touch(Open::Response, name);
        first(&self.maps.borrow().response, name).map(Bytes::from)
    }

    fn response_headers(&self, name: &str) -> Vec<Vec<u8>> {
        self.may_touch(Open::Response, name);
        all(&self.maps.borrow().response, name)
    }

    fn response_body_end(&self, most: usize) -> Vec<u8> {
        let part = &self.maps.borrow().part;
        part[part.len().saturating_sub(most)..].to_vec()
    }

    fn add_response_header(&self, name: &str, value: &[u8]) {
        self.may_touch(Open::Response, name);
        self.maps.borrow_mut().response.push((name.into(), value.into()));
    }

    fn remove_response_header(&self, name: &str) {
        self.may_touch(Open::Response, name);
        self.maps.borrow_mut().response.retain(|(key, _)| key != name);
    }

    fn response_trailer(&self, name: &str) -> Option<Bytes> {
        self.may_touch(Open::Trailers, name);
        first(&self.maps.borrow().trailers, name).map(Bytes::from)
    }

    fn property(&self, path: &[&str]) -> Option<Bytes> {
        // Envoy reads these from the header map, so they are absent once it is closed.
        if let ["request", "headers", name] = path {
            return self.request_header(name);
        }
        let path: Vec<String> = path.iter().map(|part| (*part).into()).collect();
        self.maps.borrow().properties.get(&path).map(|value| value.as_slice().into())
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

/// Calls the same method on either part of the filter.
macro_rules! either {
    ($self:ident, $open:expr, |$part:ident, $worker:ident, $host:ident| $act:expr) => {
        if let Some(worker) = $self.worker.upgrade() {
            let (thread, Plugin(plugin)) = $self.of;
            let now = $self.state.now(thread);
            let gate = $self.gate.as_ref();
            let surroundings = Surroundings { state: &$self.state, gate, thread, plugin };
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
        let surroundings = Surroundings { state: &self.state, gate: self.gate.as_ref(), thread, plugin };
        let host = Phase { now: self.state.now(thread), maps: &self.maps, surroundings };
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
        // The filter does not use it.
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
