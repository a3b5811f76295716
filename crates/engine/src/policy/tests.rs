//! What every policy guarantees: which endpoints are named, how often, and within which deviation.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

mod costs;
mod home;

use super::*;
use crate::rng::hash;

fn of_shares(shares: &[f32]) -> Vec<EndpointState> {
    shares
        .iter()
        .map(|share| EndpointState {
            present: true,
            eligible: *share > 0.0,
            weight: share.max(0.5),
            share: *share,
            expected: 0.05,
            ..EndpointState::default()
        })
        .collect()
}

fn every_policy() -> Vec<settings::Policy> {
    let score = settings::WeightedScore {
        in_flight_weight: 0.6,
        in_flight_max: 1000.0,
        latency_weight: 0.4,
        latency_max_ms: 500.0,
    };
    vec![
        settings::Policy::Adaptive,
        settings::Policy::PeakEwma,
        settings::Policy::LeastRequest,
        settings::Policy::WeightedScore(score),
        settings::Policy::LeastSignal { signal: String::new() },
        settings::Policy::WeightedRoundRobin,
        settings::Policy::RoundRobin,
        settings::Policy::Random,
        settings::Policy::IpHash,
        settings::Policy::ConsistentHash(settings::LoadBound::default()),
    ]
}

/// A policy with the state that the engine keeps for it.
struct Bench {
    policy: Box<dyn Policy>,
    pool: Pool,
    queueing: Queueing,
    states: Vec<EndpointState>,
    peers: PeerTable,
    identities: Vec<u64>,
    peaks: Vec<PeakEwma>,
    rng: Rng,
    now: Time,
}

impl Bench {
    fn new(policy: &settings::Policy, endpoints: Vec<EndpointState>) -> Bench {
        let mut bench = Bench {
            policy: build(policy, Ablation::default()),
            pool: Pool::default(),
            queueing: Queueing::default(),
            peers: PeerTable::default(),
            identities: (0..endpoints.len()).map(|i| hash(format!("10.0.0.{i}:80").as_bytes())).collect(),
            peaks: vec![PeakEwma::default(); endpoints.len()],
            states: endpoints,
            rng: Rng::new(9),
            now: Time::from_secs_f64(1000.0),
        };
        bench.refresh();
        bench
    }

    fn in_flight(&self) -> u32 {
        self.states.iter().map(|m| m.in_flight.total()).sum()
    }

    fn refresh(&mut self) {
        self.pool.assign(0..self.states.len() as u32, u64::from);
        self.pool.refresh(&self.states);
        let view = PickContext {
            states: &self.states,
            peers: &self.peers,
            identities: &self.identities,
            peaks: &self.peaks,
            queueing: &self.queueing,
            now: self.now,
            in_flight: self.in_flight(),
            turns: Turns::default(),
        };
        self.policy.refresh(view, &self.pool);
    }

    fn view(&self) -> PickContext<'_> {
        PickContext {
            states: &self.states,
            peers: &self.peers,
            identities: &self.identities,
            peaks: &self.peaks,
            queueing: &self.queueing,
            now: self.now,
            in_flight: self.in_flight(),
            turns: Turns::default(),
        }
    }

    fn pick(&mut self, key: Option<u64>, want: usize) -> Candidates {
        self.pick_at(Turns::default(), key, want)
    }

    fn pick_at(&mut self, turns: Turns, key: Option<u64>, want: usize) -> Candidates {
        let in_flight = self.in_flight();
        let view = PickContext {
            states: &self.states,
            peers: &self.peers,
            identities: &self.identities,
            peaks: &self.peaks,
            queueing: &self.queueing,
            now: self.now,
            in_flight,
            turns,
        };
        self.policy.pick(view, &mut self.pool, Request { key, want }, &mut self.rng)
    }

    fn first(&mut self, key: Option<u64>) -> usize {
        self.pick(key, 1).first().expect("an endpoint is eligible") as usize
    }

    fn counts(&mut self, picks: usize) -> Vec<f64> {
        let mut counts = vec![0.0; self.states.len()];
        (0..picks).for_each(|_| counts[self.first(None)] += 1.0);
        counts
    }
}

