//! A policy names only eligible endpoints, each at most once; equal endpoints get equal shares.

use engine::ablation::Ablation;
use engine::endpoint::{EndpointState, PeerTable};
use engine::estimate::Queueing;
use engine::policy::{PickContext, Policy, Pool, Request, Turns, build};
use engine::rng::Rng;
use engine::time::Time;
use proptest::collection::vec;
use proptest::prelude::*;

const NOW: Time = Time(1_800_000_000_000_000_000);

fn policies() -> Vec<engine::settings::Policy> {
    vec![
        engine::settings::Policy::Adaptive,
        engine::settings::Policy::LeastRequest,
        engine::settings::Policy::LeastSignal { signal: "s".into() },
        engine::settings::Policy::RoundRobin,
        engine::settings::Policy::PeakEwma,
        engine::settings::Policy::WeightedScore(engine::settings::WeightedScore {
            in_flight_weight: 0.6,
            in_flight_max: 1000.0,
            latency_weight: 0.4,
            latency_max_ms: 500.0,
        }),
        engine::settings::Policy::WeightedRoundRobin,
        engine::settings::Policy::Random,
        engine::settings::Policy::IpHash,
        engine::settings::Policy::ConsistentHash(engine::settings::LoadBound::default()),
    ]
}

/// Whether the policy places endpoints by hash: their shares are then only roughly equal.
fn hashes(policy: &engine::settings::Policy) -> bool {
    matches!(policy, engine::settings::Policy::IpHash | engine::settings::Policy::ConsistentHash(_))
}

fn endpoint(weight: f32) -> EndpointState {
    EndpointState {
        present: true,
        eligible: true,
        weight,
        share: weight,
        expected: 0.02,
        ..EndpointState::default()
    }
}

fn any_endpoint() -> impl Strategy<Value = EndpointState> {
    let cost = prop_oneof![0.0f32..1e6, Just(f32::INFINITY), Just(f32::NAN), Just(0.0)];
    let share = prop_oneof![Just(1.0f32), 0.0f32..1000.0, Just(0.0)];
    (any::<bool>(), 1e-3f32..1000.0, share, cost.clone(), cost, 0u32..50).prop_map(
        |(eligible, weight, share, signal, expected, in_flight)| {
            let mut endpoint = EndpointState { eligible, share, signal, expected, ..endpoint(weight) };
            (0..in_flight).for_each(|_| endpoint.in_flight.start(NOW));
            endpoint
        },
    )
}

fn in_flight(endpoints: &[EndpointState]) -> u32 {
    endpoints.iter().map(|m| m.in_flight.total()).sum()
}

struct Chooser {
    policy: Box<dyn Policy>,
    pool: Pool,
    queueing: Queueing,
    told: PeerTable,
    /// Hash identities of the endpoints.
    identities: Vec<u64>,
    rng: Rng,
}

impl Chooser {
    fn new(policy: &engine::settings::Policy, endpoints: &[EndpointState], seed: u64) -> Chooser {
        let (policy, pool, queueing) =
            (build(policy, Ablation::default()), Pool::default(), Queueing::default());
        let mut chooser = Chooser {
            policy,
            pool,
            queueing,
            told: PeerTable::default(),
            identities: Vec::new(),
            rng: Rng::new(seed),
        };
        chooser.refresh(endpoints);
        chooser
    }

    fn refresh(&mut self, endpoints: &[EndpointState]) {
        self.pool.assign(0..endpoints.len() as u32, |index| Rng::new(index.into()).next_u64());
        self.pool.refresh(endpoints);
        let in_flight = in_flight(endpoints);
        self.identities = (0..endpoints.len() as u64).map(|at| Rng::new(at).next_u64()).collect();
        let view = PickContext {
            states: endpoints,
            peers: &self.told,
            identities: &self.identities,
            peaks: &[],
            queueing: &self.queueing,
            now: NOW,
            in_flight,
            turns: Turns::default(),
        };
        self.policy.refresh(view, &self.pool);
    }

    fn pick(&mut self, endpoints: &[EndpointState], want: usize) -> Vec<u32> {
        self.pick_for(endpoints, Request::wanting(want))
    }

    fn pick_for(&mut self, endpoints: &[EndpointState], request: Request) -> Vec<u32> {
        let view = PickContext {
            states: endpoints,
            peers: &self.told,
            identities: &self.identities,
            peaks: &[],
            queueing: &self.queueing,
            now: NOW,
            in_flight: in_flight(endpoints),
            turns: Turns::default(),
        };
        self.policy.pick(view, &mut self.pool, request, &mut self.rng).as_slice().to_vec()
    }
}

