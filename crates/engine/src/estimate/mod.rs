//! Estimators of latency, errors, load and signals. Time is a parameter; none reads a clock.

pub mod background;
pub mod errors;
pub mod held;
pub mod in_flight;
pub mod latency;
pub mod learnt_weight;
pub mod noise;
pub mod peak_ewma;
pub mod queueing;
pub mod signal;
pub mod standing;
pub mod survival;
pub mod unanswered;

pub use crate::estimate::learnt_weight::LearntWeight;
pub use crate::estimate::unanswered::Unanswered;
pub use background::BaselineErrors;
pub use errors::{ErrorRatio, Failing};
pub use held::{Epochs, Held};
pub use in_flight::{InFlight, InFlightReport};
pub use latency::{Blend, Latency, freshness};
pub use noise::{Noise, Rows};
pub use peak_ewma::PeakEwma;
pub use queueing::{Queueing, Slots};
pub use signal::Reading;
pub use standing::{LAGS, Standing, Usual, news_a_window};
pub use survival::Survival;
