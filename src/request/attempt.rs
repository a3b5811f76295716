//! One request to one endpoint, from its headers to the end of its response: what the engine is told, and when.

use crate::host::StreamHost;
use crate::request::load_report;
use engine::time::Time;
use engine::{Balancer, Failure, Outcome, RequestHandle};

/// A response that has been flowing for so long has begun well, whatever its end: a stream that stays open for
/// hours would otherwise never show that its endpoint works. Seconds.
const FLOWS_AFTER_S: f64 = 1.0;

/// Whether the client is done sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upload {
    Flowing,
    Over,
}

impl Upload {
    pub(crate) fn of(complete: bool) -> Upload {
        if complete { Upload::Over } else { Upload::Flowing }
    }
}

/// What the engine has been told of the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    NotYet,
    /// Good so far; only its end can still be bad.
    Flows,
    /// Once and for all.
    Settled,
}

/// Where an attempt stands. Its holder ends it with [`Attempt::end`], which gives back exactly once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Attempt {
    /// Nothing is owed.
    #[default]
    Over,
    /// Sent; no answer yet.
    Waiting { ticket: RequestHandle, upload: Upload },
    /// Answered; the body may still flow.
    Streaming(Streaming),
}

/// What is known of a response on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streaming {
    ticket: RequestHandle,
    judged: Judged,
    answered: Time,
    complete: bool,
}

/// What is known elsewhere only, of an attempt that ended before its response did: whether that was the
/// endpoint's doing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingOutcome {
    ticket: RequestHandle,
    /// Since when an answer was waited for, where the client had not sent all.
    waited_since: Time,
    /// Whether it counts as good unless it was the endpoint that broke it off.
    good_otherwise: bool,
}

impl PendingOutcome {
    /// Another attempt was made: where there was no answer at all, because of that (`failure`); else because of the
    /// answer, which has been judged.
    pub(crate) fn tried_again(self, engine: &mut Balancer, failure: Option<Failure>, now: Time) {
        let failure = failure.filter(|_| !self.good_otherwise);
        self.explain(engine, failure, now);
    }

    /// The endpoint caused it, or (`None`) something else did.
    pub(crate) fn explain(self, engine: &mut Balancer, failure: Option<Failure>, now: Time) {
        // What had begun to answer had no deadline to keep.
        let failure = failure.filter(|failure| !self.good_otherwise || *failure != Failure::Deadline);
        if failure.is_some() || self.good_otherwise {
            let deadline = failure == Some(Failure::Deadline);
            let started = if deadline { self.waited_since } else { self.ticket.started };
            engine.record_outcome(&RequestHandle { started, ..self.ticket }, failure, now);
        }
    }
}

impl Attempt {
    /// `ticket`'s request is on its way.
    pub(crate) fn begin(engine: &mut Balancer, ticket: RequestHandle, upload: Upload) -> Attempt {
        if upload == Upload::Flowing {
            engine.uploading(&ticket);
            engine.opened(&ticket);
        }
        Attempt::Waiting { ticket, upload }
    }

    /// A part of the request's body, or its trailers; `last` with the last. The endpoint's time counts from the last
    /// part that came before the answer: how slowly a client sends is not the endpoint's doing.
    pub(crate) fn request_part(&mut self, engine: &mut Balancer, host: &dyn StreamHost, last: bool) {
        if let Attempt::Waiting { ticket, upload: upload @ Upload::Flowing } = self {
            let now = host.now();
            if last {
                *upload = Upload::Over;
                engine.closed(ticket, now);
                engine.uploaded(ticket, now);
            } else {
                engine.moves(ticket, now);
            }
        }
    }

    /// The handle of an attempt without an answer so far. From here on one is due, if none was before.
    pub(crate) fn due(&mut self, engine: &mut Balancer, now: Time) -> Option<&mut RequestHandle> {
        let Attempt::Waiting { ticket, upload } = self else { return None };
        if core::mem::replace(upload, Upload::Over) == Upload::Flowing {
            let last_part = ticket.started;
            engine.closed(ticket, now);
            engine.uploaded(ticket, last_part);
        }
        Some(ticket)
    }

    /// Response headers; `complete` where nothing follows them.
    pub(crate) fn receive_headers(
        &mut self,
        engine: &mut Balancer,
        ticket: RequestHandle,
        outcome: Outcome,
        now: Time,
        complete: bool,
    ) {
        engine.record_response(&ticket, outcome, now);
        let judged = if outcome == Outcome::Undecided { Judged::NotYet } else { Judged::Settled };
        *self = Attempt::Streaming(Streaming { ticket, judged, answered: now, complete });
    }

