//! What evenkeel is compared with, each re-written from its published description.

pub mod envoy;
pub mod oracle;
pub mod outlier;
