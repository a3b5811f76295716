//! Properties that hold for any input: random inputs with a fixed seed, so that a failure is reproducible.

mod counts;
mod exchange;
mod failover;
mod fleet;
mod health;
mod memory;
mod policy;

use proptest::test_runner::{Config, RngSeed};

/// The same cases on every machine and every day.
fn seeded(cases: u32) -> Config {
    Config { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(20_27), ..Config::default() }
}
