//! The guard: whether steering does good, by a part of the requests that is left to Envoy's own policy.
//!
//! Each request is drawn into one of two [arms](Arm) before anything else is decided, and counts there whatever becomes of
//! it. If the arm made no difference, the arms of any set of requests that is chosen by their outcomes would be tosses of
//! one and the same coin, however latencies depend on each other and on the hour. The [evidence] bets against that coin, and
//! what a fair coin makes of a bet may be looked at at any time: P(capital ever ≥ 1/α) ≤ α (J. Ville, "Étude critique de la
//! notion de collectif", 1939). What is shown beside it are [intervals](estimates) that may be looked at at any time, too.
//!
//! | file | |
//! |---|---|
//! | [`histogram`] | latencies in buckets a few percent wide |
//! | [`arms`] | the two arms, and how a request is drawn |
//! | [`capital`] | what bets on several sizes of a difference have come to |
//! | [`evidence`] | one figure (failures, a quantile): better or worse beyond doubt |
//! | [`interval`] | bounds of a probability that hold at all times |
//! | [`estimates`] | today's figures with their bounds |
//! | [`state`] | all of it for one cluster: judge, step aside, try again |

pub mod arms;
pub mod capital;
pub mod estimates;
pub mod evidence;
pub mod histogram;
pub mod interval;
pub mod state;
#[cfg(all(test, not(target_family = "wasm")))]
mod trials;

pub use arms::{Arm, Arms, Drawn, Tally};
pub use estimates::{Change, Estimates, FailureEstimate, QuantileEstimate};
pub use state::{Event, Finding, Guard};
