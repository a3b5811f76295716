//! The guard: tests whether steering does good, by holding out a part of the requests for Envoy's own policy.
//!
//! Each request is drawn into one of two [arms](Arm) before anything else is decided, and counts there regardless of
//! what becomes of it. If the arm made no difference, the arms of any set of requests chosen by their outcomes would be
//! tosses of one coin, however latencies depend on each other and on the time of day. The [evidence] bets against that
//! coin. A bet against a fair coin may be evaluated at any time: P(capital ever ≥ 1/α) ≤ α (J. Ville, "Étude critique
//! de la notion de collectif", 1939). The [intervals](estimates) displayed beside it may be evaluated at any time as
//! well.
//!
//! | file | contents |
//! |---|---|
//! | [`histogram`] | latencies in buckets a few percent wide |
//! | [`arms`] | the two arms, and how a request is drawn |
//! | [`capital`] | capital of bets on several sizes of a difference |
//! | [`evidence`] | sequential test of one figure: failures, or a quantile |
//! | [`interval`] | confidence bounds that hold at all times |
//! | [`estimates`] | today's figures with their bounds |
//! | [`state`] | the guard of one cluster: judge, step aside, try again |

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
