//! One request on its way through the filter.
//!
//! A [`Stream`] decides at the request headers and follows the request to its end. An `attempt` holds the engine's
//! handle for one endpoint; an [`UpstreamAttempt`] is the same seen from Envoy's upstream filters, and `correlation`
//! connects it to its request. `classify` turns headers, resets and response code details into outcomes. Start with
//! `stream`.

pub(crate) mod affinity;
pub mod again;
pub(crate) mod attempt;
pub(crate) mod classify;
pub(crate) mod correlation;
pub(crate) mod decision_log;
pub(crate) mod grpc_web;
pub(crate) mod guarded;
pub(crate) mod header_hints;
pub(crate) mod load_report;
pub(crate) mod route;
pub(crate) mod steering;
pub(crate) mod stream;
pub(crate) mod upstream_attempt;

pub use affinity::{Issued, KeySource, key as affinity_key};
pub use load_report::read as read_load_report;
pub use steering::{MARK, strip};
pub use stream::{Flow, Stream};
pub use upstream_attempt::UpstreamAttempt;
