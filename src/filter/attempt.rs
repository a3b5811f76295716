//! The stream context among a cluster's upstream filters: one an attempt.

use core::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::host::Envoy;
use super::root;
use crate::worker::{Attempt, Worker};

/// An attempt on its way to an endpoint.
#[derive(Default)]
pub struct AttemptStream {
    worker: Option<Rc<RefCell<Worker>>>,
    attempt: Attempt,
}

impl AttemptStream {
    fn with(&mut self, act: impl FnOnce(&mut Attempt, &mut Worker)) {
        if let Some(mut worker) = self.worker.as_ref().and_then(|w| w.try_borrow_mut().ok()) {
            act(&mut self.attempt, &mut worker);
        }
    }
}

impl Context for AttemptStream {
    fn on_done(&mut self) -> bool {
        self.with(|attempt, worker| attempt.finish(worker, &Envoy));
        true
    }
}

impl HttpContext for AttemptStream {
    fn on_http_request_headers(&mut self, _headers: usize, end_of_stream: bool) -> Action {
        self.worker = root::with_workers(|workers| Attempt::worker_of(&Envoy, workers));
        self.with(|attempt, worker| attempt.request_headers(worker, &Envoy, end_of_stream));
        Action::Continue
    }

    fn on_http_request_body(&mut self, _size: usize, end_of_stream: bool) -> Action {
        self.with(|attempt, worker| attempt.request_body(worker, &Envoy, end_of_stream));
        Action::Continue
    }

    fn on_http_request_trailers(&mut self, _trailers: usize) -> Action {
        self.with(|attempt, worker| attempt.request_body(worker, &Envoy, true));
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _headers: usize, end_of_stream: bool) -> Action {
        self.with(|attempt, worker| attempt.response_headers(worker, &Envoy, end_of_stream));
        Action::Continue
    }

    fn on_http_response_body(&mut self, _size: usize, end_of_stream: bool) -> Action {
        self.with(|attempt, worker| attempt.response_body(worker, &Envoy, end_of_stream));
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _trailers: usize) -> Action {
        self.with(|attempt, worker| attempt.response_trailers(worker, &Envoy));
        Action::Continue
    }
}
