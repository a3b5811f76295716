//! What operators see: the status page, its JSON and metrics, Envoy's own stats, and a log of decisions.

pub(crate) mod decision_log;
pub(crate) mod envoy_stats;
pub mod status;
pub(crate) mod trace_context;
