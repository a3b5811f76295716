//! How loaded an upstream is, as one figure, and how many replicas that asks for.
//!
//! [`pressure`] makes the figure, [`trend`] thinks it on, [`scaler`] decides. No replica is started or stopped here:
//! what comes out is a number for what does that (a HorizontalPodAutoscaler, KEDA, a script). So that it is
//! *one* number for an Envoy, the worker that holds the lease computes it and tells the others.

pub mod pressure;
pub mod scaler;
pub mod trend;

pub use pressure::{Pressure, Tally};
pub use scaler::{Replicas, Scaler};
pub use trend::Trend;
