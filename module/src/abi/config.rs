//! What can be asked of a configuration: calls, metrics, and a tick on the main thread.

use core::ffi::c_void;
use std::time::Duration;

use evenkeel::host::MetricKind;

use super::{Buffer, Header, SUCCESS, import, recorder};

const CLUSTER_NOT_FOUND: u32 = 2;

/// A configuration of the filter, as Envoy knows it until it has destroyed it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ConfigHandle(pub(super) *mut c_void);

// SAFETY: it is passed back to Envoy alone, to functions that may be called from any of its threads, or, as `call` says,
// from its main thread.
unsafe impl Send for ConfigHandle {}
// SAFETY: the same.
unsafe impl Sync for ConfigHandle {}

/// Why a call was not sent.
pub enum NotSent {
    /// There is no such cluster.
    UnknownCluster,
    /// It takes none now.
    NotNow,
}

impl ConfigHandle {
    /// Sends a request to a cluster, on the main thread only; the number comes back with the answer.
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
        // SAFETY: see above; Envoy writes to a place that is there for it.
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

    /// A metric with these labels, which Envoy takes while the configuration is being made and not later.
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
        // SAFETY: see above; Envoy writes to a place that is there for it.
        let result = unsafe { define(self.0, name, labels.as_mut_ptr(), count, &mut id) };
        (result == SUCCESS).then_some(id)
    }

    /// Adds to a counter, sets a gauge, or takes a value into a histogram; whether this version of Envoy can.
    pub fn record(self, kind: MetricKind, id: usize, labels: &[String], value: u64) -> bool {
        let Some(record) = recorder(kind) else { return false };
        let mut labels: Vec<Buffer> = labels.iter().map(|label| Buffer::of(label.as_bytes())).collect();
        // SAFETY: see above.
        let _unknown_metrics_show_nothing =
            unsafe { record(self.0, id, labels.as_mut_ptr(), labels.len(), value) };
        true
    }
}

/// Asks Envoy's main thread for a tick of one configuration; a configuration that is gone is not asked.
pub struct Waker(*mut c_void);

// SAFETY: Envoy says that an event may be scheduled from any thread.
unsafe impl Send for Waker {}

impl Waker {
    /// For this configuration; on the main thread.
    pub fn of(config: ConfigHandle) -> Waker {
        // SAFETY: the configuration is there; what comes back is ours until it is deleted.
        Waker(unsafe { import::envoy_dynamic_module_callback_http_filter_config_scheduler_new(config.0) })
    }

    /// Asks once.
    pub fn wake(&self) {
        // SAFETY: it is deleted only with this value.
        unsafe { import::envoy_dynamic_module_callback_http_filter_config_scheduler_commit(self.0, 0) };
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        // SAFETY: nothing uses it any longer.
        unsafe { import::envoy_dynamic_module_callback_http_filter_config_scheduler_delete(self.0) };
    }
}
