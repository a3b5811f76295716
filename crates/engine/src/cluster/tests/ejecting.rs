//! How many may be out, which ones, and when health is ignored.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::cluster::ejection::median;
use crate::endpoint::PeerReport;
use crate::health::{Evidence, FailureRun, State};

const SIZES: [usize; 7] = [1, 2, 3, 4, 7, 10, 100];
const PERCENTS: [usize; 7] = [0, 1, 30, 50, 51, 99, 100];

/// The documented rule, in whole numbers: health is ignored where fewer than `percent` of all are left.
fn too_few(left: usize, of: usize, percent: usize) -> bool {
    left * 100 < of * percent
}

/// The documented rule, in whole numbers: at most `percent` of all, and where any may be out at least one of several.
fn most_out(of: usize, percent: usize) -> usize {
    (of * percent / 100).max(usize::from(percent > 0 && of > 1))
}

#[test]
fn health_is_ignored_below_the_threshold_and_not_at_it() {
    for (endpoints, percent) in SIZES.into_iter().flat_map(|n| PERCENTS.map(|percent| (n, percent))) {
        for failing in 0..=endpoints {
            let mut cluster = limited(&fleet(endpoints), 100, percent);
            (0..failing).for_each(|index| cluster.make(index, Is::Failed));
            cluster.eject();
            let left = endpoints - failing;
            let panics = too_few(left, endpoints, percent);
            let case = format!("{left} of {endpoints} left, {percent} %");
            assert_eq!(cluster.ejection.panic, panics, "{case}");
            assert_eq!(cluster.in_use().len(), if panics { endpoints } else { left }, "{case}");
            assert_eq!(cluster.ejection.out, if panics { 0 } else { failing }, "{case}");
            assert_eq!(
                cluster.subsets.tiers[0].eligible,
                cluster.in_use().len(),
                "{case}: as it is counted on"
            );
        }
    }
}

#[test]
fn no_more_are_out_than_may_be() {
    for (endpoints, percent) in SIZES.into_iter().flat_map(|n| PERCENTS.map(|percent| (n, percent))) {
        let mut cluster = limited(&fleet(endpoints), percent, 0);
        (0..endpoints).for_each(|index| cluster.make(index, Is::Failed));
        cluster.eject();
        let out = endpoints - cluster.in_use().len();
        assert_eq!(out, most_out(endpoints, percent), "of {endpoints}, {percent} %");
    }
}

/// Between two ticks endpoints leave one at a time, each as if the tick were now; only what would bring panic about waits.
#[test]
fn between_ticks_as_many_leave_as_may_be_out_and_as_panic_leaves() {
    for (endpoints, panic) in SIZES.into_iter().flat_map(|n| PERCENTS.map(|percent| (n, percent))) {
        for max_ejected in PERCENTS {
            let mut cluster = limited(&fleet(endpoints), max_ejected, panic);
            cluster.eject();
            for index in 0..endpoints {
                cluster.make(index, Is::Failed);
                let before = cluster.in_use().len();
                let may = !too_few(before - 1, endpoints, panic)
                    && endpoints - before < most_out(endpoints, max_ejected);
                // A second failure of the same endpoint takes no second one out.
                (0..2).for_each(|_| cluster.assess_now(index as u32, s(1.0)));
                let case = format!("{index} of {endpoints}, at most {max_ejected} %, panic {panic} %");
                assert_eq!(cluster.in_use().len(), before - usize::from(may), "{case}");
                assert_eq!(cluster.ejection.out, endpoints - cluster.in_use().len(), "{case}");
                assert_eq!(cluster.subsets.tiers[0].eligible, cluster.in_use().len(), "{case}");
            }
        }
    }
}

#[test]
fn in_panic_no_more_leave_between_ticks() {
    let mut cluster = limited(&fleet(4), 100, 50);
    (0..3).for_each(|index| cluster.make(index, Is::Failed));
    cluster.eject();
    assert!(cluster.ejection.panic);
    cluster.assess_now(0, s(1.0));
    assert_eq!(cluster.in_use(), [0, 1, 2, 3], "all are back because too few are left");
}

#[test]
fn the_worst_leave_first_wherever_they_stand() {
    let troubles = [
        [Is::Failed, Is::Recovering, Is::Suspect, Is::Held],
        [Is::Failed, Is::Recovering, Is::Stalled, Is::Ruled],
    ];
    for (worst_first, turned) in troubles.into_iter().flat_map(|all| (0..5).map(move |turn| (all, turn))) {
        for most in 0..=4 {
            let mut cluster = limited(&fleet(5), 20 * most, 0);
            // The fifth is well; each state stands at each place once.
            let place = |nth: usize| (nth + turned) % 5;
            worst_first.iter().enumerate().for_each(|(nth, is)| cluster.make(place(nth), *is));
            cluster.eject();
            let mut left: Vec<usize> = (most..5).map(place).collect();
            left.sort_unstable();
            assert_eq!(cluster.in_use(), left, "{worst_first:?} from {turned} on, at most {most}");
        }
    }
}

