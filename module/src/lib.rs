//! evenkeel as a dynamic module: Envoy loads it as a shared library and calls it in its own threads.
//!
//! Engine, configuration, request handling and telemetry are the WebAssembly filter's; this crate is the carrier. It
//! implements the traits [`Host`](evenkeel::host::Host) and [`StreamHost`](evenkeel::host::StreamHost) with the C
//! interface of Envoy's dynamic modules. To follow a request, start at `events`; to follow a retry, at `lb`.
//!
//! ```text
//! Envoy ─▶ events (what Envoy calls; with `abi`, what it offers, the only unsafe code) ─▶ guard (a panic ends here)
//!       ─▶ request ─▶ plugin: one for each configuration, its workers behind locks ─▶ evenkeel::worker
//! Envoy ─▶ events::lb ─▶ lb: a cluster that asks this module for a host asks the same workers
//! Envoy ─▶ events::extension ─▶ admin: what the admin interface shows of them
//! pacer (a thread that asks for the next tick) ─▶ Envoy's main thread ─▶ plugin.tick ─▶ calls to Prometheus and admin
//! ```
//!
//! Up to `plugin::THREADS_A_WORKER` of Envoy's threads share one worker, so that what one of them learns counts for the
//! next request on any of them. With more threads there are more workers, which exchange reports as the filter's do.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable
)]

mod abi;
mod admin;
mod attached;
mod calls;
mod clock;
mod events;
mod guard;
mod host;
mod lb;
mod left;
mod pacer;
mod plugin;
mod registry;
mod request;
mod shared;
mod stats;
