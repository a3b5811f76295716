//! Who can be put to the test, by name.

use std::rc::Rc;

use evenkeel::config;
use evenkeel::random::Rng;
use evenkeel::time::Time;

use crate::balancer::Balancer;
use crate::ours;
use crate::peers::c3::C3;
use crate::peers::envoy::{self, Kind};
use crate::peers::oracle::Oracle;
use crate::peers::peak_ewma::PeakEwma;
use crate::peers::prequal::Prequal;
use crate::scenario::Scenario;

/// A policy under test.
#[derive(Clone, Debug, PartialEq)]
pub enum Contender {
    /// evenkeel with one of its policies.
    Ours(config::Policy),
    /// Envoy with one of its policies; with outlier detection or without.
    Envoy(Kind, bool),
    /// Linkerd's peak EWMA.
    PeakEwma,
    /// C3's replica ranking.
    C3,
    /// Prequal.
    Prequal,
    /// Knows every queue.
    Oracle,
}

/// Every contender by its name in tables and on the command line.
pub fn all() -> Vec<(&'static str, Contender)> {
    vec![
        ("adaptive", Contender::Ours(config::Policy::Adaptive)),
        ("ours-least_request", Contender::Ours(config::Policy::LeastRequest)),
        ("ours-round_robin", Contender::Ours(config::Policy::RoundRobin)),
        ("ours-least_signal", Contender::Ours(config::Policy::LeastSignal { signal: "queue_depth".into() })),
        ("round_robin", Contender::Envoy(Kind::RoundRobin, false)),
        ("random", Contender::Envoy(Kind::Random, false)),
        ("least_request", Contender::Envoy(Kind::LeastRequest, false)),
        ("least_request+od", Contender::Envoy(Kind::LeastRequest, true)),
        ("random+od", Contender::Envoy(Kind::Random, true)),
        ("round_robin+od", Contender::Envoy(Kind::RoundRobin, true)),
        ("orca", Contender::Envoy(Kind::Orca(BLACKOUT_S), false)),
        ("orca+od", Contender::Envoy(Kind::Orca(BLACKOUT_S), true)),
        ("orca-eager+od", Contender::Envoy(Kind::Orca(EAGER_S), true)),
        ("peak_ewma", Contender::PeakEwma),
        ("c3", Contender::C3),
        ("prequal", Contender::Prequal),
        ("oracle", Contender::Oracle),
    ]
}

/// `blackout_period` as gRPC and Envoy have it by default: most of a run of 12 s.
const BLACKOUT_S: f64 = 10.0;
/// None, so that the weights have the chance to matter.
const EAGER_S: f64 = 0.0;

/// Those that a run without `--policy` shows.
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
    all().into_iter().find(|(n, _)| *n == name).map(|(_, c)| c)
}

impl Contender {
    /// The proxies of `scenario`, all balancing this way.
    pub fn proxies(&self, scenario: &Scenario, now: Time, rng: &mut Rng) -> Vec<Box<dyn Balancer>> {
        match self {
            Contender::Ours(policy) => {
                let common = Rc::new(ours::Common::new(scenario, policy));
                each(scenario, rng, |seed| ours::Proxy::new(scenario, Rc::clone(&common), now, seed))
            }
            Contender::Envoy(kind, outlier) => {
                each(scenario, rng, |seed| envoy::Proxy::new(*kind, *outlier, scenario, now, seed))
            }
            Contender::PeakEwma => each(scenario, rng, |seed| PeakEwma::new(scenario, now, seed)),
            Contender::C3 => each(scenario, rng, |seed| C3::new(scenario, seed)),
            Contender::Prequal => each(scenario, rng, |seed| Prequal::new(scenario, seed)),
            Contender::Oracle => each(scenario, rng, |seed| Oracle::new(scenario, seed)),
        }
    }
}

fn each<B: Balancer + 'static>(
    scenario: &Scenario,
    rng: &mut Rng,
    new: impl Fn(u64) -> B,
) -> Vec<Box<dyn Balancer>> {
    (0..scenario.proxies).map(|_| Box::new(new(rng.next_u64())) as Box<dyn Balancer>).collect()
}
