//! The engine with parsed configurations and with reports between workers: what it decides between ticks.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use engine::endpoint::{AnnouncedHealth, Spec};
use engine::health::State;
use engine::policy::Request;
use engine::rng::Rng;
use engine::time::Time;
use engine::*;

mod fleet_latency;
mod turns;

const UPSTREAM: usize = 0;

fn engine(failover: &str) -> Balancer {
    engine_with(&format!(r#""failover":{failover},"health":{{"max_ejected_percent":100}}"#))
}

fn engine_with(endpoints: &str) -> Balancer {
    let json = format!(
        r#"{{"upstreams":[{{"cluster":"web",{endpoints},
             "endpoints":{{"static":["10.0.0.1:80","10.0.0.2:80","10.0.0.3:80"]}}}}]}}"#
    );
    Balancer::new(&config::parse(json.as_bytes()).unwrap(), at(0))
}

fn at(ms: u64) -> Time {
    Time(1_000_000_000_000 + ms * 1_000_000)
}

fn fail(engine: &mut Balancer, index: u32, ms: u64) {
    let handle = engine.started(UPSTREAM, index, at(ms)).unwrap();
    engine.record_response(&handle, Outcome::Failed(Failure::Refused), at(ms + 1));
    engine.finished(&handle, at(ms + 1));
}

/// Each endpoint in turn fails until it is ejected, with a tick after each failure but the last.
fn fail_one_after_the_other(engine: &mut Balancer) {
    for (index, second) in [(0, 0), (1, 20), (2, 40)] {
        for failure in 0..3 {
            let ms = second * 1000 + failure * 100;
            engine.tick(ProbeShard::ALONE, at(ms));
            fail(engine, index, ms + 1);
        }
    }
}

fn decision(engine: &mut Balancer, ms: u64) -> Decision {
    engine.pick(UPSTREAM, Request::wanting(1), at(ms), &mut Rng::new(7))
}

