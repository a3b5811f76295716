//! Waiting for a condition instead of sleeping.

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::clock;

const POLL: Duration = Duration::from_millis(20);

/// Polls `probe` until it returns a value; fails with `what` in the message once `deadline` has passed.
pub async fn until<T, F>(what: &str, deadline: Duration, mut probe: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Option<T>>,
{
    let end = clock::now() + deadline;
    loop {
        if let Some(value) = probe().await {
            return Ok(value);
        }
        if clock::now() >= end {
            bail!("waited {deadline:?} in vain for {what}");
        }
        clock::sleep(POLL).await;
    }
}
