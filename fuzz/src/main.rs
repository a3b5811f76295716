//! libFuzzer for one target, which `FUZZ_TARGET` names: `scripts/fuzz` runs it.
#![no_main]

use std::sync::OnceLock;

#[path = "../targets/mod.rs"]
mod targets;

// The target `requests` uses the same world as the behaviour tests.
#[allow(dead_code)]
#[path = "../../tests/behaviour/native/mod.rs"]
mod native;
#[allow(dead_code)]
#[path = "../../tests/behaviour/world.rs"]
mod world;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

fn chosen() -> fn(&[u8]) {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    let found = targets::TARGETS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("no target {name}")).1
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    TARGET.get_or_init(chosen)(data);
});