fn chi_square(counts: &[f64], shares: &[f32]) -> f64 {
    let (n, total): (f64, f32) = (counts.iter().sum(), shares.iter().sum());
    let expected = shares.iter().map(|s| n * f64::from(s / total));
    counts.iter().zip(expected).map(|(c, e)| (c - e).powi(2) / e).sum()
}

/// 0.999 quantile of χ² with 9 degrees of freedom.
const LIMIT: f64 = 27.9;
/// A hash gives an endpoint a part that deviates by 6.5 %, permanently: this adds n · 0.065² to χ².
const PICKS_OF_HASHES: usize = 2_000;

fn picks(policy: &settings::Policy) -> usize {
    match policy {
        settings::Policy::IpHash | settings::Policy::ConsistentHash(_) => PICKS_OF_HASHES,
        _ => 20_000,
    }
}

#[test]
fn equal_endpoints_get_equal_parts() {
    let shares = [1.0; 10];
    for policy in every_policy() {
        let counts = Bench::new(&policy, of_shares(&shares)).counts(picks(&policy));
        let chi = chi_square(&counts, &shares);
        assert!(chi < LIMIT, "{policy:?} {counts:?} χ²={chi}");
    }
}

#[test]
fn unequal_endpoints_get_their_shares() {
    let shares = [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.5];
    for policy in [
        settings::Policy::WeightedRoundRobin,
        settings::Policy::Random,
        settings::Policy::IpHash,
        settings::Policy::ConsistentHash(settings::LoadBound::default()),
    ] {
        let counts = Bench::new(&policy, of_shares(&shares)).counts(picks(&policy));
        let chi = chi_square(&counts, &shares);
        assert!(chi < LIMIT, "{policy:?} {counts:?} χ²={chi}");
    }
}

#[test]
fn no_endpoint_and_a_single_one() {
    for policy in every_policy() {
        for nobody in [of_shares(&[]), of_shares(&[0.0, 0.0])] {
            let mut bench = Bench::new(&policy, nobody);
            assert_eq!(bench.pick(Some(1), 2), Candidates::default(), "{policy:?}");
            assert_eq!(bench.pick(None, 8), Candidates::default(), "{policy:?}");
        }
        let mut bench = Bench::new(&policy, of_shares(&[0.0, 1.0, 0.0]));
        for key in [None, Some(0), Some(u64::MAX)] {
            assert_eq!(bench.pick(key, 8).as_slice(), [1], "{policy:?}");
        }
    }
}

#[test]
fn as_many_as_wanted_are_named_where_there_are_enough() {
    for policy in every_policy() {
        let mut bench = Bench::new(&policy, of_shares(&[1.0; 50]));
        for want in 1..=MAX_CANDIDATES {
            assert_eq!(bench.pick(Some(want as u64), want).as_slice().len(), want, "{policy:?}");
        }
    }
}

/// However much more often one of them is drawn, there is another for a retry.
#[test]
fn as_many_as_wanted_are_named_beside_an_endpoint_of_much_more_weight() {
    for policy in every_policy() {
        for others in [1, 4, 40] {
            let shares: Vec<f32> = [200.0].into_iter().chain([1.0; 40]).take(1 + others).collect();
            let mut bench = Bench::new(&policy, of_shares(&shares));
            for want in 1..=MAX_CANDIDATES {
                for key in 0..20 {
                    let named = bench.pick(Some(crate::rng::mix(key)), want);
                    assert_eq!(named.as_slice().len(), want.min(1 + others), "{policy:?}, {others}");
                }
            }
        }
    }
}

/// One request at a time goes to each endpoint as often as its weight says.
#[test]
fn at_rest_weights_are_shares() {
    let shares = [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.5];
    for policy in every_policy().into_iter().take(5) {
        let counts = Bench::new(&policy, of_shares(&shares)).counts(20_000);
        let chi = chi_square(&counts, &shares);
        assert!(chi < LIMIT, "{policy:?} {counts:?} χ²={chi}");
    }
}

