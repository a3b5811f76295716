//! The engine of evenkeel: events in, decisions out. It parses no JSON, reads no shared data and talks to no proxy.
//! Time and randomness are parameters, so every decision can be replayed.
//!
//! # A request
//!
//! [`Balancer::pick`] decides: the [cluster](Cluster) draws a version, priority and zone, and the [policy] chooses
//! among their eligible endpoints. [`Balancer::started`] returns a handle. The caller passes it back with [the
//! answer](Balancer::record_response), its [outcome](Balancer::record_outcome) if that shows later, and [the
//! end](Balancer::finished) of the request. Each [`Outcome`] updates the [estimates](estimate) and the [health] of its
//! endpoint.
//!
//! # A tick
//!
//! [`Balancer::tick`] runs every few milliseconds in every worker. It updates the baselines, ejects endpoints, divides
//! requests over versions, priorities and zones, and schedules probes. Before a tick the worker publishes what it has
//! measured and merges the [peers' reports](endpoint), so that all workers come to the same state.
//!
//! # Where things are
//!
//! | to change | look in |
//! |---|---|
//! | how an endpoint is chosen | [`policy`], one file a policy |
//! | what is measured, and how it is smoothed | [`estimate`] |
//! | ejection, probes, recovery of one endpoint | [`health`] |
//! | limits, panic, priorities, zones, versions of a cluster | `cluster/` |
//! | which endpoints there are, what peers report | [`endpoint`] |
//! | pressure and desired replicas | [`autoscale`] |
//! | whether steering beats Envoy's own policy | [`guard`] |
//! | what can be set | [`settings`] |

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::unreachable
    )
)]

pub mod ablation;
pub mod autoscale;
mod balancer;
mod cluster;
mod decision;
pub mod endpoint;
pub mod estimate;
pub mod guard;
pub mod health;
pub mod order;
mod outcome;
pub mod pattern;
pub mod policy;
pub mod rng;
pub mod settings;
pub mod time;

pub use balancer::Balancer;
pub use decision::{Decision, Reason, RequestHandle};

pub use cluster::decision_times::{BOUNDS_NS, DecisionTimes};
pub use cluster::totals::Totals;
pub use cluster::{Change, Cluster, Explained, HeaderHints, ProbeShard, RECENT_S, SubsetLoad};
pub use outcome::{Failure, Outcome, Quickness, RetryHint, Unsettled};
