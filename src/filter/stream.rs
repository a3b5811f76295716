//! The stream context: one per request.

use core::cell::RefCell;
use std::rc::Rc;

use super::dispatch::{self, Action};
use super::host::Envoy;
use super::root::{self, Root};
use crate::request::{Flow, Stream};
use crate::worker::Worker;
use crate::worker::aside::Aside;

/// A request on its way through this worker.
pub struct HttpStream {
    worker: Option<Rc<RefCell<Worker>>>,
    aside: Option<Rc<Aside>>,
    /// The context of its root.
    root: u32,
    stream: Stream,
}

impl HttpStream {
    /// A stream of `root`'s worker, whose context is `id`; without a worker it lets everything pass.
    pub fn of(root: &Root, id: u32) -> HttpStream {
        let worker = root.worker();
        let aside = if worker.is_none() { root.aside() } else { None };
        HttpStream { worker, aside, root: id, stream: Stream::default() }
    }

    fn with<R>(&mut self, act: impl FnOnce(&mut Stream, &mut Worker) -> R) -> Option<R> {
        let mut worker = self.worker.as_ref()?.try_borrow_mut().ok()?;
        Some(act(&mut self.stream, &mut worker))
    }

    /// Request headers; `end` if nothing follows them.
    pub fn request_headers(&mut self, end: bool) -> Action {
        let root = self.root;
        let begin = |stream: &mut Stream, worker: &mut Worker| {
            worker.follow_attempts(root::following());
            worker.mark_decisions(root::are_several());
            let flow = stream.request_headers(worker, &Envoy, end);
            if worker.wakes() {
                dispatch::wake(root);
            }
            flow
        };
        let flow = match &self.aside {
            Some(aside) => Some(aside.request_headers(&Envoy)),
            None => self.with(begin),
        };
        match flow {
            Some(Flow::Answered) => Action::Pause,
            Some(Flow::Continue) | None => Action::Continue,
        }
    }

    /// A part of the body, or the trailers; `last` for the last part.
    pub fn request_body(&mut self, last: bool) {
        self.with(|stream, worker| stream.request_body(worker, &Envoy, last));
    }

    /// Response headers; `end` if nothing follows them.
    pub fn response_headers(&mut self, end: bool) {
        self.with(|stream, worker| stream.response_headers(worker, &Envoy, end));
    }

    /// A part of the body; `last` for the last part.
    pub fn response_body(&mut self, last: bool) {
        self.with(|stream, worker| stream.response_body(worker, &Envoy, last));
    }

    /// Response trailers.
    pub fn response_trailers(&mut self) {
        self.with(|stream, worker| stream.response_trailers(worker, &Envoy));
    }

    /// The end of the request, for whatever reason.
    pub fn finish(&mut self) {
        self.with(|stream, worker| stream.finish(worker, &Envoy));
    }
}
