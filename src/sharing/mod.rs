//! What the workers of one Envoy report to each other through proxy-wasm's shared data.
//!
//! | key | written by | holds |
//! |---|---|---|
//! | `…/workers` | every worker, compare-and-swap | which workers publish, on which slot id, and when it was last seen to |
//! | `…/slot/N` | that worker only | its view of every endpoint ([`worker_report`]), which its [`peers`] merge |
//! | `…/counts/N` | that worker only | what it has counted, ever ([`counts`]) |
//! | `…/estate` | compare-and-swap | what workers that ended have counted ([`retired_counters`]) |
//! | `…/news` | every worker | nothing: its version says whether any has told something ([`news`]) |
//! | `…/lease` | compare-and-swap | which worker polls and decides for all, until when ([`lease`]) |
//! | `…/signals` | the lease holder | the latest samples ([`snapshot`]) |
//! | `…/fleet` | the lease holder | which endpoints there are (`discovery::discovered`) |
//! | `…/clusters` | compare-and-swap | clusters that requests have met and no entry names ([`met`]) |
//! | `…/capacity/N` | that worker only | how much an endpoint takes ([`scaling`]) |
//! | `…/scaling` | the lease holder | pressure and desired replicas ([`scaling`]) |
//! | `…/arms/SEAT` | that worker only | what it has counted for the guards ([`guard`]) |
//! | `…/guards` | the lease holder | what the guards have concluded ([`guard`]) |
//!
//! N is the number of a [`slot_id`], which is used again: nothing in shared data can be deleted.
//!
//! Every byte that is read back is checked: another version, or another plugin in the same VM scope,
//! yields nothing rather than nonsense.

pub mod codec;
pub mod counts;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod golden;
pub mod guard;
pub mod lease;
pub mod met;
pub mod news;
pub mod peers;
pub mod registry;
pub mod retired_counters;
pub mod scaling;
pub mod slot_id;
pub mod snapshot;
pub mod worker_report;

/// Bumped whenever the meaning of any key changes, so that old and new workers do not misread each other: the bytes in
/// `golden.txt` are those of this version.
pub const VERSION: u8 = 8;

/// The common prefix of the keys of plugin `name`.
pub fn prefix(name: &str) -> String {
    format!("evenkeel/{VERSION}/{name}")
}