    /// A part of the response's body; `last` with the last.
    /// `ticked` is the worker's last tick: as near as that the time need not be known, and asking for it costs a trip.
    pub(crate) fn response_part(&mut self, engine: &mut Balancer, ticked: Time, last: bool) {
        let Attempt::Streaming(Streaming { ticket, judged, answered, complete }) = self else { return };
        *complete |= last;
        if *judged == Judged::NotYet && !last && ticked.seconds_since(*answered) >= FLOWS_AFTER_S {
            *judged = Judged::Flows;
            engine.record_outcome(ticket, None, ticked);
        }
    }

    /// Which upstream it is at.
    pub(crate) fn upstream(&self) -> Option<usize> {
        match self {
            Attempt::Over => None,
            Attempt::Waiting { ticket, .. } | Attempt::Streaming(Streaming { ticket, .. }) => {
                Some(ticket.upstream)
            }
        }
    }

    /// Whether the client is done sending, and nothing has been answered.
    pub(crate) fn has_sent_all(&self) -> bool {
        matches!(self, Attempt::Waiting { upload: Upload::Over, .. })
    }

    /// Whether it is without an answer.
    pub(crate) fn is_unanswered(&self) -> bool {
        matches!(self, Attempt::Waiting { .. })
    }

    /// What the endpoint said beside its answer has decided: how that ends does not make it a good one.
    pub(crate) fn settle(&mut self) {
        if let Attempt::Streaming(Streaming { judged, .. }) = self {
            *judged = Judged::Settled;
        }
    }

    /// Whether trailers may still tell something.
    pub(crate) fn awaits_trailers(&self) -> bool {
        matches!(self, Attempt::Streaming(s) if !s.complete && s.judged != Judged::Settled)
    }

    /// What the endpoint reports of its load in the trailers.
    pub(crate) fn report_load(&self, engine: &mut Balancer, host: &dyn StreamHost) {
        if let Attempt::Streaming(Streaming { ticket, .. }) = self {
            load_report::take(engine, ticket, || host.now(), |name| host.response_trailer(name));
        }
    }

    /// Response trailers, with the failure that they tell.
    pub(crate) fn trailers(
        &mut self,
        engine: &mut Balancer,
        failure: Option<Failure>,
        host: &dyn StreamHost,
    ) {
        let Attempt::Streaming(Streaming { ticket, judged, complete, .. }) = self else { return };
        *complete = true;
        if failure.is_some() {
            *judged = Judged::Settled;
            engine.record_outcome(ticket, failure, host.now());
        }
    }

    /// Whether the response has ended too early for a verdict.
    pub(crate) fn broken_off(&self) -> bool {
        matches!(self, Attempt::Streaming(s) if !s.complete && s.judged != Judged::Settled)
    }

    /// The end of it, for a reason if one is known; further calls change nothing. What remains to be explained is
    /// left to the caller. Where all was well the worker's last tick is near enough to the end.
    pub(crate) fn end(
        &mut self,
        engine: &mut Balancer,
        reason: Option<Failure>,
        (host, ticked): (&dyn StreamHost, Time),
    ) -> Option<PendingOutcome> {
        let broken_off = self.broken_off();
        match core::mem::take(self) {
            Attempt::Over => None,
            Attempt::Waiting { mut ticket, upload } => {
                let now = host.now();
                let outcome = match (reason, upload) {
                    (Some(failure), _) => Outcome::Failed(failure),
                    (None, Upload::Over) => Outcome::Cancelled,
                    // A client that leaves in the middle of its own request says nothing of the endpoint.
                    (None, Upload::Flowing) => Outcome::Unrelated,
                };
                let waited_since = ticket.started;
                if upload == Upload::Flowing {
                    engine.closed(&ticket, now);
                    let deadline = reason == Some(Failure::Deadline);
                    engine.uploaded(&mut ticket, if deadline { waited_since } else { now });
                }
                engine.record_response(&ticket, outcome, now);
                engine.finished(&ticket, now);
                reason.is_none().then_some(PendingOutcome { ticket, waited_since, good_otherwise: false })
            }
            Attempt::Streaming(Streaming { ticket, judged, answered, .. }) => {
                let known = ticked.max(answered);
                engine.finished(&ticket, known);
                let (waited_since, good_otherwise) = (ticket.started, judged == Judged::NotYet);
                let end = PendingOutcome { ticket, waited_since, good_otherwise };
                if broken_off && reason.is_none() {
                    return Some(end);
                }
                if judged != Judged::Settled {
                    end.explain(engine, reason, if reason.is_some() { host.now() } else { known });
                }
                None
            }
        }
    }
}
