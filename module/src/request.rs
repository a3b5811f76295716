//! One request: passes its events to a worker.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use evenkeel::host::StreamHost;
pub use evenkeel::request::Flow;
use evenkeel::request::{Stream, strip};
use evenkeel::worker::Worker;

use crate::abi::{self, StreamHandle};
use crate::attached::Attached;
use crate::guard::guarded;
use crate::host::Surroundings;
use crate::{plugin, registry};

/// A stream, from its creation to its destruction.
pub struct Request {
    attached: Arc<Attached>,
    /// Index of its worker.
    slot: usize,
    state: RefCell<State>,
    /// Response code details of a local reply, for versions of Envoy without the attribute.
    details: RefCell<Option<Vec<u8>>>,
}

#[derive(Default)]
struct State {
    stream: Stream,
    /// Generation of the worker at the first event.
    generation: Option<u64>,
    /// Whether it has ended, or its worker was restarted.
    over: bool,
}

impl Request {
    /// Creates a stream of this configuration.
    pub fn of(attached: Arc<Attached>) -> Request {
        let slot = plugin::place(attached.plugin.workers());
        Request { attached, slot, state: RefCell::default(), details: RefCell::default() }
    }

    /// Runs `act` on the stream with its worker. A nested event is ignored.
    fn with<R>(
        &self,
        stream: Option<StreamHandle>,
        act: impl FnOnce(&mut Stream, &mut Worker, &dyn StreamHost) -> R,
    ) -> Option<R> {
        let work = || {
            let mut state = self.state.try_borrow_mut().ok().filter(|state| !state.over)?;
            let surroundings = Surroundings {
                process: self.attached.process(None),
                stream,
                by_call: self.attached.plugin.by_call,
                details: self.details.try_borrow().ok().and_then(|details| details.clone()),
                reply: RefCell::new(None),
            };
            let mut slot = self.attached.plugin.slot(self.slot)?;
            if *state.generation.get_or_insert(slot.generation) != slot.generation {
                state.over = true;
                return None;
            }
            let result = act(&mut state.stream, &mut slot.worker, &surroundings);
            drop(slot);
            drop(state);
            if let (Some(reply), Some(stream)) = (surroundings.reply.take(), stream) {
                reply.give(stream);
            }
            Some(result)
        };
        guarded(work, || {
            if let Ok(mut state) = self.state.try_borrow_mut() {
                state.over = true;
            }
            self.attached.plugin.panicked(&self.attached, self.slot);
            None
        })
    }

    /// Request headers; `end` if nothing follows them.
    pub fn request_headers(&self, stream: StreamHandle, end: bool) -> Flow {
        if self.attached.plugin.workers() == 0 {
            return self.pass(stream);
        }
        let wakes = Cell::new(false);
        let begin = |its: &mut Stream, worker: &mut Worker, host: &dyn StreamHost| {
            #[cfg(debug_assertions)]
            crate::guard::provoked(host.request_header("x-evenkeel-test-panic").is_some());
            worker.mark_decisions(registry::are_several());
            let flow = its.request_headers(worker, host, end);
            wakes.set(worker.wakes());
            flow
        };
        let flow = self.with(Some(stream), begin);
        if wakes.get() {
            self.attached.plugin.hurry();
        }
        flow.unwrap_or_else(|| {
            // A client's steering header must not be passed on, whatever the state of the worker.
            let strip = || strip(&self.attached.plugin.header, &self.without_worker(stream));
            guarded(strip, || ());
            Flow::Continue
        })
    }

    fn without_worker(&self, stream: StreamHandle) -> Surroundings<'_> {
        Surroundings {
            process: self.attached.process(None),
            stream: Some(stream),
            by_call: false,
            details: None,
            reply: RefCell::new(None),
        }
    }

    /// Lets a request pass that has no worker because the configuration was refused.
    fn pass(&self, stream: StreamHandle) -> Flow {
        let surroundings = self.without_worker(stream);
        let pass = || self.attached.aside(|aside| aside.request_headers(&surroundings));
        let verdict = guarded(pass, || None).unwrap_or(Flow::Continue);
        surroundings.reply.take().into_iter().for_each(|reply| reply.give(stream));
        verdict
    }

    /// A part of the request body, or the trailers.
    pub fn request_body(&self, stream: StreamHandle, last: bool) {
        self.with(Some(stream), |its, worker, host| its.request_body(worker, host, last));
    }

    /// Envoy sends a local reply with these details; possibly during another event.
    pub fn local_reply(&self, details: &[u8]) {
        if !abi::tells_all() {
            self.note(details);
        }
    }

    fn note(&self, details: &[u8]) {
        if let Ok(mut noted) = self.details.try_borrow_mut() {
            noted.get_or_insert_with(|| details.to_vec());
        }
    }

    /// Response headers; `end` if nothing follows them.
    pub fn response_headers(&self, stream: StreamHandle, end: bool) {
        if !abi::tells_all() {
            // No local reply was announced before, so the answer is from the upstream.
            self.note(b"via_upstream");
        }
        self.with(Some(stream), |its, worker, host| its.response_headers(worker, host, end));
    }

    /// A part of the response body.
    pub fn response_body(&self, stream: StreamHandle, last: bool) {
        self.with(Some(stream), |its, worker, host| its.response_body(worker, host, last));
    }

    /// Response trailers.
    pub fn response_trailers(&self, stream: StreamHandle) {
        self.with(Some(stream), |its, worker, host| its.response_trailers(worker, host));
    }

    /// The end of the stream, however it came.
    pub fn finish(&self, stream: StreamHandle) {
        self.ended(Some(stream));
        guarded(|| self.attached.defined.record_with(stream), || ());
    }

    /// Envoy destroys the stream. If it was not completed before, nothing more can be queried about it.
    pub fn end(self) {
        self.ended(None);
    }

    fn ended(&self, stream: Option<StreamHandle>) {
        let begun = |state: &State| state.generation.is_some() && !state.over;
        if self.state.try_borrow().is_ok_and(|state| begun(&state)) {
            self.with(stream, |its, worker, host| its.finish(worker, host));
            if let Ok(mut state) = self.state.try_borrow_mut() {
                state.over = true;
            }
        }
    }
}
