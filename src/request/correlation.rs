//! How a request and its attempts find each other.
//!
//! Where the filter also runs among a cluster's upstream filters, it sees every attempt of a request: which endpoint it
//! goes to and how that one answers. The request's own filter sees the last answer only, but knows why Envoy gave up.
//! Both run on the same thread in the same VM, and meet here: the request leaves a number in its properties, and
//! whoever has that number shares its trail.

use std::cell::RefCell;
use std::rc::Rc;

use hashbrown::HashMap;

use crate::request::attempt::{Hop, Unexplained};
use engine::time::Time;
use engine::{Engine, Failure};

/// The property that carries a request's number to its attempts.
pub(crate) const PROPERTY: &[&str] = &["evenkeel_request"];
/// Attempts without an explanation that one request keeps; it makes no more retries than that in practice.
const MOST_UNEXPLAINED: usize = 16;

/// What a request and its attempts know together.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    /// Which upstream.
    pub upstream: usize,
    /// The named endpoint's reservation, until the first attempt takes it.
    pub reserved: Hop,
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
    unexplained: Vec<Unexplained>,
}

/// A trail with several who know it.
pub(crate) type SharedTrail = Rc<RefCell<Trail>>;

impl Trail {
    /// The trail of a request to `upstream`, with what is reserved for it.
    pub fn new(upstream: usize, reserved: Hop) -> Trail {
        Trail { upstream, reserved, ..Trail::default() }
    }

    /// An attempt ended without a word.
    pub fn leave(&mut self, engine: &mut Engine, end: Unexplained, now: Time) {
        match self.explanation {
            Some(failure) => end.explain(engine, failure, now),
            None if self.unexplained.len() < MOST_UNEXPLAINED => self.unexplained.push(end),
            None => {}
        }
    }

    /// Whether anybody waits for an explanation.
    pub fn is_in_doubt(&self) -> bool {
        self.explanation.is_none() && (self.active > 0 || !self.unexplained.is_empty())
    }

    /// Envoy tries again; `failure` is what an attempt that was not answered at all had.
    pub fn tries_again(&mut self, engine: &mut Engine, failure: Option<Failure>, now: Time) {
        for end in self.unexplained.drain(..) {
            end.tried_again(engine, failure, now);
        }
    }

    /// Why the attempts so far ended without a word.
    pub fn explain(&mut self, engine: &mut Engine, failure: Option<Failure>, now: Time) {
        for end in self.unexplained.drain(..) {
            end.explain(engine, failure, now);
        }
    }
}

/// The requests that attempts may ask for.
#[derive(Debug, Default)]
pub(crate) struct Trails {
    /// Whether there may be attempts to follow at all.
    pub wanted: bool,
    open: HashMap<u64, SharedTrail>,
    last: u64,
}

impl Trails {
    /// Opens a trail; the number finds it.
    pub fn open(&mut self, trail: Trail) -> (u64, SharedTrail) {
        self.last = self.last.wrapping_add(1);
        let trail = Rc::new(RefCell::new(trail));
        self.open.insert(self.last, trail.clone());
        (self.last, trail)
    }

    /// The trail with this number.
    pub fn find(&self, number: u64) -> Option<SharedTrail> {
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
