//! Runs one fleet with every balancer on the same traffic: how much worse evenkeel is than the others, and whether
//! chance explains it.

use super::kinds::Fleet;
use super::statistics::{at_least, jain};
use crate::run::Run;
use crate::{contender, world};

/// Number of seeds for every fleet.
const SEEDS: u64 = 2;
/// Number of seeds if the first ones show a possible loss.
const MORE_SEEDS: u64 = 6;
/// Ratio above which there is a possible loss.
const SUSPECT: f64 = 1.03;
/// Ratio above which there is a loss, unless chance explains it.
const LOSS: f64 = 1.05;
/// Minimum difference in failures that counts as a loss, as a fraction of the requests.
const MIN_FAILED: f64 = 0.001;

/// Envoy's own policies.
const BUILT_IN: [&str; 6] =
    ["round_robin", "least_request", "random", "round_robin+od", "least_request+od", "random+od"];
/// Further balancers for comparison.
pub(super) const PEERS: [&str; 4] = ["prequal", "c3", "peak_ewma", "oracle"];

/// A metric that is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Median latency.
    P50,
    /// 90th percentile of latency.
    P90,
    /// 99th percentile of latency.
    P99,
    /// Fraction of requests that failed.
    Failed,
}

/// All metrics.
pub const METRICS: [Metric; 4] = [Metric::P50, Metric::P90, Metric::P99, Metric::Failed];

impl Metric {
    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Metric::P50 => "p50",
            Metric::P90 => "p90",
            Metric::P99 => "p99",
            Metric::Failed => "failed",
        }
    }
}

/// Results of one run: the metrics in milliseconds or as a fraction, and the evenness of the endpoints' shares.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    figures: [f64; METRICS.len()],
    fairness: f64,
}

impl Outcome {
    fn of(run: &Run, fleet: &Fleet, timeout: f64) -> Outcome {
        let shares = run.shares((0.0, f64::MAX));
        let filled: Vec<f64> =
            shares.iter().zip(fleet.slots_of()).map(|(s, slots)| s / slots as f64).collect();
        Outcome { figures: run.judged(timeout), fairness: jain(&filled) }
    }
}

/// One metric of one fleet, compared with the best built-in policy.
#[derive(Clone, Copy, Debug)]
pub struct Against {
    /// The best built-in policy.
    pub best: &'static str,
    /// Mean of evenkeel and of the best built-in policy, in milliseconds or as a fraction.
    pub values: (f64, f64),
    /// Geometric mean of the ratios; for failures, ratio of the means.
    pub ratio: f64,
    /// Whether evenkeel is worse by more than 5 %, and not by chance.
    pub lost: bool,
}

/// A fleet and its results.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The fleet.
    pub fleet: Fleet,
    /// Comparisons by metric.
    pub against: [Against; METRICS.len()],
    /// Whether any metric is lost if policies that fail more requests count as well.
    pub lost_to_any: bool,
    /// Ratio of p99 to least request with outlier detection, then to each of the peers.
    pub p99_over: Vec<f64>,
    /// Evenness of the endpoints' shares relative to their slots: adaptive, least request.
    pub fairness: (f64, f64),
}

impl Judged {
    /// Whether any metric is lost.
    pub fn lost(&self) -> bool {
        self.against.iter().any(|a| a.lost)
    }

    /// The largest ratio among the lost metrics.
    pub fn worst(&self) -> f64 {
        self.against.iter().filter(|a| a.lost).map(|a| a.ratio).fold(0.0, f64::max)
    }
}

