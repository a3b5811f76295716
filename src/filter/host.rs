//! [`Host`] and [`StreamHost`] over proxy-wasm's host calls. Every status other than OK becomes `None` or a typed
//! error.

use core::cell::{Cell, RefCell};

use hashbrown::HashMap;

use super::abi::{self, Buffer, Map, Status};
use super::{dispatch, wire};
use crate::host::{Bytes, Call, CallError, Host, MetricKind, SharedError, StreamHost};
use engine::time::Time;

/// The highest number of metrics that a VM defines: Envoy keeps each for as long as the process runs.
const MAX_METRICS: usize = 4096;

thread_local! {
    /// The numbers of defined metrics: Envoy would return a new number for each definition, and keep all of them.
    static METRICS: RefCell<HashMap<String, u32>> = RefCell::new(HashMap::new());
}

thread_local! {
    /// Whether Envoy has not sent a call of the current callback. It then keeps the failure until a callback is over, and
    /// if that is one of an upstream filter, in the middle of the next call, it puts the failure off again and again and
    /// never returns: seen on Envoy 1.40.
    static NOT_SENT: Cell<bool> = const { Cell::new(false) };
}

/// A callback begins in which calls may be made.
pub fn begin_callback() {
    NOT_SENT.set(false);
}

/// The size of the pieces in which a body is read, bytes.
const PIECE: usize = 64 * 1024;
/// The highest number of pieces of a body that are read.
const MAX_PIECES: usize = 64;

/// Envoy, as seen from the active root context or stream.
pub struct Envoy;

/// Every value of a header.
fn values(map: Map, name: &str) -> Vec<Vec<u8>> {
    abi::headers(map).map(|headers| wire::values(&headers, name.as_bytes())).unwrap_or_default()
}

fn now() -> Time {
    Time(abi::now().unwrap_or(0))
}

impl Host for Envoy {
    fn now(&self) -> Time {
        now()
    }

    fn shared_get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        abi::shared_data(key).ok()
    }

    fn shared_set(&self, key: &str, value: &[u8], version: Option<u32>) -> Result<(), SharedError> {
        abi::set_shared_data(key, value, version).map_err(|status| match status {
            Status::CAS_MISMATCH => SharedError::Conflict,
            _ => SharedError::Refused,
        })
    }

    fn call(&self, call: &Call<'_>) -> Result<u32, CallError> {
        if NOT_SENT.get() && dispatch::has_upstream_filters() {
            return Err(CallError::Postponed);
        }
        let headers = wire::headers(call.all_headers());
        let body = call.form.map(str::as_bytes).unwrap_or_default();
        let timeout_ms = u32::try_from(call.timeout.as_millis()).unwrap_or(u32::MAX);
        abi::http_call(call.cluster, &headers, body, timeout_ms).map_err(|status| match status {
            // Envoy has no such cluster. If the cluster exists and the request fails at once, the status is another.
            Status::BAD_ARGUMENT => CallError::UnknownCluster,
            _ => {
                NOT_SENT.set(true);
                CallError::NotSent
            }
        })
    }

    fn environment(&self, variable: &str) -> Option<String> {
        std::env::var(variable).ok()
    }

    fn node_zone(&self) -> Option<String> {
        // The second is the name in old documents; Envoy 1.36 to 1.40 know only the first.
        let paths: [&[&str]; 2] = [&["xds", "node", "locality", "zone"], &["node", "locality", "zone"]];
        let zone = paths.iter().find_map(|path| wire::with_path(path, abi::property).ok())?;
        String::from_utf8(zone.into_vec()).ok().filter(|zone| !zone.is_empty())
    }

    fn log(&self, level: log::Level, message: &str) {
        let level = match level {
            log::Level::Trace => 0,
            log::Level::Debug => 1,
            log::Level::Info => 2,
            log::Level::Warn => 3,
            log::Level::Error => 4,
        };
        abi::log(level, message);
    }

    fn metric(&self, kind: MetricKind, name: &str) -> Option<u32> {
        METRICS.with(|metrics| {
            let mut metrics = metrics.try_borrow_mut().ok()?;
            if let Some(id) = metrics.get(name) {
                return Some(*id);
            }
            if metrics.len() >= MAX_METRICS {
                return None;
            }
            let kind = match kind {
                MetricKind::Counter => 0,
                MetricKind::Gauge => 1,
                MetricKind::Histogram => 2,
            };
            let id = abi::define_metric(kind, name).ok()?;
            metrics.insert(name.into(), id);
            Some(id)
        })
    }

    fn count(&self, metric: u32, by: u64) {
        let _unknown_metrics_count_nothing =
            abi::increment_metric(metric, i64::try_from(by).unwrap_or(i64::MAX));
    }

    fn record(&self, metric: u32, value: u64) {
        let _unknown_metrics_show_nothing = abi::record_metric(metric, value);
    }
}

impl StreamHost for Envoy {
    fn now(&self) -> Time {
        now()
    }

    fn request_header(&self, name: &str) -> Option<Bytes> {
        abi::header(Map::RequestHeaders, name).ok()
    }

    fn request_headers(&self, name: &str) -> Vec<Vec<u8>> {
        values(Map::RequestHeaders, name)
    }

    fn set_request_header(&self, name: &str, value: &[u8]) {
        let _unset_means_fallback = abi::set_header(Map::RequestHeaders, name, value);
    }

    fn remove_request_header(&self, name: &str) {
        let _absent_is_fine = abi::remove_header(Map::RequestHeaders, name);
    }

    fn response_header(&self, name: &str) -> Option<Bytes> {
        abi::header(Map::ResponseHeaders, name).ok()
    }

    fn response_headers(&self, name: &str) -> Vec<Vec<u8>> {
        values(Map::ResponseHeaders, name)
    }

    fn response_body_end(&self, most: usize) -> Vec<u8> {
        let mut end: Vec<u8> = Vec::new();
        for piece in 0..MAX_PIECES {
            let read = abi::buffer(Buffer::ResponseBody, piece * PIECE, PIECE).unwrap_or_default();
            let last = read.len() < PIECE;
            end.extend_from_slice(&read);
            end.drain(..end.len().saturating_sub(most));
            if last {
                break;
            }
        }
        end
    }

    fn add_response_header(&self, name: &str, value: &[u8]) {
        let _the_next_response_may_carry_it = abi::add_header(Map::ResponseHeaders, name, value);
    }

    fn remove_response_header(&self, name: &str) {
        let _absent_is_fine = abi::remove_header(Map::ResponseHeaders, name);
    }

    fn response_trailer(&self, name: &str) -> Option<Bytes> {
        abi::header(Map::ResponseTrailers, name).ok()
    }

    fn property(&self, path: &[&str]) -> Option<Bytes> {
        wire::with_path(path, abi::property).ok().filter(|value| !value.is_empty())
    }

    fn cluster(&self) -> Option<Bytes> {
        abi::property(b"xds\0cluster_name").ok().filter(|value| !value.is_empty())
    }

    fn served_by(&self) -> Option<Bytes> {
        abi::property(b"upstream\0address").ok().filter(|value| !value.is_empty())
    }

    fn set_property(&self, path: &[&str], value: &[u8]) {
        let _unset_means_unfollowed = wire::with_path(path, |path| abi::set_property(path, value));
    }

    fn respond(&self, status: u32, headers: &[(&str, &str)], body: &[u8]) {
        let headers = wire::headers(headers.iter().copied());
        let _fails_only_when_already_answered = abi::respond(status, &headers, body);
    }

    fn process(&self) -> &dyn Host {
        self
    }
}
