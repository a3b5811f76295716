//! The direction and size in which each input changes a cost: what is documented of the policies, and what picks rest
//! on.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::endpoint::PeerReport;
use crate::health::Evidence;

fn comparing() -> Vec<settings::Policy> {
    every_policy().into_iter().take(5).collect()
}

fn at_rest(weight: f32, expected: f32) -> EndpointState {
    EndpointState {
        present: true,
        eligible: true,
        weight,
        share: weight,
        expected,
        signal: expected,
        ..EndpointState::default()
    }
}

/// An endpoint with `awaiting` unanswered requests and `open` ones that have been answered but go on.
fn busy(weight: f32, expected: f32, awaiting: u32, open: u32) -> EndpointState {
    let mut endpoint = at_rest(weight, expected);
    let now = Time::from_secs_f64(1000.0);
    (0..awaiting + open).for_each(|_| endpoint.in_flight.start(now));
    (0..open).for_each(|_| endpoint.in_flight.answer(now, now));
    endpoint
}

fn costs(policy: &settings::Policy, endpoints: Vec<EndpointState>) -> Vec<f32> {
    let bench = Bench::new(policy, endpoints);
    let cost = |index| bench.policy.cost(bench.view(), index).expect("it compares costs");
    (0..bench.states.len() as u32).map(cost).collect()
}

fn cost(policy: &settings::Policy, endpoint: EndpointState) -> f32 {
    costs(policy, vec![endpoint])[0]
}

fn is_near(one: f32, other: f32) -> bool {
    (one - other).abs() <= 1e-5 * one.abs().max(other.abs())
}

#[test]
fn explained_lowest_cost_is_the_choice() {
    let mut rng = Rng::new(4);
    for policy in comparing() {
        for round in 0..200 {
            let mut endpoints = Vec::new();
            for _ in 0..2 {
                // Lighter ones than the mean, 1, cost the more unless they are drawn first.
                let weight = [1.0, 2.0, 4.0][rng.below(3) as usize];
                endpoints.push(busy(weight, 0.01 + rng.unit() as f32, rng.below(9), rng.below(9)));
            }
            let told = costs(&policy, endpoints.clone());
            let best = usize::from(told[1] < told[0]);
            assert!(told.iter().all(|cost| cost.is_finite() && *cost > 0.0), "{policy:?}: {told:?}");
            let chosen = Bench::new(&policy, endpoints).first(None);
            // Smaller differences of latencies than a step of the rounding may be left to chance.
            let step = if policy == settings::Policy::Adaptive { 1.125 } else { 1.0 };
            let equal = told[0].max(told[1]) <= step * told[0].min(told[1]);
            assert!(chosen == best || equal, "{policy:?}, {round}: {told:?}");
        }
    }
    for policy in every_policy().into_iter().skip(5) {
        let bench = Bench::new(&policy, of_shares(&[1.0]));
        assert_eq!(bench.policy.cost(bench.view(), 0), None, "{policy:?}");
    }
}

/// What a proxy of many sees of a light endpoint is next to nothing: it is idle by the proxy's own requests, however full.
#[test]
fn a_light_endpoint_at_rest_takes_its_part_by_weight_until_the_others_are_deeper() {
    let light_of = |awaiting| {
        let mut endpoints = vec![busy(0.25, 0.02, 0, 0)];
        endpoints.extend((0..4).map(|_| busy(1.1875, 0.02, awaiting, 0)));
        Bench::new(&settings::Policy::Adaptive, endpoints).counts(4000)[0]
    };
    // Binomial: 200 of 4000, standard deviation 14; five of them.
    for awaiting in [0, 1, 2, 3] {
        assert!((130.0..=270.0).contains(&light_of(awaiting)), "{awaiting}: {}", light_of(awaiting));
    }
    assert_eq!(light_of(5), 4000.0);
}

#[test]
fn an_endpoint_of_twice_the_weight_is_as_expensive_with_twice_as_much() {
    for policy in comparing() {
        for (expected, awaiting) in [(0.01, 0), (0.01, 1), (0.5, 7), (0.02, 40)] {
            let one = cost(&policy, busy(1.0, expected, awaiting, 0));
            let twice = cost(&policy, busy(2.0, expected, 2 * awaiting, 0));
            assert!(is_near(one, twice), "{policy:?} {awaiting}: {one} {twice}");
        }
    }
}

