//! [`Host`] and [`StreamHost`] over proxy-wasm's host calls. Every status that is not OK becomes `None` or a
//! typed error: the SDK's own wrappers panic on some of them.

use core::cell::RefCell;
use core::time::Duration;
use std::time::UNIX_EPOCH;

use hashbrown::HashMap;

use proxy_wasm::hostcalls;
use proxy_wasm::types::{LogLevel, MapType, MetricType, Status};

use crate::host::{Call, CallError, Host, MetricKind, SharedError, StreamHost};
use crate::time::Time;

/// So many metrics a VM defines at most: Envoy keeps each for as long as the process runs.
const MOST_METRICS: usize = 4096;

thread_local! {
    /// The numbers of the metrics that are defined: Envoy would give another number each time, and keep all of them.
    static METRICS: RefCell<HashMap<String, u32>> = RefCell::new(HashMap::new());
}

/// Envoy, seen from a root context or a stream.
pub struct Envoy;

fn now() -> Time {
    let since = hostcalls::get_current_time().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    Time(since.map_or(0, |s: Duration| u64::try_from(s.as_nanos()).unwrap_or(u64::MAX)))
}

impl Host for Envoy {
    fn now(&self) -> Time {
        now()
    }

    fn shared_get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        match hostcalls::get_shared_data(key) {
            Ok((Some(value), Some(version))) if !value.is_empty() => Some((value, version)),
            _ => None,
        }
    }

    fn shared_set(&self, key: &str, value: &[u8], version: Option<u32>) -> Result<(), SharedError> {
        hostcalls::set_shared_data(key, Some(value), version).map_err(|status| match status {
            Status::CasMismatch => SharedError::Conflict,
            _ => SharedError::Refused,
        })
    }

    fn call(&self, call: &Call<'_>) -> Result<u32, CallError> {
        let mut headers = vec![
            (":method", if call.form.is_some() { "POST" } else { "GET" }),
            (":scheme", "http"),
            (":path", call.path),
            (":authority", call.authority),
            ("accept", "application/json"),
        ];
        if call.form.is_some() {
            headers.push(("content-type", "application/x-www-form-urlencoded"));
        }
        headers.extend(call.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let body = call.form.map(str::as_bytes);
        hostcalls::dispatch_http_call(call.cluster, headers, body, vec![], call.timeout).map_err(|status| {
            match status {
                // Envoy knows no such cluster. Where it knows it and the request fails at once, it says so otherwise.
                Status::BadArgument => CallError::UnknownCluster,
                _ => CallError::NotSent,
            }
        })
    }

    fn environment(&self, variable: &str) -> Option<String> {
        std::env::var(variable).ok()
    }

    fn node_zone(&self) -> Option<String> {
        let zone = hostcalls::get_property(vec!["node", "locality", "zone"]).ok().flatten()?;
        String::from_utf8(zone).ok().filter(|zone| !zone.is_empty())
    }

    fn log(&self, level: log::Level, message: &str) {
        let level = match level {
            log::Level::Error => LogLevel::Error,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Info => LogLevel::Info,
            log::Level::Debug => LogLevel::Debug,
            log::Level::Trace => LogLevel::Trace,
        };
        let _a_log_that_fails_has_nowhere_to_say_so = hostcalls::log(level, message);
    }

    fn metric(&self, kind: MetricKind, name: &str) -> Option<u32> {
        METRICS.with_borrow_mut(|metrics| {
            if let Some(id) = metrics.get(name) {
                return Some(*id);
            }
            if metrics.len() >= MOST_METRICS {
                return None;
            }
            let kind = match kind {
                MetricKind::Counter => MetricType::Counter,
                MetricKind::Gauge => MetricType::Gauge,
                MetricKind::Histogram => MetricType::Histogram,
            };
            let id = hostcalls::define_metric(kind, name).ok()?;
            metrics.insert(name.into(), id);
            Some(id)
        })
    }

    fn count(&self, metric: u32, by: u64) {
        let _unknown_metrics_count_nothing =
            hostcalls::increment_metric(metric, i64::try_from(by).unwrap_or(i64::MAX));
    }

    fn record(&self, metric: u32, value: u64) {
        let _unknown_metrics_show_nothing = hostcalls::record_metric(metric, value);
    }
}

impl StreamHost for Envoy {
    fn now(&self) -> Time {
        now()
    }

    fn request_header(&self, name: &str) -> Option<Vec<u8>> {
        hostcalls::get_map_value_bytes(MapType::HttpRequestHeaders, name).ok().flatten()
    }

    fn set_request_header(&self, name: &str, value: &[u8]) {
        let _unset_means_fallback =
            hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, Some(value));
    }

    fn remove_request_header(&self, name: &str) {
        let _absent_is_fine = hostcalls::remove_map_value(MapType::HttpRequestHeaders, name);
    }

    fn response_header(&self, name: &str) -> Option<Vec<u8>> {
        hostcalls::get_map_value_bytes(MapType::HttpResponseHeaders, name).ok().flatten()
    }

    fn add_response_header(&self, name: &str, value: &[u8]) {
        let _the_next_response_may_carry_it =
            hostcalls::add_map_value_bytes(MapType::HttpResponseHeaders, name, value);
    }

    fn remove_response_header(&self, name: &str) {
        let _absent_is_fine = hostcalls::remove_map_value(MapType::HttpResponseHeaders, name);
    }

    fn response_trailer(&self, name: &str) -> Option<Vec<u8>> {
        hostcalls::get_map_value_bytes(MapType::HttpResponseTrailers, name).ok().flatten()
    }

    fn property(&self, path: &[&str]) -> Option<Vec<u8>> {
        hostcalls::get_property(path.to_vec()).ok().flatten()
    }

    fn set_property(&self, path: &[&str], value: &[u8]) {
        let _unset_means_unfollowed = hostcalls::set_property(path.to_vec(), Some(value));
    }

    fn respond(&self, status: u32, headers: &[(&str, &str)], body: &[u8]) {
        let body = (!body.is_empty()).then_some(body);
        let _fails_only_when_already_answered = hostcalls::send_http_response(status, headers.to_vec(), body);
    }

    fn process(&self) -> &dyn Host {
        self
    }
}
