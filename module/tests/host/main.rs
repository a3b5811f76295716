//! The module in a host of its own, in this process: what Envoy calls, in its order and in orders that it allows, and what the module
//! asks of Envoy. In a real Envoy are the trials in `tests/envoy`.

#![allow(clippy::disallowed_methods, reason = "the module's clock is the real one; each wait has a deadline")]

use std::process::Command;

// Its functions are bound by the linker.
use evenkeel_module as _;

mod abi;
mod admin;
mod attempts;
mod balancer;
mod calls;
mod configurations;
mod envoy;
mod figures;
#[path = "../../src/pacer.rs"]
mod pacer;
mod parts;
mod requests;
mod scene;
#[path = "../../src/shared.rs"]
mod shared;
mod stream;

/// All of it once more in the place of Envoy 1.38, whose interface has less.
#[test]
fn an_older_envoy_gets_the_same() {
    if envoy::is_older() {
        assert_eq!(envoy::load(), "v0.1.0");
        return;
    }
    assert_eq!(envoy::load(), "v0.2.0");
    let own = std::env::current_exe().expect("a path");
    let run = Command::new(own).env(envoy::OLDER, "1").output().expect("it runs");
    assert!(
        run.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr)
    );
}

/// A panic that reached Envoy would end it, so each event that does anything ends its own: also one that has parts that cannot be
/// made to panic from here.
#[test]
fn every_event_is_guarded() {
    let events = [
        include_str!("../../src/events/extension.rs"),
        include_str!("../../src/events/lb.rs"),
        include_str!("../../src/events/mod.rs"),
    ];
    let bodies = events
        .iter()
        .flat_map(|events| events.split("\nextern \"C\" fn ").chain(events.split("        extern \"C\" fn ")))
        .filter(|text| text.starts_with("envoy_dynamic_module_on_") || text.starts_with("$name"));
    let mut seen = 0;
    for body in bodies {
        let name = body.split('(').next().unwrap_or_default();
        let body = body.split("\n}\n").next().unwrap_or_default();
        // Two run no code of the module's.
        let empty = ["bootstrap_extension_new", "bootstrap_extension_shutdown"];
        assert!(
            body.contains("guarded(") || empty.iter().any(|event| name.ends_with(event)),
            "{name} ends no panic"
        );
        seen += 1;
    }
    assert!(seen >= 15, "{seen}");
}
