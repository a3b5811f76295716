//! How a request and its attempts find each other.
//!
//! Where the filter also runs among a cluster's upstream filters, it sees every attempt of a request: which endpoint it
//! goes to and how that one answers. The request's own filter sees the last answer only, but knows why Envoy gave up.
//! Both run on the same thread in the same VM, and meet here: the request leaves a number in its properties, and
//! an attempt that has that number shares the correlation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use crate::request::attempt::{Attempt, PendingOutcome};
use engine::time::Time;
use engine::{Balancer, Failure};

/// The property that carries a request's number to its attempts.
pub(crate) const PROPERTY: &[&str] = &["evenkeel_request"];
/// Attempts without an explanation that one request keeps; it makes no more retries than that in practice.
const MAX_UNEXPLAINED: usize = 16;

/// What a request and its attempts know together.
#[derive(Debug, Default)]
pub(crate) struct RequestCorrelation {
    /// Which upstream.
    pub upstream: usize,
    /// The named endpoint's reservation, until the first attempt takes it.
    pub reserved: Attempt,
    /// The endpoint of the first attempt, once there is one, if it is one of ours.
    pub first: Option<u32>,
    /// An attempt has been seen: from now on they tell, and the request's own filter only steers.
    pub followed: bool,
    /// The latest attempt has been answered, so that the response is an endpoint's and not Envoy's.
    pub answering: bool,
    /// Attempts that are not over.
    pub active: u32,
    /// Why Envoy gave up, once that is known: an endpoint's failure or (`None`) something else.
    pub explanation: Option<Option<Failure>>,
    unexplained: Vec<PendingOutcome>,
}

/// A correlation that a request and its attempts share. A carrier may move both between threads, one at a time.
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
    /// The correlation of a request to `upstream`, with what is reserved for it.
    pub fn new(upstream: usize, reserved: Attempt) -> RequestCorrelation {
        RequestCorrelation { upstream, reserved, ..RequestCorrelation::default() }
    }

    /// An attempt ended without a word.
    pub fn leave(&mut self, engine: &mut Balancer, end: PendingOutcome, now: Time) {
        match self.explanation {
            Some(failure) => end.explain(engine, failure, now),
            None if self.unexplained.len() < MAX_UNEXPLAINED => self.unexplained.push(end),
            None => {}
        }
    }

    /// Whether an outcome is still waited for.
    pub fn is_in_doubt(&self) -> bool {
        self.explanation.is_none() && (self.active > 0 || !self.unexplained.is_empty())
    }

    /// Envoy tries again; `failure` is what an attempt that was not answered at all had.
    pub fn tries_again(&mut self, engine: &mut Balancer, failure: Option<Failure>, now: Time) {
        for end in self.unexplained.drain(..) {
            end.tried_again(engine, failure, now);
        }
    }

    /// Why the attempts so far ended without a word.
    pub fn explain(&mut self, engine: &mut Balancer, failure: Option<Failure>, now: Time) {
        for end in self.unexplained.drain(..) {
            end.explain(engine, failure, now);
        }
    }
}

/// The requests that attempts may ask for.
#[derive(Debug, Default)]
pub(crate) struct RequestCorrelations {
    /// Whether there may be attempts to follow at all.
    pub wanted: bool,
    open: HashMap<u64, SharedCorrelation>,
    last: u64,
}

impl RequestCorrelations {
    /// Opens a correlation; the number finds it.
    pub fn open(&mut self, correlation: RequestCorrelation) -> (u64, SharedCorrelation) {
        self.last = self.last.wrapping_add(1);
        let correlation = SharedCorrelation(Arc::new(Mutex::new(correlation)));
        self.open.insert(self.last, correlation.clone());
        (self.last, correlation)
    }

    /// The correlation with this number.
    pub fn find(&self, number: u64) -> Option<SharedCorrelation> {
        self.open.get(&number).cloned()
    }

    /// No further attempts will ask for it.
    pub fn close(&mut self, number: u64) {
        self.open.remove(&number);
    }

    /// Numbers from here on: a worker's own, so that another's are not mistaken for them.
    pub fn start_at(&mut self, number: u64) {
        self.last = number;
    }
}
