//! The behaviour of the filter, written once and checked twice: on the library's worker with a host in plain Rust, and
//! on the real `.wasm` in the test host.
//!
//! A scenario is a function over any [`world::World`]; `both!` makes two tests of it.

use world::World;

/// Makes a native and a wasm test of each scenario.
macro_rules! both {
    ($($scenario:ident),+ $(,)?) => {
        mod native {
            $(#[test] fn $scenario() { super::$scenario(<crate::native::Native as crate::World>::new(1)); })+
        }
        mod wasm {
            $(#[test] fn $scenario() { super::$scenario(<crate::wasm::Wasm as crate::World>::new(1)); })+
        }
    };
}

mod native;
mod open_requests;
mod scene;
mod wasm;
mod world;

mod adapter;
mod admin_polls;
mod affinity;
mod aside;
mod asking;
mod attempts;
mod bypassed;
mod clock;
mod clusters;
mod configuration;
mod corruption;
mod cost;
mod decision_records;
mod discovery;
mod envoy_stats;
mod failures;
mod fleet_latency;
mod following;
mod guard;
mod guard_counts;
mod header_hints;
mod hostile_headers;
mod in_flight;
mod interleaved;
mod lease;
mod limits;
mod load_reports;
mod outcomes;
mod overload;
mod partial;
mod phases;
mod polling;
mod probes;
mod protocols;
mod scaling;
mod signals;
mod slowness;
mod status;
mod steering;
mod succession;
mod tiers;
mod workers;
