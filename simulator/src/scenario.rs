//! What happens in a run: the fleet, the traffic, and what goes wrong when.

use crate::distribution::Distribution;

/// Everything about a run but the policy.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Unique name.
    pub name: &'static str,
    /// Seconds in which requests arrive.
    pub length: f64,
    /// Requests per second over all proxies.
    pub rate: f64,
    /// How the rate varies.
    pub shape: Shape,
    /// How many proxies there are.
    pub proxies: usize,
    /// Workers of each proxy.
    pub workers: usize,
    /// Endpoints that exist, whether or not they are part of the fleet from the start.
    pub endpoints: usize,
    /// How many of them, counted from the first, are there from the start.
    pub present: usize,
    /// Requests that an endpoint works on at a time.
    pub slots: usize,
    /// The same by endpoint, where they differ.
    pub slots_of: Vec<usize>,
    /// What the balancers are told of each endpoint's capacity; nothing if empty.
    pub weights: Vec<f64>,
    /// Share of all attempts that is answered 500 within a millisecond, whichever endpoint serves them.
    pub errors: f64,
    /// Requests of another kind between the others; what they take is not reported.
    pub long: Option<Long>,
    /// Work in a request.
    pub work: Distribution,
    /// Share of requests that are heavy, and how much heavier.
    pub heavy: (f64, f64),
    /// Seconds from proxy to endpoint and the same back.
    pub network: f64,
    /// Seconds after which a proxy gives up on a request.
    pub timeout: f64,
    /// How many times a failed request is sent again.
    pub retries: u32,
    /// What happens to which and when, in order of time.
    pub changes: Vec<Change>,
    /// Accept at once, work later: the longest queue, beyond which 503 is answered.
    pub asynchronous: Option<usize>,
    /// Queue depth as Prometheus tells it.
    pub signal: Option<Signal>,
    /// Endpoints are started and stopped as the balancer asks, if it does.
    pub scaling: Option<Scaling>,
    /// Where the endpoints are, if that matters.
    pub zones: Option<Zones>,
    /// Which parts of the run are reported beside the whole.
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
    /// Seconds of work in a request, on average.
    pub fn mean_work(&self) -> f64 {
        let (share, factor) = self.heavy;
        self.work.mean() * (1.0 + share * (factor - 1.0))
    }

    /// Requests per second that the fleet can do at its worst moment. Pauses and errors are not counted.
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

    /// Requests that `endpoint` works on at a time.
    pub fn slots_at(&self, endpoint: usize) -> usize {
        self.slots_of.get(endpoint).copied().unwrap_or(self.slots)
    }

    /// What the balancers are told of the capacity of `endpoint`.
    pub fn weight(&self, endpoint: usize) -> f64 {
        self.weights.get(endpoint).copied().unwrap_or(1.0)
    }

    /// Seconds from a proxy to `endpoint`, and the same back.
    pub fn way(&self, endpoint: usize) -> f64 {
        let farther = self.zones.filter(|zones| endpoint >= zones.local).map_or(0.0, |zones| zones.farther);
        self.network + farther
    }

    /// Seconds between two ticks of a worker, by the size of the fleet as in the filter.
    pub fn tick(&self) -> f64 {
        let brief = self.mean_work() + 2.0 * self.network < BRIEF_S;
        let shortest = if brief { BRIEF_TICK_S } else { MIN_TICK_S };
        (MIN_TICK_S * self.endpoints as f64 / ENDPOINTS_PER_SHORTEST_TICK).clamp(shortest, MAX_TICK_S)
    }
}

/// The pace of the filter's ticks.
const MIN_TICK_S: f64 = 0.005;
const BRIEF_S: f64 = 0.004;
const BRIEF_TICK_S: f64 = 0.020;
const ENDPOINTS_PER_SHORTEST_TICK: f64 = 50.0;
const MAX_TICK_S: f64 = 0.500;

/// Requests that need no slot: they wait, or stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Long {
    /// Share of all arrivals.
    pub share: f64,
    /// Seconds until it is over, exponentially distributed.
    pub seconds: f64,
    /// Whether response headers come at once; at its end if not.
    pub streams: bool,
}