#[test]
fn turns_are_exact_over_a_cycle_and_evenly_spaced() {
    let mut bench = Bench::new(&settings::Policy::WeightedRoundRobin, of_shares(&[5.0, 1.0, 1.0]));
    let turns: Vec<usize> = (0..70).map(|_| bench.first(None)).collect();
    for cycle in turns.windows(7) {
        let heavy = cycle.iter().filter(|i| **i == 0).count();
        assert_eq!(heavy, 5, "{turns:?}");
    }
    assert!(!turns.windows(2).any(|two| two == [1, 1] || two == [2, 2]), "{turns:?}");
    assert!(!turns.windows(6).any(|six| six == [0; 6]), "{turns:?}");
}

/// Workers that start together begin at positions all over the endpoint set.
#[test]
fn the_first_turns_of_many_workers_are_spread_over_the_fleet() {
    for policy in [settings::Policy::RoundRobin, settings::Policy::WeightedRoundRobin] {
        for endpoints in [10, 200] {
            let mut tenths = [0; 10];
            for worker in 0..1_000 {
                let mut bench = Bench::new(&policy, of_shares(&vec![1.0; endpoints]));
                bench.rng = Rng::new(worker);
                tenths[bench.first(None) * 10 / endpoints] += 1;
            }
            // Golden gaps are between 0.55 and 1.46 of their mean; four standard deviations of 55 in 1000 are 29.
            assert!(tenths.iter().all(|count| (26..=190).contains(count)), "{policy:?} {tenths:?}");
        }
    }
}

#[test]
fn refreshing_at_every_turn_changes_no_turns() {
    let shares = [1.0, 2.0, 3.0, 4.0];
    let mut bench = Bench::new(&settings::Policy::WeightedRoundRobin, of_shares(&shares));
    let mut counts = vec![0.0; 4];
    for _ in 0..1000 {
        counts[bench.first(None)] += 1.0;
        bench.refresh();
    }
    for (count, expected) in counts.iter().zip([100.0, 200.0, 300.0, 400.0]) {
        assert!(f64::abs(count - expected) <= 1.0, "{counts:?}");
    }
}

#[test]
fn a_share_that_grows_counts_at_once() {
    let mut bench = Bench::new(&settings::Policy::WeightedRoundRobin, of_shares(&[1.0, 1.0, 1.0, 0.01]));
    bench.counts(10);
    bench.states[3].share = 1.0;
    bench.refresh();
    let counts = bench.counts(40);
    assert!((9.0..=11.0).contains(&counts[3]), "{counts:?}");
}

#[test]
fn no_endpoint_exceeds_the_bound() {
    for (shares, skew) in
        [(&[1.0; 10][..], 1), (&[1.0; 100], 3), (&[1.0, 2.0, 3.0, 0.5, 1.5], 1), (&[1.0], 1)]
    {
        let mut bench =
            Bench::new(&settings::Policy::ConsistentHash(settings::LoadBound::default()), of_shares(shares));
        let total: f64 = bench.states.iter().map(|m| f64::from(m.weight)).sum();
        let mut keys = Rng::new(3);
        let mut running: Vec<usize> = Vec::new();
        let mut most = 0;
        for request in 0..3000u32 {
            // Load rises, falls and rises again; few keys carry all of it.
            let ending = keys.below(100) < if request / 500 % 2 == 0 { 30 } else { 70 };
            if ending && !running.is_empty() {
                let ended = running.swap_remove(keys.below(running.len() as u32) as usize);
                bench.states[ended].in_flight.answer(bench.now, bench.now);
                bench.states[ended].in_flight.finish();
                continue;
            }
            let key = crate::rng::mix(u64::from(keys.below(skew)));
            let before = f64::from(bench.in_flight());
            let to = bench.first(Some(key));
            bench.states[to].in_flight.start(bench.now);
            running.push(to);
            most = most.max(running.len());
            let endpoint = &bench.states[to];
            let bound = (1.25 * (before + 1.0) * f64::from(endpoint.weight) / total).ceil().max(2.0);
            assert!(f64::from(endpoint.in_flight.total()) <= bound, "{request}: {to} above {bound}");
        }
        assert!(most > 150, "there was load: {most}");
    }
}

