//! What endpoints say of themselves: for how long it is in force, and that it says nothing of another one.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::health::State;

/// An endpoint that has answered nothing else asks for a pause.
fn asks(hold_s: f64) -> HeaderHints {
    HeaderHints { hold_s, ..HeaderHints::default() }
}

const DEGRADED: HeaderHints = HeaderHints { degraded: true, failing: false, hold_s: 0.0, failed: false };

fn ticked(endpoints: usize) -> Cluster {
    let mut cluster = cluster(&settings(), &fleet(endpoints));
    cluster.tick(ProbeShard::ALONE, s(0.0));
    cluster
}

impl Cluster {
    fn hear(&mut self, index: u32, hints: HeaderHints, now: Time) {
        let endpoint = self.endpoints.set.reference(index).expect("an endpoint");
        self.take_hints(endpoint, now, hints, now);
    }

    /// Which endpoints pause, and which are degraded, by index.
    fn hinted(&self) -> [Vec<usize>; 2] {
        let of = |is: fn(Hints) -> bool| {
            let states = self.endpoints.states.iter().enumerate();
            states.filter(|(_, endpoint)| is(endpoint.constraints.hints)).map(|(index, _)| index).collect()
        };
        [of(Hints::held), of(Hints::degraded)]
    }
}

#[test]
fn an_endpoint_that_pauses_is_not_counted_on() {
    let mut cluster = ticked(4);
    cluster.hear(2, asks(20.0), s(1.0));
    assert_eq!(cluster.in_use(), [0, 1, 3]);
    assert_eq!((cluster.subsets.tiers[0].eligible, cluster.ejection.out), (3, 1));
}

#[test]
fn a_pause_lasts_as_long_as_the_longest_that_was_asked_for() {
    let mut cluster = ticked(4);
    cluster.hear(1, asks(20.0), s(1.0));
    cluster.hear(1, asks(2.0), s(1.0));
    for (now, held) in [(4.0, vec![1]), (20.9, vec![1]), (21.1, vec![])] {
        cluster.heed(s(now));
        assert_eq!(cluster.hinted()[0], held, "{now}");
    }
}

#[test]
fn half_of_the_endpoints_may_pause_and_most_may_not() {
    let mut cluster = ticked(4);
    for index in [0, 1] {
        cluster.hear(index, asks(20.0), s(1.0));
    }
    cluster.heed(s(1.1));
    assert_eq!(cluster.hinted()[0], [0, 1]);
    cluster.hear(2, asks(20.0), s(1.2));
    cluster.heed(s(1.3));
    assert_eq!(cluster.hinted()[0], [0; 0]);
    cluster.hear(3, asks(20.0), s(1.4));
    assert_eq!(cluster.hinted()[0], [0; 0], "nor does the next one that asks");
}

#[test]
fn a_clock_that_steps_back_makes_no_statement_last() {
    let mut cluster = ticked(4);
    cluster.hear(0, DEGRADED, s(1000.0));
    cluster.hear(1, asks(20.0), s(1000.0));
    for (now, hinted) in [(0.0, [vec![1], vec![0]]), (29.0, [vec![1], vec![0]]), (31.0, [vec![], vec![]])] {
        cluster.heed(s(now));
        assert_eq!(cluster.hinted(), hinted, "{now}");
    }
}

#[test]
fn an_endpoint_that_has_left_says_nothing_of_the_one_in_its_place() {
    let mut cluster = ticked(4);
    let left = cluster.endpoints.set.reference(1).expect("an endpoint");
    let others: Vec<Spec> = [1, 9, 3, 4].map(endpoint).to_vec();
    cluster.set_fleet(&others, s(1.0));
    assert!(!cluster.endpoints.set.is_current(left));
    let everything = HeaderHints { degraded: true, failing: true, hold_s: 20.0, failed: true };
    cluster.take_hints(left, s(0.5), everything, s(2.0));
    assert_eq!(cluster.hinted(), [Vec::<usize>::new(), Vec::new()]);
    assert!(cluster.endpoints.states.iter().all(|endpoint| endpoint.health.state() == State::Healthy));
}

/// What it said has been dropped with its slot, so nothing would end it.
#[test]
fn an_endpoint_that_returns_says_nothing_until_it_says_it_again() {
    for hints in [asks(20.0), DEGRADED] {
        let mut cluster = ticked(4);
        cluster.hear(1, hints, s(1.0));
        cluster.tick(ProbeShard::ALONE, s(1.1));
        assert_eq!(cluster.in_use(), [0, 2, 3]);
        cluster.set_fleet(&[1, 3, 4].map(endpoint), s(2.0));
        cluster.set_fleet(&fleet(4), s(3.0));
        assert_eq!(cluster.hinted(), [Vec::<usize>::new(), Vec::new()]);
        cluster.tick(ProbeShard::ALONE, s(61.0));
        assert_eq!(cluster.in_use(), [0, 1, 2, 3], "{hints:?}");
    }
}

/// Endpoints come and go all the time, and none of that is an answer.
#[test]
fn a_change_of_the_fleet_ends_no_pause() {
    let unhealthy = Spec { condition: AnnouncedHealth::Unhealthy, ..endpoint(4) };
    let first = Spec { priority: 0, ..endpoint(9) };
    let second = |nth| Spec { priority: 1, ..endpoint(nth) };
    for (before, after) in [
        (fleet(4), fleet(5)),
        (fleet(4), fleet(3)),
        (fleet(4), [fleet(3), vec![unhealthy]].concat()),
        ((1..5).map(second).collect(), [(1..5).map(second).collect(), vec![first]].concat()),
    ] {
        let mut cluster = cluster(&settings(), &before);
        cluster.tick(ProbeShard::ALONE, s(0.0));
        cluster.hear(1, asks(20.0), s(1.0));
        cluster.set_fleet(&after, s(2.0));
        assert_eq!(cluster.hinted()[0], [1], "{after:?}");
        assert!(!cluster.in_use().contains(&1), "{after:?}");
    }
}

#[test]
fn a_change_of_the_fleet_grants_no_pause_that_most_asked_for() {
    let mut cluster = ticked(4);
    for index in 0..3 {
        cluster.hear(index, asks(20.0), s(1.0));
    }
    cluster.tick(ProbeShard::ALONE, s(1.1));
    assert_eq!(cluster.hinted()[0], [0; 0]);
    cluster.set_fleet(&fleet(8), s(2.0));
    assert_eq!(cluster.hinted()[0], [0; 0]);
    cluster.hear(3, asks(40.0), s(3.0));
    assert_eq!(cluster.hinted()[0], [0; 0], "nor does the next one that asks");
    cluster.tick(ProbeShard::ALONE, s(21.1));
    assert_eq!(cluster.hinted()[0], [3], "until theirs would have ended");
}
