//! Observability: the status page with its JSON and metrics, Envoy's own stats, and trace contexts in the log.

pub(crate) mod envoy_stats;
pub mod status;
pub(crate) mod trace_context;

pub use envoy_stats::{Template, parts_of, templates};
