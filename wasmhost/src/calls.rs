//! HTTP calls that guests have made and tests have yet to answer.

use crate::headers::Headers;
use std::time::Duration;

/// One outstanding `proxy_http_call`; answer it with [`crate::Process::answer`] or [`crate::Process::fail`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCall {
    /// The VM that waits for the answer.
    pub vm: usize,
    /// The call's number within that VM; other VMs use the same numbers.
    pub token: u32,
    /// The Envoy cluster that was called.
    pub cluster: String,
    /// Request headers, pseudo-headers included.
    pub headers: Headers,
    /// Request body, empty where there is none.
    pub body: Vec<u8>,
    /// The time-out that the guest asked for.
    pub timeout: Duration,
    /// The fake time, in nanoseconds, at which the call was made.
    pub made_at: u64,
    pub(crate) context: u32,
    /// The stream of the cluster's upstream filter, where it has one of this VM's.
    pub(crate) filtered: Option<u32>,
}

impl HttpCall {
    /// The `:path`.
    pub fn path(&self) -> String {
        self.headers.text(":path").unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What the guest can read while it handles an answer.
#[derive(Debug)]
pub(crate) struct CallAnswer {
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
}
