//! The parameters of a drawn fleet.

use engine::rng::{self, Rng};

use crate::distribution::{Distribution, normal};
use crate::scenario::{Change, Long, Mode, Scenario, Signal, SignalFault, What};

/// Distribution of the work in a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WorkKind {
    /// Log-normal with this standard deviation of the logarithm.
    LogNormal(f64),
    /// Exponential.
    Exponential,
    /// A power law with this exponent, cut at 200 times the minimum.
    Pareto(f64),
}

/// How long requests, which occupy no slot, behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// They are not answered within the run.
    Never,
    /// Their response headers come at the end.
    Late,
    /// Their response headers come at once, the end late.
    Streams,
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FaultKind {
    /// Work takes this multiple of its time.
    Slow(f64),
    /// Requests are accepted and never answered.
    Hole,
    /// Connections are refused.
    Refuse,
    /// This fraction fails at once.
    Errors(f64),
    /// This fraction is answered 429.
    Limits(f64),
    /// A pause of half a second.
    Pause,
}

/// A fault of some endpoints.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// Kind of fault.
    pub kind: FaultKind,
    /// Number of endpoints that have it.
    pub endpoints: usize,
    /// Beginning and end, as fractions of the run.
    pub within: (f64, f64),
}

/// A drawn fleet and its traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// Seed of what is random within it, such as which endpoints are faster or fail.
    pub salt: u64,
    /// Number of endpoints.
    pub endpoints: usize,
    /// Slots of an endpoint.
    pub slots: usize,
    /// Fraction of the endpoints with more slots, and the factor.
    pub bigger: (f64, f64),
    /// Whether weights are configured accordingly.
    pub told: bool,
    /// Standard deviation of the logarithm of the endpoints' speeds.
    pub scatter: f64,
    /// Distribution of the work in a request.
    pub work: WorkKind,
    /// Fraction of the requests that are heavy, and the factor on their work.
    pub heavy: (f64, f64),
    /// Long requests: kind, and number per endpoint in the run.
    pub long: Option<(Waits, f64)>,
    /// Utilization of the fleet's capacity.
    pub load: f64,
    /// Requests per second.
    pub rate: f64,
    /// Length of the run, seconds.
    pub length: f64,
    /// Number of proxies.
    pub proxies: usize,
    /// Number of workers in each proxy.
    pub workers: usize,
    /// Fraction of attempts that fail, whichever endpoint serves them.
    pub errors: f64,
    /// Maximum number of retries.
    pub retries: u32,
    /// Scrape and poll interval, seconds.
    pub signal: Option<(f64, f64)>,
    /// The faults.
    pub faults: Vec<Fault>,
}

/// Mean duration of a late answer, as a fraction of the run.
const LATE: f64 = 0.25;

impl Fleet {
    /// Number of slots of each endpoint.
    pub fn slots_of(&self) -> Vec<usize> {
        let bigger = (self.bigger.0 * self.endpoints as f64).round() as usize;
        let slots =
            |e| if e < bigger { (self.slots as f64 * self.bigger.1).round() as usize } else { self.slots };
        (0..self.endpoints).map(slots).collect()
    }

    /// Factor on the service time of each endpoint.
    fn slowness(&self) -> Vec<f64> {
        let mut rng = Rng::new(rng::mix(self.salt));
        (0..self.endpoints).map(|_| (self.scatter * normal(&mut rng)).exp()).collect()
    }

    /// Number of requests that the whole fleet works on at a time, weighted by speed.
    pub fn places(&self) -> f64 {
        self.slots_of().iter().zip(self.slowness()).map(|(slots, slow)| *slots as f64 / slow).sum()
    }

    /// Mean work in a request that results in the load, seconds.
    pub fn mean_work(&self) -> f64 {
        self.load * self.places() / self.rate
    }

    fn distribution(&self) -> Distribution {
        let mean = self.mean_work() / (1.0 + self.heavy.0 * (self.heavy.1 - 1.0));
        match self.work {
            WorkKind::LogNormal(sigma) => {
                Distribution::LogNormal { median: mean / (sigma * sigma / 2.0).exp(), sigma }
            }
            WorkKind::Exponential => Distribution::Exponential { mean },
            WorkKind::Pareto(shape) => {
                let unit = Distribution::Pareto { scale: 1.0, shape, most: 200.0 }.mean();
                Distribution::Pareto { scale: mean / unit, shape, most: 200.0 * mean / unit }
            }
        }
    }

    /// The scenario for the simulator.
    pub fn scenario(&self) -> Scenario {
        let slots_of = self.slots_of();
        let weights = match self.told && self.bigger.0 > 0.0 {
            true => slots_of.iter().map(|slots| *slots as f64 / self.slots as f64).collect(),
            false => Vec::new(),
        };
        let long = self.long.map(|(waits, each)| Long {
            share: (each * self.endpoints as f64 / (self.rate * self.length)).min(0.5),
            seconds: if waits == Waits::Never { 1e6 } else { LATE * self.length },
            streams: waits == Waits::Streams,
        });
        let signal = |(scrape, poll)| Signal { scrape, poll, max: None, fault: SignalFault::None };
        Scenario {
            name: "drawn",
            length: self.length,
            rate: self.rate,
            proxies: self.proxies,
            workers: self.workers,
            endpoints: self.endpoints,
            present: self.endpoints,
            slots: self.slots,
            slots_of,
            weights,
            errors: self.errors,
            long,
            work: self.distribution(),
            heavy: self.heavy,
            timeout: (20.0 * self.mean_work()).clamp(2.0, 30.0),
            retries: self.retries,
            changes: self.changes(),
            signal: self.signal.map(signal),
            ..Scenario::default()
        }
    }

    fn changes(&self) -> Vec<Change> {
        let slowness = self.slowness();
        let mut changes = Vec::new();
        if self.scatter > 0.0 {
            let each = slowness.iter().enumerate();
            changes.extend(each.map(|(endpoint, slow)| Change {
                at: 0.0,
                endpoint,
                what: What::Slow(*slow),
            }));
        }
        let mut rng = Rng::new(rng::mix(self.salt ^ 0xFA17));
        let mut order: Vec<usize> = (0..self.endpoints).collect();
        for fault in &self.faults {
            for at in 0..fault.endpoints.min(self.endpoints) {
                order.swap(at, at + rng.below((self.endpoints - at) as u32) as usize);
                let endpoint = order[at];
                let slow = slowness[endpoint];
                let serve = What::Mode(Mode::Serve);
                let (falls, heals) = match fault.kind {
                    FaultKind::Slow(factor) => (What::Slow(factor * slow), Some(What::Slow(slow))),
                    FaultKind::Hole => (What::Mode(Mode::Hole), Some(serve)),
                    FaultKind::Refuse => (What::Mode(Mode::Refuse), Some(serve)),
                    FaultKind::Errors(share) => (What::Mode(Mode::Errors(share)), Some(serve)),
                    FaultKind::Limits(share) => (What::Mode(Mode::Limits(share)), Some(serve)),
                    FaultKind::Pause => (What::Pause(0.5), None),
                };
                let (from, to) = (fault.within.0 * self.length, fault.within.1 * self.length);
                changes.push(Change { at: from, endpoint, what: falls });
                changes.extend(heals.map(|what| Change { at: to, endpoint, what }));
            }
        }
        changes.sort_by(|a, b| a.at.total_cmp(&b.at));
        changes
    }
}
