//! Where endpoints and signals come from.
//!
//! The lease holder asks: the `poller` sends the calls of [prometheus] and [envoy_admin] and reads the answers, which become
//! a [source]'s list. What the sources of an upstream say together is [merged](merge) into one list for the engine.

pub mod discovered;
pub mod envoy_admin;
pub mod found;
pub(crate) mod json;
pub mod localities;
pub mod merge;
pub(crate) mod notices;
pub(crate) mod percent;
pub(crate) mod poller;
pub mod prometheus;
pub mod source;
pub(crate) mod sources;
