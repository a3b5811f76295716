//! evenkeel: adaptive load balancing for Envoy, as one WebAssembly filter. This crate is the filter, everything that
//! talks to a proxy; [`engine`] makes the decisions, [`config`] reads the configuration. The native module (`module/`)
//! is the same crate behind another ABI.
//!
//! # A request
//!
//! `filter` passes Envoy's callbacks to [`request::Stream`]: at the request headers it asks the balancer for endpoints
//! and names them in the steering header; at the response, a reset or the end it reports the outcome. Nothing on the
//! request path calls shared data, parses JSON or formats an address.
//!
//! # A tick
//!
//! [`worker::Worker::tick`]: publish this worker's report and merge its peers' ([`sharing`]), take or keep the lease,
//! and as its holder poll Prometheus and Envoy ([`discovery`]); then let the engine assess its endpoints.
//!
//! # Where things are
//!
//! | to change | look in |
//! |---|---|
//! | what is read of a request or response, which outcome that is | [`request`]: `classify`, `header_hints`, `load_report`, `affinity` |
//! | how Envoy is told the endpoint | `request/steering.rs` |
//! | a source of endpoints, a signal's query | [`discovery`]: [`source`](discovery::source), one folder a source |
//! | what workers share | [`sharing`]: one file a record; `golden.rs` fails if the bytes change |
//! | a metric, the page, its JSON | [`telemetry::status`]: `report/` has the values, `metrics/` and `page.html` show them |
//! | a metric among Envoy's own | `telemetry/envoy_stats.rs` |
//! | when a worker ticks, polls, rests | [`worker`]: `tick_period`, `idle` |
//! | a line of the log | an [`Event`](host::event::Event) where it happens; why a request went where it did: `request/decision_log.rs` |
//!
//! Everything runs over the traits of [`host`], so tests need no Envoy: `tests/behaviour` runs one suite against this
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
