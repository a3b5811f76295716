//! Envoy's own view of its clusters, from `/clusters`, `/config_dump` and `/stats` of its admin interface.
//!
//! A response has all of Envoy's counters for every host, about a kilobyte each. They are skipped while reading; hosts,
//! their health and locality weights are kept.

mod answer;
mod localities;
mod path;
mod policies;
mod scanner;

#[cfg(all(test, not(target_family = "wasm")))]
mod properties;

pub use answer::{ClusterHosts, Listing, Unusable, parse};
pub use localities::parse as parse_localities;
pub use path::{clusters_path, localities_path, policies_path};
pub use policies::Policies;
