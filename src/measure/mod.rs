//! What is known of each endpoint: estimators that take every time as a parameter and never read a clock.

pub mod background;
pub mod errors;
pub mod in_flight;
pub mod latency;
pub mod learnt;
pub mod owed;
pub mod peak_ewma;
pub mod queueing;
pub mod signal;

pub use background::Background;
pub use errors::{ErrorRatio, Failing};
pub use in_flight::{InFlight, InFlightReport};
pub use latency::{Blend, Latency};
pub use learnt::LearntWeight;
pub use owed::Owed;
pub use peak_ewma::PeakEwma;
pub use queueing::{Queueing, Slots};
pub use signal::Reading;
