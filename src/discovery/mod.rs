//! Discovery of endpoints and signals.
//!
//! The lease holder polls: the `poller` sends the requests of [prometheus], the worker those of [envoy_admin];
//! responses update the list of a [source]. The sources of an upstream are [merged](merge) into one list for the
//! engine.

pub mod discovered;
pub mod envoy_admin;
pub mod found;
pub(crate) mod json;
pub mod localities;
pub mod merge;
pub(crate) mod notices;
pub mod percent;
pub(crate) mod poller;
pub mod prometheus;
pub mod source;
pub(crate) mod sources;
