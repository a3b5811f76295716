//! What a retry's draw names, and that it leaves no trace in what is decided next.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::decision::Decision;
use crate::policy::Request;
use crate::rng::Rng;

fn of(policy: settings::Policy, endpoints: usize) -> Cluster {
    let mut cluster = cluster(&settings::Upstream { policy, ..settings() }, &fleet(endpoints));
    cluster.refresh(s(0.0));
    cluster
}

/// The first endpoints of so many decisions; before each, so many retries are drawn.
fn decisions(policy: settings::Policy, retries: usize) -> Vec<Option<u32>> {
    let mut cluster = of(policy, 5);
    let (mut rng, mut others) = (Rng::new(1), Rng::new(2));
    (0..200)
        .map(|_| {
            for _ in 0..retries {
                cluster.pick_again(Request::wanting(8), s(1.0), &mut others);
            }
            match cluster.pick(Request::wanting(1), s(1.0), &mut rng) {
                Decision::Steer(candidates) => candidates.first(),
                _ => None,
            }
        })
        .collect()
}

#[test]
fn a_retry_takes_no_turn() {
    for policy in [settings::Policy::RoundRobin, settings::Policy::WeightedRoundRobin] {
        assert_eq!(decisions(policy.clone(), 0), decisions(policy.clone(), 3), "{policy:?}");
    }
}

/// Where the requests of a version are those that are retried, their retries take no turn of the other one.
#[test]
fn a_retry_changes_no_version_of_what_follows() {
    let mut settings = settings();
    settings.split = vec![("v1".into(), 80.0), ("v2".into(), 20.0)];
    let of = |nth: usize| Spec { version: ["v1", "v2"][nth % 2].into(), ..endpoint(nth + 1) };
    let mut cluster = cluster(&settings, &[of(0), of(1)]);
    let (mut rng, mut others, mut second) = (Rng::new(1), Rng::new(2), 0);
    for _ in 0..1000 {
        let Decision::Steer(named) = cluster.pick(Request::wanting(1), s(1.0), &mut rng) else { continue };
        if named.first() == Some(1) {
            second += 1;
            cluster.pick_again(Request::wanting(8), s(1.0), &mut others);
        }
    }
    assert!((195..=205).contains(&second), "{second} of 1000 instead of 200");
}

#[test]
fn a_retry_counts_nothing() {
    let mut cluster = of(settings::Policy::Adaptive, 5);
    let states = |cluster: &Cluster| {
        let of = |state: &EndpointState| (state.turn.asked, state.counters.picks);
        cluster.endpoints.states.iter().map(of).collect::<Vec<_>>()
    };
    let before = (cluster.traffic.requests, states(&cluster));
    for _ in 0..100 {
        assert!(cluster.pick_again(Request::wanting(8), s(1.0), &mut Rng::new(1)).first().is_some());
    }
    assert_eq!((cluster.traffic.requests, states(&cluster)), before);
}

#[test]
fn a_retry_is_offered_every_eligible_endpoint_once_and_no_other() {
    for policy in [
        settings::Policy::Adaptive,
        settings::Policy::LeastRequest,
        settings::Policy::PeakEwma,
        settings::Policy::Random,
        settings::Policy::RoundRobin,
        settings::Policy::WeightedRoundRobin,
    ] {
        let mut cluster = of(policy.clone(), 5);
        cluster.make(3, Is::Failed);
        cluster.eject();
        let mut named = cluster.pick_again(Request::wanting(8), s(1.0), &mut Rng::new(1)).as_slice().to_vec();
        named.sort_unstable();
        assert_eq!(named, [0, 1, 2, 4], "{policy:?}");
        assert_eq!(cluster.pick_again(Request::wanting(2), s(1.0), &mut Rng::new(1)).as_slice().len(), 2);
    }
}

/// A request to an endpoint that has been silent for long shows whether it hangs; a retry is not spent on that.
#[test]
fn a_retry_does_not_look_at_a_silent_endpoint() {
    let mut cluster = of(settings::Policy::Adaptive, 3);
    let mut rng = Rng::new(1);
    for _ in 0..2 {
        cluster.started(0, s(1.0));
    }
    for _ in 0..200 {
        cluster.traffic.request();
    }
    cluster.refresh(s(60.0));
    for _ in 0..50 {
        let named = cluster.pick_again(Request::wanting(8), s(60.0), &mut rng);
        assert_ne!(named.first(), Some(0), "{named:?}");
    }
}

#[test]
fn where_the_guard_has_stepped_aside_nothing_is_named() {
    let guard =
        settings::Guard { holdout_percent: 1.0, include_keyed: false, pause: Duration::from_secs(600) };
    let mut cluster = cluster(&settings::Upstream { guard: Some(guard), ..settings() }, &fleet(3));
    cluster.refresh(s(0.0));
    let named = |cluster: &mut Cluster, key| {
        cluster.pick_again(Request { key, want: 2 }, s(1.0), &mut Rng::new(1)).first().is_some()
    };
    assert!(named(&mut cluster, None));
    cluster.obey_guard(true, ProbeShard::ALONE);
    assert!(!named(&mut cluster, None));
    assert!(named(&mut cluster, Some(7)), "what the guard does not draw from goes on");
    cluster.obey_guard(false, ProbeShard::ALONE);
    cluster.leave_to_envoy(1.0);
    assert!(!named(&mut cluster, None));
}
