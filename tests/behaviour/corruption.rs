//! Shared data may contain anything: bytes of another version, a torn write, another plugin's data. Nothing traps, and
//! requests are still steered.

use std::cell::RefCell;
use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::lease::crew;
use crate::scene::{Ending, address, ms, pass, pass_with, serve, traffic};
use crate::world::{Answer, Plugin, World};

/// The damage to a value.
#[derive(Clone, Debug)]
enum Damage {
    Replaced(Vec<u8>),
    Truncated(Index),
    Extended(Vec<u8>),
    /// Bytes overwritten after the version, so that the reader continues.
    Overwritten(Vec<(Index, u8)>),
    /// All ones in a field: not a number, far in the future, very many.
    Ones(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        vec(any::<u8>(), 0..200).prop_map(Damage::Replaced),
        any::<Index>().prop_map(Damage::Truncated),
        vec(any::<u8>(), 1..50).prop_map(Damage::Extended),
        vec((any::<Index>(), any::<u8>()), 1..20).prop_map(Damage::Overwritten),
        any::<Index>().prop_map(Damage::Ones),
    ]
}

impl Damage {
    fn of(&self, value: &[u8]) -> Vec<u8> {
        let mut damaged = value.to_vec();
        match self {
            Damage::Replaced(other) => damaged.clone_from(other),
            Damage::Truncated(at) if !value.is_empty() => damaged.truncate(at.index(value.len())),
            Damage::Extended(more) => damaged.extend(more),
            Damage::Overwritten(bytes) if value.len() > 1 => {
                bytes.iter().for_each(|(at, byte)| damaged[1 + at.index(value.len() - 1)] = *byte);
            }
            Damage::Ones(at) if value.len() > 8 => {
                let at = 1 + at.index(value.len() - 8);
                damaged[at..(at + 8).min(value.len())].fill(0xff);
            }
            _ => damaged.push(0xff),
        }
        damaged
    }
}

const ANSWER: &str = r#"{"status":"success","data":{"resultType":"vector","result":[
    {"metric":{"instance":"10.0.0.1:8080"},"value":[1,"7"]},
    {"metric":{"instance":"10.0.0.2:8080"},"value":[1,"50"]}]}}"#;

fn busy<W: World>(world: &mut W, crew: &[Plugin], steps: u64) {
    pass_with(world, crew, ms(50 * steps), |world| {
        for call in world.calls() {
            world.answer(&call, &Answer::Http(200, ANSWER.as_bytes()));
        }
    });
}

fn steered_within_the_fleet<W: World>(world: &mut W, crew: &[Plugin]) {
    assert_eq!(left_to_envoy(world, crew), 0);
}

/// The same if a guard may leave some of the requests to Envoy; returns how many.
fn left_to_envoy<W: World>(world: &mut W, crew: &[Plugin]) -> usize {
    let fleet: BTreeSet<String> = (0..4).map(address).collect();
    let mut left = 0;
    for plugin in crew {
        for _ in 0..4 {
            let to = serve(world, *plugin, |_| Ending::good());
            assert!(to.is_empty() || fleet.contains(&to), "{to:?}");
            left += usize::from(to.is_empty());
        }
    }
    left
}

