//! Catches panics at the border to Envoy, across which they must not unwind.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `act`; if it panics, returns the result of `instead`. State that was being changed is not used again: the
/// plugin restarts its worker.
pub fn guarded<R>(act: impl FnOnce() -> R, instead: impl FnOnce() -> R) -> R {
    // A panic in `instead` is not caught.
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        // What `panic!` makes is a text. Dropping another payload may itself panic.
        if !panic.is::<&str>() && !panic.is::<String>() {
            core::mem::forget(panic);
        }
        instead()
    })
}

/// Panics if a test has asked for it; in debug builds only.
#[cfg(debug_assertions)]
#[expect(clippy::panic, reason = "it is asked for")]
pub fn provoked(asked_for: bool) {
    if asked_for {
        panic!("a test asked for it");
    }
}
