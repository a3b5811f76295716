//! Which part of the requests goes to ejected endpoints when the others cannot keep up, and to which of them.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::rng::Rng;

/// Endpoints of these weights, in a cluster that answers within 20 ms and has 100 requests per second.
fn usual(weights: &[f64]) -> Cluster {
    let specs = weights.iter().enumerate().map(|(nth, weight)| Spec { weight: *weight, ..endpoint(nth + 1) });
    of(&settings(), &specs.collect::<Vec<_>>())
}

fn of(settings: &settings::Upstream, specs: &[Spec]) -> Cluster {
    let mut settings = settings.clone();
    settings.health.max_ejected_percent = 100.0;
    settings.failover.panic_percent = 0.0;
    let mut cluster = cluster(&settings, specs);
    (0..2).for_each(|_| cluster.refresh(s(0.0)));
    (0..50).for_each(|_| cluster.ejection.overflow.observe(0.02, 0));
    cluster.subsets.list[0].in_flight = 1;
    cluster.settle_overflow(1.0);
    cluster.traffic.refresh(s(100.0));
    cluster.traffic.rate = 100.0;
    cluster
}

/// An endpoint that has served a half of its requests before its latest failures.
fn fails_at_times(cluster: &mut Cluster, index: usize) {
    let health = &mut cluster.endpoints.states[index].health;
    for nth in 0..100 {
        let sent = s(-100.0 + f64::from(nth));
        health.failure(sent, sent, FailureEvent { weight: 1, broke: None });
        health.success(sent.after_secs(0.5));
    }
    cluster.make(index, Is::Failed);
}

impl Cluster {
    /// So many requests await an answer of the endpoints in use.
    fn queue(&mut self, requests: u32) {
        let used = self.in_use();
        for nth in 0..requests as usize {
            let _ = self.started(used[nth % used.len()] as u32, s(99.0));
        }
    }

    /// Which part of the requests goes to each endpoint beyond what the policy sends, after so many seconds, in percent.
    fn overflows(&mut self, seconds: f64) -> Vec<i64> {
        (0..(seconds * 100.0) as u32).for_each(|_| self.settle_overflow(0.01));
        let mut percent = vec![0; self.endpoints.states.len()];
        let mut rng = Rng::new(3);
        for _ in 0..20_000 {
            if self.ejection.overflow.any()
                && let Some(index) = self.ejection.overflow.draw(&mut rng)
            {
                percent[index as usize] += 1;
            }
        }
        percent.into_iter().map(|count| (f64::from(count) / 200.0).round() as i64).collect()
    }
}

fn is_near(found: &[i64], wanted: &[i64]) -> bool {
    found.len() == wanted.len() && found.iter().zip(wanted).all(|(one, other)| (one - other).abs() <= 2)
}

#[test]
fn ejected_endpoints_get_no_more_than_their_weight_gives_them() {
    for (weights, wanted) in [([1.0, 1.0, 1.0, 1.0], [25, 0, 0, 0]), ([2.0, 1.0, 0.5, 0.5], [50, 0, 0, 0])] {
        let mut cluster = usual(&weights);
        cluster.make(0, Is::Failed);
        cluster.eject();
        assert_eq!(cluster.overflows(5.0), [0; 4], "the others keep up");
        cluster.queue(100);
        let found = cluster.overflows(5.0);
        assert!(is_near(&found, &wanted), "{weights:?}: {found:?}");
    }
}

/// Requests that a hanging endpoint holds are no load that the others cannot carry.
#[test]
fn a_queue_at_one_endpoint_is_no_overload() {
    for (endpoints, hang) in [(3, 1), (4, 1), (10, 4)] {
        let mut cluster = usual(&vec![1.0; endpoints]);
        cluster.make(0, Is::Failed);
        cluster.eject();
        for index in 1..=hang {
            (0..500).for_each(|_| _ = cluster.started(index, s(99.0)));
        }
        assert_eq!(cluster.overflows(5.0), vec![0; endpoints], "{hang} of {endpoints} hang");
        cluster.queue(500);
        assert!(cluster.overflows(5.0)[0] > 0, "now all of {endpoints} are full");
    }
}

/// Of little weight and idle, they are no half of what is left.
#[test]
fn light_endpoints_hide_no_overload_of_a_heavy_one() {
    for light in [1, 3] {
        let mut cluster = usual(&[[100.0, 100.0].to_vec(), vec![1.0; light]].concat());
        cluster.make(0, Is::Failed);
        cluster.eject();
        (0..500).for_each(|_| _ = cluster.started(1, s(99.0)));
        assert!(cluster.overflows(5.0)[0] > 40, "{light}");
    }
}

#[test]
fn ejected_endpoints_divide_the_excess_by_their_weights() {
    let mut cluster = usual(&[9.0, 1.0, 5.0, 5.0]);
    (0..2).for_each(|index| cluster.make(index, Is::Failed));
    cluster.eject();
    cluster.queue(200);
    let found = cluster.overflows(5.0);
    assert!(is_near(&found, &[45, 5, 0, 0]), "{found:?}");
}

