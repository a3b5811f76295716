//! Real components on 127.0.0.1 for the demo, the benchmarks and the end-to-end tests.
//!
//! - [`backend`]: HTTP servers with slots, log-normal work and faults that can be switched while they run.
//! - [`load`]: an open-loop load generator that measures from the *intended* start of each request.
//! - [`mixture`]: requests of every kind at once, each with the end that it must have.
//! - [`envoy`], [`prometheus`]: the real binaries: configured, started, watched and ended.
//! - [`liar`], [`lies`], [`relay`]: false answers of Prometheus and the admin interface, and connections that are cut or
//!   falsified.
//! - [`process`], [`ports`], [`tools`]: child processes that end with this one, free ports, the paths of binaries.
//! - [`table`], [`chart`], [`screen`]: output of results.

#![deny(unsafe_code)]
#![warn(missing_docs)]

mod accepting;
pub mod backend;
pub mod chart;
pub mod clock;
pub mod envoy;
pub mod http;
pub mod http2;
pub mod liar;
pub mod lies;
pub mod load;
pub mod mixture;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod relay;
pub mod screen;
pub mod table;
pub mod tools;
pub mod wait;

pub use anyhow;
pub use console;
pub use serde_json;
pub use tempfile;
pub use tokio;
