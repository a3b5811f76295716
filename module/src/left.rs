//! Requests that the engine leaves to Envoy, where a cluster may have this module as its policy and would ask the engine
//! once more.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The address that a filter names for such a request. No host has it, so that Envoy asks the cluster's policy, and the
/// policy knows that the engine has decided already.
pub const ADDRESS: &[u8] = b"0.0.0.0:0";
/// Number of configurations of the policy that are alive.
pub static POLICIES: AtomicUsize = AtomicUsize::new(0);

/// Whether any cluster of the process may have this module as its policy.
pub fn are_marked() -> bool {
    POLICIES.load(Ordering::Relaxed) > 0
}
