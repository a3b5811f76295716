//! The state machine, alone and with other workers' evidence.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::evidence::{Evidence, FailureEvent, GoodRun};
use super::{Health, State};
use crate::time::Time;
use crate::{rng, settings};
use core::time::Duration;

const LIMITS: settings::Health = settings::Health {
    suspect_after: 1,
    fail_after: 3,
    recover_after: 3,
    ejection: Duration::from_secs(30),
    max_ejected_percent: 50.0,
    failures: settings::Failures::NONE,
    blame_retried: true,
    heed_headers: true,
    probe: None,
};

const BAD_ANSWER: FailureEvent = FailureEvent { weight: 1, broke: None };

fn broken(connection: u64) -> FailureEvent {
    FailureEvent { weight: 1, broke: Some(connection) }
}

fn ms(ms: u64) -> Time {
    Time(1_000_000_000_000 + ms * 1_000_000)
}

fn fail(health: &mut Health, start: u64) -> State {
    health.failure(ms(start), ms(start + 1), BAD_ANSWER);
    health.assess(GoodRun::default(), ms(start + 1), &LIMITS, 0.0)
}

fn report(health: &mut Health, others: &Evidence) -> GoodRun {
    health.forget_others();
    health.merge_other(GoodRun::default(), others)
}

fn succeed(health: &mut Health, start: u64) -> State {
    health.success(ms(start));
    health.assess(GoodRun::default(), ms(start + 20), &LIMITS, 0.0)
}

const UNSEEN: FailureEvent = FailureEvent { weight: 0, broke: None };

#[test]
fn four_unseen_failures_in_a_row_of_all_workers_are_one_failure() {
    let alone = |times: u64, good: Option<u64>| {
        let mut health = Health::default();
        for at in 0..times {
            health.failure(ms(10 * at), ms(10 * at + 1), UNSEEN);
            if good == Some(at) {
                health.success(ms(10 * at + 5));
            }
        }
        health.assess(GoodRun::default(), ms(10 * times), &LIMITS, 0.0)
    };
    assert_eq!(
        [3, 4, 11, 12].map(|times| alone(times, None)),
        [State::Healthy, State::Suspect, State::Suspect, State::Failed]
    );
    assert_eq!(alone(5, Some(1)), State::Healthy, "a good answer between them");

    let mut peer = Evidence::default();
    peer.failure(ms(0), ms(1), UNSEEN);
    let mut health = Health::default();
    let mut others = Evidence::default();
    (0..3).for_each(|_| others.merge(&peer));
    assert_eq!(others.failures.unseen, 3);
    health.failure(ms(2), ms(3), UNSEEN);
    let good = report(&mut health, &others);
    assert_eq!(health.assess(good, ms(4), &LIMITS, 0.0), State::Suspect, "one in each of four workers");
    let mut answered = Evidence::default();
    answered.success(ms(2));
    others.merge(&answered);
    let good = report(&mut health, &others);
    assert_eq!(health.assess(good, ms(4), &LIMITS, 0.0), State::Healthy, "a good answer in any of them");
}

#[test]
fn a_good_answer_within_a_run_leaves_what_is_later() {
    for (failures, unseen, left) in [(4, 0, (2, 0)), (0, 6, (0, 3)), (1, 0, (1, 0)), (0, 1, (0, 1))] {
        let mut run = Evidence::default();
        for at in 0..failures + unseen {
            let event = if at < failures { BAD_ANSWER } else { UNSEEN };
            run.failure(ms(10 * at), ms(10 * at), event);
        }
        let mut good = Evidence::default();
        good.success(Time(ms(5 * (failures + unseen - 1)).0));
        run.merge(&good);
        assert_eq!((run.failures.count, run.failures.unseen), left, "{failures} and {unseen}");
    }
}

#[test]
fn one_failure_is_verified_three_eject_three_good_ones_return() {
    let mut health = Health::default();
    assert_eq!(fail(&mut health, 0), State::Suspect);
    assert_eq!(health.next_probe(&LIMITS), ms(1001));
    assert_eq!(succeed(&mut health, 1001), State::Healthy);
    assert_eq!(fail(&mut health, 2000), State::Suspect);
    assert_eq!(fail(&mut health, 2010), State::Suspect);
    assert_eq!(fail(&mut health, 2020), State::Failed);
    assert_eq!(health.next_probe(&LIMITS), ms(7020));
    assert_eq!(succeed(&mut health, 7100), State::Recovering);
    assert_eq!(health.next_probe(&LIMITS), Time::ZERO);
    assert_eq!(succeed(&mut health, 7200), State::Recovering);
    assert_eq!(succeed(&mut health, 7300), State::Healthy);
    assert_eq!(health.returned(), ms(7320));
}

