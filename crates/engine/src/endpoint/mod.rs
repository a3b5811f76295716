//! The endpoints of a cluster: which there are, and what is known of each.
//!
//! [`EndpointSet`] gives every endpoint an index that remains valid while others come and go. [`EndpointState`] holds
//! this worker's measurements and [`PeerTable`] the peers' reports, by the same index; [`EndpointView`] reads both as
//! one.

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
pub use state::{Constraints, Counters, EndpointState, Exploration, Hints, LastTurn, Tally};
pub use view::{EndpointView, NOISE_S};

pub use announced_health::AnnouncedHealth;