/// Two requests of one key are no overload, and the bound can be switched off.
#[test]
fn a_held_request_sends_the_next_of_its_key_nowhere_else() {
    for (bound, most) in [
        (settings::LoadBound::default(), 2),
        (settings::LoadBound { floor: 7, ..settings::LoadBound::default() }, 7),
        (settings::LoadBound { floor: 0, ..settings::LoadBound::default() }, 1),
        (settings::LoadBound { bounded: false, ..settings::LoadBound::default() }, 50),
    ] {
        for key in 0..20u64 {
            let mut bench = Bench::new(&settings::Policy::ConsistentHash(bound), of_shares(&[1.0; 100]));
            let key = Some(crate::rng::mix(key));
            let home = bench.first(key);
            let mut stayed = 0;
            while stayed < 50 && bench.first(key) == home {
                bench.states[home].in_flight.start(bench.now);
                stayed += 1;
            }
            assert_eq!(stayed, most, "{bound:?}");
        }
    }
}

/// Tells each worker what the others have in flight; `all` is what all of them have, by endpoint.
fn report_to_all(workers: &mut [Bench], all: &[u32]) {
    for worker in workers {
        worker.peers.forget(worker.now);
        for (index, (count, endpoint)) in (0..).zip(all.iter().zip(&mut worker.states)) {
            let mut others = crate::endpoint::PeerReport::default();
            others.in_flight.total = count - endpoint.in_flight.total();
            worker.peers.merge((index, endpoint), all.len(), &others, &crate::health::Evidence::default());
        }
        worker.refresh();
    }
}

/// Eight workers have one hot key, and each reports to the others now and then.
#[test]
fn all_workers_together_keep_the_bound() {
    let policy = settings::Policy::ConsistentHash(settings::LoadBound::default());
    let key = Some(crate::rng::mix(1));
    let mut workers: Vec<Bench> = (0..8).map(|_| Bench::new(&policy, of_shares(&[1.0; 20]))).collect();
    let mut all = [0u32; 20];
    for at in 0..8 {
        report_to_all(&mut workers, &all);
        let to = workers[at].first(key);
        let now = workers[at].now;
        workers[at].states[to].in_flight.start(now);
        all[to] += 1;
    }
    assert!(all.iter().all(|count| *count <= 2), "{all:?}");
}

/// All clients of the key ask at the same instant, again and again. After a few times no endpoint gets more than it
/// may have; a key of another endpoint stays where it is.
#[test]
fn workers_with_one_hot_key_do_not_run_in_step() {
    let policy = settings::Policy::ConsistentHash(settings::LoadBound::default());
    let key = Some(crate::rng::mix(1));
    let mut workers: Vec<Bench> = (0..8).map(|_| Bench::new(&policy, of_shares(&[1.0; 20]))).collect();
    let turns = |rank| Turns { workers: 8.0, rank, ..Turns::default() };
    let mut worst = 0;
    for burst in 0..24 {
        let mut all = [0u32; 20];
        for (rank, worker) in (0..).zip(&mut workers) {
            let to = worker.pick_at(turns(rank), key, 1).first().unwrap() as usize;
            worker.states[to].in_flight.start(worker.now);
            all[to] += 1;
        }
        worst = if burst < 8 { 0 } else { worst.max(*all.iter().max().unwrap()) };
        report_to_all(&mut workers, &all);
        // All are answered, and the next burst comes before anyone has heard of it.
        for worker in &mut workers {
            worker.now = worker.now.after_secs(0.2);
            for endpoint in &mut worker.states {
                while endpoint.in_flight.total() > 0 {
                    endpoint.in_flight.stop_awaiting(worker.now);
                    endpoint.in_flight.finish();
                }
            }
            worker.peers.forget(worker.now);
        }
    }
    assert_eq!(worst, 2, "the bound");
    let mut stayed = 0;
    for n in 100..200 {
        let key = Some(crate::rng::mix(n));
        let to: Vec<usize> = (0..)
            .zip(&mut workers)
            .map(|(rank, w)| w.pick_at(turns(rank), key, 1).first().unwrap() as usize)
            .collect();
        stayed += u32::from(to.iter().all(|at| *at == to[0]));
    }
    assert!(stayed >= 60, "{stayed} of 100 keys have one endpoint in all workers");
}

