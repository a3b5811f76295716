//! How long the guard steps aside, what is forgotten when, and what another worker's guard may claim.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::super::Arm;
use super::*;

fn s(seconds: f64) -> Time {
    Time::from_secs_f64(1_000_000.0 + seconds)
}

fn nothing(guard: &mut Guard, seconds: f64) -> Option<Event> {
    guard.take(&Arms::default(), s(seconds))
}

#[test]
fn each_pause_is_twice_the_one_before_up_to_six_hours_and_a_good_day_forgives() {
    let mut guard = Guard::new(0.01, s(0.0));
    let (mut now, mut pauses) = (10.0, Vec::new());
    for asides in 1..=8 {
        let Event::SteppedAside(pause_s) = guard.step_aside(s(now)) else { panic!("it steps aside") };
        pauses.push(pause_s);
        assert!(guard.is_aside() && guard.asides == asides);
        assert_eq!(nothing(&mut guard, now + pause_s - 1.0), None, "not a second too early");
        assert!(guard.is_aside());
        now += pause_s;
        assert_eq!(nothing(&mut guard, now), Some(Event::Resumed));
        assert!(!guard.is_aside() && guard.steers_since == s(now));
        now += 60.0;
    }
    assert_eq!(pauses, [600.0, 1200.0, 2400.0, 4800.0, 9600.0, 19_200.0, 21_600.0, 21_600.0]);
    let day_later = now + 86_400.0;
    assert_eq!(guard.step_aside(s(day_later)), Event::SteppedAside(600.0));
    assert_eq!(guard.pause_s, 1200.0, "and it begins anew");
}

#[test]
fn what_was_found_before_a_pause_is_not_held_against_what_comes_after() {
    let mut guard = Guard::new(0.01, s(0.0));
    guard.evidence[0].worse_at = s(0.0);
    guard.evidence[1].better_at = s(0.0);
    guard.step_aside(s(1.0));
    assert_eq!(nothing(&mut guard, 700.0), Some(Event::Resumed));
    assert_eq!(guard.evidence, [Evidence::default(); FIGURES]);
    assert_eq!((guard.finding, guard.began), (Finding::Open, s(700.0)));
    assert_eq!(nothing(&mut guard, 701.0), None, "so that it steers");
}

/// A false alarm is improbable within a period; the next one begins with new capital, and what was found stays found.
#[test]
fn the_bets_end_with_their_period() {
    let mut guard = Guard::new(0.01, s(0.0));
    guard.evidence[0].worse.bet(|_| 3.0);
    guard.evidence[1].better_at = s(PERIOD_S - 2.0);
    assert_eq!(nothing(&mut guard, PERIOD_S - 1.0), Some(Event::Found(Finding::Better)));
    assert!(guard.evidence[0].worse.log() > 2.0 && guard.began == s(0.0));
    assert_eq!(nothing(&mut guard, PERIOD_S), None);
    assert_eq!((guard.evidence[0].worse, guard.began), (Default::default(), s(PERIOD_S)));
    assert_eq!(guard.evidence[1].better_at, s(PERIOD_S - 2.0));
}

#[test]
fn more_failures_are_harm_and_slower_requests_are_where_nothing_is_better() {
    let cases: [(&[usize], &[usize], Finding); 7] = [
        (&[], &[], Finding::Open),
        (&[0], &[1, 2, 3], Finding::Worse),
        (&[2], &[], Finding::Worse),
        (&[2], &[2], Finding::Worse),
        (&[1], &[3], Finding::Mixed),
        (&[3], &[0], Finding::Mixed),
        (&[], &[2], Finding::Better),
    ];
    for (worse, better, finding) in cases {
        let mut guard = Guard::new(0.01, s(0.0));
        worse.iter().for_each(|at| guard.evidence[*at].worse_at = s(1.0));
        better.iter().for_each(|at| guard.evidence[*at].better_at = s(1.0));
        assert_eq!(guard.conclusion(s(2.0)), finding, "{worse:?} {better:?}");
        assert_eq!(guard.conclusion(s(HOLDS_S + 1.0)), Finding::Open, "it is no longer known");
    }
}

