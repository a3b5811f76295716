//! What a request takes is given back wherever it ends, and what an endpoint had is no other's.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::decision::RequestHandle;
use crate::endpoint::{EndpointRef, GONE_AFTER_S, PeerReport};
use crate::health::{Evidence, FailureRun, State};
use crate::settings::{Rule, RuleValue};
use crate::{Failure, Outcome, Quickness};

impl Cluster {
    fn sends(&mut self, index: u32, now: Time) -> RequestHandle {
        let (endpoint, depth) = self.started(index, now).expect("an endpoint");
        RequestHandle { upstream: 0, endpoint, started: now, depth }
    }

    /// Requests on their way to each endpoint, and to all of them as the policy sees it.
    fn on_their_way(&self) -> (Vec<u32>, u32) {
        let of = self.endpoints.states.iter().map(|endpoint| endpoint.in_flight.total());
        (of.collect(), self.subsets.list[0].in_flight)
    }
}

/// A cluster whose second endpoint leaves at `now`, and another that takes its index.
fn replace(cluster: &mut Cluster, now: Time) {
    for others in [&[1, 3][..], &[1, 9, 3]] {
        let others: Vec<Spec> = others.iter().copied().map(endpoint).collect();
        cluster.set_fleet(&others, now);
    }
    assert_eq!(cluster.endpoints.set.get(1).map(|new| new.text), Some("10.0.0.9:80"));
}

#[test]
fn a_request_that_ends_is_on_its_way_no_more_whatever_became_of_its_endpoint() {
    for is in TROUBLES {
        let mut cluster = limited(&fleet(3), 100, 0);
        cluster.refresh(s(0.0));
        let sent: Vec<RequestHandle> = (0..3).map(|index| cluster.sends(index, s(0.0))).collect();
        cluster.make(0, is);
        cluster.eject();
        assert_eq!(cluster.on_their_way(), (vec![1, 1, 1], 3));
        sent.iter().for_each(|handle| cluster.finished(handle.endpoint, s(1.0)));
        assert_eq!(cluster.on_their_way(), (vec![0; 3], 0), "{is:?}");
    }
}

#[test]
fn a_request_that_another_endpoint_served_is_on_its_way_there_alone() {
    let mut cluster = cluster(&settings(), &fleet(3));
    cluster.refresh(s(0.0));
    let handle = cluster.sends(0, s(0.0));
    let (endpoint, _) = cluster.reassigned(handle.endpoint, 2, s(0.0)).expect("an endpoint");
    assert_eq!(cluster.on_their_way(), (vec![0, 0, 1], 1));
    cluster.finished(endpoint, s(1.0));
    assert_eq!(cluster.on_their_way(), (vec![0; 3], 0));
}

/// An endpoint leaves, and another takes its index, while requests are on their way.
#[test]
fn requests_of_an_endpoint_that_has_left_end_in_no_other_account() {
    let mut cluster = cluster(&settings(), &fleet(3));
    cluster.refresh(s(0.0));
    let sent: Vec<RequestHandle> = (0..4).map(|_| cluster.sends(1, s(0.0))).collect();
    cluster.opened(sent[3].endpoint, s(0.0));
    replace(&mut cluster, s(1.0));
    let new: EndpointRef = cluster.sends(1, s(1.0)).endpoint;
    assert_eq!((new.index, new == sent[0].endpoint), (1, false));
    for handle in &sent {
        cluster.moves(handle.endpoint, s(1.0), s(1.5));
        cluster.closed(handle.endpoint, s(1.5), s(2.0));
        cluster.record_response(handle, Outcome::Failed(Failure::Reset), Quickness::Shown, s(2.0));
        cluster.record_outcome(handle.endpoint, s(0.0), Some(Failure::Reset), s(2.0));
        cluster.finished(handle.endpoint, s(2.0));
    }
    assert_eq!(cluster.on_their_way(), (vec![0, 1, 0], 1));
    let state = &cluster.endpoints.states[1];
    assert_eq!((state.health.state(), state.counters), (State::Healthy, crate::endpoint::Tally::default()));
    cluster.finished(new, s(3.0));
    assert_eq!(cluster.on_their_way(), (vec![0; 3], 0));
}

#[test]
fn the_open_requests_of_an_endpoint_that_has_left_are_no_others() {
    let mut cluster = cluster(&settings(), &fleet(3));
    cluster.refresh(s(0.0));
    for at in 0..4 {
        let now = s(0.1 * f64::from(at));
        let handle = cluster.sends(1, now);
        cluster.uploading(handle.endpoint, now);
        cluster.opened(handle.endpoint, now);
        cluster.tick(ProbeShard::ALONE, now);
    }
    assert!(cluster.endpoints.open_requests.last_answer(1).is_some_and(|at| at < s(1.0)));
    replace(&mut cluster, s(1.0));
    assert_eq!(cluster.endpoints.open_requests.last_answer(1), Some(s(1.0)), "as if it had just answered");
}

/// What made the one before exceed a threshold for long does not count for the next.
#[test]
fn a_rule_looks_at_the_next_endpoint_anew() {
    let lasting = Duration::from_secs(10);
    let rule = Rule { value: RuleValue::InFlight, above: 1.0, lasting, action: RuleAction::Eject };
    let mut cluster = cluster(&settings::Upstream { rules: vec![rule], ..settings() }, &fleet(3));
    (0..5).for_each(|_| _ = cluster.started(1, s(0.0)));
    cluster.refresh(s(0.0));
    cluster.refresh(s(9.0));
    replace(&mut cluster, s(9.5));
    (0..5).for_each(|_| _ = cluster.started(1, s(9.5)));
    for (seconds, expected) in [(10.5, None), (19.0, None), (20.6, Some(RuleAction::Eject))] {
        cluster.refresh(s(seconds));
        assert_eq!(cluster.endpoints.states[1].constraints.ruled, expected, "{seconds}");
    }
}

#[test]
fn a_weight_that_changes_counts_for_endpoints_that_stay() {
    let mut cluster = cluster(&settings(), &fleet(2));
    let weighed: Vec<Spec> = fleet(2).into_iter().map(|spec| Spec { weight: 7.0, ..spec }).collect();
    cluster.set_fleet(&weighed, s(1.0));
    assert_eq!(cluster.endpoints.states.iter().map(|m| m.weight).collect::<Vec<_>>(), [7.0; 2]);
}

/// Peers of an older configuration that say nothing any more are gone.
#[test]
fn what_is_handed_over_counts_until_the_peers_must_have_reported() {
    let mut old = cluster(&settings(), &fleet(2));
    let failures =
        FailureRun { count: 9, since: s(0.0), latest_start: s(0.0), latest_at: s(0.0), ..Default::default() };
    let evidence = Evidence { failures, ..Evidence::default() };
    let identity = old.endpoints.set.identities()[0];
    old.merge_other(identity, &PeerReport::default(), &evidence);
    let mut new = cluster(&settings(), &fleet(2));
    new.take_over(&mut old, s(1.0));
    for (seconds, counts) in [(0.0, true), (GONE_AFTER_S - 0.1, true), (GONE_AFTER_S + 0.1, false)] {
        let now = s(1.0 + seconds);
        new.forget_others(now);
        new.restore(now);
        let known = new.endpoint(0).expect("an endpoint").others_evidence();
        assert_eq!(known != Evidence::default(), counts, "{seconds}");
    }
}
