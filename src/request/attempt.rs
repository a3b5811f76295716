//! One request to one endpoint, from its headers to the end of its response: which outcome the engine gets, and when.

use crate::host::StreamHost;
use crate::request::classify::{self, Answer, LateStatus, Silence};
use crate::request::load_report;
use engine::time::Time;
use engine::{Balancer, Failure, Outcome, Quickness, RequestHandle, Unsettled};

/// Time for which a response must flow to count as good, whatever its end, seconds. Without it, a stream that stays
/// open for hours would never show that its endpoint works.
const FLOWS_AFTER_S: f64 = 1.0;

/// Whether the client has sent its whole request.
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

/// The outcome of an attempt as reported to the engine so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reported {
    NotYet,
    /// Reported as good; a bad end can still change that.
    Flows,
    /// Final: nothing more is reported.
    Settled,
}

/// The state of an attempt. Its owner calls [`Attempt::end`], which returns the request handle to the engine exactly
/// once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Attempt {
    /// Not begun, or ended: no handle is held.
    #[default]
    Over,
    /// Sent; no response headers yet.
    Waiting { handle: RequestHandle, upload: Upload },
    /// Response headers received; the body may still flow.
    Streaming(Streaming),
}

/// A response that has begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streaming {
    handle: RequestHandle,
    reported: Reported,
    /// What its time has yet to show.
    unsettled: Unsettled,
    answered: Time,
    complete: bool,
}

impl Streaming {
    /// It is known whether the answer did what was asked.
    fn settle(&mut self, engine: &mut Balancer, declined: bool) {
        engine.settle(&self.handle, core::mem::take(&mut self.unsettled), declined, self.answered);
    }
}

/// An attempt that ended before its response was complete. Whether the endpoint caused that is known elsewhere: from a
/// later attempt or from the end of the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingOutcome {
    handle: RequestHandle,
    /// Since when the endpoint was waited for, if the client had not sent its whole request.
    waited_since: Time,
    /// Whether the attempt counts as good unless the endpoint broke it off.
    good_otherwise: bool,
}

impl PendingOutcome {
    /// Resolves it when another attempt follows. If this one had no answer at all, `failure` is the reason for the
    /// retry. If it had one that does not count as a failure (409, 425), the route retries such answers: the endpoint
    /// shed the request.
    pub(crate) fn tried_again(self, engine: &mut Balancer, failure: Option<Failure>, now: Time) {
        let failure = if self.good_otherwise { Some(Failure::TooMany) } else { failure };
        self.explain(engine, failure, now);
    }

    /// Reports the failure that the endpoint caused, or (`None`) that it caused none.
    pub(crate) fn explain(self, engine: &mut Balancer, failure: Option<Failure>, now: Time) {
        // A response that had begun does not miss a deadline.
        let failure = failure.filter(|failure| !self.good_otherwise || *failure != Failure::Deadline);
        if failure.is_some() || self.good_otherwise {
            let deadline = failure == Some(Failure::Deadline);
            let started = if deadline { self.waited_since } else { self.handle.started };
            engine.record_outcome(&RequestHandle { started, ..self.handle }, failure, now);
        }
    }
}

impl Attempt {
    /// Starts the attempt that `handle` was handed out for.
    pub(crate) fn begin(engine: &mut Balancer, handle: RequestHandle, upload: Upload) -> Attempt {
        if upload == Upload::Flowing {
            engine.uploading(&handle);
            engine.opened(&handle);
        }
        Attempt::Waiting { handle, upload }
    }

    /// A part of the request's body, or its trailers; `last` for the last part. Latency counts from the last part that
    /// arrives before the response: a client that sends slowly is not the endpoint's fault.
    pub(crate) fn request_part(&mut self, engine: &mut Balancer, host: &dyn StreamHost, last: bool) {
        if let Attempt::Waiting { handle, upload: upload @ Upload::Flowing } = self {
            let now = host.now();
            if last {
                *upload = Upload::Over;
                engine.closed(handle, now);
                engine.uploaded(handle, now);
            } else {
                engine.moves(handle, now);
            }
        }
    }

