//! The health state machine under any sequence of outcomes, in any order of arrival.

use std::time::Duration;

use engine::health::{Evidence, FailureEvent, FailureRun, GoodRun, Health, State};
use engine::time::Time;
use proptest::collection::vec;
use proptest::prelude::*;

const START: u64 = 1_800_000_000_000;

#[derive(Clone, Debug)]
enum Event {
    /// Time passes, ms.
    Pass(u64),
    /// A request that started this many ms ago succeeded.
    Success(u64),
    /// A request that started this many ms ago failed, with this weight.
    Failure(u64, u32),
    /// Another worker has just reported this many failures, or this many good answers.
    PeerReport(u32, u32),
    /// The clock steps back, ms.
    StepBack(u64),
}

fn outcome() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0u64..3000).prop_map(Event::Pass),
        (0u64..500).prop_map(Event::Success),
        (0u64..500, 0u32..3).prop_map(|(age, weight)| Event::Failure(age, weight)),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => outcome(),
        1 => (0u32..6, 0u32..6).prop_map(|(consecutive_failures, good)| Event::PeerReport(consecutive_failures, good)),
        1 => (0u64..5_000_000).prop_map(Event::StepBack),
    ]
}

fn limits() -> impl Strategy<Value = engine::settings::Health> {
    (1u32..4, 0u32..4, 1u32..5, 1u64..60).prop_map(|(suspect_after, more, recover_after, ejection)| {
        engine::settings::Health {
            suspect_after,
            fail_after: suspect_after + more,
            recover_after,
            ejection: Duration::from_secs(ejection),
            max_ejected_percent: 50.0,
            failures: engine::settings::Failures::default(),
            blame_retried: true,
            heed_headers: true,
            probe: None,
        }
    })
}

fn ms(ms: u64) -> Time {
    Time(ms * 1_000_000)
}

fn out(state: State) -> bool {
    matches!(state, State::Failed | State::Recovering)
}

/// An endpoint's health, the time, and the test's own counts.
struct Watched {
    health: Health,
    /// Good answers reported by other workers.
    theirs: GoodRun,
    now: u64,
    /// Good answers since the endpoint was last ejected.
    good: u32,
    /// Weighted failures since the last good answer to a request that started after all of them, and the unseen ones.
    failures: (u32, u32),
    /// Start of the latest request that failed, ms.
    failed_start: u64,
}

impl Watched {
    fn new() -> Watched {
        Watched {
            health: Health::default(),
            theirs: GoodRun::default(),
            now: START,
            good: 0,
            failures: (0, 0),
            failed_start: 0,
        }
    }

    /// The failures as health counts them: four unseen ones for one.
    fn counted(&self) -> u32 {
        self.failures.0 + self.failures.1 / 4
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Pass(by) => self.now += by,
            Event::Success(age) => {
                self.health.success(ms(self.now - age));
                self.good += 1;
                if self.now - age > self.failed_start {
                    self.failures = (0, 0);
                }
            }
            Event::Failure(age, weight) => {
                self.health.failure(ms(self.now - age), ms(self.now), FailureEvent { weight, broke: None });
                self.failures.0 += weight;
                self.failures.1 += u32::from(weight == 0);
                self.failed_start = self.failed_start.max(self.now - age);
            }
            Event::PeerReport(count, good) => {
                let failures = FailureRun {
                    count,
                    latest_start: ms(self.now - 2),
                    latest_at: ms(self.now),
                    ..FailureRun::default()
                };
                let start = if count > 0 { Time::ZERO } else { ms(self.now) };
                let evidence = Evidence { failures, good: GoodRun { count: good as u16, start } };
                self.health.forget_others();
                self.theirs = self.health.merge_other(GoodRun::default(), &evidence);
            }
            Event::StepBack(by) => {
                self.now -= by;
                self.health.not_after(ms(self.now));
                self.theirs.start = self.theirs.start.min(ms(self.now));
            }
        }
    }
}

