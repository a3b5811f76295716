//! Envoy's own view of a cluster, as its admin interface tells it under `/clusters`.
//!
//! The answer has all of Envoy's counters for every host, about a kilobyte each; they are passed over as they are
//! read, and what is kept is who the hosts are and how they stand.

mod answer;
mod path;

#[cfg(all(test, not(target_family = "wasm")))]
mod properties;

pub use answer::{Unusable, parse};
pub use path::request_path;
