//! What operators see: the status page, its JSON and metrics, Envoy's own stats, trace contexts.

pub(crate) mod envoy_stats;
pub mod status;
pub(crate) mod trace_context;

pub use envoy_stats::{Template, parts_of, templates};