#[test]
fn what_other_workers_wait_for_counts() {
    let mut cluster = usual(&[1.0; 4]);
    cluster.make(0, Is::Failed);
    cluster.eject();
    let mut report = crate::endpoint::PeerReport::default();
    (report.in_flight.total, report.in_flight.awaiting) = (100, 100);
    cluster.forget_others(s(99.0));
    for index in 1..4 {
        let hash = cluster.endpoints.set.identities()[index];
        cluster.merge_other(hash, &report, &Default::default());
    }
    assert!(is_near(&cluster.overflows(5.0), &[25, 0, 0, 0]));
}

#[test]
fn what_serves_nothing_gets_nothing_while_others_serve_some() {
    for (at_times, for_good) in [(0, 1), (1, 0)] {
        let mut cluster = usual(&[1.0; 4]);
        fails_at_times(&mut cluster, at_times);
        cluster.make(for_good, Is::Failed);
        cluster.eject();
        cluster.queue(200);
        let mut wanted = [0; 4];
        // One of three: what serves nothing is no third to share with.
        wanted[at_times] = 33;
        let found = cluster.overflows(5.0);
        assert!(is_near(&found, &wanted), "{found:?}");
    }
}

#[test]
fn what_is_kept_out_for_another_reason_gets_nothing() {
    for is in [Is::Held, Is::Ruled, Is::Unhealthy, Is::Draining] {
        let mut cluster = usual(&[1.0; 4]);
        (0..2).for_each(|index| cluster.make(index, Is::Failed));
        cluster.make(0, is);
        cluster.eject();
        cluster.queue(200);
        let found = cluster.overflows(5.0);
        assert!(found[0] == 0 && found[1] > 20, "{is:?}: {found:?}");
    }
}

#[test]
fn what_returns_is_no_overflow_any_more() {
    let mut cluster = usual(&[1.0; 4]);
    (0..2).for_each(|index| cluster.make(index, Is::Failed));
    cluster.eject();
    cluster.queue(200);
    assert!(is_near(&cluster.overflows(5.0), &[25, 25, 0, 0]));
    cluster.endpoints.states[0].health = Default::default();
    cluster.eject();
    assert!(is_near(&cluster.overflows(1.0), &[0, 25, 0, 0]), "the other one alone");
    cluster.endpoints.states[1].health = Default::default();
    cluster.eject();
    assert_eq!(cluster.overflows(0.01), [0; 4]);
    // Ten seconds later nothing is left of it: the part begins anew.
    cluster.overflows(10.0);
    cluster.make(0, Is::Failed);
    cluster.eject();
    assert!(cluster.overflows(0.02)[0] < 5);
}

#[test]
fn keys_and_divided_fleets_have_others_to_turn_to() {
    let hashed = settings::Upstream { policy: settings::Policy::IpHash, ..settings() };
    let mut cluster = of(&hashed, &fleet(4));
    cluster.make(0, Is::Failed);
    cluster.eject();
    cluster.queue(200);
    assert_eq!(cluster.overflows(5.0), [0; 4], "the key's next owner takes it");
    let mut cluster = usual(&[1.0; 4]);
    cluster.make(0, Is::Failed);
    cluster.eject();
    cluster.queue(200);
    assert!(cluster.overflows(5.0)[0] > 20);
    let behind = Spec { priority: 1, ..endpoint(5) };
    cluster.set_fleet(&[fleet(4), vec![behind]].concat(), s(100.0));
    cluster.make(0, Is::Failed);
    cluster.eject();
    assert_eq!(cluster.overflows(0.01), [0; 5], "from the moment on that there is another priority");
}

/// Answers are slow while endpoints are ejected, and for as long after that, a minute at most: what is usual is learnt at
/// other times.
#[test]
fn what_is_usual_is_not_learnt_from_troubled_times() {
    let after = |ejected_s: f64, rested_s: f64| {
        let mut cluster = usual(&[1.0; 4]);
        // Long at rest, then an ejection.
        cluster.settle_overflow(1000.0);
        cluster.make(0, Is::Failed);
        cluster.eject();
        cluster.settle_overflow(ejected_s);
        cluster.endpoints.states[0].health = Default::default();
        cluster.eject();
        cluster.settle_overflow(rested_s);
        (0..100_000).for_each(|_| cluster.ejection.overflow.observe(2.0, 0));
        cluster.make(0, Is::Failed);
        cluster.eject();
        cluster.queue(200);
        cluster.overflows(5.0)[0]
    };
    assert!(after(5.0, 1.0) > 20, "slow answers of a moment after are no measure");
    assert_eq!(after(5.0, 6.0), 0, "later they are: two hundred are usual then");
    assert!(after(3600.0, 50.0) > 20);
    assert_eq!(after(3600.0, 61.0), 0, "queues of an hour are gone as soon as others");
}

/// The rate of requests rises from zero when a worker begins; that it is not known yet makes no queue too long.
#[test]
fn a_worker_that_has_just_begun_sees_no_overload() {
    let mut cluster = usual(&[1.0; 4]);
    cluster.make(0, Is::Failed);
    cluster.eject();
    cluster.traffic.began = s(99.5);
    // Of 1000 per second, after half a second.
    cluster.traffic.rate = 95.0;
    cluster.queue(20);
    assert_eq!(cluster.overflows(5.0), [0; 4]);
}
