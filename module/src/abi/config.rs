//! Operations on a configuration: calls, metrics, and ticks on the main thread.

use core::ffi::c_void;
use std::time::Duration;

use evenkeel::host::MetricKind;

use super::{Buffer, EnvoyBuffer, Header, SUCCESS, import, recorder};

const CLUSTER_NOT_FOUND: u32 = 2;

/// A configuration of the filter, valid until Envoy has destroyed it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ConfigHandle(pub *mut c_void);

// SAFETY: it is passed only to functions of Envoy that may be called from any of its threads or, as `call` says, from
// its main thread.
unsafe impl Send for ConfigHandle {}
// SAFETY: as for `Send`.
unsafe impl Sync for ConfigHandle {}

/// Why a call was not sent.
pub enum NotSent {
    /// The cluster does not exist.
    UnknownCluster,
    /// The cluster accepts no request at the moment.
    NotNow,
}

/// Answer to a call: status, headers, and the body in chunks.
pub struct Answer<'a> {
    /// HTTP status; `None` if the call failed.
    pub status: Option<u32>,
    /// Names and values of the headers.
    pub headers: Vec<(&'a [u8], &'a [u8])>,
    /// Chunks of the body.
    pub body: Vec<&'a [u8]>,
}

/// A header of an answer.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct EnvoyHeader {
    name: EnvoyBuffer,
    value: EnvoyBuffer,
}

impl<'a> Answer<'a> {
    /// An answer as Envoy passes it.
    ///
    /// # Safety
    /// Both arrays must have been passed by Envoy in the current event.
    pub unsafe fn of(
        result: u32,
        (headers, count): (*const EnvoyHeader, usize),
        (chunks, chunk_count): (*const EnvoyBuffer, usize),
    ) -> Answer<'a> {
        if result != SUCCESS || headers.is_null() {
            return Answer { status: None, headers: Vec::new(), body: Vec::new() };
        }
        // SAFETY: guaranteed by the caller.
        let headers = unsafe { core::slice::from_raw_parts(headers, count) };
        // SAFETY: guaranteed by the caller.
        let headers = headers.iter().map(|header| unsafe { (header.name.bytes(), header.value.bytes()) });
        let headers: Vec<(&[u8], &[u8])> = headers.collect();
        let status = headers.iter().find(|(name, _)| *name == b":status");
        let status = status.and_then(|(_, value)| core::str::from_utf8(value).ok()?.parse().ok());
        let chunks = match chunks.is_null() {
            true => &[],
            // SAFETY: guaranteed by the caller.
            false => unsafe { core::slice::from_raw_parts(chunks, chunk_count) },
        };
        // SAFETY: guaranteed by the caller.
        Answer { status, headers, body: chunks.iter().map(|chunk| unsafe { chunk.bytes() }).collect() }
    }
}

impl ConfigHandle {
    /// Sends a request to a cluster, on the main thread only; the returned number comes back with the answer.
    pub fn call(
        self,
        cluster: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        timeout: Duration,
    ) -> Result<u64, NotSent> {
        let mut id = 0;
        let mut headers: Vec<Header> = headers.iter().map(|(name, value)| Header::of(name, value)).collect();
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        // SAFETY: see above; Envoy writes to a valid place.
        let result = unsafe {
            import::envoy_dynamic_module_callback_http_filter_config_http_callout(
                self.0,
                &mut id,
                Buffer::of(cluster.as_bytes()),
                headers.as_mut_ptr(),
                headers.len(),
                Buffer::of(body),
                timeout_ms,
            )
        };
        match result {
            SUCCESS => Ok(id),
            CLUSTER_NOT_FOUND => Err(NotSent::UnknownCluster),
            _ => Err(NotSent::NotNow),
        }
    }

    /// Defines a metric with these labels, which Envoy accepts only while the configuration is being created.
    pub fn define(self, kind: MetricKind, name: &str, labels: &[&str]) -> Option<usize> {
        let mut labels: Vec<Buffer> = labels.iter().map(|label| Buffer::of(label.as_bytes())).collect();
        let (name, count, mut id) = (Buffer::of(name.as_bytes()), labels.len(), 0);
        let define = match kind {
            MetricKind::Counter => import::envoy_dynamic_module_callback_http_filter_config_define_counter,
            MetricKind::Gauge => import::envoy_dynamic_module_callback_http_filter_config_define_gauge,
            MetricKind::Histogram => {
                import::envoy_dynamic_module_callback_http_filter_config_define_histogram
            }
        };
        // SAFETY: see above; Envoy writes to a valid place.
        let result = unsafe { define(self.0, name, labels.as_mut_ptr(), count, &mut id) };
        (result == SUCCESS).then_some(id)
    }

    /// Adds to a counter, sets a gauge, or records a histogram value; returns whether this version of Envoy can.
    pub fn record(self, kind: MetricKind, id: usize, labels: &[String], value: u64) -> bool {
        let Some(record) = recorder(kind) else { return false };
        let mut labels: Vec<Buffer> = labels.iter().map(|label| Buffer::of(label.as_bytes())).collect();
        // SAFETY: see above.
        let _unknown_metrics_show_nothing =
            unsafe { record(self.0, id, labels.as_mut_ptr(), labels.len(), value) };
        true
    }
}

/// Requests ticks of one configuration on Envoy's main thread; has no effect once the configuration is destroyed.
pub struct Waker(*mut c_void);

// SAFETY: by Envoy's documentation, an event may be scheduled from any thread.
unsafe impl Send for Waker {}
// SAFETY: as for `Send`.
unsafe impl Sync for Waker {}

impl Waker {
    /// Creates a waker for this configuration; on the main thread.
    pub fn of(config: ConfigHandle) -> Waker {
        // SAFETY: the configuration is alive; the returned scheduler is owned by this value.
        Waker(unsafe { import::envoy_dynamic_module_callback_http_filter_config_scheduler_new(config.0) })
    }

    /// Requests one tick.
    pub fn wake(&self) {
        // SAFETY: the scheduler is deleted only when this value is dropped.
        unsafe { import::envoy_dynamic_module_callback_http_filter_config_scheduler_commit(self.0, 0) };
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        // SAFETY: nothing uses the scheduler any longer.
        unsafe { import::envoy_dynamic_module_callback_http_filter_config_scheduler_delete(self.0) };
    }
}
