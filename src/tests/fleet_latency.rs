//! What the other proxies have measured: it lowers an endpoint's share, never raises it, and fresh measurements of this
//! proxy take precedence.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::turns::{POLICIES, fleet, serve_all};
use super::*;

const ROOT: &str = r#""prometheus":{"cluster":"p","interval":"5s"},"#;

fn reported_fleet(endpoints: usize, policy: &str) -> Balancer {
    let signal = r#""signals":[{"name":"others","builtin":"fleet_latency"}]"#;
    fleet(endpoints, &format!(r#""policy":"{policy}",{signal},"slow_start":"0s","#), ROOT)
}

/// Sets these values of the signal, one per endpoint, measured now.
fn report(engine: &mut Balancer, values: &[f64], ms: u64) {
    let upstream = engine.upstream_mut(UPSTREAM).unwrap();
    let identities: Vec<(u32, u64)> = upstream.fleet().iter().map(|(index, one)| (index, one.hash)).collect();
    for (index, identity) in identities {
        upstream.set_signal(0, identity, values[index as usize], at(ms));
    }
}

/// Requests during `seconds`, with `values` set every five; returns how many each endpoint got. Endpoint 0 takes
/// `first_ms`, the others 20 ms.
fn serve_reported(
    engine: &mut Balancer,
    seconds: core::ops::Range<u64>,
    apart_ms: u64,
    values: Option<&[f64]>,
    first_ms: u64,
) -> Vec<u32> {
    let mut all = vec![0; engine.upstream(UPSTREAM).unwrap().fleet().len()];
    for second in seconds.step_by(5) {
        values.into_iter().for_each(|values| report(engine, values, second * 1000));
        let requests = second * 1000 / apart_ms..(second + 5) * 1000 / apart_ms;
        let counts = serve_all(engine, requests, apart_ms, |index, _| match index {
            0 => (Outcome::Good, first_ms),
            _ => (Outcome::Good, 20),
        });
        all.iter_mut().zip(counts).for_each(|(all, count)| *all += count);
    }
    all
}

fn first_slow(endpoints: usize, seconds: f64) -> Vec<f64> {
    (0..endpoints).map(|index| if index == 0 { seconds } else { 0.02 }).collect()
}

#[test]
fn one_that_was_never_asked_is_spared_as_others_found_it() {
    for policy in POLICIES {
        let mut engine = reported_fleet(20, policy);
        // 800 requests: a fair part is 40.
        let counts = serve_reported(&mut engine, 0..40, 50, Some(&first_slow(20, 0.32)), 320);
        assert!(counts[0] <= 4, "{policy}: {counts:?}");
    }
}

#[test]
fn a_difference_within_two_changes_nothing() {
    for seconds in [0.0, 0.002, 0.02, 0.039] {
        let mut engine = reported_fleet(20, "adaptive");
        report(&mut engine, &first_slow(20, seconds), 0);
        engine.tick(ProbeShard::ALONE, at(1));
        let upstream = engine.upstream(UPSTREAM).unwrap();
        assert!((0..20).all(|index| upstream.endpoint(index).unwrap().share == 1.0), "{seconds}");
    }
}

#[test]
fn what_this_proxy_knows_afresh_goes_before_it() {
    let mut engine = reported_fleet(4, "adaptive");
    let values = first_slow(4, 0.32);
    serve_reported(&mut engine, 0..20, 10, Some(&values), 20);
    let counts = serve_reported(&mut engine, 20..40, 10, Some(&values), 20);
    assert!(counts[0] > 350, "a quarter would be 500: {counts:?}");
}

#[test]
fn others_estimates_expire_with_age() {
    for policy in ["adaptive", "random"] {
        let mut engine = reported_fleet(4, policy);
        let spared = serve_reported(&mut engine, 0..20, 500, Some(&first_slow(4, 0.32)), 20);
        assert!(spared[0] <= 2, "{policy}: {spared:?}");
        // No further values: after 37.5 s they do not count at all.
        serve_reported(&mut engine, 20..60, 500, None, 20);
        let counts = serve_reported(&mut engine, 60..260, 500, None, 20);
        assert!(counts[0] > 70, "{policy}: a quarter would be 100: {counts:?}");
    }
}

/// How often the first endpoint is explored in a period once it is known to be slow.
fn explorations(values: Option<&[f64]>) -> u32 {
    let mut engine = reported_fleet(20, "adaptive");
    serve_reported(&mut engine, 0..60, 50, values, 320);
    serve_reported(&mut engine, 60..660, 50, values, 320)[0]
}

#[test]
fn what_all_find_slow_is_explored_by_each_less_often() {
    let (alone, shared) = (explorations(None), explorations(Some(&first_slow(20, 0.32))));
    assert!((30..=60).contains(&alone), "one in twelve seconds or so: {alone}");
    assert!((8..=22).contains(&shared), "one in forty-eight or so: {shared}, not {alone}");
}

#[test]
fn what_others_find_healed_is_looked_at_soon() {
    let back = |values: &[f64]| {
        let mut engine = reported_fleet(20, "adaptive");
        serve_reported(&mut engine, 0..60, 50, Some(&first_slow(20, 0.32)), 320);
        let found =
            |second: &u64| serve_reported(&mut engine, *second..*second + 5, 50, Some(values), 20)[0] >= 3;
        (60..300).step_by(5).find(found).unwrap() - 60
    };
    let back_after = back(&first_slow(20, 0.02));
    assert!(back_after <= 10, "{back_after} s");
}

#[test]
fn a_lie_starves_no_endpoint() {
    for lie in [1.0, 1e9, f64::MAX] {
        let mut engine = reported_fleet(20, "adaptive");
        report(&mut engine, &first_slow(20, lie), 0);
        engine.tick(ProbeShard::ALONE, at(1));
        let share = engine.upstream(UPSTREAM).unwrap().endpoint(0).unwrap().share;
        assert!((0.019..0.021).contains(&share), "{lie}: {share}");
    }
}

#[test]
fn no_value_brings_an_endpoint_more_than_twice_its_part() {
    const VALUES: [f64; 12] =
        [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, -1e308, 0.0, 1e-308, 1e-3, 0.02, 1.0, 1e9, 1e308];
    let mut rng = Rng::new(5);
    for round in 0..600u64 {
        let endpoints = 2 + rng.below(12) as usize;
        let mut engine = reported_fleet(endpoints, "random");
        let few = 1 + rng.below(VALUES.len() as u32);
        let values: Vec<f64> = (0..endpoints).map(|_| VALUES[rng.below(few) as usize]).collect();
        let other: Vec<f64> =
            (0..endpoints).map(|_| VALUES[rng.below(VALUES.len() as u32) as usize]).collect();
        report(&mut engine, &values, 0);
        report(&mut engine, &other, 1);
        engine.tick(ProbeShard::ALONE, at(2));
        let upstream = engine.upstream(UPSTREAM).unwrap();
        let shares: Vec<f64> =
            (0..endpoints).map(|index| f64::from(upstream.endpoint(index as u32).unwrap().share)).collect();
        let all: f64 = shares.iter().sum();
        for share in &shares {
            let gain = share / all * endpoints as f64;
            assert!((0.0..=2.05).contains(&gain), "round {round}: {values:?}, {other:?}: {shares:?}");
            assert!(*share > 0.0, "{shares:?}");
        }
    }
}
