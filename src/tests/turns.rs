//! The part of the requests that an endpoint gets while it is failing, slow, new or held back: counted in requests, at
//! any rate.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// Every policy that takes an endpoint's state into account.
pub(super) const POLICIES: [&str; 6] =
    ["adaptive", "least_request", "peak_ewma", "random", "round_robin", "weighted_round_robin"];

/// A set of `endpoints`, with more fields of the upstream and of the root.
pub(super) fn fleet(endpoints: usize, upstream: &str, root: &str) -> Balancer {
    let list: Vec<String> = (1..=endpoints).map(|e| format!(r#""10.0.0.{e}:80""#)).collect();
    let json = format!(
        r#"{{{root}"upstreams":[{{"cluster":"web",{upstream}"endpoints":{{"static":[{}]}}}}]}}"#,
        list.join(",")
    );
    Balancer::new(&config::parse(json.as_bytes()).unwrap(), at(0))
}

/// These requests, each `apart` after the one before, with a tick before each; returns how many each endpoint got.
/// `answer` maps endpoint and time to the outcome and its latency in milliseconds.
pub(super) fn serve_all(
    engine: &mut Balancer,
    requests: std::ops::Range<u64>,
    apart_ms: u64,
    answer: impl Fn(u32, u64) -> (Outcome, u64),
) -> Vec<u32> {
    let mut rng = Rng::new(17);
    let mut counts = vec![0; engine.upstream(UPSTREAM).unwrap().fleet().len()];
    for request in requests {
        let ms = request * apart_ms;
        engine.tick(ProbeShard::ALONE, at(ms));
        let Decision::Steer(named) = engine.pick(UPSTREAM, Request::wanting(1), at(ms), &mut rng) else {
            panic!("somebody is there");
        };
        let index = named.first().unwrap();
        counts[index as usize] += 1;
        let (outcome, takes) = answer(index, ms);
        let handle = engine.started(UPSTREAM, index, at(ms)).unwrap();
        engine.record_response(&handle, outcome, at(ms + takes));
        engine.finished(&handle, at(ms + takes));
    }
    counts
}

fn bad(which: u32) -> impl Fn(u32, u64) -> (Outcome, u64) {
    move |index, _| match index == which {
        true => (Outcome::Failed(Failure::Status5xx), 1),
        false => (Outcome::Good, 9),
    }
}

#[test]
fn probes_are_at_most_half_of_a_fair_share_however_rare_requests_are() {
    for policy in POLICIES {
        for (apart_ms, ejection) in [(31_000, "30s"), (1_100, "1s"), (300, "2s"), (10, "1s")] {
            let upstream = format!(r#""policy":"{policy}","health":{{"ejection":"{ejection}"}},"#);
            for which in 0..3 {
                let mut engine = fleet(3, &upstream, "");
                let asked = serve_all(&mut engine, 0..240, apart_ms, bad(which))[which as usize];
                // Half of a third; one more to find out, and one that comes when it is due.
                assert!(asked <= 42, "{policy} {apart_ms} ms: {asked} of 240");
            }
        }
    }
}

#[test]
fn recovery_is_found_with_rare_requests() {
    for policy in POLICIES {
        let mut engine = fleet(3, &format!(r#""policy":"{policy}","#), "");
        serve_all(&mut engine, 0..100, 31_000, bad(2));
        let healed = serve_all(&mut engine, 100..400, 31_000, bad(9));
        assert!(healed[2] >= 50, "{policy}: {healed:?}");
    }
}

#[test]
fn one_may_leave_where_any_may() {
    for policy in POLICIES {
        for endpoints in [2, 3] {
            let upstream = format!(r#""policy":"{policy}","health":{{"max_ejected_percent":30}},"#);
            let mut engine = fleet(endpoints, &upstream, "");
            let asked = serve_all(&mut engine, 0..2400, 10, bad(0))[0];
            assert!(asked < 60, "{policy}, one of {endpoints}: {asked} of 2400");
        }
        let upstream = format!(r#""policy":"{policy}","health":{{"max_ejected_percent":0}},"#);
        let mut engine = fleet(3, &upstream, "");
        serve_all(&mut engine, 0..100, 10, bad(0));
        assert_eq!(engine.upstream(UPSTREAM).unwrap().eligible(), 3, "{policy}: none may be probed");
    }
    let without_panic = r#""failover":{"panic_percent":0,"none_eligible":"reject"},"#;
    let mut engine = fleet(1, without_panic, "");
    serve_all(&mut engine, 0..100, 10, bad(0));
    assert_eq!(engine.upstream(UPSTREAM).unwrap().eligible(), 1, "the only one stays");
}

#[test]
fn the_longest_waiting_is_explored_first() {
    for healed in [1, 3] {
        let mut engine = fleet(5, "", "");
        let slow = |index, ms| match index {
            1 | 3 if index != healed || ms < 60_000 => (Outcome::Good, 400),
            _ => (Outcome::Good, 10),
        };
        serve_all(&mut engine, 0..120, 500, slow);
        let counts = serve_all(&mut engine, 120..2160, 500, slow);
        assert!(counts[healed as usize] > 100, "{healed} of {counts:?}");
        assert!(counts[4 - healed as usize] < 60, "{healed} of {counts:?}");
    }
}

/// The part of the requests that endpoint 0 gets while its signal is 100 and the others' are 0.
fn part_of_first(policy: &str, endpoints: usize, upstream: &str) -> f64 {
    let upstream = format!(r#""policy":"{policy}",{upstream}"#);
    let mut engine = fleet(endpoints, &upstream, r#""prometheus":{"cluster":"p","interval":"5s"},"#);
    let mut counts = vec![0; endpoints];
    // The cost of a tick grows with the endpoints.
    let (requests, apart_ms) = if endpoints > 10 { (100, 50) } else { (500, 10) };
    for poll in 0..40 {
        let cluster = engine.upstream_mut(UPSTREAM).unwrap();
        for (index, identity) in cluster.fleet().identities().to_vec().into_iter().enumerate() {
            cluster.set_signal(0, identity, if index == 0 { 100.0 } else { 0.0 }, at(poll * 5000));
        }
        let more = serve_all(&mut engine, poll * requests..(poll + 1) * requests, apart_ms, |_, _| {
            (Outcome::Good, 9)
        });
        if poll >= 8 {
            counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
        }
    }
    f64::from(counts[0]) / f64::from(counts.iter().sum::<u32>())
}

#[test]
fn a_rule_leaves_a_quarter_of_a_share_in_every_fleet() {
    let rule = r#""rules":[{"when":"queue","above":90,"then":"down_weight"}],
                  "signals":[{"name":"queue","query":"q","weight":0}],"#;
    for policy in POLICIES {
        for endpoints in [2, 3, 10] {
            let part = part_of_first(policy, endpoints, rule);
            let wanted = if policy == "round_robin" && endpoints == 2 {
                0.2
            } else {
                0.25 / (endpoints as f64 - 0.75)
            };
            assert!((part / wanted - 1.0).abs() < 0.2, "{policy}, {endpoints}: {part:.3} of {wanted:.3}");
        }
    }
}

#[test]
fn full_endpoint_gets_less_than_a_tenth_of_its_share() {
    let signal = r#""signals":[{"name":"queue","query":"q","max":100}],"#;
    for policy in POLICIES {
        for endpoints in [2, 3, 10, 100] {
            let part = part_of_first(policy, endpoints, signal);
            assert!(part < 0.1 / endpoints as f64, "{policy}, {endpoints}: {part:.4}");
        }
    }
}

#[test]
fn depth_is_what_awaits_an_answer_per_weight() {
    let json = r#"{"upstreams":[{"cluster":"web","endpoints":{"static":[
        {"address":"10.0.0.1:80","weight":1},{"address":"10.0.0.2:80","weight":4}]}}]}"#;
    let mut engine = Balancer::new(&config::parse(json.as_bytes()).unwrap(), at(0));
    engine.tick(ProbeShard::ALONE, at(0));
    for (index, wanted) in [(0, [0, 3, 5]), (1, [0, 1, 1])] {
        let handles: Vec<_> = (0..3).map(|_| engine.started(UPSTREAM, index, at(10)).unwrap()).collect();
        // The mean weight is 2.5.
        assert_eq!(handles.iter().map(|t| t.depth).collect::<Vec<_>>(), wanted, "{index}");
        // Answered, and open for ever.
        handles.iter().for_each(|handle| engine.record_response(handle, Outcome::Undecided, at(20)));
        assert_eq!(engine.started(UPSTREAM, index, at(30)).unwrap().depth, 0, "{index}");
    }
}

#[test]
fn a_long_poll_and_a_pause_between_requests_are_no_sign_of_a_hung_endpoint() {
    let mut engine = fleet(3, r#""policy":"least_request","#, "");
    engine.started(UPSTREAM, 0, at(1)).unwrap();
    for request in 1..20 {
        (0..3).for_each(|index| serve(&mut engine, index, (request * 50, 20)));
        engine.tick(ProbeShard::ALONE, at(request * 50 + 30));
    }
    // Nothing for two seconds, then three at once.
    for ms in [3000, 3001, 3002] {
        engine.started(UPSTREAM, 0, at(ms)).unwrap();
    }
    engine.tick(ProbeShard::ALONE, at(3010));
    assert_eq!(state(&engine, 0), State::Healthy);
    engine.tick(ProbeShard::ALONE, at(3500));
    assert_eq!(state(&engine, 0), State::Stalled, "now they have waited themselves");
}

#[test]
fn one_that_refuses_from_the_start_leaves_in_every_fleet() {
    for endpoints in [2, 3, 5, 10, 65] {
        for (failure, apart_ms) in
            [Failure::Refused, Failure::Status5xx].into_iter().flat_map(|f| [1, 3, 25].map(|ms| (f, ms)))
        {
            let mut engine = fleet(endpoints, "", "");
            let refuses = |index, _| match index {
                0 => (Outcome::Failed(failure), 0),
                _ => (Outcome::Good, 20),
            };
            let asked = serve_all(&mut engine, 0..3000, apart_ms, refuses)[0];
            assert!(asked <= 10, "{endpoints}, {failure:?}, {apart_ms} ms: {asked} of 3000");
        }
    }
}