    /// The handle of an attempt that has no response yet. An upload that is still open is closed in the engine: from
    /// here on a response is expected.
    pub(crate) fn due(&mut self, engine: &mut Balancer, now: Time) -> Option<&mut RequestHandle> {
        let Attempt::Waiting { handle, upload } = self else { return None };
        if core::mem::replace(upload, Upload::Over) == Upload::Flowing {
            let last_part = handle.started;
            engine.closed(handle, now);
            engine.uploaded(handle, last_part);
        }
        Some(handle)
    }

    /// Response headers; `shows` what their time may show, `complete` if no body or trailers follow.
    pub(crate) fn receive_headers(
        &mut self,
        engine: &mut Balancer,
        handle: RequestHandle,
        (outcome, shows): (Outcome, Quickness),
        now: Time,
        complete: bool,
    ) {
        let unsettled = engine.record_answer(&handle, outcome, shows, now);
        let reported = if outcome == Outcome::Undecided { Reported::NotYet } else { Reported::Settled };
        *self = Attempt::Streaming(Streaming { handle, reported, unsettled, answered: now, complete });
    }

    /// A part of the response's body; `last` for the last part. `ticked` is the worker's last tick: exact enough here,
    /// and reading the clock costs a host call.
    pub(crate) fn response_part(&mut self, engine: &mut Balancer, ticked: Time, last: bool) {
        let Attempt::Streaming(streaming) = self else { return };
        let Streaming { handle, reported, answered, complete, .. } = streaming;
        *complete |= last;
        if *reported == Reported::NotYet && !last && ticked.seconds_since(*answered) >= FLOWS_AFTER_S {
            *reported = Reported::Flows;
            engine.record_outcome(handle, None, ticked);
            streaming.settle(engine, false);
        }
    }

    /// The index of the upstream, if the attempt is not over.
    pub(crate) fn upstream(&self) -> Option<usize> {
        match self {
            Attempt::Over => None,
            Attempt::Waiting { handle, .. } | Attempt::Streaming(Streaming { handle, .. }) => {
                Some(handle.upstream)
            }
        }
    }

    /// Whether the client has sent its whole request and no response has begun.
    pub(crate) fn has_sent_all(&self) -> bool {
        matches!(self, Attempt::Waiting { upload: Upload::Over, .. })
    }

    /// Whether no response has begun.
    pub(crate) fn is_unanswered(&self) -> bool {
        matches!(self, Attempt::Waiting { .. })
    }

    /// Makes the outcome final: the endpoint's announcement in its headers has decided it, and a good end changes
    /// nothing.
    pub(crate) fn settle(&mut self) {
        if let Attempt::Streaming(Streaming { reported, unsettled, .. }) = self {
            (*reported, *unsettled) = (Reported::Settled, Unsettled::Nothing);
        }
    }

    /// Whether trailers can still change the outcome.
    pub(crate) fn awaits_trailers(&self) -> bool {
        matches!(self, Attempt::Streaming(s) if !s.complete && s.reported != Reported::Settled)
    }

    /// Takes the load report in the response trailers.
    pub(crate) fn report_load(&self, engine: &mut Balancer, host: &dyn StreamHost) {
        if let Attempt::Streaming(Streaming { handle, .. }) = self {
            load_report::take(engine, handle, || host.now(), |name| host.response_trailer(name));
        }
    }

    /// Response trailers, with the status of the call if they have one.
    pub(crate) fn trailers(
        &mut self,
        engine: &mut Balancer,
        status: Option<LateStatus>,
        host: &dyn StreamHost,
    ) {
        let Attempt::Streaming(streaming) = self else { return };
        streaming.complete = true;
        streaming.settle(engine, status.is_some_and(|status| status.declined));
        if let Some(LateStatus { failure: failure @ Some(_), .. }) = status {
            streaming.reported = Reported::Settled;
            engine.record_outcome(&streaming.handle, failure, host.now());
        }
    }

