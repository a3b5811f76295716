//! What the guard counts of a request: the time to the response headers and whether it failed, as its client met it.

use super::classify::{self, Asked, Silence};
use crate::host::StreamHost;
use engine::guard::{Arm, histogram};
use engine::settings::Failures;
use engine::time::Time;
use engine::{Balancer, Outcome};

/// A request that was drawn into an arm. Unlike what is charged to an endpoint, it is all that happened to the request:
/// retries, errors of Envoy's own, and endpoints that were not steered to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guarded {
    upstream: usize,
    arm: Arm,
    /// The bucket of the time to its response headers.
    answered: Option<u16>,
    failed: bool,
    /// Only the end of the response tells whether it failed.
    undecided: bool,
    /// The response has come to its end.
    whole: bool,
}

impl Guarded {
    /// The request that was decided last, if it counts.
    pub(crate) fn begin(engine: &Balancer, upstream: usize) -> Option<Guarded> {
        let arm = engine.upstream(upstream)?.drawn()?;
        Some(Guarded { upstream, arm, answered: None, failed: false, undecided: false, whole: false })
    }

    /// Whether only the end of the response tells whether it failed.
    pub(crate) fn is_undecided(&self) -> bool {
        self.undecided && !self.failed
    }

    /// What counts as a failure.
    pub(crate) fn counts<'e>(&self, engine: &'e Balancer) -> Option<&'e Failures> {
        engine.counts(self.upstream)
    }

    /// It failed.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
    }

    /// Response headers to a request that began at `began`; `complete` where nothing follows them.
    pub(crate) fn headers(&mut self, engine: &Balancer, host: &dyn StreamHost, began: Time, complete: bool) {
        let Some(counts) = self.counts(engine).filter(|_| self.answered.is_none()) else { return };
        self.answered = Some(histogram::bucket_of(host.now().0.saturating_sub(began.0)));
        let outcome = classify::of_client(host, complete, counts);
        self.failed |= matches!(outcome, Outcome::Failed(_));
        self.undecided = outcome == Outcome::Undecided;
        self.whole |= complete;
    }

    /// The response's body has come to its end.
    pub(crate) fn body(&mut self, last: bool) {
        self.whole |= last;
    }

    /// Response trailers.
    pub(crate) fn trailers(&mut self, engine: &Balancer, host: &dyn StreamHost) {
        self.whole = true;
        if self.is_undecided() {
            let counts = self.counts(engine);
            self.failed = counts.is_some_and(|counts| classify::of_trailers(host, counts).is_some());
        }
    }

    /// The end: counts it. A client that left before any answer has waited so long at least: where answers are late,
    /// those that are no longer waited for must not be missing.
    pub(crate) fn end(self, engine: &mut Balancer, host: &dyn StreamHost, asked: &Asked) {
        let Some(counts) = self.counts(engine) else { return };
        let failed = self.failed || (!self.whole && self.failed_at_the_end(host, asked, counts));
        let waited = || histogram::bucket_of(host.now().0.saturating_sub(asked.began.0));
        let good = (!failed).then(|| self.answered.unwrap_or_else(waited));
        if let Some(upstream) = engine.upstream_mut(self.upstream) {
            upstream.count_in_arm(self.arm, good);
        }
    }

    fn failed_at_the_end(&self, host: &dyn StreamHost, asked: &Asked, counts: &Failures) -> bool {
        match self.answered {
            Some(_) => classify::of_the_end(host, counts).is_some(),
            None => matches!(classify::of_silence(host, asked, counts), Silence::Failed(_)),
        }
    }
}
