//! What every division guarantees, whichever endpoints are healthy and however much each subset may keep.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::ablation::Ablation;
use crate::cluster::subset::{BaselineLatency, Division, Key, SubsetErrors};
use crate::policy::{self, Pool, Turns};
use crate::rng::Rng;
use crate::settings;

#[test]
fn seven_of_ten_carry_everything() {
    assert_eq!(capacity(10.0, 10.0), 1.0);
    assert!((capacity(5.0, 10.0) - 0.7).abs() < 1e-9);
    assert!(capacity(7.2, 10.0) == 1.0 && capacity(7.0, 10.0) < 1.0);
    assert_eq!((capacity(0.0, 10.0), capacity(0.0, 0.0)), (0.0, 0.0));
}

/// A subset of this priority and side; `told` is its locality's weight, and `kept` the fraction that it may keep.
fn subset(
    priority: u32,
    remote: bool,
    (locality, told): (u64, f64),
    [fit, weight, keeps]: [f64; 3],
) -> Subset {
    Subset {
        key: Key { version: 0, priority, remote, locality },
        locality: (Default::default(), told),
        tier: 0,
        pool: Pool::default(),
        policy: policy::build(&settings::Policy::Random, Ablation::default()),
        teaches: true,
        in_flight: 0,
        turns: Turns::default(),
        latency: BaselineLatency {
            typical: 0.05,
            measured: false,
            stall_timeout: f64::INFINITY,
            served: 0.0,
        },
        errors: SubsetErrors::default(),
        division: Division { weight, fit, kept: keeps, load: 0.0, spill: Default::default() },
    }
}

fn loads(subsets: &mut [Subset]) -> Vec<f64> {
    divide(subsets, |g| g.division.kept);
    subsets.iter().map(|g| g.division.load).collect()
}

fn is_near(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-9
}

/// A random part, often 0 or 1: mistakes show at whole numbers.
fn part(rng: &mut Rng) -> f64 {
    [0.0, 1.0, rng.unit(), rng.unit()][rng.below(4) as usize]
}

fn drawn(rng: &mut Rng) -> Vec<Subset> {
    let mut subsets = Vec::new();
    for priority in 0..1 + rng.below(3) {
        for remote in [false, true] {
            for locality in 0..1 + u64::from(rng.below(3)) {
                let weight = f64::from(1 + rng.below(9));
                let told = f64::from(rng.below(5));
                let of = [part(rng) * weight, weight, part(rng)];
                subsets.push(subset(priority, remote, (locality, told), of));
            }
        }
    }
    subsets
}

fn levels(subsets: &[Subset]) -> Vec<std::ops::Range<usize>> {
    let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
    for (at, of) in subsets.iter().enumerate() {
        match ranges.last_mut().filter(|range| subsets[range.start].key.level() == of.key.level()) {
            Some(range) => range.end = at + 1,
            None => ranges.push(at..at + 1),
        }
    }
    ranges
}

/// The fraction of all requests that a level can carry and keeps.
fn carried(level: &[Subset]) -> f64 {
    let sum = |of: &dyn Fn(&Subset) -> f64| level.iter().map(of).sum::<f64>();
    let whole = capacity(sum(&|g| g.division.fit), sum(&|g| g.division.weight));
    let able = |g: &Subset| {
        let told = if level.len() > 1 { g.locality.1 } else { 1.0 };
        told * capacity(g.division.fit, g.division.weight)
    };
    let (all, kept) = (sum(&able), sum(&|g| able(g) * g.division.kept));
    if all > 0.0 { whole * kept / all } else { 0.0 }
}

