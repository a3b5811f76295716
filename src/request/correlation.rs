//! Correlation of a request with its upstream attempts.
//!
//! Where the filter also runs among a cluster's upstream filters, it sees every attempt of a request: the endpoint that
//! it goes to and that endpoint's response. The request's own filter sees the last response only, but knows why Envoy
//! gave up. Both run on the same thread in the same VM: the request puts a number into its properties, and an attempt
//! looks up the correlation by that number.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use crate::request::attempt::{Attempt, PendingOutcome};
use engine::time::Time;
use engine::{Balancer, Failure};

/// The property that carries a request's number to its attempts.
pub(crate) const PROPERTY: &[&str] = &["evenkeel_request"];
/// The highest number of unresolved attempts that are kept for a request; in practice it has fewer retries.
const MAX_UNEXPLAINED: usize = 16;

/// State that a request and its attempts share.
#[derive(Debug, Default)]
pub(crate) struct RequestCorrelation {
    /// The index of the upstream.
    pub upstream: usize,
    /// The attempt that was begun for the named endpoint, until the first upstream attempt takes it.
    pub reserved: Attempt,
    /// The endpoint of the first attempt, if it is known to the engine.
    pub first: Option<u32>,
    /// An attempt has been seen: from now on attempts report outcomes, and the request's own filter only steers.
    pub followed: bool,
    /// The latest attempt has a response, so the response is an endpoint's and not Envoy's own.
    pub answering: bool,
    /// The number of attempts that have not ended.
    pub active: u32,
    /// Why Envoy gave up, once known: the endpoint's failure, or (`Some(None)`) another cause.
    pub explanation: Option<Option<Failure>>,
    unexplained: Vec<PendingOutcome>,
}

/// A correlation shared by a request and its attempts. The native module may move both between threads, but only one
/// uses it at a time.
#[derive(Clone, Debug)]
pub(crate) struct SharedCorrelation(Arc<Mutex<RequestCorrelation>>);

impl SharedCorrelation {
    pub fn borrow(&self) -> MutexGuard<'_, RequestCorrelation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn borrow_mut(&self) -> MutexGuard<'_, RequestCorrelation> {
        self.borrow()
    }
}

impl RequestCorrelation {
    /// The correlation of a request to `upstream`, with the attempt begun for its named endpoint.
    pub fn new(upstream: usize, reserved: Attempt) -> RequestCorrelation {
        RequestCorrelation { upstream, reserved, ..RequestCorrelation::default() }
    }

    /// Ends an attempt whose outcome is unresolved.
    pub fn leave(&mut self, engine: &mut Balancer, end: PendingOutcome, now: Time) {
        match self.explanation {
            Some(failure) => end.explain(engine, failure, now),
            None if self.unexplained.len() < MAX_UNEXPLAINED => self.unexplained.push(end),
            None => {}
        }
    }

    /// Whether the outcome of an attempt is still unresolved.
    pub fn is_in_doubt(&self) -> bool {
        self.explanation.is_none() && (self.active > 0 || !self.unexplained.is_empty())
    }

    /// Resolves earlier attempts when Envoy retries; `failure` is reported for those that had no answer.
    pub fn tries_again(&mut self, engine: &mut Balancer, failure: Option<Failure>, now: Time) {
        for end in self.unexplained.drain(..) {
            end.tried_again(engine, failure, now);
        }
    }

    /// Resolves the attempts that ended without a known reason.
    pub fn explain(&mut self, engine: &mut Balancer, failure: Option<Failure>, now: Time) {
        for end in self.unexplained.drain(..) {
            end.explain(engine, failure, now);
        }
    }
}

/// Open correlations by number.
#[derive(Debug, Default)]
pub(crate) struct RequestCorrelations {
    /// Whether upstream attempts may be seen at all; without them nothing is registered.
    pub wanted: bool,
    open: HashMap<u64, SharedCorrelation>,
    last: u64,
}

impl RequestCorrelations {
    /// Opens a correlation and returns its number.
    pub fn open(&mut self, correlation: RequestCorrelation) -> (u64, SharedCorrelation) {
        self.last = self.last.wrapping_add(1);
        let correlation = SharedCorrelation(Arc::new(Mutex::new(correlation)));
        self.open.insert(self.last, correlation.clone());
        (self.last, correlation)
    }

    /// The open correlation with this number.
    pub fn find(&self, number: u64) -> Option<SharedCorrelation> {
        self.open.get(&number).cloned()
    }

    /// Closes a correlation: no further attempts are expected.
    pub fn close(&mut self, number: u64) {
        self.open.remove(&number);
    }

    /// Sets the number to count from: the worker's random id, so that numbers of different workers do not collide.
    pub fn start_at(&mut self, number: u64) {
        self.last = number;
    }
}