#[test]
fn every_request_more_and_every_millisecond_more_costs_more() {
    for policy in comparing() {
        for weight in [0.5, 1.0, 3.0] {
            let by_requests: Vec<f32> = (0..30).map(|n| cost(&policy, busy(weight, 0.05, n, 0))).collect();
            assert!(by_requests.windows(2).all(|two| two[0] < two[1]), "{policy:?}: {by_requests:?}");
            let by_time: Vec<f32> =
                (1..30).map(|n| cost(&policy, busy(weight, 0.01 * n as f32, 3, 0))).collect();
            let flat = policy == settings::Policy::LeastRequest;
            assert!(by_time.windows(2).all(|two| if flat { two[0] == two[1] } else { two[0] < two[1] }));
        }
    }
}

#[test]
fn twice_the_latency_is_twice_the_cost() {
    for policy in [settings::Policy::Adaptive, settings::Policy::PeakEwma] {
        for awaiting in [0, 1, 5, 100] {
            let (one, twice) =
                (cost(&policy, busy(1.0, 0.04, awaiting, 0)), cost(&policy, busy(1.0, 0.08, awaiting, 0)));
            assert!(is_near(2.0 * one, twice), "{policy:?} {awaiting}: {one} {twice}");
        }
    }
    let mut bench = Bench::new(&settings::Policy::PeakEwma, of_shares(&[1.0, 1.0]));
    bench.peaks[1].observe(0.7, bench.now);
    let told = [0, 1].map(|index| bench.policy.cost(bench.view(), index).unwrap());
    assert!(
        is_near(told[0], 0.05) && is_near(told[1], 0.7),
        "a peak, and what is expected without one: {told:?}"
    );
}

#[test]
fn requests_of_other_workers_count_as_this_ones() {
    for policy in comparing() {
        let own = cost(&policy, busy(1.0, 0.05, 6, 0));
        let mut bench = Bench::new(&policy, vec![busy(1.0, 0.05, 2, 0)]);
        let mut others = PeerReport::default();
        (others.in_flight.total, others.in_flight.awaiting) = (4, 4);
        others.in_flight.quiet_since = bench.now;
        bench.peers.forget(bench.now);
        bench.peers.merge((0, &mut bench.states[0]), 1, &others, &Evidence::default());
        let together = bench.policy.cost(bench.view(), 0).unwrap();
        assert!(is_near(own, together), "{policy:?}: {own} {together}");
    }
}

#[test]
fn requests_of_other_workers_count_the_less_the_older_their_reports_are() {
    // For the signal's policy requests in flight only part equals.
    let by_load = |policy: &settings::Policy| !matches!(policy, settings::Policy::LeastSignal { .. });
    for policy in comparing().into_iter().filter(by_load) {
        let mut bench = Bench::new(&policy, vec![busy(1.0, 0.05, 2, 0)]);
        bench.queueing.sojourn_s = 0.05;
        let mut others = PeerReport::default();
        (others.in_flight.total, others.in_flight.awaiting) = (4, 4);
        others.in_flight.quiet_since = bench.now;
        bench.peers.forget(bench.now);
        bench.peers.merge((0, &mut bench.states[0]), 1, &others, &Evidence::default());
        let told = bench.now;
        let aged = [0, 4, 12, 40].map(|ms| {
            bench.now = Time(told.0 + ms * 1_000_000);
            bench.policy.cost(bench.view(), 0).unwrap()
        });
        let own = cost(&policy, busy(1.0, 0.05, 2, 0));
        assert!(aged.windows(2).all(|two| two[0] > two[1]), "{policy:?}: {aged:?}");
        assert!(aged[3] < 1.2 * own, "{policy:?}: hardly more than this worker's alone, {own}: {aged:?}");
    }
}

/// A thousand open streams count as a tenth of an unanswered request.
#[test]
fn open_streams_part_equals_and_weigh_next_to_nothing() {
    let of = |awaiting, open| cost(&settings::Policy::Adaptive, busy(1.0, 0.05, awaiting, open));
    let none = of(0, 0);
    assert!(of(0, 1) > none && of(0, 2) > of(0, 1));
    let tenth = (of(0, 1000) - none) / (of(1, 0) - none);
    assert!((tenth - 0.1).abs() < 1e-3, "{tenth}");
    for heavy in [2.0, 8.0] {
        let light = cost(&settings::Policy::Adaptive, busy(heavy, 0.05, 0, 1000 * heavy as u32));
        assert!(is_near(light, of(0, 1000)), "per weight");
    }
}

