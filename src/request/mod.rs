//! One request on its way through the filter.
//!
//! A [stream](Stream) decides at the request headers and follows the request to its end. An attempt is what the engine is owed for
//! one endpoint; the [upstream attempt](UpstreamAttempt) is the same seen from Envoy's upstream filters, and
//! `correlation` brings the two together. `classify` turns headers, resets and details into outcomes.

pub(crate) mod affinity;
pub(crate) mod attempt;
pub(crate) mod classify;
pub(crate) mod correlation;
pub(crate) mod decision_log;
pub(crate) mod grpc_web;
pub(crate) mod guarded;
pub(crate) mod load_report;
pub(crate) mod route;
pub(crate) mod said;
pub(crate) mod steering;
pub(crate) mod stream;
pub(crate) mod upstream_attempt;

pub use affinity::{Issued, key as affinity_key};
pub use load_report::read as read_load_report;
pub use stream::Flow;
pub use stream::Stream;
pub use upstream_attempt::UpstreamAttempt;
