//! The interface of a load balancer in the simulator: one proxy with several workers.

use engine::time::Time;
use engine::{Failure, Outcome, RequestHandle};

use crate::server::Server;

/// A request in flight.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The worker that sent it.
    pub worker: usize,
    /// The endpoint.
    pub endpoint: usize,
    /// When it was sent.
    pub started: Time,
    /// The engine's handle, if the engine chose.
    pub handle: Option<RequestHandle>,
    /// The endpoints of its retries, in order, if they were decided with it.
    pub next: [Option<usize>; 2],
    /// Whether it is a retry.
    pub again: bool,
}

impl Sent {
    /// A first attempt that `worker` sends to `endpoint` now.
    pub fn first(worker: usize, endpoint: usize, now: Time) -> Sent {
        Sent { worker, endpoint, started: now, handle: None, next: [None; 2], again: false }
    }
}

/// The end of a request.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// The outcome that the proxy sees.
    pub outcome: Outcome,
    /// Service time that the endpoint reports, seconds (C3).
    pub service: f32,
    /// Queue length that the endpoint reports (C3).
    pub queue: f32,
    /// Utilisation that the endpoint reports (ORCA).
    pub utilisation: f32,
    /// Requests per second that the endpoint reports (ORCA).
    pub qps: f32,
    /// Errors per second that the endpoint reports (ORCA).
    pub eps: f32,
}

impl Reply {
    /// A reply without a report.
    pub fn bare(outcome: Outcome) -> Reply {
        Reply { outcome, service: 0.0, queue: 0.0, utilisation: 0.0, qps: 0.0, eps: 0.0 }
    }

    /// Whether the outcome is good.
    pub fn good(&self) -> bool {
        self.outcome == Outcome::Good
    }

    /// Whether the endpoint is overloaded (429), which outlier detection does not count as a failure.
    pub fn limited(&self) -> bool {
        self.outcome == Outcome::Failed(Failure::TooMany)
    }
}

/// What a decision may use.
pub struct Moment<'a> {
    /// Current time.
    pub now: Time,
    /// The actual state of the endpoints, for the oracle only.
    pub servers: &'a [Server],
    /// Endpoints to be probed (Prequal).
    pub probes: &'a mut Vec<usize>,
}

/// Scaling output of a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wish {
    /// Pressure on the endpoints; 1 is full.
    pub pressure: Option<f64>,
    /// Desired number of replicas.
    pub replicas: Option<u32>,
}

/// One proxy.
pub trait LoadBalancer {
    /// Chooses an endpoint for a request of `worker`, and records it as sent.
    fn send(&mut self, worker: usize, moment: Moment<'_>) -> Sent;

    /// Records the end of `failed`, and chooses an endpoint for its retry. By default it chooses anew, as Envoy's policies
    /// do: they do not exclude the endpoint that failed.
    fn send_again(&mut self, failed: &Sent, reply: &Reply, moment: Moment<'_>) -> Sent {
        self.ended(failed, reply, moment.now);
        self.send(failed.worker, moment)
    }

    /// Records the end of a request.
    fn ended(&mut self, sent: &Sent, reply: &Reply, now: Time);

    /// Records response headers of a request that goes on; [`closed`](LoadBalancer::closed) follows.
    fn opened(&mut self, _sent: &mut Sent, _reply: &Reply, _now: Time) {}

    /// Records the end of a request whose response headers came before.
    fn closed(&mut self, sent: &Sent, reply: &Reply, now: Time) {
        self.ended(sent, reply, now);
    }

    /// Runs a tick of `worker`.
    fn tick(&mut self, _worker: usize, _now: Time) {}

    /// Updates which endpoints are present.
    fn fleet(&mut self, _present: &[bool], _now: Time) {}

    /// Records the queue depth of an endpoint from Prometheus, measured at `at`.
    fn signal(&mut self, _endpoint: usize, _value: f64, _at: Time) {}

    /// Ends the values of one poll, which had `known` of them.
    fn signals_told(&mut self, _known: usize, _at: Time) {}

    /// The scaling output, if this balancer has one.
    fn wish(&self) -> Wish {
        Wish::default()
    }

    /// The next request of the balancer's own that `worker` is to send now, if any.
    fn own(&mut self, _worker: usize, _now: Time) -> Option<Sent> {
        None
    }

    /// Records the end of such a request.
    fn own_ended(&mut self, _sent: &Sent, _reply: &Reply, _now: Time) {}

    /// Records an endpoint's answer to a probe of `worker`.
    fn probed(&mut self, _worker: usize, _endpoint: usize, _in_flight: u32, _latency: f64, _now: Time) {}
}
