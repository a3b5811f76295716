//! Scenarios: the fleet, the traffic, and which faults occur when.

use crate::distribution::Distribution;

/// Everything about a run except the balancer.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Unique name.
    pub name: &'static str,
    /// Time in which requests arrive, seconds.
    pub length: f64,
    /// Requests per second over all proxies.
    pub rate: f64,
    /// How the rate varies.
    pub shape: Shape,
    /// Number of proxies.
    pub proxies: usize,
    /// Number of workers in each proxy.
    pub workers: usize,
    /// Number of endpoints, including those that are not present at the start.
    pub endpoints: usize,
    /// Number of endpoints that are present at the start, counted from the first.
    pub present: usize,
    /// Number of requests that an endpoint works on at a time.
    pub slots: usize,
    /// Number of requests that each endpoint works on at a time; empty if they are equal.
    pub slots_of: Vec<usize>,
    /// Configured weight of each endpoint; empty if there are none.
    pub weights: Vec<f64>,
    /// Fraction of all attempts that is answered 500 within a millisecond, whichever endpoint serves them.
    pub errors: f64,
    /// Long requests among the others; their latency is not reported.
    pub long: Option<Long>,
    /// Work in a request.
    pub work: Distribution,
    /// Fraction of requests that are heavy, and the factor on their work.
    pub heavy: (f64, f64),
    /// One-way network delay between proxy and endpoint, seconds.
    pub network: f64,
    /// Timeout of a request, seconds.
    pub timeout: f64,
    /// Maximum number of retries.
    pub retries: u32,
    /// Changes of endpoints, in order of time.
    pub changes: Vec<Change>,
    /// Maximum queue length of endpoints that accept at once and work later, beyond which they answer 503.
    pub asynchronous: Option<usize>,
    /// Queue depth from Prometheus, if any.
    pub signal: Option<Signal>,
    /// Scaling by the balancer's output, if any.
    pub scaling: Option<Scaling>,
    /// Zones, if any.
    pub zones: Option<Zones>,
    /// Parts of the run that are reported besides the whole.
    pub views: Vec<View>,
}

impl Default for Scenario {
    /// Ten equal endpoints with four slots of 20 ms, 600/s (a third of capacity), one proxy with two workers.
    fn default() -> Scenario {
        Scenario {
            name: "equal",
            length: 12.0,
            rate: 600.0,
            shape: Shape::Steady,
            proxies: 1,
            workers: 2,
            endpoints: 10,
            present: 10,
            slots: 4,
            slots_of: Vec::new(),
            weights: Vec::new(),
            errors: 0.0,
            long: None,
            work: Distribution::TYPICAL,
            heavy: (0.0, 1.0),
            network: 0.0002,
            timeout: 2.0,
            retries: 0,
            changes: Vec::new(),
            asynchronous: None,
            signal: None,
            scaling: None,
            zones: None,
            views: Vec::new(),
        }
    }
}

impl Scenario {
    /// Mean work in a request, seconds.
    pub fn mean_work(&self) -> f64 {
        let (share, factor) = self.heavy;
        self.work.mean() * (1.0 + share * (factor - 1.0))
    }

    /// Capacity of the fleet at its worst moment, requests per second; pauses and errors are ignored.
    pub fn capacity(&self) -> f64 {
        let slots = |e: usize| self.slots_at(e) as f64;
        let mut slow = vec![1.0; self.endpoints];
        let mut works: Vec<bool> = (0..self.endpoints).map(|e| e < self.present).collect();
        let mut worst = f64::INFINITY;
        let mut changes = self.changes.iter().peekable();
        while let Some(change) = changes.next() {
            match change.what {
                What::Slow(factor) => slow[change.endpoint] = factor,
                What::Mode(mode) => {
                    works[change.endpoint] = matches!(mode, Mode::Serve | Mode::Errors(_) | Mode::Limits(_))
                }
                What::Join => works[change.endpoint] = true,
                What::Leave => works[change.endpoint] = false,
                What::Pause(_) => {}
            }
            if changes.peek().is_none_or(|next| next.at > change.at) {
                let working = (0..self.endpoints).filter(|e| works[*e]);
                worst = worst.min(working.map(|e| slots(e) / slow[e]).sum());
            }
        }
        if self.changes.first().is_none_or(|c| c.at > 0.0) {
            worst = worst.min((0..self.present).map(slots).sum());
        }
        worst / self.mean_work()
    }

