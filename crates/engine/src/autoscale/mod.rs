//! Pressure: how loaded a cluster is, as one number, and the replicas that follow from it.
//!
//! [`pressure`] computes the number, [`trend`] extrapolates it, [`scaler`] decides. No replica is started or stopped
//! here: the result is a number for a HorizontalPodAutoscaler, KEDA or a script. So that an Envoy reports *one* number,
//! the worker that holds the lease computes it and shares it with the others.

pub mod pressure;
pub mod scaler;
pub mod trend;

pub use pressure::{Pressure, Tally};
pub use scaler::{Division, Replicas, Scaler};
pub use trend::Trend;
