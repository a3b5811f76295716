//! The stream context: one a request.

use core::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::host::Envoy;
use super::root;
use crate::worker::{Stream, Verdict, Worker};

/// A request on its way through this worker.
pub struct HttpStream {
    worker: Option<Rc<RefCell<Worker>>>,
    stream: Stream,
}

impl HttpStream {
    /// A stream of `worker`'s; without one it lets everything pass.
    pub fn new(worker: Option<Rc<RefCell<Worker>>>) -> HttpStream {
        HttpStream { worker, stream: Stream::default() }
    }

    fn with<R>(&mut self, act: impl FnOnce(&mut Stream, &mut Worker) -> R) -> Option<R> {
        let mut worker = self.worker.as_ref()?.try_borrow_mut().ok()?;
        Some(act(&mut self.stream, &mut worker))
    }
}

impl Context for HttpStream {
    fn on_done(&mut self) -> bool {
        self.with(|stream, worker| stream.finish(worker, &Envoy));
        true
    }
}

impl HttpContext for HttpStream {
    fn on_http_request_headers(&mut self, _headers: usize, end_of_stream: bool) -> Action {
        let begin = |stream: &mut Stream, worker: &mut Worker| {
            worker.follow_attempts(root::following());
            stream.request_headers(worker, &Envoy, end_of_stream)
        };
        match self.with(begin) {
            Some(Verdict::Answered) => Action::Pause,
            Some(Verdict::Continue) | None => Action::Continue,
        }
    }

    fn on_http_request_body(&mut self, _size: usize, end_of_stream: bool) -> Action {
        self.with(|stream, worker| stream.request_body(worker, &Envoy, end_of_stream));
        Action::Continue
    }

    fn on_http_request_trailers(&mut self, _trailers: usize) -> Action {
        self.with(|stream, worker| stream.request_body(worker, &Envoy, true));
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _headers: usize, end_of_stream: bool) -> Action {
        self.with(|stream, worker| stream.response_headers(worker, &Envoy, end_of_stream));
        Action::Continue
    }

    fn on_http_response_body(&mut self, _size: usize, end_of_stream: bool) -> Action {
        self.with(|stream, worker| stream.response_body(worker, &Envoy, end_of_stream));
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _trailers: usize) -> Action {
        self.with(|stream, worker| stream.response_trailers(worker, &Envoy));
        Action::Continue
    }

    fn on_log(&mut self) {
        self.with(|stream, worker| stream.finish(worker, &Envoy));
    }
}
