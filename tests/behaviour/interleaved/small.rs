//! Every schedule of a few callbacks.

use std::sync::Arc;

use super::turns::{Plan, Search};
use super::{all_is_well, everything, guarded, pass};
use crate::native::Native;
use crate::scene::{Ending, ms};
use crate::world::World;

type Crew = super::crew::Crew<Native>;
type Member = super::crew::Member<Native>;
type Part = Arc<dyn Fn(&mut Member) + Send + Sync>;

/// A small world: what comes before, what each member does at the same time, and what holds afterwards.
struct Small {
    /// How many members there are before those that have a part; they wait.
    idle: usize,
    /// How often the turn is taken from a member before it ends its part.
    preemptions: usize,
    /// The member that may die.
    mortal: Option<usize>,
    /// The keys of shared data at whose accesses the turn may be taken; at all without it.
    only: Option<fn(&str) -> bool>,
    before: fn(&mut Crew),
    parts: Vec<Part>,
    after: fn(&mut Crew),
}

impl Small {
    /// Runs every schedule; returns how many there are.
    fn every_schedule(&self) -> usize {
        let mut next = Some(Search::new(self.preemptions, self.mortal, self.only));
        let mut runs = 0;
        while let Some(search) = next {
            let mut crew = Crew::new(self.idle + self.parts.len(), 1);
            (self.before)(&mut crew);
            let parts = self.parts.iter().cloned().map(|part| Box::new(move |of: &mut _| part(of)) as Box<_>);
            let Plan::Search(search) = crew.race(Plan::Search(search), parts.collect()) else {
                unreachable!()
            };
            (self.after)(&mut crew);
            next = search.following();
            runs += 1;
        }
        runs
    }

    /// Runs every schedule, of which there are at least so many.
    fn has(&self, least: usize) {
        let runs = self.every_schedule();
        println!("{runs} schedules");
        assert!(runs >= least, "{runs} schedules are not all");
    }
}

/// Two that serve and tick at the same time, in every schedule with two preemptions.
impl Default for Small {
    fn default() -> Self {
        Small {
            idle: 0,
            preemptions: 2,
            mortal: None,
            only: None,
            before: configured,
            parts: vec![part(serve_and_tick), part(serve_and_tick)],
            after: |crew| all_is_well(crew, 0),
        }
    }
}

fn part(part: impl Fn(&mut Member) + Send + Sync + 'static) -> Part {
    Arc::new(part)
}

fn configured(crew: &mut Crew) {
    crew.each(|member| member.load(&everything(1)));
}

/// All members know each other, and the first one polls. Nothing is unpublished but the latest request of each.
fn acquainted(crew: &mut Crew) {
    configured(crew);
    assert_eq!(pass(crew, 4).last(), Some(&0), "the first one leads");
}

/// The same, and then the lease runs out.
fn without_a_lease(crew: &mut Crew) {
    acquainted(crew);
    crew.world.advance(ms(3500));
}

/// Three ticks, with a request before the first.
fn serve_and_tick(member: &mut Member) {
    member.serve();
    for _ in 0..3 {
        member.tick();
        member.world.advance(ms(20));
    }
}

fn at_most_one_polls(crew: &mut Crew) {
    let askers = crew.each(|member| member.calls().len()).iter().filter(|calls| **calls > 0).count();
    assert!(askers <= 1, "{askers} poll");
    all_is_well(crew, 0);
}

#[test]
fn first_ticks_make_one_leader_and_lose_nothing() {
    Small { after: at_most_one_polls, ..Small::default() }.has(700);
}

#[test]
fn one_of_two_takes_a_lease_that_has_run_out() {
    Small { idle: 1, before: without_a_lease, after: at_most_one_polls, ..Small::default() }.has(400);
}

#[test]
fn a_holder_renews_its_lease_or_loses_it_to_one() {
    Small { before: without_a_lease, after: at_most_one_polls, ..Small::default() }.has(450);
}

#[test]
fn a_holder_may_die_at_any_access() {
    Small {
        preemptions: 1,
        mortal: Some(0),
        before: |crew| {
            acquainted(crew);
            crew.world.advance(ms(1200));
        },
        after: |crew| {
            come_back(crew);
            // The request in the race, and the one before it.
            all_is_well(crew, 2);
        },
        ..Small::default()
    }
    .has(400);
}