/// Damages the values of `keys` repeatedly; `serve` runs before and after.
fn damage_all<W: World>(
    world: &mut W,
    crew: &[Plugin],
    keys: impl Fn(&str) -> bool,
    serve: impl Fn(&mut W, &[Plugin]),
) {
    let config =
        Config { cases: 200, failure_persistence: None, rng_seed: RngSeed::Fixed(11), ..Config::default() };
    let world = RefCell::new(world);
    let outcome = TestRunner::new(config).run(&vec((any::<Index>(), damage()), 1..8), |damages| {
        let world = &mut **world.borrow_mut();
        let keys: Vec<String> = world.shared_keys().into_iter().filter(|key| keys(key)).collect();
        for (key, damage) in &damages {
            let key = key.get(&keys);
            let damaged = damage.of(&world.shared(key));
            world.set_shared(key, &damaged);
        }
        serve(world, crew);
        busy(world, crew, 3);
        serve(world, crew);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

fn damaged_shared_data_never_traps_and_never_stops_steering(mut world: impl World) {
    let crew = crew(&mut world, 3, "");
    steered_within_the_fleet(&mut world, &crew);
    busy(&mut world, &crew, 40);
    assert!(world.shared_keys().len() >= 6, "slots, workers, lease and signals: {:?}", world.shared_keys());
    damage_all(&mut world, &crew, |_| true, steered_within_the_fleet);
}

/// The guards' counts and findings: in the worst case nothing is steered for a while.
fn damaged_guards_never_trap_and_no_request_is_failed(mut world: impl World) {
    let crew = crew(&mut world, 3, r#","guard":{"holdout_percent":20,"pause":"5s"}"#);
    left_to_envoy(&mut world, &crew);
    busy(&mut world, &crew, 60);
    let of_guards = |key: &str| key.contains("/arms/") || key.ends_with("/guards");
    let keys = world.shared_keys().iter().filter(|key| of_guards(key)).count();
    assert!(keys >= 4, "counts of three workers, and what is concluded: {:?}", world.shared_keys());
    damage_all(&mut world, &crew, of_guards, |world, crew| _ = left_to_envoy(world, crew));
    // However it was misled, it tries again after six hours at the latest.
    for _ in 0..7 {
        world.advance(std::time::Duration::from_secs(3600));
        busy(&mut world, &crew, 60);
    }
    let left: usize = (0..10).map(|_| left_to_envoy(&mut world, &crew)).sum();
    assert!(left < 60, "of 120 a fifth is to be left: {left}");
}

fn after_the_damage_everything_recovers(mut world: impl World) {
    let crew = crew(&mut world, 2, r#","guard":{"holdout_percent":10}"#);
    left_to_envoy(&mut world, &crew);
    busy(&mut world, &crew, 60);
    for key in world.shared_keys() {
        let mut value = world.shared(&key);
        value.iter_mut().skip(1).for_each(|byte| *byte = 0xff);
        world.set_shared(&key, &value);
    }
    pass(&mut world, &crew, ms(200));
    let mut asked = 0;
    pass_with(&mut world, &crew, ms(15_000), |world| {
        for call in world.calls() {
            world.answer(&call, &Answer::Http(200, ANSWER.as_bytes()));
            asked += 1;
        }
    });
    assert!(asked >= 8, "somebody asks Prometheus again: {asked}");
    let mut counts = traffic(&mut world, &crew, 30);
    let left = counts.remove("").unwrap_or(0);
    // Four standard deviations of Binomial(1200, 0.1).
    assert!(left.abs_diff(120) < 42, "the guard leaves its part, and no more: {left}");
    assert!(
        counts.len() == 4 && counts.values().all(|count| *count >= 20),
        "no endpoint stays ejected: {counts:?}"
    );
}

/// Each number of each record that the page reads says in turn that there is as much as can be.
fn what_a_record_announces_takes_no_memory<W: World>(mut world: W) {
    let json = crate::scene::config(3, "", crate::following::STATUS);
    let crew: Vec<Plugin> = (0..2)
        .map(|_| {
            let thread = world.thread();
            crate::scene::load(&mut world, thread, &json)
        })
        .collect();
    traffic(&mut world, &crew, 1);
    let read = |key: &String| ["/counts/", "/estate", "/workers"].iter().any(|part| key.contains(part));
    let keys: Vec<String> = world.shared_keys().into_iter().filter(read).collect();
    assert!(keys.len() >= 4, "{keys:?}");
    for key in keys {
        let value = world.shared(&key);
        // All fields have a multiple of four bytes, after the version.
        for at in (1..value.len().saturating_sub(4)).step_by(4) {
            let mut damaged = value.clone();
            damaged[at..at + 4].fill(0xff);
            world.set_shared(&key, &damaged);
            let shown = crate::following::page(&mut world, crew[0]);
            assert_eq!(shown["upstreams"][0]["endpoint_count"], 3, "{key} at {at}");
        }
        world.set_shared(&key, &value);
    }
}

both!(
    what_a_record_announces_takes_no_memory,
    damaged_shared_data_never_traps_and_never_stops_steering,
    damaged_guards_never_trap_and_no_request_is_failed,
    after_the_damage_everything_recovers,
);