    /// Whether the response has begun and not ended, and its outcome is open.
    pub(crate) fn broken_off(&self) -> bool {
        matches!(self, Attempt::Streaming(s) if !s.complete && s.reported != Reported::Settled)
    }

    /// Ends the attempt, with the failure that ended it if that is known; later calls do nothing. Returns what is still
    /// to be resolved. A response that went well ends at the worker's last tick, which is exact enough.
    pub(crate) fn end(
        &mut self,
        engine: &mut Balancer,
        reason: Option<Failure>,
        (host, ticked): (&dyn StreamHost, Time),
    ) -> Option<PendingOutcome> {
        let broken_off = self.broken_off();
        match core::mem::take(self) {
            Attempt::Over => None,
            Attempt::Waiting { mut handle, upload } => {
                let now = host.now();
                let outcome = match (reason, upload) {
                    (Some(failure), _) => Outcome::Failed(failure),
                    (None, Upload::Over) => Outcome::Cancelled,
                    // A client that cancels during its own upload says nothing about the endpoint.
                    (None, Upload::Flowing) => Outcome::Unrelated,
                };
                let waited_since = handle.started;
                if upload == Upload::Flowing {
                    engine.closed(&handle, now);
                    let deadline = reason == Some(Failure::Deadline);
                    engine.uploaded(&mut handle, if deadline { waited_since } else { now });
                }
                engine.record_response(&handle, outcome, now);
                engine.finished(&handle, now);
                reason.is_none().then_some(PendingOutcome { handle, waited_since, good_otherwise: false })
            }
            Attempt::Streaming(mut streaming) => {
                if reason.is_none() {
                    streaming.settle(engine, broken_off);
                }
                let Streaming { handle, reported, answered, .. } = streaming;
                let known = ticked.max(answered);
                engine.finished(&handle, known);
                let (waited_since, good_otherwise) = (handle.started, reported == Reported::NotYet);
                let end = PendingOutcome { handle, waited_since, good_otherwise };
                if broken_off && reason.is_none() {
                    return Some(end);
                }
                if reported != Reported::Settled {
                    end.explain(engine, reason, if reason.is_some() { host.now() } else { known });
                }
                None
            }
        }
    }
}

/// Reports a request that ended without an answer where that can be done at once; otherwise returns the failure of its
/// endpoint, if there is one.
#[inline(never)]
pub(crate) fn end_unanswered(
    engine: &mut Balancer,
    host: &dyn StreamHost,
    (attempt, stays): (&mut Attempt, bool),
    silence: Silence,
) -> Option<Failure> {
    let outcome = match silence {
        Silence::Answered(outcome) => outcome,
        Silence::Failed(failure @ Failure::Deadline) => Outcome::Failed(failure),
        Silence::Failed(failure) => return Some(failure),
        Silence::PendingOutcome => return None,
    };
    if !attempt.has_sent_all() && outcome != Outcome::Failed(Failure::Deadline) {
        // A client that cancels during its own upload says nothing about the endpoint. One whose deadline has passed
        // has waited since the last part it sent.
        return None;
    }
    let handle = attempt.due(engine, host.now()).copied()?;
    // A redirect that Envoy followed, or an answer that it replaced.
    let answer = Answer { outcome, status: 0, declined: true };
    let (handle, outcome, its_own) = classify::reattribute(engine, host, (handle, stays), answer);
    // An unknown answer that another was put in place of was rather an error.
    if its_own && silence == Silence::Answered(Outcome::Unrelated) {
        engine.record_replaced(&handle, host.now());
    }
    attempt.receive_headers(engine, handle, (outcome, Quickness::Denied), host.now(), true);
    None
}
