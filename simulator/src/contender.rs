//! The balancers that can be compared, by name.

use std::rc::Rc;
use std::time::Duration;

use engine::ablation::{Ablation, Part};
use engine::rng::Rng;
use engine::settings::{Policy, Probe};
use engine::time::Time;

use crate::balancer::LoadBalancer;
use crate::ours;
use crate::peers::c3::C3;
use crate::peers::envoy::{self, Kind};
use crate::peers::oracle::Oracle;
use crate::peers::peak_ewma::PeakEwma;
use crate::peers::prequal::Prequal;
use crate::scenario::Scenario;

/// A balancer to be compared.
#[derive(Clone, Debug, PartialEq)]
pub enum Contender {
    /// evenkeel with one of its policies; the adaptive one has these parts.
    Ours(Policy, Ablation),
    /// The adaptive policy with the filter among the cluster's upstream filters, too.
    EachAttempt,
    /// The adaptive policy with out-of-band probes at this interval, seconds.
    Probing(f64),
    /// Envoy with one of its policies, with or without outlier detection.
    Envoy(Kind, bool),
    /// Linkerd's peak EWMA.
    PeakEwma,
    /// C3's replica ranking.
    C3,
    /// Prequal.
    Prequal,
    /// A balancer that knows every queue.
    Oracle,
    /// A contender with different random numbers, to show how much of a difference is chance.
    Again(Box<Contender>),
}

/// All contenders by their names in tables and on the command line, except those of the [`ablation`].
pub fn all() -> Vec<(&'static str, Contender)> {
    let ours = |policy| Contender::Ours(policy, Ablation::ALL);
    vec![
        (WHOLE, ours(Policy::Adaptive)),
        ("adaptive+upstream", Contender::EachAttempt),
        ("adaptive+probe", Contender::Probing(5.0)),
        ("ours-least_request", ours(Policy::LeastRequest)),
        ("ours-round_robin", ours(Policy::RoundRobin)),
        ("ours-peak_ewma", ours(Policy::PeakEwma)),
        ("ours-weighted_score", ours(weighted_score())),
        ("ours-weighted_round_robin", ours(Policy::WeightedRoundRobin)),
        ("ours-random", ours(Policy::Random)),
        ("ours-consistent_hash", ours(Policy::ConsistentHash(engine::settings::LoadBound::default()))),
        ("ours-ip_hash", ours(Policy::IpHash)),
        ("ours-least_signal", ours(Policy::LeastSignal { signal: "queue_depth".into() })),
        ("round_robin", Contender::Envoy(Kind::RoundRobin, false)),
        ("random", Contender::Envoy(Kind::Random, false)),
        ("least_request", Contender::Envoy(Kind::LeastRequest, false)),
        ("least_request+od", Contender::Envoy(Kind::LeastRequest, true)),
        ("random+od", Contender::Envoy(Kind::Random, true)),
        ("round_robin+od", Contender::Envoy(Kind::RoundRobin, true)),
        ("orca", Contender::Envoy(Kind::Orca(BLACKOUT_S), false)),
        ("orca+od", Contender::Envoy(Kind::Orca(BLACKOUT_S), true)),
        ("orca-eager", Contender::Envoy(Kind::Orca(EAGER_S), false)),
        ("orca-eager+od", Contender::Envoy(Kind::Orca(EAGER_S), true)),
        ("peak_ewma", Contender::PeakEwma),
        ("c3", Contender::C3),
        ("prequal", Contender::Prequal),
        ("oracle", Contender::Oracle),
    ]
}

/// The policy with its default settings.
fn weighted_score() -> Policy {
    Policy::WeightedScore(engine::settings::WeightedScore {
        in_flight_weight: 0.6,
        in_flight_max: 1000.0,
        latency_weight: 0.4,
        latency_max_ms: 500.0,
    })
}

const WHOLE: &str = "adaptive";

