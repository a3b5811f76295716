//! Chaos on a real Envoy: what evenkeel does while everything around it fails, compared with Envoy alone.
//!
//! One Envoy has two listeners over the same endpoints: one with the filter and its `override_host` cluster, the other
//! without a filter, with least request and outlier detection. Both get the same load at the same time; a fault begins,
//! lasts and ends. [`trial`] runs one, [`faults`] lists them, [`rest`] checks what must hold afterwards, [`chance`]
//! says what counts as a difference. [`soak`] keeps one Envoy in churn for an hour and looks for drift.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod chance;
mod configuration;
pub mod deed;
pub mod faults;
pub mod fuse;
pub mod lies;
pub mod report;
pub mod rest;
pub mod setting;
pub mod soak;
pub mod stepping;
pub mod trial;
pub mod world;