#[test]
fn a_configuration_is_replaced_while_the_other_publishes() {
    Small {
        before: |crew| {
            acquainted(crew);
            crew.on(0, |member| member.begin());
            crew.world.advance(ms(300));
        },
        parts: vec![
            part(|member| {
                member.load(&everything(2));
                member.tick();
            }),
            part(|member| {
                member.tick();
                member.look();
            }),
        ],
        ..Small::default()
    }
    .has(600);
}

#[test]
fn the_last_requests_of_two_end_while_the_third_reads() {
    Small {
        before: |crew| {
            acquainted(crew);
            crew.each(|member| member.begin());
            crew.world.advance(ms(300));
            crew.each(|member| member.tick());
            crew.on(2, |member| member.look());
        },
        parts: vec![
            part(|member| member.drain()),
            part(|member| member.drain()),
            part(|member| member.look()),
        ],
        ..Small::default()
    }
    .has(1500);
}

#[test]
fn a_worker_that_ends_during_the_first_tick_of_another_is_counted() {
    Small {
        preemptions: 3,
        parts: vec![
            part(|member| member.tick()),
            part(|member| {
                member.serve();
                member.drain();
            }),
        ],
        ..Small::default()
    }
    .has(100);
}

/// It has been silent for a minute and a half, and its counts are about to be retired.
#[test]
fn one_taken_for_gone_comes_back_while_it_is_retired() {
    Small {
        before: |crew| {
            acquainted(crew);
            crew.world.advance(ms(300));
            crew.each(|member| member.tick());
            for _ in 0..5 {
                crew.world.advance(ms(18_100));
                crew.on(1, |member| member.tick());
            }
            crew.on(1, |member| member.look());
            crew.world.advance(ms(6000));
        },
        parts: vec![
            part(|member| {
                member.tick();
                member.serve();
                member.world.advance(ms(300));
                member.tick();
            }),
            part(|member| {
                member.tick();
                member.look();
                member.world.advance(ms(300));
                member.tick();
                member.look();
            }),
        ],
        ..Small::default()
    }
    .has(1400);
}

/// The registry, and what is counted of its workers.
fn registered(key: &str) -> bool {
    key.ends_with("/workers") || key.contains("/counts/")
}

/// A member that has had a request and is not registered yet; the others know each other.
fn newcomer(crew: &mut Crew, newcomer: usize) {
    crew.each(move |member| {
        if member.number() != newcomer {
            member.load(&everything(1));
        }
    });
    pass(crew, 4);
    crew.on(newcomer, |member| {
        member.load(&everything(1));
        member.serve();
    });
}

/// Those that have died or fallen silent load the configuration again.
fn come_back(crew: &mut Crew) {
    crew.each(|member| {
        if member.plugin.is_none() {
            member.load(&everything(1))
        }
    });
}

/// The first member has fallen silent, and is about to be retired by those that go on.
fn silent(crew: &mut Crew, going_on: &[usize]) {
    crew.on(0, |member| member.fall_silent());
    for _ in 0..5 {
        crew.world.advance(ms(18_100));
        going_on.iter().for_each(|member| crew.on(*member, |member| member.tick()));
    }
    crew.world.advance(ms(6000));
}

/// The registry is one record: who writes it writes all. What a page has shown, it goes on showing.
fn one_enters_while_it_is_written(idle: usize, before: fn(&mut Crew)) {
    Small {
        idle,
        only: Some(registered),
        before,
        parts: vec![
            part(|member| member.tick()),
            part(|member| member.tick()),
            part(|member| {
                member.look();
                member.look();
            }),
        ],
        after: |crew| {
            come_back(crew);
            // The latest request of one that fell silent.
            all_is_well(crew, 1);
        },
        ..Small::default()
    }
    .has(100);
}

#[test]
fn one_that_enters_while_another_renews_its_entry_stays_counted() {
    one_enters_while_it_is_written(0, |crew| {
        newcomer(crew, 1);
        crew.world.advance(ms(5500));
    });
}

#[test]
fn one_that_enters_while_another_is_retired_stays_counted() {
    one_enters_while_it_is_written(1, |crew| {
        newcomer(crew, 2);
        silent(crew, &[1, 3]);
    });
}

