//! Exchange between the workers of one Envoy through proxy-wasm's shared data.
//!
//! | key | written by | content |
//! |---|---|---|
//! | `…/workers` | every worker, compare-and-swap | the registry: live and expired workers with slot id and time of renewal |
//! | `…/slot/N` | that worker only | its view of every endpoint ([`worker_report`]), merged by its [`peers`] |
//! | `…/counts/N` | that worker only | its counters ([`counts`]) |
//! | `…/estate` | compare-and-swap | the counters of workers that ended ([`retired_counters`]) |
//! | `…/news` | every worker | nothing: its version changes when a worker has published something ([`news`]) |
//! | `…/lease` | compare-and-swap | the worker that polls and decides for all, and until when ([`lease`]) |
//! | `…/signals` | the lease holder | the latest samples ([`snapshot`]) |
//! | `…/fleet` | the lease holder | the endpoints (`discovery::discovered`) |
//! | `…/clusters` | compare-and-swap | clusters of requests that no entry names ([`seen_clusters`]) |
//! | `…/capacity/N` | that worker only | the capacity of an endpoint, as it has learnt it ([`scaling`]) |
//! | `…/scaling` | the lease holder | pressure and desired replicas ([`scaling`]) |
//! | `…/arms/N` | that worker only | its counts for the guards ([`guard`]) |
//! | `…/guards` | the lease holder | the guards' findings ([`guard`]) |
//! | `…/said/…`, `…/refused` | any worker | when a repeated log line was last written |
//! | `…/said/bypassed/…` | the lease holder | a byte: what an upstream's own policy does in Envoy and steering bypasses |
//!
//! N is the number of a [`slot_id`], which is reused: nothing in shared data can be deleted.
//!
//! Everything read back is checked: bytes of another version, or of another plugin in the same VM scope, are ignored.

use engine::rng;

pub mod codec;
pub mod counts;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod golden;
pub mod guard;
pub mod lease;
pub mod news;
pub mod peers;
pub mod registry;
pub mod retired_counters;
pub mod scaling;
pub mod seen_clusters;
pub mod slot_id;
pub mod snapshot;
pub mod worker_report;

/// The version of all records, raised whenever the meaning of a key changes, so that old and new workers do not misread
/// each other: `golden.txt` has the bytes of this version.
pub const VERSION: u8 = 11;

/// The common prefix of the keys of plugin `name`.
pub fn prefix(name: &str) -> String {
    format!("evenkeel/{VERSION}/{name}")
}

/// The prefix of the keys whose content the lease holder asks for, of a configuration for these clusters: plugins of one
/// name that balance different clusters, on two listeners perhaps, each have a holder that asks for theirs.
pub fn asked_for<'a>(prefix: &str, clusters: impl Iterator<Item = &'a str>) -> String {
    let all = clusters.fold(0, |all, cluster| all ^ rng::hash(cluster.as_bytes()));
    format!("{prefix}/{all:x}")
}
