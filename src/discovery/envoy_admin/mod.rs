//! Envoy's own view of clusters, as its admin interface tells it under `/clusters` and `/config_dump`.
//!
//! The answers have all of Envoy's counters for every host, about a kilobyte each; they are passed over as they are
//! read, and what is kept is who the hosts are, how they stand, and how much their localities are to get.

mod answer;
mod localities;
mod path;
mod scanner;

#[cfg(all(test, not(target_family = "wasm")))]
mod properties;

pub use answer::{Listing, Members, Unusable, parse};
pub use localities::parse as parse_localities;
pub use path::{localities_path, members_path};