/// Runs `fleet` with every balancer.
pub fn judge(fleet: &Fleet) -> Judged {
    let mut ours = Vec::new();
    let mut built_in = vec![Vec::new(); BUILT_IN.len()];
    let mut peers = vec![Vec::new(); PEERS.len()];
    add(fleet, &["adaptive"], 0..SEEDS, std::slice::from_mut(&mut ours));
    add(fleet, &BUILT_IN, 0..SEEDS, &mut built_in);
    add(fleet, &PEERS, 0..SEEDS, &mut peers);
    let suspect = METRICS.iter().any(|metric| {
        let against = compare(*metric, true, &ours, &built_in);
        against.ratio > SUSPECT && (*metric != Metric::Failed || against.values.0 > MIN_FAILED)
    });
    if suspect {
        add(fleet, &["adaptive"], SEEDS..MORE_SEEDS, std::slice::from_mut(&mut ours));
        add(fleet, &BUILT_IN, SEEDS..MORE_SEEDS, &mut built_in);
    }
    let mut against = [Against { best: "", values: (0.0, 0.0), ratio: 1.0, lost: false }; METRICS.len()];
    for (slot, metric) in against.iter_mut().zip(METRICS) {
        *slot = compare(metric, false, &ours, &built_in);
    }
    let p99 = |of: &[Outcome]| {
        let each = ours.iter().zip(of).map(|(ours, other)| (ours.figures[2] / other.figures[2]).ln());
        (each.sum::<f64>() / ours.len().min(of.len()).max(1) as f64).exp()
    };
    let detects = BUILT_IN.iter().position(|name| *name == "least_request+od").unwrap_or(0);
    let mean = |of: &[Outcome]| of.iter().map(|o| o.fairness).sum::<f64>() / of.len().max(1) as f64;
    Judged {
        fleet: fleet.clone(),
        against,
        lost_to_any: METRICS.iter().any(|metric| compare(*metric, true, &ours, &built_in).lost),
        p99_over: std::iter::once(&built_in[detects]).chain(&peers).map(|of| p99(of)).collect(),
        fairness: (mean(&ours), mean(&built_in[1])),
    }
}

fn add(fleet: &Fleet, names: &[&str], seeds: std::ops::Range<u64>, to: &mut [Vec<Outcome>]) {
    let scenario = fleet.scenario();
    for (name, outcomes) in names.iter().zip(to) {
        let Some(contender) = contender::named(name) else { continue };
        for seed in seeds.clone() {
            let run = world::run(&scenario, &contender, fleet.salt ^ (seed + 1) << 32);
            outcomes.push(Outcome::of(&run, fleet, scenario.timeout));
        }
    }
}

/// Compares with the best built-in policy. For latency, unless `all` count, only with those that serve as many
/// requests: a policy that fails more has fewer to serve.
fn compare(metric: Metric, all: bool, ours: &[Outcome], built_in: &[Vec<Outcome>]) -> Against {
    let at = metric as usize;
    let mean_of =
        |at: usize, of: &[Outcome]| of.iter().map(|o| o.figures[at]).sum::<f64>() / of.len().max(1) as f64;
    let mean = |of: &[Outcome]| mean_of(at, of);
    let fails = |of: &[Outcome]| mean_of(Metric::Failed as usize, of);
    let logs = |of: &[Outcome]| of.iter().map(|o| o.figures[at].max(1e-9).ln()).sum::<f64>();
    let good = |of: &Vec<Outcome>| if metric == Metric::Failed { mean(of) } else { logs(of) };
    let least = built_in.iter().map(|of| fails(of)).fold(f64::INFINITY, f64::min);
    let most = if all || metric == Metric::Failed {
        f64::INFINITY
    } else {
        least.max(fails(ours) * LOSS + MIN_FAILED)
    };
    let models = (0..built_in.len()).filter(|of| fails(&built_in[*of]) <= most);
    let best = models.min_by(|a, b| good(&built_in[*a]).total_cmp(&good(&built_in[*b]))).unwrap_or(0);
    let values = (mean(ours), mean(&built_in[best]));
    let pairs = ours.iter().zip(&built_in[best]).map(|(a, b)| (a.figures[at], b.figures[at]));
    let (ratio, lost) = if metric == Metric::Failed {
        let (more, surely) = at_least(&pairs.map(|(a, b)| a - b).collect::<Vec<_>>());
        let lost = more > MIN_FAILED && values.0 > LOSS * values.1 && surely > 0.0;
        ((values.0 + MIN_FAILED) / (values.1 + MIN_FAILED), lost)
    } else {
        let (ratio, surely) = at_least(&pairs.map(|(a, b)| (a / b).ln()).collect::<Vec<_>>());
        (ratio.exp(), ratio > LOSS.ln() && surely > 0.0)
    };
    Against { best: BUILT_IN[best], values, ratio, lost }
}
