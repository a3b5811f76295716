//! A monotonic clock that starts at the wall-clock time when the module was loaded, and the wall clock.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use engine::time::Time;

static LOADED: OnceLock<(Instant, u64)> = OnceLock::new();

/// Nanoseconds since 1970, the same clock in all threads.
#[expect(clippy::disallowed_methods, reason = "the carrier is where the engine's time comes from")]
pub fn now() -> Time {
    let (loaded, then) = LOADED.get_or_init(|| (Instant::now(), wall().0));
    let since = u64::try_from(loaded.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Time(then.saturating_add(since))
}

/// Nanoseconds since 1970 by the wall clock, which may step.
#[expect(clippy::disallowed_methods, reason = "others date what they say by it")]
pub fn wall() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_nanos()).unwrap_or(0))
}
