//! The fuzz targets, one per file: each is a plain function that panics where a promise is broken. libFuzzer calls it
//! in `fuzz/src/main.rs`, and `tests/fuzzing` calls it with the kept corpora and mutations of them.

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

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
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