    /// Number of requests that `endpoint` works on at a time.
    pub fn slots_at(&self, endpoint: usize) -> usize {
        self.slots_of.get(endpoint).copied().unwrap_or(self.slots)
    }

    /// Configured weight of `endpoint`.
    pub fn weight(&self, endpoint: usize) -> f64 {
        self.weights.get(endpoint).copied().unwrap_or(1.0)
    }

    /// One-way network delay to `endpoint`, seconds.
    pub fn way(&self, endpoint: usize) -> f64 {
        let farther = self.zones.filter(|zones| endpoint >= zones.local).map_or(0.0, |zones| zones.farther);
        self.network + farther
    }

    /// Tick interval of a worker, seconds; depends on the size of the fleet as in the filter.
    pub fn tick(&self) -> f64 {
        let brief = self.mean_work() + 2.0 * self.network < BRIEF_S;
        let shortest = if brief { BRIEF_TICK_S } else { MIN_TICK_S };
        (MIN_TICK_S * self.endpoints as f64 / ENDPOINTS_PER_SHORTEST_TICK).clamp(shortest, MAX_TICK_S)
    }
}

/// Tick interval of small fleets, seconds, as in the filter.
const MIN_TICK_S: f64 = 0.005;
/// Duration of a request below which it counts as brief, seconds.
const BRIEF_S: f64 = 0.004;
/// Minimum tick interval where requests are brief, seconds.
const BRIEF_TICK_S: f64 = 0.020;
/// Number of endpoints above which the interval grows in proportion.
const ENDPOINTS_PER_SHORTEST_TICK: f64 = 50.0;
/// Maximum tick interval, seconds.
const MAX_TICK_S: f64 = 0.500;

/// Long requests that occupy no slot: they wait, or stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Long {
    /// Fraction of all arrivals.
    pub share: f64,
    /// Mean duration, seconds; exponentially distributed.
    pub seconds: f64,
    /// Whether response headers come at once rather than at the end.
    pub streams: bool,
}

/// How the arrival rate varies.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Poisson arrivals at a constant rate.
    Steady,
    /// Bursts at regular intervals.
    Bursts {
        /// Interval between bursts, seconds.
        every: f64,
        /// Duration of a burst, seconds.
        length: f64,
        /// Multiple of the rate during a burst.
        factor: f64,
    },
    /// Steps of equal length over the run, each with a multiple of the rate.
    Steps(Vec<f64>),
}

impl Shape {
    /// The multiple of the rate at `seconds` into a run of `length` seconds.
    pub fn at(&self, seconds: f64, length: f64) -> f64 {
        match self {
            Shape::Steady => 1.0,
            Shape::Bursts { every, length, factor } => {
                if seconds % every < *length {
                    *factor
                } else {
                    1.0
                }
            }
            Shape::Steps(steps) => {
                let step = (seconds / length * steps.len() as f64) as usize;
                steps.get(step).or(steps.last()).copied().unwrap_or(1.0)
            }
        }
    }

    /// The largest multiple of the rate.
    pub fn most(&self) -> f64 {
        match self {
            Shape::Steady => 1.0,
            Shape::Bursts { factor, .. } => factor.max(1.0),
            Shape::Steps(steps) => steps.iter().copied().fold(0.0, f64::max),
        }
    }
}

