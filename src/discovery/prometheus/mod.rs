//! Prometheus' HTTP API without the HTTP: the request of a query, the samples in a response, and the endpoint of each.
//!
//! [`request`] makes an instant query, [`parse`] reads the response, and an [`EndpointIndex`] assigns each sample to
//! its endpoints. Whatever a server sends ends in samples or in [`Unusable`].

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