/// The adaptive policy, the same with different random numbers, then variants with one part left out or changed.
pub fn ablation() -> Vec<(&'static str, Contender)> {
    let all_terms = Ablation::ALL;
    let variants = [
        (WHOLE, all_terms),
        ("no-floor", Ablation::without(&[Part::MinLatency])),
        ("no-queueing", Ablation::without(&[Part::Queueing])),
        ("no-idle", Ablation::without(&[Part::IdleLatency])),
        ("no-clip", Ablation::without(&[Part::Clip])),
        ("no-jump", Ablation::without(&[Part::Jump])),
        ("no-apart", Ablation::without(&[Part::Apart])),
        ("plain-ewma", Ablation::without(&[Part::Clip, Part::Jump])),
        ("no-fade", Ablation::without(&[Part::Fade])),
        ("no-doubt", Ablation::without(&[Part::ConfidenceMargin])),
        ("no-errors", Ablation::without(&[Part::Errors])),
        ("no-explore", Ablation::without(&[Part::Explore])),
        ("no-sharing", Ablation::without(&[Part::Sharing])),
        ("no-verify", Ablation::without(&[Part::Verify])),
        ("no-eject", Ablation::without(&[Part::Eject])),
        ("no-health", Ablation::without(&[Part::Verify, Part::Eject])),
        ("no-health-errors", Ablation::without(&[Part::Verify, Part::Eject, Part::Errors])),
        ("no-background", Ablation::without(&[Part::BaselineErrors])),
        ("no-slow-start", Ablation::without(&[Part::SlowStart])),
        ("no-signals", Ablation::without(&[Part::Signals])),
        ("no-news", Ablation::without(&[Part::News])),
        ("2-choices", Ablation::comparing(2)),
        ("16-choices", Ablation::comparing(16)),
    ];
    let ours = |terms| Contender::Ours(Policy::Adaptive, terms);
    let mut all: Vec<_> = variants.into_iter().map(|(name, terms)| (name, ours(terms))).collect();
    all.insert(1, ("again", Contender::Again(Box::new(ours(all_terms)))));
    all
}

/// Default `blackout_period` of gRPC and Envoy, seconds: most of a run of 12 s.
const BLACKOUT_S: f64 = 10.0;
/// No blackout, so that the weights can take effect, seconds.
const EAGER_S: f64 = 0.0;

/// Contenders in a run without `--policy`.
pub const SHOWN: &[&str] = &[
    "adaptive",
    "round_robin",
    "random",
    "least_request",
    "least_request+od",
    "orca-eager+od",
    "peak_ewma",
    "c3",
    "prequal",
    "oracle",
];

/// The contender called `name`.
pub fn named(name: &str) -> Option<Contender> {
    all().into_iter().chain(ablation()).find(|(n, _)| *n == name).map(|(_, c)| c)
}

impl Contender {
    /// Creates the proxies of `scenario`, all with this balancer.
    pub fn proxies(&self, scenario: &Scenario, now: Time, rng: &mut Rng) -> Vec<Box<dyn LoadBalancer>> {
        match self {
            Contender::Ours(policy, terms) => {
                evenkeel(ours::Common::new(scenario, policy, *terms, None), scenario, now, rng)
            }
            Contender::EachAttempt => {
                let common = ours::Common::new(scenario, &Policy::Adaptive, Ablation::ALL, None);
                evenkeel(common.seeing_attempts(), scenario, now, rng)
            }
            Contender::Probing(interval_s) => {
                let interval = Duration::from_secs_f64(*interval_s);
                let probe = Probe { path: "/".into(), authority: None, interval, timeout: interval };
                let common = ours::Common::new(scenario, &Policy::Adaptive, Ablation::ALL, Some(probe));
                evenkeel(common, scenario, now, rng)
            }
            Contender::Envoy(kind, outlier) => {
                each(scenario, rng, |seed| envoy::Proxy::new(*kind, *outlier, scenario, now, seed))
            }
            Contender::PeakEwma => each(scenario, rng, |seed| PeakEwma::new(scenario, now, seed)),
            Contender::C3 => each(scenario, rng, |seed| C3::new(scenario, seed)),
            Contender::Prequal => each(scenario, rng, |seed| Prequal::new(scenario, seed)),
            Contender::Oracle => each(scenario, rng, |seed| Oracle::new(scenario, seed)),
            Contender::Again(same) => {
                let _another = rng.next_u64();
                same.proxies(scenario, now, rng)
            }
        }
    }
}

fn evenkeel(
    common: ours::Common,
    scenario: &Scenario,
    now: Time,
    rng: &mut Rng,
) -> Vec<Box<dyn LoadBalancer>> {
    let common = Rc::new(common);
    each(scenario, rng, |seed| ours::Proxy::new(scenario, Rc::clone(&common), now, seed))
}

fn each<B: LoadBalancer + 'static>(
    scenario: &Scenario,
    rng: &mut Rng,
    new: impl Fn(u64) -> B,
) -> Vec<Box<dyn LoadBalancer>> {
    (0..scenario.proxies).map(|_| Box::new(new(rng.next_u64())) as Box<dyn LoadBalancer>).collect()
}