/// One that had its part in the probes may have had no request since.
#[test]
fn failed_probes_are_forgotten_once_any_worker_finds_the_endpoint_well_for_a_minute() {
    let mut health = Health::default();
    (0..3).for_each(|at| _ = fail(&mut health, 10 * at));
    assert_eq!(fail(&mut health, 6000), State::Failed);
    let mut after = |good: u64| {
        let state = health.assess(GoodRun { count: 9, start: ms(good) }, ms(good + 1), &LIMITS, 0.0);
        (state, health.caution() > 1.0)
    };
    assert_eq!(after(7000), (State::Healthy, true));
    assert_eq!(after(66_000), (State::Healthy, true));
    assert_eq!(after(68_000), (State::Healthy, false));
}

/// The failures of the others excuse it meanwhile: it has shown nothing.
#[test]
fn what_is_excused_has_not_proven_itself() {
    let mut health = Health::default();
    succeed(&mut health, 0);
    (1..4).for_each(|at| _ = fail(&mut health, 10 * at));
    assert_eq!(fail(&mut health, 6000), State::Failed);
    assert!(health.caution() > 1.0);
    assert_eq!(health.assess(GoodRun::default(), ms(6001), &LIMITS, 0.9), State::Healthy);
    assert!(health.caution() > 1.0, "its next ejection is not the first");
}

#[test]
fn failed_probes_space_out_up_to_the_longest_wait() {
    let mut health = Health::default();
    let mut start = 0;
    (0..3).for_each(|i| _ = fail(&mut health, i));
    let mut waits = Vec::new();
    for _ in 0..8 {
        let due = health.next_probe(&LIMITS);
        waits.push(due.seconds_since(ms(start)).round() as u64);
        start = (due.0 - ms(0).0) / 1_000_000;
        fail(&mut health, start);
    }
    assert_eq!(waits, [5, 8, 11, 17, 25, 30, 30, 30]);
}

#[test]
fn a_relapse_while_recovering_is_a_failure() {
    let mut health = Health::default();
    (0..3).for_each(|i| _ = fail(&mut health, i));
    assert_eq!(succeed(&mut health, 6000), State::Recovering);
    assert_eq!(fail(&mut health, 6100), State::Failed);
}

#[test]
fn late_news_of_old_requests_changes_nothing() {
    let mut health = Health::default();
    fail(&mut health, 100);
    assert_eq!(succeed(&mut health, 50), State::Suspect, "started before the failure");
    assert_eq!(succeed(&mut health, 200), State::Healthy);
    health.failure(ms(150), ms(3150), FailureEvent { weight: 2, ..BAD_ANSWER });
    assert_eq!(
        health.assess(GoodRun::default(), ms(3150), &LIMITS, 0.0),
        State::Healthy,
        "a later request was fine"
    );
}

#[test]
fn no_endpoint_is_ejected_for_what_all_do() {
    let mut health = Health::default();
    for i in 0..12 {
        health.failure(ms(i), ms(i + 1), BAD_ANSWER);
        assert_eq!(
            health.assess(GoodRun::default(), ms(i + 1), &LIMITS, 0.5),
            if i < 9 { State::Healthy } else { State::Suspect }
        );
    }
    assert_eq!(health.assess(GoodRun::default(), ms(20), &LIMITS, 1.0), State::Healthy);
}

#[test]
fn a_clock_that_steps_back_ejects_no_endpoint_for_ever() {
    let mut health = Health::default();
    (0..3).for_each(|i| _ = fail(&mut health, 3_600_000 + i));
    health.not_after(ms(0));
    assert!(health.next_probe(&LIMITS) <= ms(30_000));
    (0..3).for_each(|i| _ = succeed(&mut health, 6000 + i));
    assert_eq!(health.state(), State::Healthy);
}

#[test]
fn what_is_over_takes_no_memory() {
    let mut health = Health::default();
    (0..3).for_each(|i| _ = fail(&mut health, i));
    (0..3).for_each(|i| _ = succeed(&mut health, 6000 + i));
    assert_eq!(health.state(), State::Healthy);
    succeed(&mut health, 100_000);
    assert!(health.past.is_some(), "its slow start may last an hour");
    succeed(&mut health, 10_000_000);
    assert!(health.past.is_none());
    assert_eq!(fail(&mut health, 10_000_100), State::Suspect);
    health.joins(ms(10_000_100));
    assert_eq!(health.joined(), ms(10_000_100));
}