#[test]
fn a_score_of_one_is_full_by_either_maximum() {
    let score = settings::WeightedScore {
        in_flight_weight: 0.6,
        in_flight_max: 50.0,
        latency_weight: 0.4,
        latency_max_ms: 500.0,
    };
    let policy = settings::Policy::WeightedScore(score);
    for weight in [0.5_f32, 1.0, 4.0] {
        let full = (50.0 * weight) as u32;
        assert!(is_near(cost(&policy, busy(weight, 0.0, full, 0)), 0.6));
        assert!(is_near(cost(&policy, busy(weight, 0.5, 0, 0)), 0.4));
        assert!(is_near(cost(&policy, busy(weight, 0.5, full, 0)), 1.0));
        assert!(is_near(cost(&policy, busy(weight, 1.0, 0, 0)), 0.8), "and beyond in proportion");
    }
}

#[test]
fn requests_part_equal_signals_and_never_move_a_signal_by_a_thousandth() {
    let policy = settings::Policy::LeastSignal { signal: String::new() };
    for signal in [-300.0_f32, -1.0, 0.0, 0.5, 20.0, 1e6] {
        let of = |requests| cost(&policy, busy(1.0, signal, requests, 0));
        assert_eq!(of(0), signal);
        assert_eq!(of(0), cost(&policy, busy(2.0, signal, 0, 0)), "the signal is no load for each weight");
        assert!(of(1000) > of(500) && of(500) > of(0), "{signal}");
        assert!(of(1000) - signal <= (signal.abs() + 1.0) * 1.001e-3, "{signal}: {}", of(1000));
        assert_eq!(of(1000), of(5000), "a crowd is a crowd");
    }
}

/// Each further unanswered request doubles the silence: the number of these requests grows with its logarithm.
#[test]
fn what_hangs_is_looked_at_the_more_seldom_the_longer_it_does() {
    let policy = settings::Policy::Adaptive;
    let look = |seconds: f64, owed: u32, expected: f32, requests: u32| {
        let mut bench = Bench::new(&policy, of_shares(&[1.0]));
        let since = Time::from_secs_f64(1000.0 - seconds);
        bench.states[0].expected = expected;
        (0..owed).for_each(|_| bench.states[0].send(since));
        let mut view = bench.view();
        (view.turns.requests, view.turns.apart) = (requests, 2.0);
        bench.policy.cost(view, 0).unwrap()
    };
    let looks = |seconds| (1..40).filter(|owed| look(seconds, *owed, 0.01, 100) == 0.0).count();
    for seconds in [1.1, 3.0, 10.0, 70.0, 300.0] {
        assert_eq!(looks(2.0 * seconds), looks(seconds) + 1, "{seconds}");
        assert_eq!(looks(seconds), (seconds / 0.5).log2().ceil() as usize, "{seconds}");
    }
    assert!(look(0.49, 1, 0.01, 100) > 0.0, "not for half a second");
    assert!(look(7.9, 1, 1.0, 100) > 0.0 && look(8.1, 1, 1.0, 100) == 0.0, "eight times what is expected");
    // Four of its turns have to have passed: with one turn in two requests, after eight.
    assert!(look(100.0, 1, 0.01, 8) > 0.0 && look(100.0, 1, 0.01, 9) == 0.0);
    // Unless it is due for such a request, it costs as much as it has been silent.
    let silent = look(100.0, 1, 0.01, 0);
    let queueing = Queueing::default().cost(1.0);
    assert!(is_near(silent, 100.0 * queueing), "{silent}");
}

/// An endpoint with a reduced share comes first among equals once its turn has come, and late until then.
#[test]
fn a_part_is_kept_by_counting() {
    for policy in comparing() {
        for held in [0.5_f32, 0.8, 0.9] {
            let mut bench = Bench::new(&policy, of_shares(&[1.0, 1.0]));
            bench.states[1].turn.held = held;
            let mut got = 0;
            let requests = 3000;
            for n in 0..requests {
                let turns = Turns { requests: n, apart: 2.0, ..Turns::default() };
                let to = bench.pick_at(turns, None, 1).first().unwrap();
                // As the engine records it, including this request.
                bench.states[to as usize].turn.asked = n + 1;
                got += to;
            }
            let part = f64::from(got) / f64::from(requests);
            let wanted = f64::from((1.0 - held) / 2.0);
            assert!((part / wanted - 1.0).abs() < 0.1, "{policy:?}: {part} instead of {wanted}");
        }
    }
}

