//! Endpoints that a worker tries first.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// The policies that compare requests in flight.
fn comparing() -> Vec<settings::Policy> {
    use settings::Policy::{Adaptive, LeastRequest, PeakEwma, WeightedScore};
    let compares =
        |policy: &settings::Policy| matches!(policy, Adaptive | LeastRequest | PeakEwma | WeightedScore(_));
    every_policy().into_iter().filter(compares).collect()
}

#[test]
fn workers_take_endpoints_at_home_first_and_all_get_their_parts() {
    for shares in [vec![1.0; 40], [[1.0, 3.0]; 20].concat()] {
        for policy in comparing() {
            let mut bench = Bench::new(&policy, of_shares(&shares));
            let all: f32 = shares.iter().sum();
            let mut got = vec![0.0; shares.len()];
            let mut from = 0.0;
            for width in [0.5, 0.3, 0.2] {
                let turns = Turns { home: Home { from, width }, ..Turns::default() };
                let rounds = (width * 40_000.0) as usize;
                let (mut at_home, mut before) = (0, 0.0);
                let home: Vec<bool> = shares
                    .iter()
                    .map(|share| {
                        let begins = before / all;
                        before += share;
                        begins < from + width + 1e-4 && before / all > from - 1e-4
                    })
                    .collect();
                for _ in 0..rounds {
                    let index = bench.pick_at(turns, None, 1).first().unwrap() as usize;
                    at_home += usize::from(home[index]);
                    got[index] += 1.0;
                }
                assert_eq!(at_home, rounds, "{policy:?}");
                from += width;
            }
            for (index, (got, share)) in got.iter().zip(&shares).enumerate() {
                let expected = 40_000.0 * share / all;
                // Five standard deviations of a binomial count.
                let chance = 5.0 * expected.sqrt();
                assert!((got - expected).abs() < chance, "{policy:?}: {index} got {got}, not {expected}");
            }
        }
    }
}

#[test]
fn a_home_keeps_no_request_from_a_cheaper_endpoint_and_names_no_ineligible_one() {
    for policy in comparing() {
        let shares: Vec<f32> = (0..12).map(|at| if at < 4 { 0.0 } else { 1.0 }).collect();
        let mut bench = Bench::new(&policy, of_shares(&shares));
        for home in
            [Home { from: 0.0, width: 0.3 }, Home { from: 0.5, width: 0.0 }, Home { from: 0.99, width: 0.01 }]
        {
            for want in 1..=MAX_CANDIDATES {
                let candidates = bench.pick_at(Turns { home, ..Turns::default() }, None, want);
                assert_eq!(candidates.as_slice().len(), want.min(8), "{policy:?}");
                assert!(candidates.as_slice().iter().all(|index| *index >= 4), "{policy:?}");
            }
        }
    }
    let mut bench = Bench::new(&settings::Policy::LeastRequest, of_shares(&[1.0, 1.0]));
    for _ in 0..5 {
        bench.states[0].in_flight.start(bench.now);
    }
    let home = Home { from: 0.0, width: 0.5 };
    assert_eq!(bench.pick_at(Turns { home, ..Turns::default() }, None, 1).first(), Some(1));
}