#[test]
fn the_parts_are_all_of_the_requests_and_come_in_their_order() {
    let mut rng = Rng::new(6);
    let (mut some, mut none) = (0, 0);
    for round in 0..3000 {
        let mut subsets = drawn(&mut rng);
        let loads = loads(&mut subsets);
        assert!(loads.iter().all(|load| (0.0..=1.0 + 1e-9).contains(load)), "{round}: {loads:?}");
        assert!(is_near(loads.iter().sum(), 1.0), "{round}: {loads:?}");
        let levels = levels(&subsets);
        let carry: Vec<f64> = levels.iter().map(|level| carried(&subsets[level.clone()])).collect();
        let got: Vec<f64> = levels.iter().map(|level| loads[level.clone()].iter().sum()).collect();
        if carry.iter().sum::<f64>() == 0.0 {
            none += 1;
            continue;
        }
        some += 1;
        // The first takes what it can carry, the next what it can of the rest; together they take everything.
        let mut left = 1.0_f64;
        let taken: Vec<f64> = carry
            .iter()
            .map(|carries| {
                let takes = carries.min(left);
                left -= takes;
                takes
            })
            .collect();
        let all: f64 = taken.iter().sum();
        for (got, takes) in got.iter().zip(&taken) {
            assert!(is_near(*got, takes / all), "{round}: {got:?} instead of {takes} of {all}");
        }
        // Within a level, requests are divided by locality weights, as far as each can carry its own.
        for level in levels.iter().filter(|level| level.len() > 1) {
            let of = |at: usize| {
                let g = &subsets[at];
                g.locality.1 * capacity(g.division.fit, g.division.weight) * g.division.kept
            };
            let together: f64 = level.clone().map(of).sum();
            let load: f64 = loads[level.clone()].iter().sum();
            for at in level.clone().filter(|_| together > 0.0) {
                assert!(is_near(loads[at], load * of(at) / together), "{round}: {loads:?}");
            }
        }
    }
    assert!(some > 1000 && none > 10, "{some} {none}");
}

/// Where none is healthy, or none may keep anything, requests are divided by size.
#[test]
fn where_nothing_can_be_carried_size_decides() {
    let mut rng = Rng::new(7);
    for round in 0..500 {
        let mut subsets = drawn(&mut rng);
        subsets.iter_mut().for_each(|g| g.division.fit = 0.0);
        let loads = loads(&mut subsets);
        if subsets.len() == 1 {
            continue;
        }
        let size: f64 = subsets.iter().map(|g| g.division.weight).sum();
        for level in levels(&subsets) {
            let here = &subsets[level.clone()];
            let weight: f64 = here.iter().map(|g| g.division.weight).sum();
            let told: f64 = here.iter().map(|g| g.locality.1).sum();
            for at in level {
                let own = if told > 0.0 {
                    weight * subsets[at].locality.1 / told
                } else {
                    subsets[at].division.weight
                };
                assert!(is_near(loads[at], own / size), "{round}: {loads:?}");
            }
        }
    }
}

#[test]
fn one_alone_has_everything_and_a_healthy_first_leaves_nothing() {
    assert_eq!(loads(&mut [subset(3, true, (0, 0.0), [0.0, 5.0, 0.0])]), [1.0]);
    let mut two = [subset(0, false, (0, 0.0), [8.0, 8.0, 1.0]), subset(1, false, (0, 0.0), [8.0, 8.0, 1.0])];
    assert_eq!(loads(&mut two), [1.0, 0.0]);
    // With half of it healthy, it carries seven tenths.
    two[0].division.fit = 4.0;
    let half = loads(&mut two);
    assert!(is_near(half[0], 0.7) && is_near(half[1], 0.3), "{half:?}");
}

#[test]
fn others_can_take_over_where_all_that_are_well_carry_everything() {
    let tier = |fit, weight| PriorityTier { fit, weight, ..PriorityTier::default() };
    assert!(!others_can_absorb(&[tier(9.0, 9.0)]), "there are none");
    assert!(others_can_absorb(&[tier(0.0, 4.0), tier(72.0, 100.0)]));
    assert!(!others_can_absorb(&[tier(0.0, 4.0), tier(0.7, 1.0)]));
    assert!(others_can_absorb(&[tier(0.36, 1.0), tier(0.36, 1.0)]), "together");
}
