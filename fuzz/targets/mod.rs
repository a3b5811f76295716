//! What is fed with hostile bytes, one file a target. Each is a plain function that panics where a promise is broken: libFuzzer
//! calls it in `fuzz/src/main.rs`, and `tests/fuzzing` with the kept corpora and what mutation makes of them.

mod admin;
mod affinity;
mod configuration;
mod input;
mod load_reports;
mod prometheus;
mod requests;
mod shared;
mod status;
mod zones;

/// Its name, and what is done with the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("admin", admin::run),
    ("affinity", affinity::run),
    ("configuration", configuration::run),
    ("load_reports", load_reports::run),
    ("prometheus", prometheus::run),
    ("requests", requests::run),
    ("shared", shared::run),
    ("status", status::run),
    ("zones", zones::run),
];
