//! evenkeel: adaptive load balancing for Envoy, as one WebAssembly filter. This crate is the filter, everything that talks
//! to a proxy; decisions are made in [`engine`], the configuration is read in [`config`].
//!
//! # A request
//!
//! `filter` hands Envoy's callbacks to [`request::Stream`]: at the request headers it asks the balancer for endpoints and
//! names them in the steering header; at the response, a reset or the end it reports the outcome. Nothing on that way calls
//! shared data, reads JSON or formats an address.
//!
//! # A tick
//!
//! [`worker::Worker::tick`]: publish this worker's report and merge its peers' ([`sharing`]), take or keep the lease, and as
//! its holder poll Prometheus and Envoy ([`discovery`]); then let the engine draw its conclusions.
//!
//! # What can be seen
//!
//! [`telemetry`]: the status page with its JSON and metrics, Envoy's own stats, the log of decisions.
//!
//! All of it runs over the traits of [`host`], so that tests need no Envoy: `tests/behaviour` runs one suite against this
//! crate and against the real `.wasm`.

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

pub mod discovery;
#[cfg(target_os = "wasi")]
mod filter;
pub mod host;
pub mod request;
pub mod sharing;
pub mod telemetry;
#[cfg(test)]
mod tests;
pub mod worker;