/// How the arrival rate varies.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Poisson at one rate.
    Steady,
    /// Every `every` seconds, for `length` seconds, `factor` times the rate.
    Bursts {
        /// Seconds from one burst to the next.
        every: f64,
        /// Seconds that each lasts.
        length: f64,
        /// Multiple of the rate during a burst.
        factor: f64,
    },
    /// Equal steps over the run, each with its multiple of the rate.
    Steps(Vec<f64>),
}

impl Shape {
    /// The multiple of the rate at `seconds` into a run of `length`.
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

    /// The largest multiple.
    pub fn most(&self) -> f64 {
        match self {
            Shape::Steady => 1.0,
            Shape::Bursts { factor, .. } => factor.max(1.0),
            Shape::Steps(steps) => steps.iter().copied().fold(0.0, f64::max),
        }
    }
}

/// Something happens to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Seconds into the run.
    pub at: f64,
    /// Which endpoint.
    pub endpoint: usize,
    /// What happens.
    pub what: What,
}

/// What can happen to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    /// Work that starts from now on takes this multiple of its time.
    Slow(f64),
    /// From now on requests meet this.
    Mode(Mode),
    /// Nothing moves for this many seconds.
    Pause(f64),
    /// It becomes part of the fleet, and every proxy hears of it.
    Join,
    /// It leaves the fleet, and every proxy hears of it; requests that it has are served.
    Leave,
}

/// How an endpoint meets requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// It works.
    Serve,
    /// This share is answered 503 within a millisecond.
    Errors(f64),
    /// This share is answered 429 within a millisecond.
    Limits(f64),
    /// The connection is refused within a millisecond; what it had is reset.
    Refuse,
    /// Requests are accepted and never answered.
    Hole,
}

/// Endpoints that are started and stopped as the balancer asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// Seconds from the wish for an endpoint to its first request.
    pub start: f64,
    /// The fewest there are.
    pub min: usize,
    /// Pressure that is to be held.
    pub target: f64,
    /// Seconds over which pressure is averaged; two such periods decide.
    pub period: f64,
    /// Seconds in which fewer must have been enough.
    pub cool_down: f64,
    /// Seconds by which a rise is thought on.
    pub look_ahead: f64,
}

/// Queue depth as Prometheus tells it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signal {
    /// Seconds between two scrapes of an endpoint.
    pub scrape: f64,
    /// Seconds between two polls of Prometheus by a proxy.
    pub poll: f64,
    /// The value that counts as full, if configured.
    pub max: Option<f64>,
    /// What is wrong with it.
    pub fault: SignalFault,
}

/// What can be wrong with a signal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SignalFault {
    /// Nothing.
    None,
    /// The samples end at this many seconds into the run.
    AbsentFrom(f64),
    /// A busy endpoint reports nothing, an idle one a full queue.
    Lies,
}

/// Two zones, the proxies being in the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Zones {
    /// How many of the endpoints, counted from the first, are in it.
    pub local: usize,
    /// Seconds that the way to the others, and the way back, take longer.
    pub farther: f64,
}

/// A part of a run that is reported beside the whole.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Heading.
    pub label: &'static str,
    /// What is measured.
    pub what: Measure,
    /// Seconds into the run, from and to; requests count by their start.
    pub window: (f64, f64),
}

/// What can be measured of a part of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure {
    /// This percentile of latency in milliseconds (and how many failed).
    Latency(f64),
    /// The share of requests that this endpoint got, and the one that it should get.
    Share {
        /// Which endpoint.
        of: usize,
        /// 0..=1.
        wanted: f64,
    },
    /// The share of requests that the local zone got.
    Local,
    /// This percentile of the time from the arrival to the end of a task, in milliseconds.
    Task(f64),
    /// How far the endpoints' shares differ: (largest − smallest) / mean.
    Spread,
    /// The largest deviation of an endpoint's share from its mean, second by second, beyond the arrivals' own
    /// noise (three standard deviations), as a part of the mean.
    Herding,
    /// Endpoints that there were, on average.
    Replicas,
    /// Seconds from the window's start until this endpoint has nine tenths of its fair share again.
    Recovery(usize),
}

impl Measure {
    /// How bad `value` is; of two the smaller is the better.
    pub fn badness(self, value: f64) -> f64 {
        match self {
            Measure::Share { wanted, .. } => (value - wanted).abs(),
            _ => value,
        }
    }

    /// Differences up to this are small beside `value`.
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
