//! Where a panic ends: at the border to Envoy, which could not go on after it.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Does `act`; where it panics, `instead` says what comes in its place. What was being changed is not looked at again:
/// the plugin starts its worker anew.
pub fn guarded<R>(act: impl FnOnce() -> R, instead: impl FnOnce() -> R) -> R {
    // A panic in `instead` would be one while nothing else is left to do.
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        // What a panic carries may itself panic when it is dropped.
        core::mem::forget(panic);
        instead()
    })
}