#[test]
fn workers_add_up_what_they_see() {
    let mut here = Health::default();
    here.failure(ms(10), ms(11), BAD_ANSWER);
    let mut there = Evidence::default();
    there.failure(ms(9), ms(10), BAD_ANSWER);
    let good = report(&mut here, &there);
    assert_eq!(here.assess(good, ms(20), &LIMITS, 0.0), State::Suspect);
    there.failure(ms(12), ms(13), BAD_ANSWER);
    let good = report(&mut here, &there);
    assert_eq!(here.assess(good, ms(20), &LIMITS, 0.0), State::Failed);
    (0..3).for_each(|i| there.success(ms(6000 + i)));
    let good = report(&mut here, &there);
    assert_eq!(here.assess(good, ms(6020), &LIMITS, 0.0), State::Healthy);
}

#[test]
fn connections_that_break_together_are_a_crash_and_one_after_another_are_not() {
    for (apart, state) in
        [(0, State::Failed), (9, State::Failed), (11, State::Suspect), (500, State::Suspect)]
    {
        let mut alone = Health::default();
        alone.failure(ms(10), ms(1000), broken(1));
        alone.failure(ms(11), ms(1000 + apart), broken(2));
        assert_eq!(alone.assess(GoodRun::default(), ms(2000), &LIMITS, 0.0), state, "{apart} ms apart");

        let mut here = Health::default();
        here.failure(ms(10), ms(1000), broken(3));
        let mut there = Evidence::default();
        there.failure(ms(11), ms(1000 + apart), broken(4));
        let good = report(&mut here, &there);
        assert_eq!(here.assess(good, ms(2000), &LIMITS, 0.0), state, "{apart} ms apart, seen by two workers");
    }
    // Two plugins in one thread, or two configurations of one plugin, see the same connection.
    let mut here = Health::default();
    here.failure(ms(10), ms(1000), broken(3));
    let mut there = Evidence::default();
    there.failure(ms(11), ms(1000), broken(3));
    let mut third = Evidence::default();
    third.failure(ms(12), ms(1001), broken(3));
    there.merge(&third);
    let good = report(&mut here, &there);
    assert_eq!(
        here.assess(good, ms(2000), &LIMITS, 0.0),
        State::Suspect,
        "one connection, seen by three workers"
    );
    let mut answered = Health::default();
    (0..2).for_each(|_| answered.failure(ms(10), ms(1000), BAD_ANSWER));
    assert_eq!(
        answered.assess(GoodRun::default(), ms(2000), &LIMITS, 0.0),
        State::Suspect,
        "two bad answers are only that"
    );
    let mut streams = Health::default();
    (0..5).for_each(|_| streams.failure(ms(10), ms(1000), broken(7)));
    assert_eq!(
        streams.assess(GoodRun::default(), ms(2000), &LIMITS, 0.0),
        State::Suspect,
        "streams of one connection"
    );
    let mut parted = Health::default();
    parted.failure(ms(10), ms(1000), broken(5));
    parted.success(ms(1001));
    parted.failure(ms(1002), ms(1003), broken(6));
    assert_eq!(
        parted.assess(GoodRun::default(), ms(2000), &LIMITS, 0.0),
        State::Suspect,
        "a good answer lies between"
    );
}

#[test]
fn failures_before_another_workers_good_answer_are_not_in_a_row_with_those_after_it() {
    let mut here = Evidence::default();
    (1..=5).for_each(|i| here.failure(ms(10 * i), ms(10 * i + 1), BAD_ANSWER));
    for (good, left) in [(5, 5), (29, 2), (45, 1), (51, 0)] {
        let mut there = Evidence::default();
        there.success(ms(good));
        let mut both = [here, there];
        both[0].merge(&there);
        both[1].merge(&here);
        assert_eq!(
            [both[0].failures.count, both[1].failures.count],
            [left, left],
            "a good answer to what was sent at {good}"
        );
    }
}

#[test]
fn many_workers_do_not_make_a_row_of_what_is_none() {
    let mut workers = [Evidence::default(); 8];
    for request in 0..4000u64 {
        let worker = &mut workers[(request % 8) as usize];
        // Two of three fail, in a pattern that looks irregular to every worker.
        match rng::mix(request) % 3 {
            0 => worker.success(ms(request)),
            _ => worker.failure(ms(request), ms(request), BAD_ANSWER),
        }
        let mut all = Evidence::default();
        workers.iter().for_each(|w| all.merge(w));
        let truth = (0..=request).rev().take_while(|r| !rng::mix(*r).is_multiple_of(3)).count();
        assert!(
            f64::from(all.failures.count) <= 2.0 * truth as f64 + 1.0,
            "{request}: {} of {truth}",
            all.failures.count
        );
    }
}

