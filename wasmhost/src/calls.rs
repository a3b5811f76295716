//! HTTP calls that guests have made and the test has not answered yet.

use crate::headers::Headers;
use std::time::Duration;

/// One outstanding `proxy_http_call`; answer it with [`crate::Process::answer`] or [`crate::Process::fail`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCall {
    /// The VM that waits for the response.
    pub vm: usize,
    /// The call's number within that VM; other VMs use the same numbers.
    pub token: u32,
    /// The Envoy cluster that was called.
    pub cluster: String,
    /// Request headers, pseudo-headers included.
    pub headers: Headers,
    /// The request's body; empty if there is none.
    pub body: Vec<u8>,
    /// The timeout that the guest asked for.
    pub timeout: Duration,
    /// The fake time, in nanoseconds, at which the call was made.
    pub made_at: u64,
    /// The root context that is answered, also where a stream has asked.
    pub(crate) context: u32,
    /// The stream of the cluster's upstream filter, if that is in this VM.
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

/// A response, readable while the guest handles it.
#[derive(Debug)]
pub(crate) struct CallAnswer {
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
}
