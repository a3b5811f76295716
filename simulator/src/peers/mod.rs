//! Balancers for comparison, each rewritten from its published description.

pub mod c3;
pub mod envoy;
pub mod hosts;
pub mod oracle;
pub mod orca;
pub mod outlier;
pub mod peak_ewma;
pub mod prequal;