proptest! {
    #![proptest_config(crate::seeded(500))]

    #[test]
    fn one_workers_view_keeps_to_the_rules(events in vec(outcome(), 0..120), limits in limits()) {
        let mut watched = Watched::new();
        let mut before = State::Healthy;
        for event in &events {
            watched.apply(event);
            let state = watched.health.assess(watched.theirs, ms(watched.now), &limits, 0.0);
            prop_assert_eq!(state, watched.health.state());
            if watched.counted() == 0 && before == State::Healthy {
                prop_assert_eq!(state, State::Healthy, "nothing has failed");
            }
            if state == State::Failed {
                watched.good = 0;
            }
            match (before, state) {
                (State::Healthy | State::Suspect, State::Failed) => {
                    prop_assert!(watched.counted() >= limits.fail_after);
                }
                (State::Healthy | State::Suspect, State::Recovering) => prop_assert!(false, "without failing"),
                (State::Failed | State::Recovering, State::Suspect) => prop_assert!(false, "from out to half in"),
                (State::Failed | State::Recovering, State::Healthy) => {
                    prop_assert!(watched.good >= limits.recover_after, "{} good", watched.good);
                    prop_assert_eq!(watched.health.returned(), ms(watched.now));
                }
                _ => {}
            }
            before = state;
        }
    }

    #[test]
    fn enough_failures_in_a_row_always_eject_and_enough_good_ones_always_bring_back(
        events in vec(event(), 0..60),
        limits in limits(),
    ) {
        let mut watched = Watched::new();
        for event in &events {
            watched.apply(event);
            watched.health.assess(watched.theirs, ms(watched.now), &limits, 0.0);
        }
        watched.health.forget_others();
        watched.theirs = GoodRun::default();
        for _ in 0..limits.fail_after {
            watched.apply(&Event::Pass(10));
            watched.apply(&Event::Failure(0, 1));
        }
        prop_assert_eq!(watched.health.assess(watched.theirs, ms(watched.now), &limits, 0.0), State::Failed);
        for _ in 0..limits.recover_after {
            prop_assert!(out(watched.health.state()));
            watched.apply(&Event::Pass(10));
            watched.apply(&Event::Success(0));
            watched.health.assess(watched.theirs, ms(watched.now), &limits, 0.0);
        }
        prop_assert_eq!(watched.health.state(), State::Healthy);
    }

    #[test]
    fn a_probe_is_never_further_away_than_the_longest_ejection(
        events in vec(event(), 0..120),
        limits in limits(),
    ) {
        let mut watched = Watched::new();
        for event in &events {
            watched.apply(event);
            watched.health.assess(watched.theirs, ms(watched.now), &limits, 0.0);
            let wait = watched.health.next_probe(&limits).seconds_since(ms(watched.now));
            prop_assert!(wait <= limits.ejection.as_secs_f64() + 1e-6, "{wait} s");
            if watched.health.state() == State::Healthy {
                prop_assert_eq!(wait, 0.0);
            }
        }
    }

    #[test]
    fn where_all_endpoints_fail_none_is_ejected(events in vec(event(), 0..80), limits in limits()) {
        let mut watched = Watched::new();
        for event in &events {
            watched.apply(event);
            prop_assert_eq!(watched.health.assess(watched.theirs, ms(watched.now), &limits, 1.0), State::Healthy);
        }
    }

    #[test]
    fn any_evidence_and_any_background_leave_a_state(
        numbers: [u32; 4],
        times: [u64; 5],
        background in prop_oneof![any::<f64>(), Just(f64::NAN)],
        now: u64,
        limits in limits(),
    ) {
        let mut health = Health::default();
        let [count, unseen, good, failed_probes] = numbers;
        let [since, latest_start, latest_at, broke_at, start] = times.map(Time);
        let unseen = unseen as u16;
        let failures =
            FailureRun { count, unseen, failed_probes, since, latest_start, latest_at, broke_at, broke_on: 0 };
        let told = Evidence { failures, good: GoodRun { count: good as u16, start } };
        let theirs = health.merge_other(GoodRun::default(), &told);
        health.failure(Time(now), Time(now), FailureEvent { weight: count, broke: Some(9) });
        health.assess(theirs, Time(now), &limits, background);
        health.success(Time(now));
        health.assess(theirs, Time(now), &limits, background);
        health.next_probe(&limits);
        health.forget_others();
        health.not_after(Time(now));
        prop_assert!(health.next_probe(&limits).seconds_since(Time(now)) <= limits.ejection.as_secs_f64() + 1.0);
    }
}
