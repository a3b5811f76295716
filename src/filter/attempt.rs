//! The stream context of upstream filters: one per attempt.

use core::cell::RefCell;
use std::rc::Rc;

use super::host::Envoy;
use super::root;
use crate::request::UpstreamAttempt;
use crate::worker::Worker;

/// An attempt on its way to an endpoint.
#[derive(Default)]
pub struct AttemptStream {
    worker: Option<Rc<RefCell<Worker>>>,
    attempt: UpstreamAttempt,
}

impl AttemptStream {
    fn with(&mut self, act: impl FnOnce(&mut UpstreamAttempt, &mut Worker)) {
        if let Some(mut worker) = self.worker.as_ref().and_then(|w| w.try_borrow_mut().ok()) {
            act(&mut self.attempt, &mut worker);
        }
    }

    /// Request headers; `end` if nothing follows them.
    pub fn request_headers(&mut self, end: bool) {
        self.worker = root::with_workers(|workers| UpstreamAttempt::worker_of(&Envoy, workers));
        self.with(|attempt, worker| attempt.request_headers(worker, &Envoy, end));
    }

    /// A part of the body, or the trailers; `last` for the last part.
    pub fn request_body(&mut self, last: bool) {
        self.with(|attempt, worker| attempt.request_body(worker, &Envoy, last));
    }

    /// Response headers; `end` if nothing follows them.
    pub fn response_headers(&mut self, end: bool) {
        self.with(|attempt, worker| attempt.response_headers(worker, &Envoy, end));
    }

    /// A part of the body; `last` for the last part.
    pub fn response_body(&mut self, last: bool) {
        self.with(|attempt, worker| attempt.response_body(worker, &Envoy, last));
    }

    /// Response trailers.
    pub fn response_trailers(&mut self) {
        self.with(|attempt, worker| attempt.response_trailers(worker, &Envoy));
    }

    /// The end of the attempt.
    pub fn finish(&mut self) {
        self.with(|attempt, worker| attempt.finish(worker, &Envoy));
    }
}
