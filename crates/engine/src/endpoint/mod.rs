//! The endpoints of a cluster: which there are, and what is known of each.
//!
//! A [set](EndpointSet) gives every endpoint an index that stays valid while others come and go. Beside it, by the same index, stand
//! what this worker has measured ([state](EndpointState)) and what the other workers report ([peers](PeerTable)); a [view](EndpointView) reads both as one.

mod absence;
mod announced_health;
mod attributes;
mod peers;
mod set;
mod state;
mod string_arena;
mod view;

pub use absence::{Absence, Absences, Standing};
pub use peers::{GONE_AFTER_S, PeerReport, PeerState, PeerTable};
pub use set::{Changes, Endpoint, EndpointRef, EndpointSet, Spec};
pub use state::{Constraints, Counters, EndpointState, Exploration, LastTurn, Tally, Word};
pub use view::{EndpointView, NOISE_S};

pub use announced_health::AnnouncedHealth;