proptest! {
    #![proptest_config(crate::seeded(300))]

    #[test]
    fn only_the_eligible_are_named_each_once(
        endpoints in vec(any_endpoint(), 0..60),
        gone in vec(any::<prop::sample::Index>(), 0..60),
        want in 1usize..=8,
        key: Option<u64>,
        seed: u64,
    ) {
        let mut endpoints = endpoints;
        let given: Vec<bool> = endpoints.iter().map(|m| m.eligible).collect();
        for policy in policies() {
            endpoints.iter_mut().zip(&given).for_each(|(m, was)| m.eligible = *was);
            let mut chooser = Chooser::new(&policy, &endpoints, seed);
            for stale in [false, true] {
                if stale && !endpoints.is_empty() {
                    // Endpoints that became ineligible since the last refresh.
                    gone.iter().for_each(|index| index.get_mut(&mut endpoints).eligible = false);
                }
                let eligible = endpoints.iter().filter(|m| m.eligible).count();
                for _ in 0..8 {
                    let named = chooser.pick_for(&endpoints, Request { key, want });
                    prop_assert!(named.len() <= want.min(eligible), "{policy:?}: {named:?}");
                    prop_assert_eq!(named.is_empty(), eligible == 0, "{:?}: {:?}", policy, named);
                    prop_assert!(named.iter().all(|i| endpoints[*i as usize].eligible), "{policy:?}: {named:?}");
                    prop_assert!((1..named.len()).all(|n| !named[..n].contains(&named[n])), "{named:?}");
                }
            }
        }
    }

    #[test]
    fn a_small_fleet_is_named_in_full(count in 1usize..=8, seed: u64) {
        let endpoints = vec![endpoint(1.0); count];
        for policy in policies() {
            let named = Chooser::new(&policy, &endpoints, seed).pick(&endpoints, 8);
            prop_assert_eq!(named.len(), count, "{:?}", policy);
        }
    }
}

/// χ² of the counts against `expected`.
fn chi_squared(counts: &[f64], expected: &[f64]) -> f64 {
    counts.iter().zip(expected).map(|(n, e)| (n - e).powi(2) / e).sum()
}

fn firsts(policy: &engine::settings::Policy, endpoints: &[EndpointState], picks: usize) -> Vec<f64> {
    let mut chooser = Chooser::new(policy, endpoints, 3);
    let mut counts = vec![0.0; endpoints.len()];
    (0..picks).for_each(|_| counts[chooser.pick(endpoints, 1)[0] as usize] += 1.0);
    counts
}

#[test]
fn equals_get_equal_shares() {
    let endpoints = vec![endpoint(1.0); 10];
    for policy in policies().into_iter().filter(|p| !hashes(p)) {
        let counts = firsts(&policy, &endpoints, 20_000);
        let chi = chi_squared(&counts, &[2000.0; 10]);
        // The 0.999 quantile with 9 degrees of freedom.
        assert!(chi < 27.9, "{policy:?}: {counts:?}, χ² = {chi}");
    }
}

#[test]
fn the_adaptive_policy_considers_endpoints_by_weight() {
    let weights = [1.0, 2.0, 3.0, 4.0];
    let endpoints: Vec<EndpointState> = weights.iter().map(|w| endpoint(*w)).collect();
    let counts = firsts(&engine::settings::Policy::Adaptive, &endpoints, 20_000);
    let chi = chi_squared(&counts, &[2000.0, 4000.0, 6000.0, 8000.0]);
    // The 0.999 quantile with 3 degrees of freedom.
    assert!(chi < 16.3, "{counts:?}, χ² = {chi}");
}

#[test]
fn requests_in_flight_settle_by_weight() {
    for policy in [engine::settings::Policy::Adaptive, engine::settings::Policy::LeastRequest] {
        let mut endpoints: Vec<EndpointState> = [1.0, 1.0, 2.0, 4.0].iter().map(|w| endpoint(*w)).collect();
        let mut chooser = Chooser::new(&policy, &endpoints, 5);
        for _ in 0..800 {
            let to = chooser.pick(&endpoints, 1)[0];
            endpoints[to as usize].in_flight.start(NOW);
        }
        let held: Vec<f32> = endpoints.iter().map(|m| m.in_flight.total() as f32 / m.weight).collect();
        assert!(held.iter().all(|h| (60.0..140.0).contains(h)), "{policy:?}: {held:?} a weight, not 100");
    }
}

#[test]
fn round_robin_gives_each_endpoint_a_turn_before_a_second() {
    let endpoints = vec![endpoint(1.0); 7];
    let mut chooser = Chooser::new(&engine::settings::Policy::RoundRobin, &endpoints, 1);
    for _ in 0..50 {
        let mut round: Vec<u32> = (0..7).map(|_| chooser.pick(&endpoints, 1)[0]).collect();
        round.sort_unstable();
        assert_eq!(round, [0, 1, 2, 3, 4, 5, 6]);
    }
}

#[test]
fn clearly_worse_endpoint_is_rarely_first() {
    let mut endpoints = vec![endpoint(1.0); 6];
    endpoints[2].expected = 2.0;
    endpoints[2].signal = 90.0;
    (0..30).for_each(|_| endpoints[2].in_flight.start(NOW));
    for policy in &policies()[..3] {
        let counts = firsts(policy, &endpoints, 6000);
        assert!(counts[2] < 10.0, "{policy:?}: {counts:?}");
    }
}
