//! The guard's record of a request: the time to its response headers and whether it failed, as the client saw it.

use super::classify::{self, Arrival, Silence};
use crate::host::StreamHost;
use engine::guard::{Arm, histogram};
use engine::settings::Failures;
use engine::{Balancer, Outcome};

/// A request that was drawn into an arm. Unlike an outcome charged to an endpoint, it includes all that happened to the
/// request: retries, local replies of Envoy, and endpoints that were not steered to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guarded {
    upstream: usize,
    arm: Arm,
    /// The histogram bucket of the time to the response headers.
    answered: Option<u16>,
    failed: bool,
    /// Whether the response headers leave the outcome open.
    undecided: bool,
    /// Whether the response has ended.
    whole: bool,
}

impl Guarded {
    /// The request decided last, if it was drawn into an arm.
    pub(crate) fn begin(engine: &Balancer, upstream: usize) -> Option<Guarded> {
        let arm = engine.upstream(upstream)?.drawn()?;
        Some(Guarded { upstream, arm, answered: None, failed: false, undecided: false, whole: false })
    }

    /// Whether the outcome depends on the end of the response.
    pub(crate) fn is_undecided(&self) -> bool {
        self.undecided && !self.failed
    }

    /// The upstream's definition of a failure.
    pub(crate) fn counts<'e>(&self, engine: &'e Balancer) -> Option<&'e Failures> {
        engine.counts(self.upstream)
    }

    /// Marks the request as failed.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
    }

    /// Response headers to the request of `arrival`; `complete` if nothing follows them.
    pub(crate) fn headers(
        &mut self,
        engine: &Balancer,
        host: &dyn StreamHost,
        arrival: &Arrival,
        complete: bool,
    ) {
        let Some(counts) = self.counts(engine).filter(|_| self.answered.is_none()) else { return };
        self.answered = Some(histogram::bucket_of(host.now().0.saturating_sub(arrival.began.0)));
        let outcome = classify::of_client(host, complete, counts);
        self.failed |= matches!(outcome, Outcome::Failed(_));
        self.undecided = outcome == Outcome::Undecided;
        // A tunnel has no end of its own, and neither has another protocol.
        self.whole |= complete || outcome == Outcome::Good || (self.undecided && arrival.tunnels);
    }

    /// A part of the response's body; `last` for the last part.
    pub(crate) fn body(&mut self, last: bool) {
        self.whole |= last;
    }

    /// Response trailers.
    pub(crate) fn trailers(&mut self, engine: &Balancer, host: &dyn StreamHost) {
        self.whole = true;
        if self.is_undecided() {
            let counts = self.counts(engine);
            let status = counts.and_then(|counts| classify::of_trailers(host, counts));
            self.failed = status.is_some_and(|status| status.failure.is_some());
        }
    }

    /// Counts the request. A client that left before any response counts with the time it waited: without these
    /// requests, slow responses would be missing from the comparison.
    pub(crate) fn end(self, engine: &mut Balancer, host: &dyn StreamHost, arrival: &Arrival) {
        let Some(counts) = self.counts(engine) else { return };
        let failed = self.failed || (!self.whole && self.failed_at_the_end(host, arrival, counts));
        let waited = || histogram::bucket_of(host.now().0.saturating_sub(arrival.began.0));
        let good = (!failed).then(|| self.answered.unwrap_or_else(waited));
        if let Some(upstream) = engine.upstream_mut(self.upstream) {
            upstream.count_in_arm(self.arm, good);
        }
    }

    fn failed_at_the_end(&self, host: &dyn StreamHost, arrival: &Arrival, counts: &Failures) -> bool {
        match self.answered {
            Some(_) => classify::of_the_end(host, counts).is_some(),
            None => matches!(
                classify::of_silence(host, arrival, counts),
                Silence::Failed(_) | Silence::Answered(Outcome::Failed(_))
            ),
        }
    }
}