#[test]
fn good_answers_of_before_the_failure_do_not_speed_up_the_return() {
    let mut here = Health::default();
    (0..50).for_each(|i| here.success(ms(i)));
    let mut there = Evidence::default();
    (60..63).for_each(|i| there.failure(ms(i), ms(i + 1), BAD_ANSWER));
    let good = report(&mut here, &there);
    assert_eq!(here.assess(good, ms(70), &LIMITS, 0.0), State::Failed);
    here.success(ms(6000));
    assert_eq!(here.assess(good, ms(6020), &LIMITS, 0.0), State::Recovering);
}

/// Ejected at 0 s, a probe that failed at 6 s, and back again by three good ones from 20 s on.
fn returned() -> Health {
    let mut health = Health::default();
    (0..3).for_each(|nth| _ = fail(&mut health, nth));
    fail(&mut health, 6000);
    (0..3).for_each(|nth| _ = succeed(&mut health, 20_000 + nth * 100));
    assert_eq!(health.state(), State::Healthy);
    health
}

#[test]
fn failed_probes_are_held_against_an_endpoint_until_it_has_been_in_traffic_for_a_minute() {
    let caution = |serves_at: u64| {
        let mut health = returned();
        succeed(&mut health, serves_at);
        (0..3).for_each(|nth| _ = fail(&mut health, 200_000 + nth));
        health.caution()
    };
    assert_eq!(caution(20_300), 1.5, "out again within a minute: it is asked later than the first time");
    assert_eq!(caution(79_000), 1.5);
    assert_eq!(caution(81_000), 1.0, "proven");
    let moment = returned().returned();
    assert_eq!(moment, ms(20_220), "from then on it starts slowly");
}

#[test]
fn what_was_sent_before_the_ejection_is_no_failed_probe() {
    let mut health = Health::default();
    (0..3).for_each(|nth| _ = fail(&mut health, 1000 + nth));
    assert_eq!(health.state(), State::Failed);
    // They time out one after the other, after it is out.
    for sent in 500..520 {
        health.failure(ms(sent), ms(9000), BAD_ANSWER);
    }
    assert_eq!(health.caution(), 1.0);
    health.failure(ms(9000), ms(9001), BAD_ANSWER);
    assert_eq!(health.caution(), 1.5, "this one was a probe");
    // Ejected again after a return, the same holds from the second ejection on.
    let mut health = returned();
    succeed(&mut health, 90_000);
    (0..3).for_each(|nth| _ = fail(&mut health, 200_000 + nth));
    health.failure(ms(199_000), ms(209_000), BAD_ANSWER);
    assert_eq!(health.caution(), 1.0);
}

#[test]
fn endpoint_that_serves_some_differs_from_one_that_hangs() {
    let mut health = Health::default();
    for nth in 0..100 {
        fail(&mut health, 1000 * nth);
        succeed(&mut health, 1000 * nth + 500);
    }
    let ratio = health.fails_at_times(&Evidence::default()).unwrap();
    assert!((0.4..0.6).contains(&ratio), "{ratio}");
    (0..12).for_each(|nth| _ = fail(&mut health, 200_000 + nth));
    assert_eq!(health.fails_at_times(&Evidence::default()), None, "twelve in a row are no chance");
    let mut health = Health::default();
    for nth in 0..100 {
        fail(&mut health, 1000 * nth);
        succeed(&mut health, 1000 * nth + 500);
    }
    health.set_stalled(true);
    assert_eq!(health.assess(GoodRun::default(), ms(101_000), &LIMITS, 0.0), State::Stalled);
    assert_eq!(health.fails_at_times(&Evidence::default()), None, "it answers nothing at all");
}

#[test]
fn good_answers_from_before_a_failure_elsewhere_bring_no_endpoint_back() {
    let mut health = Health::default();
    let mut others = Evidence::default();
    (0..3).for_each(|nth| _ = fail(&mut health, nth));
    (0..2).for_each(|nth| _ = succeed(&mut health, 6000 + nth));
    // A probe of another worker's fails; with the next good one the row begins anew.
    others.failure(ms(7000), ms(7001), BAD_ANSWER);
    report(&mut health, &others);
    succeed(&mut health, 8000);
    assert_eq!(health.local().good.count, 1);
    health.forget_others();
    assert_eq!(
        health.others(GoodRun::default()),
        Evidence::default(),
        "they report it anew, or it does not count"
    );
}
