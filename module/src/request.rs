//! One request on its way through a worker.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use evenkeel::host::StreamHost;
pub use evenkeel::request::Flow;
use evenkeel::request::Stream;
use evenkeel::worker::Worker;

use crate::abi::{self, Map, StreamHandle};
use crate::attached::Attached;
use crate::guard::guarded;
use crate::host::Surroundings;
use crate::plugin;

/// A stream, from its creation to its end.
pub struct Request {
    attached: Arc<Attached>,
    /// Which worker it is with.
    seat: usize,
    state: RefCell<State>,
    /// Why Envoy answers by itself, where it does and its version does not tell otherwise.
    details: RefCell<Option<Vec<u8>>>,
}

#[derive(Default)]
struct State {
    stream: Stream,
    /// Which one of the workers that had this seat, once there was an event.
    generation: Option<u64>,
    /// It has ended, or what it knows is of a worker that is no more.
    over: bool,
}

impl Request {
    /// A stream of this configuration.
    pub fn of(attached: Arc<Attached>) -> Request {
        let seat = plugin::place(attached.plugin.workers());
        Request { attached, seat, state: RefCell::default(), details: RefCell::default() }
    }

    /// Does something to the stream with its worker. An event that comes in the middle of another one passes.
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
            let mut seat = self.attached.plugin.seat(self.seat)?;
            if *state.generation.get_or_insert(seat.generation) != seat.generation {
                state.over = true;
                return None;
            }
            let result = act(&mut state.stream, &mut seat.worker, &surroundings);
            drop(seat);
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
            self.attached.plugin.panicked(&self.attached, self.seat);
            None
        })
    }

    /// Request headers; `end` where nothing follows them.
    pub fn request_headers(&self, stream: StreamHandle, end: bool) -> Flow {
        if self.attached.plugin.workers() == 0 {
            return self.pass(stream);
        }
        let wakes = Cell::new(false);
        let begin = |its: &mut Stream, worker: &mut Worker, host: &dyn StreamHost| {
            #[cfg(debug_assertions)]
            provoked(host);
            let flow = its.request_headers(worker, host, end);
            wakes.set(worker.wakes());
            flow
        };
        let flow = self.with(Some(stream), begin);
        if wakes.get() {
            self.attached.plugin.hurry();
        }
        flow.unwrap_or_else(|| {
            // A client's steering header must not reach what follows, whatever has become of the worker.
            stream.set_header(Map::RequestHeaders, &self.attached.plugin.header, None);
            Flow::Continue
        })
    }

    /// Lets a request pass that a refused configuration has nothing for.
    fn pass(&self, stream: StreamHandle) -> Flow {
        let surroundings = Surroundings {
            process: self.attached.process(None),
            stream: Some(stream),
            by_call: false,
            details: None,
            reply: RefCell::new(None),
        };
        let pass = || self.attached.aside(|aside| aside.request_headers(&surroundings));
        let verdict = guarded(pass, || None).unwrap_or(Flow::Continue);
        surroundings.reply.take().into_iter().for_each(|reply| reply.give(stream));
        verdict
    }

    /// A part of the body, or the trailers.
    pub fn request_body(&self, stream: StreamHandle, last: bool) {
        self.with(Some(stream), |its, worker, host| its.request_body(worker, host, last));
    }

    /// Envoy answers by itself, for this reason. That may come in the middle of another event.
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

    /// Response headers; `end` where nothing follows them.
    pub fn response_headers(&self, stream: StreamHandle, end: bool) {
        if !abi::tells_all() {
            // Nothing was said before of an answer of Envoy's own.
            self.note(b"via_upstream");
        }
        self.with(Some(stream), |its, worker, host| its.response_headers(worker, host, end));
    }

    /// A part of the body.
    pub fn response_body(&self, stream: StreamHandle, last: bool) {
        self.with(Some(stream), |its, worker, host| its.response_body(worker, host, last));
    }

    /// Response trailers.
    pub fn response_trailers(&self, stream: StreamHandle) {
        self.with(Some(stream), |its, worker, host| its.response_trailers(worker, host));
    }

    /// The end, whichever way it came.
    pub fn finish(&self, stream: StreamHandle) {
        self.ended(Some(stream));
        guarded(|| self.attached.defined.record_with(stream), || ());
    }

    /// Envoy destroys the stream; where it has not said before that it is complete, nothing more can be learnt of it.
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

/// Tests of what a panic does provoke one, in a build that is none for use.
#[cfg(debug_assertions)]
#[expect(clippy::panic, reason = "it is asked for")]
fn provoked(host: &dyn StreamHost) {
    if host.request_header("x-evenkeel-test-panic").is_some() {
        panic!("a test asked for it");
    }
}