/// Half of the requests take longer than the median; with odds a fifth higher among the steered, which is certain after so
/// many. How much longer that is depends on how far latencies lie apart.
#[test]
fn a_difference_that_is_certain_and_next_to_nothing_is_no_harm() {
    for (apart, harm) in [(0, false), (20, true)] {
        let mut usual = Histogram::default();
        let (below, above) = (100 - apart, 101 + apart);
        (below..=above).for_each(|bucket| usual.add(bucket, 20_000 / (above - below + 1) as u64));
        let mut guard = Guard::new(0.5, s(0.0));
        guard.recent.take(&usual, &Histogram::default());
        let mut came = Arms::default();
        for (arm, more) in [(&mut came.steered, 10_500), (&mut came.held_out, 9_500)] {
            arm.latency.add(below, 20_000 - more);
            arm.latency.add(above, more);
        }
        let event = guard.take(&came, s(1.0));
        assert_eq!(event == Some(Event::SteppedAside(FIRST_PAUSE_S)), harm, "{apart}: {event:?}");
        assert_eq!(event.is_some(), harm);
    }
}

#[test]
fn the_figures_are_of_one_day() {
    let mut guard = Guard::new(0.01, Time(0));
    let mut came = Arms::default();
    (0..5).for_each(|_| came.count(Arm::Steered, Some(100)));
    guard.take(&came, Time(DAY_NS - 2));
    guard.take(&came, Time(DAY_NS - 1));
    assert_eq!(guard.today.steered.latency.total(), 10);
    assert!(!guard.ends_day(Time(DAY_NS - 1)) && guard.ends_day(Time(DAY_NS)));
    guard.take(&came, Time(DAY_NS));
    assert_eq!(guard.today.steered.latency.total(), 5);
}

#[test]
fn a_clock_that_steps_back_makes_nothing_last() {
    let mut guard = Guard::new(0.01, s(90_000.0));
    guard.evidence.iter_mut().for_each(|e| (e.worse_at, e.better_at) = (s(90_000.0), s(90_000.0)));
    guard.step_aside(s(90_000.0));
    guard.not_after(s(0.0));
    assert!([guard.began, guard.at, guard.steers_since].into_iter().all(|moment| moment == s(0.0)));
    assert!(guard.evidence.iter().all(|e| e.worse_at == s(0.0) && e.better_at == s(0.0)));
    assert_eq!(guard.aside_until, s(600.0), "a pause is no longer than it was meant to be");
    // One that may be true is left as it is.
    guard.aside_until = s(21_000.0);
    guard.not_after(s(0.0));
    assert_eq!(guard.aside_until, s(21_000.0));
}

#[test]
fn another_workers_guard_is_taken_as_far_as_it_can_be() {
    let of = |change: &dyn Fn(&mut Guard)| {
        let mut guard = Guard::new(0.25, s(0.0));
        change(&mut guard);
        guard.checked(s(0.0))
    };
    assert!(of(&|_| {}).is_some());
    for holdout in [0.0, -0.1, 0.51, f64::NAN] {
        assert_eq!(of(&|guard| guard.holdout = holdout), None, "{holdout}");
    }
    assert!(of(&|guard| guard.holdout = 0.5).is_some());
    assert_eq!(of(&|guard| guard.pause_s = f64::INFINITY), None);
    assert_eq!(of(&|guard| guard.pause_s = 1e12).map(|guard| guard.pause_s), Some(21_600.0));
    assert_eq!(of(&|guard| guard.pause_s = -5.0).map(|guard| guard.pause_s), Some(0.0));
    let future = of(&|guard| (guard.began, guard.aside_until) = (s(1e6), s(1e9)));
    assert_eq!(future.map(|guard| (guard.began, guard.aside_until)), Some((s(0.0), s(600.0))));
}