#[test]
fn a_key_stays_while_there_is_room_and_returns_after_an_ejection() {
    for policy in [settings::Policy::IpHash, settings::Policy::ConsistentHash(settings::LoadBound::default())]
    {
        let mut bench = Bench::new(&policy, of_shares(&[1.0; 20]));
        let keys: Vec<u64> = (0..500u64).map(crate::rng::mix).collect();
        let home: Vec<usize> = keys.iter().map(|k| bench.first(Some(*k))).collect();
        let second: Vec<u32> = keys.iter().map(|k| bench.pick(Some(*k), 2).as_slice()[1]).collect();
        bench.states[4].eligible = false;
        bench.refresh();
        for ((key, home), second) in keys.iter().zip(&home).zip(&second) {
            let expected = if *home == 4 { *second as usize } else { *home };
            assert_eq!(bench.first(Some(*key)), expected, "{policy:?}: the second choice takes over");
        }
        bench.states[4].eligible = true;
        bench.refresh();
        assert!(keys.iter().zip(&home).all(|(k, home)| bench.first(Some(*k)) == *home), "{policy:?}");
    }
}

#[test]
fn slow_endpoint_is_avoided_by_policies_with_latency() {
    for (at, policy) in [(0, &every_policy()[1]), (1, &every_policy()[3])] {
        let mut bench = Bench::new(policy, of_shares(&[1.0; 10]));
        for (i, (endpoint, peak)) in bench.states.iter_mut().zip(&mut bench.peaks).enumerate() {
            let seconds = if i == 7 { 0.5 } else { 0.05 };
            endpoint.expected = seconds as f32;
            peak.observe(seconds, Time::from_secs_f64(999.0));
        }
        let counts = bench.counts(1000);
        assert_eq!(counts[7], 0.0, "{at} {policy:?} {counts:?}");
    }
}

#[test]
fn load_weighs_in_proportion_to_capacity() {
    // Those that compare a signal by it where the signal is equal.
    for policy in &every_policy()[1..5] {
        let mut list = of_shares(&[1.0, 4.0]);
        list.iter_mut().for_each(|m| m.share = 1.0);
        let mut bench = Bench::new(policy, list);
        for _ in 0..500 {
            let to = bench.first(None);
            bench.states[to].in_flight.start(bench.now);
        }
        let heavy = bench.states[1].in_flight.total();
        assert!((380..=420).contains(&heavy), "{policy:?} {heavy}");
    }
}

/// Eight workers divide the bound of a crowded endpoint, so that most of them send it nothing.
#[test]
fn no_endpoint_stays_crowded_when_the_clock_steps_back() {
    let policy = settings::Policy::ConsistentHash(settings::LoadBound::default());
    let mut bench = Bench::new(&policy, of_shares(&[1.0; 3]));
    let at_home = |bench: &mut Bench| {
        let all = (0..8).flat_map(|rank| (0..30).map(move |key| (rank, crate::rng::mix(key))));
        all.filter(|(rank, key)| {
            let turns = Turns { workers: 8.0, rank: *rank, ..Turns::default() };
            bench.pick_at(turns, Some(*key), 1).first() == bench.policy.owner(*key)
        })
        .count()
    };
    bench.now = Time::from_secs_f64(5000.0);
    let crowd = bench.states[0].in_flight;
    (0..20).for_each(|_| bench.states[0].in_flight.start(Time::from_secs_f64(4999.0)));
    bench.refresh();
    bench.states[0].in_flight = crowd;
    assert!(at_home(&mut bench) < 240);
    for (seconds, crowded) in [(1000.0, true), (1001.9, true), (1002.1, false)] {
        bench.now = Time::from_secs_f64(seconds);
        bench.refresh();
        assert_eq!(at_home(&mut bench) < 240, crowded, "at {seconds}");
    }
}