#[test]
fn what_is_ruled_out_elsewhere_uses_up_the_limit_and_what_is_to_go_does_not() {
    let mut cluster = limited(&fleet(4), 50, 0);
    cluster.make(0, Is::Unhealthy);
    (1..4).for_each(|index| cluster.make(index, Is::Failed));
    cluster.eject();
    assert_eq!(
        (cluster.in_use().len(), cluster.ejection.out),
        (2, 2),
        "one besides the one that others ruled out"
    );
    let mut cluster = limited(&fleet(5), 50, 0);
    cluster.make(0, Is::Draining);
    (1..5).for_each(|index| cluster.make(index, Is::Failed));
    cluster.eject();
    assert_eq!((cluster.in_use().len(), cluster.ejection.out), (2, 2), "half of the four that stay");
}

#[test]
fn what_is_to_go_gets_nothing_in_panic_either_and_what_is_ruled_out_does() {
    let mut cluster = limited(&fleet(4), 100, 100);
    cluster.make(0, Is::Draining);
    cluster.make(1, Is::Unhealthy);
    cluster.make(2, Is::Failed);
    cluster.eject();
    assert!(cluster.ejection.panic);
    assert_eq!(cluster.in_use(), [1, 2, 3]);
}

/// The endpoints in use where these are degraded, with a panic threshold.
fn spared(specs: &[Spec], degraded: &[usize], panic: usize) -> Vec<usize> {
    [Is::Degraded, Is::DegradedByItself]
        .map(|is| {
            let mut settings = settings();
            settings.failover.panic_percent = panic as f64;
            settings.split = vec![("a".into(), 1.0), ("b".into(), 1.0)];
            let mut cluster = cluster(&settings, specs);
            degraded.iter().for_each(|index| cluster.make(*index, is));
            cluster.eject();
            let in_use = cluster.in_use();
            assert_eq!(cluster.ejection.degraded_out, specs.len() - in_use.len());
            in_use
        })
        .into_iter()
        .reduce(|one, other| {
            assert_eq!(one, other, "alike by word and by announcement");
            one
        })
        .unwrap_or_default()
}

#[test]
fn the_degraded_are_spared_while_others_carry_the_load() {
    let of = |version: &str, nth| Spec { version: version.into(), ..endpoint(nth) };
    let alike: Vec<Spec> = (1..=4).map(|nth| of("a", nth)).collect();
    assert_eq!(spared(&alike, &[0], 50), [1, 2, 3]);
    assert_eq!(spared(&alike, &[0, 1], 50), [2, 3], "a half is no panic");
    assert_eq!(spared(&alike, &[0, 1, 2], 50), [0, 1, 2, 3], "one of four is too few");
    assert_eq!(spared(&alike, &[0, 1, 2, 3], 0), [0, 1, 2, 3], "degraded is better than none");
    let versions = [of("a", 1), of("b", 2), of("a", 3), of("a", 4)];
    assert_eq!(spared(&versions, &[1, 2], 50), [0, 1, 3], "the only one of its version stays");
    let priorities = [of("a", 1), Spec { priority: 1, ..of("a", 2) }];
    assert_eq!(spared(&priorities, &[0], 0), [0, 1], "the only one of its priority stays");
}

#[test]
fn fit_is_what_nothing_speaks_against() {
    for is in TROUBLES {
        let mut cluster = limited(&[Spec { weight: 3.0, ..endpoint(1) }, endpoint(2)], 50, 50);
        cluster.make(0, is);
        cluster.eject();
        let tier = cluster.subsets.tiers[0];
        let stays = is != Is::Draining;
        assert_eq!(tier.fit, 1.0, "{is:?}");
        assert_eq!((tier.weight, tier.endpoints), if stays { (4.0, 2) } else { (1.0, 1) }, "{is:?}");
        let of = &cluster.subsets.list[0].division;
        assert_eq!((of.fit, of.weight), (tier.fit, tier.weight), "{is:?}");
    }
}

