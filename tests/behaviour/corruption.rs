//! Shared data may hold anything: another version's bytes, a torn write, another plugin's. Nothing traps, and
//! requests go on being steered.

use std::cell::RefCell;
use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::lease::crew;
use crate::scene::{Ending, address, ms, pass, pass_with, serve, traffic};
use crate::world::{Answer, Plugin, World};

/// What happens to a value.
#[derive(Clone, Debug)]
enum Damage {
    Replaced(Vec<u8>),
    Truncated(Index),
    Extended(Vec<u8>),
    /// Bytes overwritten behind the version, so that the reader goes on.
    Overwritten(Vec<(Index, u8)>),
    /// A field's worth of ones: not a number, far in the future, very many.
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
    let fleet: BTreeSet<String> = (0..4).map(address).collect();
    for plugin in crew {
        for _ in 0..4 {
            let to = serve(world, *plugin, |_| Ending::good());
            assert!(fleet.contains(&to), "{to:?}");
        }
    }
}

fn damaged_shared_data_never_traps_and_never_stops_steering(mut world: impl World) {
    let crew = crew(&mut world, 3, "");
    steered_within_the_fleet(&mut world, &crew);
    busy(&mut world, &crew, 40);
    assert!(world.shared_keys().len() >= 6, "slots, workers, lease and signals: {:?}", world.shared_keys());
    let config =
        Config { cases: 200, failure_persistence: None, rng_seed: RngSeed::Fixed(11), ..Config::default() };
    let world = RefCell::new(&mut world);
    let outcome = TestRunner::new(config).run(&vec((any::<Index>(), damage()), 1..8), |damages| {
        let world = &mut **world.borrow_mut();
        let keys = world.shared_keys();
        for (key, damage) in &damages {
            let key = key.get(&keys);
            let damaged = damage.of(&world.shared(key));
            world.set_shared(key, &damaged);
        }
        steered_within_the_fleet(world, &crew);
        busy(world, &crew, 3);
        steered_within_the_fleet(world, &crew);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

fn after_the_damage_everything_recovers(mut world: impl World) {
    let crew = crew(&mut world, 2, "");
    steered_within_the_fleet(&mut world, &crew);
    busy(&mut world, &crew, 40);
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
    let counts = traffic(&mut world, &crew, 30);
    assert!(
        counts.len() == 4 && counts.values().all(|count| *count >= 20),
        "no endpoint stays ejected: {counts:?}"
    );
}

both!(damaged_shared_data_never_traps_and_never_stops_steering, after_the_damage_everything_recovers);
