//! Estimators of latency, errors, load and signals, updated by single events. Time is a parameter; none reads a clock.
//!
//! | file | what it estimates |
//! |---|---|
//! | [`latency`], [`peak_ewma`] | the latency of an endpoint |
//! | [`errors`], [`background`] | the failure ratio of an endpoint, and of the others |
//! | [`in_flight`], [`unanswered`], [`held`] | requests in flight to an endpoint, and how long it has been silent |
//! | [`queueing`] | how much requests in flight delay the next one |
//! | [`noise`], [`survival`] | how much answers vary by nature, to tell a difference or a silence from chance |
//! | [`signal`], [`standing`], [`learnt_weight`] | the values of signals, and how much they are worth |

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
