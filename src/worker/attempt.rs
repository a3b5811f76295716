//! One attempt of a request, where the filter runs among the cluster's upstream filters: whom it goes to, how that one
//! answers. Attempts that retries replace are seen nowhere else.

use std::cell::RefCell;
use std::rc::Rc;

use super::Worker;
use super::hop::{Hop, Upload};
use super::stream::verdict::{self, Served};
use super::trail::{PROPERTY, SharedTrail};
use crate::engine::{Failure, Outcome};
use crate::host::StreamHost;

/// An attempt; without a trail it is none of ours and passes.
#[derive(Debug, Default)]
pub struct Attempt {
    hop: Hop,
    trail: Option<SharedTrail>,
}

impl Attempt {
    /// The worker among `workers` whose request this is an attempt of. Costs one trip to the host.
    pub fn worker_of(
        host: &dyn StreamHost,
        workers: impl Iterator<Item = Rc<RefCell<Worker>>>,
    ) -> Option<Rc<RefCell<Worker>>> {
        let number = number(host)?;
        workers.into_iter().find(|w| w.try_borrow().is_ok_and(|w| w.trails.find(number).is_some()))
    }

    /// Request headers; `complete` where nothing follows them.
    pub fn request_headers(&mut self, worker: &mut Worker, host: &dyn StreamHost, complete: bool) {
        let Some(trail) = number(host).and_then(|n| worker.trails.find(n)) else { return };
        let now = host.now();
        let mut shared = trail.borrow_mut();
        // Envoy tries again only where the attempt before has failed.
        shared.explain(&mut worker.engine, Some(Failure::Reset), now);
        let engine = &mut worker.engine;
        let upstream = shared.upstream;
        let mut reserved = core::mem::take(&mut shared.reserved);
        let served = verdict::served_by(engine, host, upstream);
        if !shared.followed {
            shared.first = served.one_of_ours();
            if let Hop::Waiting { ticket, .. } = &reserved
                && served != Served::Nobody
                && served != Served::Ours(ticket.endpoint.index)
            {
                verdict::not_followed(engine, host, upstream);
            }
        }
        let ticket = match (reserved.due(engine), served) {
            (Some(ticket), Served::Ours(index)) if ticket.endpoint.index == index => Some(*ticket),
            (Some(ticket), Served::Ours(index)) => engine.moved(ticket, index),
            (Some(ticket), Served::Stranger | Served::Nobody) => {
                engine.answered(ticket, Outcome::Unrelated, now);
                engine.finished(ticket, now);
                None
            }
            (None, Served::Ours(index)) => engine.started(upstream, index, now),
            (None, Served::Stranger | Served::Nobody) => None,
        };
        shared.followed = true;
        shared.answering = false;
        shared.active += 1;
        // Filters on the way, and attempts before, took their own time.
        if let Some(mut ticket) = ticket {
            engine.uploading(&ticket);
            engine.uploaded(&mut ticket, now);
            let upgrade = !complete && host.request_header("upgrade").is_some();
            self.hop = Hop::begin(engine, ticket, Upload::of(complete || upgrade));
        }
        drop(shared);
        self.trail = Some(trail);
    }

    /// A part of the request's body, or its trailers; `last` with the last.
    pub fn request_body(&mut self, worker: &mut Worker, host: &dyn StreamHost, last: bool) {
        self.hop.request_part(&mut worker.engine, host, last);
    }

    /// Response headers; `complete` where nothing follows them.
    pub fn response_headers(&mut self, worker: &mut Worker, host: &dyn StreamHost, complete: bool) {
        let Some(trail) = &self.trail else { return };
        let Some(outcome) = verdict::of_attempt(host, complete) else { return };
        trail.borrow_mut().answering = true;
        let Some(ticket) = self.hop.due(&mut worker.engine).copied() else { return };
        self.hop.answered(&mut worker.engine, ticket, outcome, host.now(), complete);
    }

    /// A part of the response's body; `last` with the last.
    pub fn response_body(&mut self, worker: &mut Worker, host: &dyn StreamHost, last: bool) {
        self.hop.response_part(&mut worker.engine, host, last);
    }

    /// Response trailers: where gRPC puts its status.
    pub fn response_trailers(&mut self, worker: &mut Worker, host: &dyn StreamHost) {
        if self.hop.awaits_trailers() {
            self.hop.trailers(&mut worker.engine, verdict::of_trailers(host), host);
        }
    }

    /// The end, whichever way it came; further calls change nothing.
    pub fn finish(&mut self, worker: &mut Worker, host: &dyn StreamHost) {
        let Some(trail) = self.trail.take() else { return };
        let mut trail = trail.borrow_mut();
        trail.active = trail.active.saturating_sub(1);
        if matches!(self.hop, Hop::Over) {
            return;
        }
        let unanswered = matches!(self.hop, Hop::Waiting { .. });
        let reason = match trail.explanation {
            Some(reason) => reason,
            None if unanswered => verdict::no_connection(host),
            None => None,
        };
        let now = host.now();
        if let Some(end) = self.hop.end(&mut worker.engine, reason, now) {
            trail.leave(&mut worker.engine, end, now);
        }
    }
}

fn number(host: &dyn StreamHost) -> Option<u64> {
    Some(u64::from_le_bytes(host.property(PROPERTY)?.try_into().ok()?))
}
