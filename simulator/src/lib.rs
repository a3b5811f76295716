//! A discrete-event simulator for load balancing: the engine that runs in Envoy, its peers and an oracle on the same
//! seeded traffic.
//!
//! ```text
//! catalogue ─▶ Scenario ─────┐
//!                            ├─▶ world::run ─▶ Run ─▶ suite (medians over seeds) ─▶ table, verdict, json, plot
//! contender ─▶ LoadBalancer ─┘
//! ```
//!
//! Arrivals and the work in each request are drawn before any decision, so contenders with the same seed face exactly
//! the same traffic and the same faults; only their choices differ.

pub mod ablation;
pub mod balancer;
pub mod catalogue;
pub mod cli;
pub mod contender;
pub mod distribution;
pub mod document;
pub mod drawn;
pub mod exchange;
pub mod json;
pub mod ours;
pub mod peers;
pub mod plot;
pub mod run;
pub mod scenario;
pub mod server;
pub mod suite;
pub mod table;
pub mod verdict;
pub mod world;
