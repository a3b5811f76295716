//! Adaptive load balancing for Envoy, as one WebAssembly filter.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::unreachable
    )
)]

pub mod admin;
pub mod autoscale;
pub mod config;
pub mod engine;
pub mod event;
pub mod exchange;
#[cfg(target_os = "wasi")]
mod filter;
pub mod fleet;
pub mod health;
pub mod host;
mod json;
pub mod known;
pub mod measure;
pub mod member;
pub mod others;
mod pattern;
mod percent;
pub mod policy;
mod printable;
pub mod prometheus;
pub mod random;
pub mod status;
pub mod terms;
pub mod time;
pub mod worker;