/// A change of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Time, seconds into the run.
    pub at: f64,
    /// The endpoint.
    pub endpoint: usize,
    /// The change.
    pub what: What,
}

/// What can change at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    /// Work that starts from now on takes this multiple of its time.
    Slow(f64),
    /// The way in which it treats requests.
    Mode(Mode),
    /// It pauses for this many seconds.
    Pause(f64),
    /// It joins the fleet, and every proxy is informed.
    Join,
    /// It leaves the fleet, and every proxy is informed; requests that it has are served.
    Leave,
}

/// How an endpoint treats requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// It serves them.
    Serve,
    /// This fraction is answered 503 within a millisecond.
    Errors(f64),
    /// This fraction is answered 429 within a millisecond.
    Limits(f64),
    /// Connections are refused within a millisecond; requests in progress are reset.
    Refuse,
    /// Requests are accepted and never answered.
    Hole,
}

/// Scaling of the fleet by the balancer's output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// Time from the request for an endpoint until it is in traffic, seconds.
    pub start: f64,
    /// Minimum number of endpoints.
    pub min: usize,
    /// Pressure to maintain.
    pub target: f64,
    /// Period over which pressure is averaged, seconds; two of them decide.
    pub period: f64,
    /// Time for which fewer endpoints must have been enough, seconds.
    pub cool_down: f64,
    /// Time by which a rise is extrapolated, seconds.
    pub look_ahead: f64,
}

/// Queue depth from Prometheus.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signal {
    /// Scrape interval of an endpoint, seconds.
    pub scrape: f64,
    /// Poll interval of a proxy, seconds.
    pub poll: f64,
    /// The value that counts as full, if configured.
    pub max: Option<f64>,
    /// The signal's fault.
    pub fault: SignalFault,
}

/// Faults of a signal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SignalFault {
    /// Nothing.
    None,
    /// There are no samples from this many seconds into the run on.
    AbsentFrom(f64),
    /// A busy endpoint reports zero, an idle one a full queue.
    Lies,
}

/// Two zones; the proxies are in the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Zones {
    /// Number of endpoints in the first zone, counted from the first.
    pub local: usize,
    /// Additional one-way delay to the others, seconds.
    pub farther: f64,
}

/// A part of a run that is reported besides the whole.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Heading.
    pub label: &'static str,
    /// What is measured.
    pub what: Measure,
    /// Seconds into the run, from and to; requests count by their start.
    pub window: (f64, f64),
}

/// What can be measured in a part of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure {
    /// This percentile of latency in milliseconds, and the number of failures.
    Latency(f64),
    /// The share of requests that an endpoint got.
    Share {
        /// The endpoint.
        of: usize,
        /// The share that it should get, 0..=1.
        wanted: f64,
    },
    /// The share of requests that the local zone got.
    Local,
    /// This percentile of the time from arrival to end of a task, milliseconds.
    Task(f64),
    /// How much the endpoints' shares differ: (largest − smallest) / mean.
    Spread,
    /// The largest deviation of an endpoint's share in any second from its mean, beyond the noise of arrivals (three
    /// standard deviations), relative to the mean.
    Herding,
    /// Mean number of endpoints.
    Replicas,
    /// Time from the start of the window until this endpoint has nine tenths of its fair share again, seconds.
    Recovery(usize),
}

impl Measure {
    /// How bad `value` is; lower is better.
    pub fn badness(self, value: f64) -> f64 {
        match self {
            Measure::Share { wanted, .. } => (value - wanted).abs(),
            _ => value,
        }
    }

    /// The largest difference that is small compared with `value`.
    pub fn little(self, value: f64) -> f64 {
        match self {
            Measure::Latency(_) | Measure::Task(_) => 0.05 * value,
            Measure::Recovery(_) => 1.0,
            Measure::Replicas => 0.5,
            Measure::Share { .. } | Measure::Local => 0.01,
            Measure::Spread | Measure::Herding => 0.05,
        }
    }
}