/// A thread stands still before it writes its counts, for so long that it is retired, and another has its number by then.
/// What it writes at last is not taken for the other's.
#[test]
fn what_one_writes_late_is_not_taken_for_anothers() {
    Small {
        only: Some(|key| key.contains("/counts/")),
        before: |crew| {
            newcomer(crew, 2);
            crew.on(0, |member| (0..30).for_each(|_| member.serve()));
            crew.on(0, |member| member.tick());
            crew.world.advance(ms(300));
        },
        parts: vec![
            part(|member| member.tick()),
            part(|member| {
                for _ in 0..6 {
                    member.world.advance(ms(18_100));
                    member.tick();
                }
                member.look_anew();
            }),
            part(|member| member.tick()),
        ],
        // What it had counted since its last maintenance may be lost with it.
        after: |crew| all_is_well(crew, 40),
        ..Small::default()
    }
    .has(100);
}

#[test]
fn requests_that_end_between_two_ticks_are_given_back_everywhere() {
    Small {
        preemptions: 3,
        before: |crew| {
            acquainted(crew);
            crew.each(|member| (0..3).for_each(|_| member.begin()));
            crew.world.advance(ms(20));
            crew.each(|member| member.tick());
        },
        parts: vec![
            part(|member| {
                member.finish(Ending::status("500"));
                member.tick();
                member.finish_all();
                member.world.advance(ms(20));
                member.tick();
            }),
            part(|member| {
                member.tick();
                member.finish(Ending::good());
                member.world.advance(ms(20));
                member.tick();
                member.look();
            }),
        ],
        after: |crew| {
            pass(crew, 20);
            all_is_well(crew, 0);
        },
        ..Small::default()
    }
    .has(200);
}

/// The number of requests that the guard has judged, as each member shows it.
fn judged(crew: &Crew) -> Vec<u64> {
    crew.each(|member| {
        let today = member.status()["guard"]["today"].clone();
        today["steered"].as_u64().expect("a number") + today["held_out"].as_u64().expect("a number")
    })
}

/// The leader's lease has run out in the middle of a round; the first leader judges on, or the second takes over.
#[test]
fn a_guard_judges_no_request_twice() {
    Small {
        before: |crew| {
            crew.each(|member| member.load(&guarded()));
            pass(crew, 6);
            crew.world.advance(ms(3500));
        },
        after: |crew| {
            let mut before = 0;
            for _ in 0..2 {
                pass(crew, 8);
                for _ in 0..3 {
                    crew.world.advance(ms(1100));
                    crew.each(|member| member.tick());
                }
                let judged = judged(crew);
                assert!(judged.iter().all(|of| *of == judged[0]), "{judged:?}");
                let begun = crew.each(|member| member.sent.ended).iter().sum::<u64>();
                assert!(judged[0] <= begun, "{judged:?} of {begun}");
                assert!(before == 0 || judged[0] == before + 16, "each once: {before}, {judged:?}");
                before = judged[0];
            }
        },
        ..Small::default()
    }
    .has(600);
}

/// The keys of everything that is shared.
fn shared_keys() -> Vec<String> {
    let mut crew = Crew::new(3, 1);
    acquainted(&mut crew);
    crew.world.shared_keys()
}

fn spoiled(with: &'static [u8]) {
    let keys = shared_keys();
    assert!(keys.len() >= 10, "{keys:?}");
    let runs: usize = keys
        .into_iter()
        .map(|key| {
            let small = Small {
                preemptions: 1,
                before: acquainted,
                parts: vec![
                    part(serve_and_tick),
                    part(serve_and_tick),
                    part(move |member| member.world.set_shared(&key, with)),
                ],
                ..Small::default()
            };
            small.every_schedule()
        })
        .sum();
    println!("{runs} schedules");
    assert!(runs >= 1000, "{runs} schedules are not all");
}

#[test]
fn shared_data_that_is_emptied_in_between_is_written_again() {
    spoiled(b"");
}

#[test]
fn shared_data_that_is_replaced_by_rubbish_in_between_is_written_again() {
    spoiled(&[
        evenkeel::sharing::VERSION,
        0xff,
        0x7f,
        3,
        1,
        0,
        0,
        0,
        0xff,
        0xff,
        0xff,
        0xff,
        9,
        9,
        9,
        9,
        9,
        9,
    ]);
}
