//! The only place that reads the clock.

use std::time::{Duration, Instant};

/// The present time, for everything in this crate.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    Instant::now()
}

/// Sleeps until `when`; returns at once if that has passed.
pub async fn sleep_until(when: Instant) {
    tokio::time::sleep_until(when.into()).await;
}

/// Sleeps for `time`.
pub async fn sleep(time: Duration) {
    tokio::time::sleep(time).await;
}
