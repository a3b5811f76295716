//! End to end: the real filter in a real Envoy, with a real Prometheus, in front of misbehaving backends.
//!
//! These tests ask whether evenkeel does the right thing, not how fast: the load is low, shares have wide margins, and
//! whatever takes time is awaited with a deadline, so that a busy machine with two cores passes too. Needs `make setup
//! build`.

mod browser;
mod malformed;
mod raw;
mod scene;
mod side_by_side;

mod cancelling;
mod conformance;
mod decision_records;
mod discovery;
mod envoy_stats;
mod failover;
mod faults;
mod fleet;
mod grpc;
mod guard;
mod last_resort;
mod localities;
mod mixed;
mod open_requests;
mod page;
mod probes;
mod prometheus;
mod protocols;
mod reentry;
mod reloading;
mod restarting;
mod retrying;
mod roads;
mod spoofing;
mod standing_aside;
mod status;
mod steering;
mod subsets;
