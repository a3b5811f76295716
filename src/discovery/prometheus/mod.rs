//! Prometheus' HTTP interface, without the HTTP: a question's path, an answer's samples, and which endpoint each belongs to.
//!
//! [`request_path`] makes the path of an instant query, [`parse`] reads what comes back, and an [`EndpointIndex`]
//! tells which endpoint each sample speaks of. Whatever a server answers ends in samples or in [`Unusable`].

mod address;
mod answer;
mod discovery;
mod fleet;
mod mapping;
mod query;

#[cfg(all(test, not(target_family = "wasm")))]
mod properties;

pub use address::serving_address;
pub use answer::{Answer, MAX_BYTES, Sample, Unusable, parse, parse_with};
pub use discovery::endpoints;
pub use fleet::fleet_query;
pub use mapping::{Assignment, EndpointIndex};
pub use query::{Request, request, request_path};