/// Two priorities of three endpoints each: the second can take over everything, so that health is not ignored in the first.
#[test]
fn there_is_no_panic_where_others_can_take_over() {
    let specs: Vec<Spec> = (0..6).map(|nth| Spec { priority: nth as u32 / 3, ..endpoint(nth + 1) }).collect();
    let mut cluster = limited(&specs, 100, 50);
    (0..3).for_each(|index| cluster.make(index, Is::Failed));
    cluster.eject();
    assert!(!cluster.ejection.panic);
    assert_eq!(cluster.in_use(), [3, 4, 5]);
    // Between ticks as well.
    let mut cluster = limited(&specs, 100, 50);
    cluster.eject();
    for index in 0..3 {
        cluster.make(index, Is::Failed);
        cluster.assess_now(index as u32, s(1.0));
    }
    assert_eq!(cluster.in_use(), [3, 4, 5]);
    (3..6).for_each(|index| cluster.make(index, Is::Failed));
    cluster.eject();
    assert!(cluster.ejection.panic, "nowhere is anything left");
}

fn taking(ms: f64) -> EndpointState {
    let mut state = EndpointState::default();
    (0..10).for_each(|nth| {
        state.latency.observe(ms / 1e3, s(f64::from(nth)), s(f64::from(nth) + 0.1), &Ablation::ALL)
    });
    state
}

/// Of two the quicker is typical: were the slower one, nothing would ever be slow in a fleet of two.
#[test]
fn typical_is_the_middle_one_and_the_quicker_of_two() {
    let of = |ms: &[f64]| {
        let states: Vec<EndpointState> = ms.iter().copied().map(taking).collect();
        median(states.iter().map(EndpointView::alone)).map(|seconds| (seconds * 1e3).round())
    };
    assert_eq!(of(&[]), None);
    assert_eq!(of(&[80.0]), Some(80.0));
    assert_eq!((of(&[10.0, 400.0]), of(&[400.0, 10.0])), (Some(10.0), Some(10.0)));
    assert_eq!(of(&[90.0, 10.0, 40.0]), Some(40.0));
    assert_eq!(of(&[90.0, 10.0, 40.0, 70.0]), Some(40.0));
}

#[test]
fn what_was_typical_stays_so_until_something_else_is_measured() {
    let specs = [endpoint(1), Spec { priority: 1, ..endpoint(2) }];
    let mut cluster = limited(&specs, 50, 50);
    cluster.endpoints.states[0].latency = taking(10.0).latency;
    cluster.endpoints.states[1].latency = taking(400.0).latency;
    cluster.refresh(s(11.0));
    let usual = |cluster: &Cluster| {
        let of = |at: usize| (cluster.subsets.list[at].latency.typical * 1e3).round();
        ((cluster.typical() * 1e3).round(), of(0), of(1))
    };
    assert_eq!(usual(&cluster), (10.0, 10.0, 400.0));
    // All of what was measured is gone: as after a day without requests.
    cluster
        .endpoints
        .states
        .iter_mut()
        .for_each(|endpoint| endpoint.latency = EndpointState::default().latency);
    cluster.refresh(s(12.0));
    assert_eq!(usual(&cluster), (10.0, 10.0, 400.0));
    assert!(cluster.subsets.list.iter().all(|subset| subset.latency.measured), "it was, once");
}

/// A subset that fails is compared with how others fare, and the best of them not with itself: it would excuse none of its own.
#[test]
fn no_subset_is_compared_with_itself() {
    let specs: Vec<Spec> = (0..4).map(|nth| Spec { priority: nth as u32 / 2, ..endpoint(nth + 1) }).collect();
    let mut cluster = limited(&specs, 50, 50);
    for nth in 0..400 {
        for index in 0..4 {
            // Of the first priority a half fails, of the second a tenth.
            let fails = if index < 2 { nth % 2 == 0 } else { nth % 10 == 0 };
            let endpoint = cluster.endpoints.set.reference(index).unwrap();
            let now = s(f64::from(nth) * 0.01);
            cluster.record_outcome(endpoint, now, fails.then_some(crate::Failure::TooMany), now);
        }
    }
    cluster.refresh(s(4.0));
    let elsewhere = |at: usize| cluster.subsets.list[at].errors.elsewhere.unwrap_or(f64::NAN);
    assert!(elsewhere(1) > 0.35, "{}: the other's, not its own", elsewhere(1));
    assert!(elsewhere(0) < 0.25, "{}", elsewhere(0));
}