#[test]
fn without_a_panic_threshold_no_endpoint_may_be_left() {
    let mut engine = engine(r#"{"none_eligible":"reject","panic_percent":0}"#);
    fail_one_after_the_other(&mut engine);
    // The probes that are due come first.
    let decisions: Vec<_> = (0..4).map(|_| decision(&mut engine, 40_210)).collect();
    assert_eq!(decisions.last(), Some(&Decision::Reject), "{decisions:?}");
}

#[test]
fn failures_between_ticks_eject_no_endpoint_in_panic() {
    let mut engine = engine(r#"{"none_eligible":"reject","panic_percent":50}"#);
    fail_one_after_the_other(&mut engine);
    engine.tick(ProbeShard::ALONE, at(41_000));
    for failure in 1..10 {
        for index in 0..3 {
            fail(&mut engine, index, 41_000 + failure);
            assert!(matches!(decision(&mut engine, 41_002 + failure), Decision::Steer(_)), "{failure}");
        }
    }
}

fn hashing(policy: &str) -> Balancer {
    engine_with(&format!(
        r#""policy":{policy},"affinity":{{"source_ip":true}},"health":{{"max_ejected_percent":100}}"#
    ))
}

fn home(engine: &mut Balancer, key: u64, ms: u64) -> u32 {
    let request = Request { key: Some(key), want: 1 };
    match engine.pick(UPSTREAM, request, at(ms), &mut Rng::new(key)) {
        Decision::Steer(candidates) => candidates.first().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_failure_moves_no_key_and_probes_are_of_their_own_keys() {
    for policy in [r#""ip_hash""#, r#""consistent_hash""#] {
        let mut engine = hashing(policy);
        engine.tick(ProbeShard::ALONE, at(0));
        let keys: Vec<u64> = (0..60).map(engine::rng::mix).collect();
        let homes: Vec<u32> = keys.iter().map(|key| home(&mut engine, *key, 1)).collect();
        let handle = engine.started(UPSTREAM, 1, at(1)).unwrap();
        engine.record_response(&handle, Outcome::Failed(Failure::Status5xx), at(2));
        engine.finished(&handle, at(2));
        engine.tick(ProbeShard::ALONE, at(100));
        let after: Vec<u32> = keys.iter().map(|key| home(&mut engine, *key, 101)).collect();
        assert_eq!(homes, after, "{policy}: one 500 moves no key");
        (0..3).for_each(|nth| fail(&mut engine, 1, 200 + nth));
        // It is ejected now and probed repeatedly, by requests of its own keys.
        let mut probes = 0;
        for second in 1..40 {
            engine.tick(ProbeShard::ALONE, at(1000 * second));
            for (key, home_before) in keys.iter().zip(&homes) {
                let to = home(&mut engine, *key, 1000 * second + 1);
                assert!(to == *home_before || *home_before == 1, "{policy}: {to} took a probe of another's");
                if to == 1 {
                    probes += 1;
                    fail(&mut engine, 1, 1000 * second + 1);
                }
            }
        }
        assert!((2..20).contains(&probes), "{policy}: {probes}");
    }
}

/// The response of an endpoint that has left does not count for the new one in its slot.
#[test]
fn answer_of_a_removed_endpoint_does_not_count_for_its_successor() {
    let mut engine = engine_with(r#""policy":"adaptive""#);
    for nth in 0..40 {
        let handle = engine.started(UPSTREAM, 1, at(20 * nth)).unwrap();
        engine.record_response(&handle, Outcome::Good, at(20 * nth + 10));
        engine.finished(&handle, at(20 * nth + 10));
    }
    let handles: Vec<RequestHandle> =
        (0..20).map(|_| engine.started(UPSTREAM, 1, at(1000)).unwrap()).collect();
    let specs = |last: &str| -> Vec<Spec> {
        ["10.0.0.1:80", last, "10.0.0.3:80"].iter().map(|a| Spec::at(a.parse().unwrap())).collect()
    };
    engine.upstream_mut(UPSTREAM).unwrap().set_fleet(&specs("10.0.0.9:80"), at(1001));
    let fresh = engine.upstream(UPSTREAM).unwrap().fleet().index_of_text(b"10.0.0.9:80").unwrap();
    for nth in 0..40 {
        let handle = engine.started(UPSTREAM, fresh, at(1100 + 20 * nth)).unwrap();
        engine.record_response(&handle, Outcome::Good, at(1110 + 20 * nth));
        engine.finished(&handle, at(1110 + 20 * nth));
    }
    let before = format!("{:?}", engine.upstream(UPSTREAM).unwrap().queueing());
    for handle in &handles {
        engine.record_response(handle, Outcome::Good, at(9000));
        engine.finished(handle, at(9000));
    }
    assert_eq!(format!("{:?}", engine.upstream(UPSTREAM).unwrap().queueing()), before);
    assert!(!engine.names(&handles[0], fresh), "another generation");
}

#[test]
fn a_request_that_moved_found_so_many_where_it_went() {
    let mut engine = engine_with(r#""policy":"adaptive""#);
    let crowd: Vec<RequestHandle> = (0..7).map(|_| engine.started(UPSTREAM, 2, at(1)).unwrap()).collect();
    let handle = engine.started(UPSTREAM, 0, at(2)).unwrap();
    assert_eq!((handle.depth, crowd.last().unwrap().depth), (0, 6));
    assert_eq!(engine.reassigned(&handle, 2).unwrap().depth, 7);
}

#[test]
fn a_rule_takes_an_endpoint_out_and_exploration_brings_it_back() {
    let rule = r#""rules":[{"when":"latency_ms","above":800,"then":"eject"}]"#;
    let mut engine = engine_with(rule);
    let mut ms = 0;
    let mut answers = |engine: &mut Balancer, index, latency| {
        for _ in 0..20 {
            let handle = engine.started(UPSTREAM, index, at(ms)).unwrap();
            ms += latency;
            engine.record_response(&handle, Outcome::Good, at(ms));
            engine.finished(&handle, at(ms));
        }
        engine.tick(ProbeShard::ALONE, at(ms));
        ms
    };
    answers(&mut engine, 0, 20);
    answers(&mut engine, 2, 20);
    let ms = answers(&mut engine, 1, 900);
    assert!(!engine.upstream(UPSTREAM).unwrap().endpoint(1).unwrap().eligible);
    let picked = |engine: &mut Balancer, ms| match decision(engine, ms) {
        Decision::Steer(candidates) => candidates.first(),
        other => panic!("{other:?}"),
    };
    assert!((0..50).all(|_| picked(&mut engine, ms) != Some(1)));
    // All endpoints have been without requests for long: each is explored once, and a fast response lifts the rule.
    let later = ms + 60_000;
    engine.tick(ProbeShard::ALONE, at(later));
    assert!((0..3).any(|_| picked(&mut engine, later) == Some(1)));
    let handle = engine.started(UPSTREAM, 1, at(later)).unwrap();
    engine.record_response(&handle, Outcome::Good, at(later + 20));
    engine.finished(&handle, at(later + 20));
    engine.tick(ProbeShard::ALONE, at(later + 20));
    assert!(engine.upstream(UPSTREAM).unwrap().endpoint(1).unwrap().eligible);
}

fn stand(engine: &mut Balancer, conditions: [AnnouncedHealth; 3], ms: u64) {
    let upstream = engine.upstream_mut(UPSTREAM).unwrap();
    let specs = upstream.fleet().iter().map(|(_, endpoint)| Spec::at(endpoint.address()));
    let announced = specs.zip(conditions).map(|(spec, condition)| Spec { condition, ..spec });
    upstream.set_fleet(&announced.collect::<Vec<_>>(), at(ms));
}

/// The endpoints of thirty requests, by index; requests left to Envoy are not counted.
fn picked(engine: &mut Balancer, ms: u64) -> Vec<u32> {
    let mut rng = Rng::new(3);
    let mut picked = Vec::new();
    for _ in 0..30 {
        if let Decision::Steer(candidates) = engine.pick(UPSTREAM, Request::wanting(1), at(ms), &mut rng) {
            picked.extend(candidates.first());
        }
    }
    picked.sort_unstable();
    picked.dedup();
    picked
}

#[test]
fn unhealthy_get_nothing_and_degraded_the_excess() {
    use AnnouncedHealth::{Degraded, Draining, Serving, Unhealthy};
    let mut engine = engine(r#"{"panic_percent":50}"#);
    for (conditions, expected) in [
        ([Serving, Unhealthy, Serving], &[0, 2][..]),
        ([Serving, Degraded, Serving], &[0, 2]),
        ([Serving, Degraded, Degraded], &[0, 1, 2]),
        ([Degraded; 3], &[0, 1, 2]),
        ([Serving, Draining, Draining], &[0]),
        // Panic: health is ignored, but a draining endpoint still gets nothing.
        ([Serving, Unhealthy, Unhealthy], &[0, 1, 2]),
        ([Draining, Unhealthy, Unhealthy], &[1, 2]),
        ([Draining; 3], &[]),
        ([Serving; 3], &[0, 1, 2]),
    ] {
        stand(&mut engine, conditions, 10);
        assert_eq!(picked(&mut engine, 10), expected, "{conditions:?}");
    }
}

#[test]
fn endpoint_announced_unhealthy_is_not_probed() {
    let mut engine = engine(r#"{"panic_percent":0}"#);
    for failure in 0..3 {
        fail(&mut engine, 1, failure * 10);
    }
    stand(&mut engine, [AnnouncedHealth::Serving, AnnouncedHealth::Unhealthy, AnnouncedHealth::Serving], 100);
    engine.tick(ProbeShard::ALONE, at(60_000));
    assert_eq!(picked(&mut engine, 60_000), [0, 2]);
    stand(&mut engine, [AnnouncedHealth::Serving; 3], 60_010);
    engine.tick(ProbeShard::ALONE, at(60_020));
    assert_eq!(picked(&mut engine, 60_020), [0, 1, 2], "a probe is long due");
}

#[test]
fn recovered_endpoint_starts_slowly() {
    let mut engine = engine(r#"{"panic_percent":50}"#);
    stand(&mut engine, [AnnouncedHealth::Serving, AnnouncedHealth::Draining, AnnouncedHealth::Serving], 100);
    stand(&mut engine, [AnnouncedHealth::Serving; 3], 200);
    let share = |engine: &Balancer| engine.upstream(UPSTREAM).unwrap().endpoint(1).unwrap().share;
    assert!(share(&engine) < 0.2, "{}", share(&engine));
    engine.tick(ProbeShard::ALONE, at(60_000));
    assert_eq!(share(&engine), 1.0);
}

fn state(engine: &Balancer, index: u32) -> State {
    engine.upstream(UPSTREAM).and_then(|u| u.endpoint(index)).unwrap().health.state()
}

#[test]
fn request_from_before_a_clock_step_is_no_evidence() {
    let mut engine = engine_with(r#""health":{"fail_after":3}"#);
    let early = engine.started(UPSTREAM, 0, at(3_600_000)).unwrap();
    engine.not_after(at(0));
    engine.record_response(&early, Outcome::Good, at(10));
    engine.finished(&early, at(10));
    (1..=3).for_each(|n| fail(&mut engine, 0, 100 * n));
    engine.tick(ProbeShard::ALONE, at(400));
    assert_eq!(state(&engine, 0), State::Failed);
}

#[test]
fn a_reload_counts_no_failure_twice() {
    let endpoints = r#""health":{"fail_after":4}"#;
    let mut old = engine_with(endpoints);
    fail(&mut old, 0, 1);
    let mut new = engine_with(endpoints);
    new.take_over(&mut old, at(10));
    assert_eq!(state(&new, 0), State::Suspect);
    // The old worker lives on while its requests do, and publishes what it knows.
    let slot = crate::sharing::worker_report::encode(&old, true, at(20));
    new.forget_others(at(20));
    crate::sharing::worker_report::merge(&slot, false, &mut new).unwrap();
    new.tick(ProbeShard::ALONE, at(20));
    assert_eq!(state(&new, 0), State::Suspect);
}

fn serve(engine: &mut Balancer, index: u32, (ms, takes): (u64, u64)) {
    let handle = engine.started(UPSTREAM, index, at(ms)).unwrap();
    engine.record_response(&handle, Outcome::Good, at(ms + takes));
    engine.finished(&handle, at(ms + takes));
}

/// A tick with the reports of these workers only.
fn hear(engine: &mut Balancer, from: &[&Balancer], ms: u64) {
    engine.forget_others(at(ms));
    for other in from {
        let slot = crate::sharing::worker_report::encode(other, true, at(ms));
        crate::sharing::worker_report::merge(&slot, false, engine).unwrap();
    }
    engine.tick(ProbeShard::ALONE, at(ms));
}

fn expected_ms(engine: &Balancer, index: u32) -> f64 {
    1000.0 * f64::from(engine.upstream(UPSTREAM).and_then(|u| u.endpoint(index)).unwrap().expected)
}

#[test]
fn handover_state_lasts_until_reported_again() {
    let endpoints = r#""health":{"fail_after":4,"max_ejected_percent":100},"failover":{"panic_percent":0}"#;
    let [mut witness, mut old] = [(); 2].map(|()| engine_with(endpoints));
    for request in 0..20 {
        serve(&mut witness, 0, (request * 10, 10));
        serve(&mut witness, 1, (request * 10, 500));
        serve(&mut old, 0, (request * 10, 10));
    }
    fail(&mut witness, 2, 800);
    hear(&mut old, &[&witness], 1000);
    assert_eq!(state(&old, 2), State::Suspect);

    let mut new = engine_with(endpoints);
    new.take_over(&mut old, at(1010));
    assert!(expected_ms(&new, 1) > 300.0, "before the first tick, too: {}", expected_ms(&new, 1));
    // No peer has reported yet.
    hear(&mut new, &[], 1060);
    assert!(expected_ms(&new, 1) > 300.0, "{}", expected_ms(&new, 1));
    assert_eq!(state(&new, 2), State::Suspect);
    // The peer reports it again: one failure does not count twice.
    hear(&mut new, &[&witness], 1110);
    assert_eq!(state(&new, 2), State::Suspect);
    assert!(expected_ms(&new, 1) > 300.0);
    // What a peer reported that never comes back is forgotten.
    hear(&mut new, &[], 5000);
    assert!(expected_ms(&new, 1) < 100.0, "{}", expected_ms(&new, 1));
    assert_eq!(state(&new, 2), State::Healthy);
}

/// A thousand endpoints: a worker with 100 requests/s meets each once in ten seconds.
fn large() -> Balancer {
    let endpoints: Vec<String> =
        (0..1000).map(|e| format!(r#""10.0.{}.{}:80""#, e / 250, e % 250 + 1)).collect();
    let json = format!(
        r#"{{"upstreams":[{{"cluster":"web","endpoints":{{"static":[{}]}},"health":{{"fail_after":1000}}}}]}}"#,
        endpoints.join(",")
    );
    Balancer::new(&config::parse(json.as_bytes()).unwrap(), at(0))
}

/// A hundred requests per second, of which those to the first `failing` endpoints fail; returns how many the first got.
fn first_asked(engine: &mut Balancer, seconds: std::ops::Range<u64>, failing: u32) -> u32 {
    let (mut rng, mut asked) = (Rng::new(11), 0);
    for ms in (seconds.start * 1000..seconds.end * 1000).step_by(10) {
        if ms % 100 == 0 {
            engine.tick(ProbeShard::ALONE, at(ms));
        }
        let Decision::Steer(named) = engine.pick(UPSTREAM, Request::wanting(1), at(ms), &mut rng) else {
            continue;
        };
        let index = named.first().unwrap();
        asked += u32::from(index == 0);
        let outcome = if index < failing { Outcome::Failed(Failure::Status5xx) } else { Outcome::Good };
        let handle = engine.started(UPSTREAM, index, at(ms)).unwrap();
        engine.record_response(&handle, outcome, at(ms + 9));
        engine.finished(&handle, at(ms + 9));
    }
    asked
}

#[test]
fn new_worker_uses_endpoints_it_has_not_measured() {
    let mut engine = large();
    first_asked(&mut engine, 0..2, 0);
    assert_eq!(engine.upstream(UPSTREAM).unwrap().totals().probes, 0);
}

#[test]
fn a_suspect_of_a_large_fleet_gets_no_more_than_its_fair_share() {
    let mut engine = large();
    first_asked(&mut engine, 0..5, 0);
    fail(&mut engine, 0, 5000);
    // Twelve in two minutes are fair; one verifying request a second would be a hundred and twenty.
    let asked = first_asked(&mut engine, 6..126, 1);
    assert!((1..=12).contains(&asked), "{asked}");
}
