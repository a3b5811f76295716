//! Three or four workers, and everything that can happen to them, in random schedules.

use engine::rng::Rng;

use super::crew::{Crew, Member};
use super::turns::Plan;
use super::{ANSWER, all_is_well, everything, pass};
use crate::native::Native;
use crate::scene::{Ending, ms};
use crate::wasm::Wasm;
use crate::world::{Answer, World};

/// What goes wrong in a world.
#[derive(Clone, Copy)]
enum Faults {
    /// Endpoints and sources of signals fail; every request has to be counted.
    Outside,
    /// Workers die as well, shared data is spoiled, and clocks differ and step.
    All,
}

/// How a request ends.
fn ending(rng: &mut Rng) -> Ending {
    match rng.below(8) {
        0 => Ending::status("500"),
        1 => Ending::local("504", "response_timeout"),
        _ => Ending::good(),
    }
}

/// One of the things that can happen to a worker.
fn happens<W: World>(member: &mut Member<W>, rng: &mut Rng, faults: Faults) {
    if member.plugin.is_none() {
        return member.load(&everything(1));
    }
    match rng.below(40) {
        0..10 => member.tick(),
        10..18 => member.begin(),
        18..26 => member.finish(ending(rng)),
        26..30 => member.world.advance(ms(rng.below(300).into())),
        30 => member.load(&everything(1 + rng.below(2) as usize)),
        31 => member.drain(),
        32..35 => {
            let answers = [
                Answer::Http(200, ANSWER),
                Answer::Http(503, b"no"),
                Answer::Http(200, b"{"),
                Answer::Failed,
            ];
            member.answer(&answers[rng.below(4) as usize]);
        }
        35..37 => {
            let status = member.status();
            assert!(status["eligible"].as_u64() >= Some(2), "at most one of three is ejected: {status}");
        }
        what => {
            let Faults::All = faults else { return };
            let keys = member.world.shared_keys();
            match what {
                37 => {
                    member.world.skew(member.thread, i64::from(rng.below(4000)) * 1_000_000 - 2_000_000_000)
                }
                38 if !keys.is_empty() => {
                    let key = &keys[rng.below(keys.len() as u32) as usize];
                    let rubbish: Vec<u8> = (0..rng.below(40)).map(|_| rng.next_u64() as u8).collect();
                    member.world.set_shared(key, &rubbish);
                }
                39 if rng.below(4) == 0 => {
                    let now = member.world.now();
                    member.world.set_now(now - u64::from(rng.below(5000)) * 1_000_000);
                }
                _ => member.world.advance(ms(rng.below(8).into()) * 1000),
            }
        }
    }
}

/// The world of this seed: some rounds in which everything happens, then none, and all is well.
fn live<W: World + 'static>(seed: u64, faults: Faults) {
    let mut rng = Rng::new(seed);
    let mut crew = Crew::<W>::new(3 + rng.below(2) as usize, seed);
    crew.each(|member| member.load(&everything(1)));
    let deaths = if matches!(faults, Faults::All) { 0.002 } else { 0.0 };
    let mut plan = Plan::Drawn(Rng::new(rng.next_u64()), deaths);
    for _ in 0..4 {
        let parts = (0..crew.len()).map(|_| {
            let mut rng = Rng::new(rng.next_u64());
            Box::new(move |member: &mut Member<W>| (0..40).for_each(|_| happens(member, &mut rng, faults)))
                as Box<_>
        });
        plan = crew.race(plan, parts.collect());
    }
    crew.each(|member| {
        member.world.skew(member.thread, 0);
        if member.plugin.is_none() {
            member.load(&everything(1));
        }
        member.finish_all();
    });
    pass(&mut crew, 80);
    all_is_well(&mut crew, if matches!(faults, Faults::All) { u64::MAX } else { 0 });
}

/// Runs these worlds; a failure names the seed with which it can be repeated.
fn worlds<W: World + 'static>(seeds: std::ops::Range<u64>, faults: Faults) {
    for seed in seeds {
        println!("seed {seed}");
        live::<W>(seed, faults);
    }
}

#[test]
fn whatever_fails_outside_nothing_is_lost_and_all_recovers() {
    worlds::<Native>(0..60, Faults::Outside);
}

#[test]
fn whatever_happens_to_workers_all_recovers() {
    worlds::<Native>(0..60, Faults::All);
}

#[test]
fn whatever_happens_to_vms_all_recovers() {
    worlds::<Wasm>(0..3, Faults::Outside);
    worlds::<Wasm>(0..3, Faults::All);
}

#[test]
#[ignore = "minutes; part of make trials"]
fn many_worlds() {
    worlds::<Native>(1000..6000, Faults::Outside);
    worlds::<Native>(1000..6000, Faults::All);
    worlds::<Wasm>(1000..1100, Faults::All);
}
