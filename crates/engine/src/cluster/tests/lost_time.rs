//! The clock is set forward, or the process stopped: what is known afterwards is what was known before.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::balancer::Balancer;
use crate::decision::RequestHandle;
use crate::outcome::{Failure, Outcome, Quickness, RetryHint};
use crate::settings::{Rule, RuleValue, Settings};
use crate::time::LostTime;

/// How much is lost, seconds.
const LOST_S: f64 = 3600.0;

impl Cluster {
    /// Loses an hour that begins at `seconds`.
    fn lose(&mut self, seconds: f64) {
        self.lose_time(LostTime { from: s(seconds), to: s(seconds + LOST_S) });
    }

    /// Sends so many requests a second to the endpoint at `index`, from `start` on; each is answered after 10 ms.
    fn serve_evenly(&mut self, index: u32, per_second: u32, start: f64, seconds: u32) {
        for second in 0..seconds {
            for nth in 0..per_second {
                let at = start + f64::from(second) + f64::from(nth) / f64::from(per_second);
                self.traffic.pick();
                self.traffic.request();
                let (endpoint, depth) = self.started(index, s(at)).unwrap();
                let handle = RequestHandle { upstream: 0, endpoint, started: s(at), depth };
                self.record_response(&handle, Outcome::Good, Quickness::Shown, s(at + 0.01));
                self.finished(endpoint, s(at + 0.01));
            }
            self.refresh(s(start + f64::from(second + 1)));
        }
    }
}

type Event = fn(&mut Balancer, &mut RequestHandle, Time);

#[test]
fn every_event_of_a_request_leaves_it_out() {
    let events: [(&str, Event); 9] = [
        ("another request is sent", |to, _, now| _ = to.started(0, 1, now)),
        ("a part of it arrives", |to, handle, now| to.moves(handle, now)),
        ("its client has sent all", |to, handle, now| to.closed(handle, now)),
        ("it is answered", |to, handle, now| to.record_response(handle, Outcome::Good, now)),
        ("its end shows a failure", |to, handle, now| {
            to.record_outcome(handle, Some(Failure::Status5xx), now)
        }),
        ("its attempt failed", |to, handle, now| to.record_failed_attempt(handle, RetryHint::Unseen, now)),
        ("its answer is replaced", |to, handle, now| to.record_replaced(handle, now)),
        ("its probe is answered", |to, handle, now| to.record_probe(handle, Outcome::Good, now)),
        ("a tick", |to, _, now| to.tick(ProbeShard { rank: 0, workers: 1, is_reporter: true }, now)),
    ];
    for (what, event) in events {
        for (pause_s, is_lost) in [(1.0, false), (LOST_S, true)] {
            let settings = Settings { upstreams: &[settings()], poll_interval: None };
            let mut balancer = Balancer::new(settings, s(0.0));
            balancer.upstream_mut(0).unwrap().set_fleet(&fleet(3), s(0.0));
            let mut handle = balancer.started(0, 0, s(5.0)).unwrap();
            balancer.opened(&handle);
            event(&mut balancer, &mut handle, s(5.0 + pause_s));
            let lost = balancer.upstream(0).unwrap().traffic.lost;
            let expected = LostTime { from: s(5.0), to: s(5.0 + pause_s) };
            assert_eq!(lost, if is_lost { expected } else { LostTime::default() }, "{what}");
        }
    }
}

#[test]
fn a_rule_does_not_count_it() {
    let rule = Rule {
        value: RuleValue::InFlight,
        above: 1.0,
        lasting: Duration::from_secs(10),
        action: RuleAction::Eject,
    };
    let mut cluster = cluster(&settings::Upstream { rules: vec![rule], ..settings() }, &fleet(3));
    (0..5).for_each(|_| _ = cluster.started(0, s(0.0)));
    cluster.refresh(s(0.0));
    cluster.lose(1.0);
    for (seconds, expected) in [(5.0, None), (8.0, None), (10.5, Some(RuleAction::Eject))] {
        cluster.refresh(s(LOST_S + seconds));
        assert_eq!(cluster.endpoints.states[0].constraints.ruled, expected, "{seconds}");
    }
}

#[test]
fn requests_are_as_many_a_second_as_they_were() {
    let mut cluster = cluster(&settings(), &fleet(3));
    for seconds in [3, 10] {
        let start = cluster.traffic.refreshed.seconds_since(s(0.0));
        cluster.serve_evenly(0, 50, start, seconds);
        cluster.lose(start + f64::from(seconds));
        cluster.serve_evenly(0, 50, start + f64::from(seconds) + LOST_S, 1);
        let rate = cluster.traffic.own_rate();
        assert!((45.0..55.0).contains(&rate), "after {seconds} s: {rate}");
    }
}

#[test]
fn an_endpoint_was_not_silent_in_it() {
    let mut cluster = cluster(&settings(), &fleet(3));
    cluster.serve_evenly(0, 10, 0.0, 2);
    (0..5).for_each(|_| _ = cluster.started(0, s(2.0)));
    cluster.lose(2.5);
    let now = s(LOST_S + 3.0);
    let (silent_s, waited_s, known) = {
        let endpoint = cluster.endpoint(0).unwrap();
        let waited_s = endpoint.health.unanswered().waited_s(now);
        (now.seconds_since(endpoint.in_flight.quiet_since()), waited_s, endpoint.latency.updated())
    };
    assert!((silent_s - 1.0).abs() < 0.01, "{silent_s}");
    assert!((waited_s - 1.0).abs() < 0.01, "{waited_s}");
    assert!(now.seconds_since(known) < 1.2, "what was measured is a second old: {known:?}");
}

#[test]
fn an_endpoint_was_not_tested_in_it() {
    let mut cluster = cluster(&settings(), &fleet(3));
    cluster.serve_evenly(0, 10, 0.0, 2);
    let tested_s = |cluster: &Cluster, now| cluster.traffic.tested_s(s(0.0), 5, s(now));
    let before = tested_s(&cluster, 2.0);
    cluster.lose(2.0);
    let after = tested_s(&cluster, LOST_S + 2.0);
    assert!((after - before).abs() < 0.01, "{before} s, then {after} s");
}

#[test]
fn open_requests_did_not_stand_still_in_it() {
    for is_lost in [false, true] {
        let mut cluster = cluster(&settings(), &fleet(3));
        for _ in 0..4 {
            let (endpoint, _) = cluster.started(0, s(0.0)).unwrap();
            cluster.opened(endpoint, s(0.0));
            cluster.refresh(s(0.0));
        }
        if is_lost {
            cluster.lose(1.0);
        }
        let stand_still = |seconds| {
            let known = cluster.endpoint(0).unwrap();
            cluster.endpoints.open_requests.stand_still(0, &known, s(seconds))
        };
        assert!(!stand_still(2.0));
        assert_eq!(stand_still(LOST_S + 2.0), !is_lost);
    }
}