/// Those that are left must not get ten times their load, however low the threshold of panic is.
#[test]
fn no_more_of_the_degraded_are_spared_than_may_be_out() {
    let spares = |is: Is, degraded: usize, failed: usize, (max_ejected, panic): (usize, usize)| {
        let mut cluster = limited(&fleet(10), max_ejected, panic);
        (0..degraded).for_each(|index| cluster.make(index, is));
        (degraded..degraded + failed).for_each(|index| cluster.make(index, Is::Failed));
        cluster.eject();
        assert_eq!(cluster.in_use().len(), 10 - cluster.ejection.out - cluster.ejection.degraded_out);
        cluster.ejection.degraded_out
    };
    for is in [Is::Degraded, Is::DegradedByItself] {
        for (degraded, spared) in [(1, 1), (2, 2), (5, 5), (6, 5), (9, 5), (10, 0)] {
            assert_eq!(spares(is, degraded, 0, (50, 0)), spared, "{is:?}: {degraded} of ten");
        }
        assert_eq!(spares(is, 4, 3, (50, 0)), 2, "{is:?}: three have failed");
        assert_eq!(spares(is, 9, 0, (100, 0)), 9, "{is:?}: as many as are allowed");
    }
    // Envoy sends nothing to hosts that its health checks find degraded while five in seven are not.
    let ten_percent = |is, degraded| spares(is, degraded, 0, (10, 50));
    assert_eq!([ten_percent(Is::DegradedByItself, 2), ten_percent(Is::Degraded, 2)], [1, 2]);
    assert_eq!(ten_percent(Is::Degraded, 3), 1);
    assert_eq!(spares(Is::DegradedByItself, 2, 0, (0, 50)), 0, "none may be out");
}

/// A worker that starts beside them has seen no good answer of theirs, as where connections are refused from the start.
#[test]
fn many_that_refuse_from_the_start_are_ejected_after_as_many_failures_as_one() {
    for (endpoints, refusing) in [(2, 1), (3, 2), (8, 4), (16, 4), (16, 12), (40, 20)] {
        let mut cluster = limited(&fleet(endpoints), 100, 0);
        let failures = cluster.config.health.fail_after as usize;
        for nth in 0..endpoints * failures {
            let (index, now) = (nth % endpoints, s(nth as f64 * 0.01));
            let endpoint = cluster.endpoints.set.reference(index as u32).unwrap();
            cluster.refresh(now);
            let fails = (index < refusing).then_some(crate::Failure::Refused);
            cluster.record_outcome(endpoint, now, fails, now);
        }
        // The last one is assessed against what the tick after it finds.
        let now = s((endpoints * failures) as f64 * 0.01);
        cluster.refresh(now);
        cluster.refresh(now);
        assert_eq!(cluster.in_use().len(), endpoints - refusing, "{refusing} of {endpoints}");
    }
}

/// The worker that polls for all gets no requests itself, as on Envoy's main thread. It judges by the others' evidence, and
/// comes to what they come to.
#[test]
fn a_worker_without_requests_ejects_none_for_what_all_of_them_do() {
    for (endpoints, failing, out) in
        [(4, 1, 1), (4, 2, 2), (4, 4, 0), (2, 1, 1), (2, 2, 0), (100, 1, 1), (100, 90, 0)]
    {
        let mut cluster = cluster(&settings(), &fleet(endpoints));
        cluster.refresh(s(0.0));
        cluster.forget_others(s(9.0));
        let since = s(5.0);
        let failures =
            FailureRun { count: 5, since, latest_start: s(8.0), latest_at: s(8.0), ..FailureRun::default() };
        let evidence = Evidence { failures, ..Evidence::default() };
        for identity in cluster.endpoints.set.identities().to_vec().into_iter().take(failing) {
            let report = PeerReport { error_ratio: 0.6, ..PeerReport::default() };
            cluster.merge_other(identity, &report, &evidence);
        }
        (0..2).for_each(|_| cluster.refresh(s(9.0)));
        let failed = cluster.endpoints.states.iter().filter(|m| m.health.state() == State::Failed).count();
        assert_eq!(failed, out, "{failing} of {endpoints}");
    }
}

/// Those that are out take no turns.
#[test]
fn a_reduced_share_is_one_of_what_the_others_in_traffic_get() {
    for policy in [settings::Policy::Adaptive, settings::Policy::RoundRobin] {
        let mut settings = settings::Upstream { policy, ..settings() };
        (settings.health.max_ejected_percent, settings.failover.panic_percent) = (100.0, 0.0);
        let mut cluster = cluster(&settings, &fleet(6));
        (3..6).for_each(|index| cluster.make(index, Is::Failed));
        cluster.endpoints.states[0].constraints.ruled = Some(RuleAction::DownWeight);
        (0..2).for_each(|_| cluster.refresh(s(1.0)));
        let (mut rng, mut counts) = (rng::Rng::new(3), [0; 6]);
        for _ in 0..9000 {
            let named = cluster.pick(crate::policy::Request::wanting(1), s(1.0), &mut rng);
            let crate::decision::Decision::Steer(named) = named else { continue };
            counts[named.first().unwrap() as usize] += 1;
        }
        // A fourth of the part of each of the two others.
        assert!((900..=1100).contains(&counts[0]), "{:?}: {counts:?}", settings.policy);
    }
}
