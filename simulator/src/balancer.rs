//! What a load balancer is to the simulator: one proxy with several workers.

use engine::time::Time;
use engine::{Failure, Outcome, RequestHandle};

use crate::server::Server;

/// A request on its way.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The worker that sent it.
    pub worker: usize,
    /// Where to.
    pub endpoint: usize,
    /// When.
    pub started: Time,
    /// The engine's own record, where the engine chose.
    pub ticket: Option<RequestHandle>,
    /// Where it goes if it is tried again, where that was decided with it.
    pub second: Option<usize>,
}

/// How it ended.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// What the proxy sees.
    pub outcome: Outcome,
    /// Seconds of service that the endpoint reports (C3).
    pub service: f32,
    /// Queue that the endpoint reports (C3).
    pub queue: f32,
    /// Utilisation that the endpoint reports (ORCA).
    pub utilisation: f32,
    /// Requests per second that the endpoint reports (ORCA).
    pub qps: f32,
    /// Errors per second that the endpoint reports (ORCA).
    pub eps: f32,
}

impl Reply {
    /// An ending that carries no report.
    pub fn bare(outcome: Outcome) -> Reply {
        Reply { outcome, service: 0.0, queue: 0.0, utilisation: 0.0, qps: 0.0, eps: 0.0 }
    }

    /// Whether it ended well.
    pub fn good(&self) -> bool {
        self.outcome == Outcome::Good
    }

    /// Whether it says that there is too much to do, which outlier detection takes for no failure.
    pub fn limited(&self) -> bool {
        self.outcome == Outcome::Failed(Failure::TooMany)
    }
}

/// What a decision may draw on.
pub struct Moment<'a> {
    /// Now.
    pub now: Time,
    /// The truth, which only the oracle looks at.
    pub servers: &'a [Server],
    /// Endpoints to be asked for their state (Prequal).
    pub probes: &'a mut Vec<usize>,
}

/// What a proxy says of the load.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wish {
    /// How loaded the endpoints are; 1 is full.
    pub pressure: Option<f64>,
    /// How many there should be.
    pub replicas: Option<u32>,
}

/// One proxy.
pub trait LoadBalancer {
    /// Chooses for a request of `worker`, and takes note of having sent it.
    fn send(&mut self, worker: usize, moment: Moment<'_>) -> Sent;

    /// Chooses for one that is tried again after `failed`. Envoy's policies choose anew: none is told to leave out an endpoint.
    fn send_again(&mut self, failed: &Sent, moment: Moment<'_>) -> Sent {
        self.send(failed.worker, moment)
    }

    /// A request ended.
    fn ended(&mut self, sent: &Sent, reply: &Reply, now: Time);

    /// Response headers came for a request that goes on; [`closed`](LoadBalancer::closed) follows.
    fn opened(&mut self, _sent: &Sent, _reply: &Reply, _now: Time) {}

    /// A request ended whose response headers came before.
    fn closed(&mut self, sent: &Sent, reply: &Reply, now: Time) {
        self.ended(sent, reply, now);
    }

    /// Time passes for `worker`.
    fn tick(&mut self, _worker: usize, _now: Time) {}

    /// The fleet changed.
    fn fleet(&mut self, _present: &[bool], _now: Time) {}

    /// Prometheus told the queue depth of an endpoint, as it was at `at`.
    fn signal(&mut self, _endpoint: usize, _value: f64, _at: Time) {}

    /// These were all of an answer, with so many values.
    fn signals_told(&mut self, _known: usize, _at: Time) {}

    /// How many endpoints there should be, if this one has an opinion.
    fn wish(&self) -> Wish {
        Wish::default()
    }

    /// A request of the balancer's own that is to be sent by `worker` now, if there is one.
    fn own(&mut self, _worker: usize, _now: Time) -> Option<Sent> {
        None
    }

    /// Such a request ended.
    fn own_ended(&mut self, _sent: &Sent, _reply: &Reply, _now: Time) {}

    /// An endpoint answered a probe of `worker`.
    fn probed(&mut self, _worker: usize, _endpoint: usize, _in_flight: u32, _latency: f64, _now: Time) {}
}
