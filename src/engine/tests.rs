//! What the engine decides between ticks.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

const UPSTREAM: usize = 0;

fn engine(failover: &str) -> Engine {
    engine_with(&format!(r#""failover":{failover},"health":{{"max_ejected_percent":100}}"#))
}

fn engine_with(members: &str) -> Engine {
    let json = format!(
        r#"{{"upstreams":[{{"cluster":"web",{members},
             "endpoints":{{"static":["10.0.0.1:80","10.0.0.2:80","10.0.0.3:80"]}}}}]}}"#
    );
    Engine::new(&crate::config::parse(json.as_bytes()).unwrap(), at(0))
}

fn at(ms: u64) -> Time {
    Time(1_000_000_000_000 + ms * 1_000_000)
}

fn fail(engine: &mut Engine, index: u32, ms: u64) {
    let ticket = engine.started(UPSTREAM, index, at(ms)).unwrap();
    engine.answered(&ticket, Outcome::Failed(Failure::Refused), at(ms + 1));
    engine.finished(&ticket, at(ms + 1));
}

/// Each endpoint in turn fails until it is condemned, a tick after each failure but the last.
fn fail_one_after_the_other(engine: &mut Engine) {
    for (index, second) in [(0, 0), (1, 20), (2, 40)] {
        for failure in 0..3 {
            let ms = second * 1000 + failure * 100;
            engine.tick(Duty::ALONE, at(ms));
            fail(engine, index, ms + 1);
        }
    }
}

fn decision(engine: &mut Engine, ms: u64) -> Decision {
    engine.pick(UPSTREAM, Request::wanting(1), at(ms), &mut Rng::new(7))
}

#[test]
fn without_a_panic_threshold_nobody_may_be_left() {
    let mut engine = engine(r#"{"none_eligible":"reject","panic_percent":0}"#);
    fail_one_after_the_other(&mut engine);
    // The probes that are due come first.
    let decisions: Vec<_> = (0..4).map(|_| decision(&mut engine, 40_210)).collect();
    assert_eq!(decisions.last(), Some(&Decision::Reject), "{decisions:?}");
}

#[test]
fn failures_between_ticks_take_nobody_out_in_panic() {
    let mut engine = engine(r#"{"none_eligible":"reject","panic_percent":50}"#);
    fail_one_after_the_other(&mut engine);
    engine.tick(Duty::ALONE, at(41_000));
    for failure in 1..10 {
        for index in 0..3 {
            fail(&mut engine, index, 41_000 + failure);
            assert!(matches!(decision(&mut engine, 41_002 + failure), Decision::Steer(_)), "{failure}");
        }
    }
}

#[test]
fn a_rule_takes_an_endpoint_out_and_exploration_brings_it_back() {
    let rule = r#""rules":[{"when":"latency_ms","above":800,"then":"eject"}]"#;
    let mut engine = engine_with(rule);
    let mut ms = 0;
    let mut answers = |engine: &mut Engine, index, latency| {
        for _ in 0..20 {
            let ticket = engine.started(UPSTREAM, index, at(ms)).unwrap();
            ms += latency;
            engine.answered(&ticket, Outcome::Good, at(ms));
            engine.finished(&ticket, at(ms));
        }
        engine.tick(Duty::ALONE, at(ms));
        ms
    };
    answers(&mut engine, 0, 20);
    answers(&mut engine, 2, 20);
    let ms = answers(&mut engine, 1, 900);
    assert!(!engine.upstream(UPSTREAM).unwrap().member(1).unwrap().eligible);
    let picked = |engine: &mut Engine, ms| match decision(engine, ms) {
        Decision::Steer(candidates) => candidates.first(),
        other => panic!("{other:?}"),
    };
    assert!((0..50).all(|_| picked(&mut engine, ms) != Some(1)));
    // Nobody has heard of anyone for long: each is explored once, and a quick answer lifts the rule.
    let later = ms + 60_000;
    engine.tick(Duty::ALONE, at(later));
    assert!((0..3).any(|_| picked(&mut engine, later) == Some(1)));
    let ticket = engine.started(UPSTREAM, 1, at(later)).unwrap();
    engine.answered(&ticket, Outcome::Good, at(later + 20));
    engine.finished(&ticket, at(later + 20));
    engine.tick(Duty::ALONE, at(later + 20));
    assert!(engine.upstream(UPSTREAM).unwrap().member(1).unwrap().eligible);
}