#[test]
fn what_an_endpoint_holds_while_it_answers_others_is_no_silence() {
    for policy in comparing() {
        let polled = |answered_ms: u64| {
            let mut endpoint = at_rest(1.0, 0.01);
            let answered = Time::from_secs_f64(1000.0 - answered_ms as f64 * 1e-3);
            endpoint.hold(Time::from_secs_f64(900.0), answered);
            endpoint
        };
        let mut bench = Bench::new(&policy, vec![polled(10), polled(5000), polled(20_000)]);
        let counts = bench.counts(900);
        assert!(counts.iter().all(|count| (250.0..350.0).contains(count)), "{policy:?}: {counts:?}");
    }
}

/// Counts of requests by endpoint, where so many are in flight at a time and all take equally long.
fn with_in_flight(policy: &settings::Policy, weights: &[f32], at_a_time: usize) -> Vec<f64> {
    let mut bench = Bench::new(policy, weights.iter().map(|weight| at_rest(*weight, 0.05)).collect());
    let turns = Turns { unit: weights.iter().sum::<f32>() / weights.len() as f32, ..Turns::default() };
    let mut counts = vec![0.0; weights.len()];
    let mut open = std::collections::VecDeque::new();
    for _ in 0..5000 {
        let index = bench.pick_at(turns, None, 1).first().unwrap() as usize;
        counts[index] += 1.0;
        bench.states[index].in_flight.start(bench.now);
        open.push_back(index);
        if open.len() > at_a_time {
            let over = open.pop_front().unwrap();
            bench.states[over].in_flight.answer(bench.now, bench.now);
            bench.states[over].in_flight.finish();
        }
    }
    counts
}

/// Endpoints that are hardly ever drawn are compared as a way out, and not because they are idle most of the time.
#[test]
fn beside_an_endpoint_of_much_more_weight_the_others_are_a_way_out() {
    let weights: Vec<f32> = [1000.0].into_iter().chain([1.0; 40]).collect();
    for policy in comparing().into_iter().take(3) {
        for at_a_time in [10, 50] {
            let counts = with_in_flight(&policy, &weights, at_a_time);
            let others = 1.0 - counts[0] / 5000.0;
            // Of two at random, one of the others is idle in a fourth of the draws; of five, in a half.
            let two = matches!(policy, settings::Policy::PeakEwma | settings::Policy::LeastRequest);
            assert!(others < if two { 0.3 } else { 0.6 }, "{policy:?}, {at_a_time}: {others}");
        }
        // It hangs.
        let list = weights.iter().map(|weight| busy(*weight, 0.05, if *weight > 1.0 { 5000 } else { 0 }, 0));
        let mut bench = Bench::new(&policy, list.collect());
        let turns = Turns { unit: 25.0, ..Turns::default() };
        let named = (0..1000).filter(|_| bench.pick_at(turns, None, 1).first() == Some(0)).count();
        assert_eq!(named, 0, "{policy:?}");
    }
}

/// All but one are above the bound: a retry goes to one of them all the same.
#[test]
fn a_retry_has_an_endpoint_where_all_others_are_full() {
    let bound = settings::LoadBound { bounded: true, ..settings::LoadBound::default() };
    for endpoints in [2, 3, 10] {
        let list = (0..endpoints).map(|nth| busy(1.0, 0.05, if nth == 0 { 0 } else { 40 }, 0)).collect();
        let mut bench = Bench::new(&settings::Policy::ConsistentHash(bound), list);
        bench.states[0].weight = 1000.0;
        bench.refresh();
        for key in 0..100 {
            let named = bench.pick(Some(crate::rng::mix(key)), 2);
            assert_eq!((named.first(), named.as_slice().len()), (Some(0), 2), "{endpoints}");
            assert_eq!(bench.pick(Some(crate::rng::mix(key)), 1).as_slice(), [0]);
        }
    }
}
