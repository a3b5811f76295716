//! What can be asked of a stream, and done to it.

use core::ffi::c_void;

use evenkeel::host::MetricKind;

use super::{Buffer, EnvoyBuffer, Header, import, tells_all};

/// Header maps, by their numbers.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub enum Map {
    /// Of the request.
    RequestHeaders = 0,
    /// Of the response.
    ResponseHeaders = 2,
    /// Behind its body.
    ResponseTrailers = 3,
}

/// Attributes that are texts, by their numbers.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub enum Attribute {
    /// `response.code_details`.
    ResponseCodeDetails = 16,
    /// `source.address`.
    SourceAddress = 24,
    /// `upstream.address`.
    UpstreamAddress = 41,
    /// `upstream.local_address`.
    UpstreamLocalAddress = 51,
    /// `upstream.transport_failure_reason`.
    UpstreamTransportFailureReason = 52,
}

/// `upstream.request_attempt_count`.
const ATTEMPTS: u32 = 53;
const RECEIVED_RESPONSE_BODY: u32 = 2;

/// One stream, as Envoy knows it while one of its events runs.
#[derive(Clone, Copy)]
pub struct StreamHandle(pub(super) *mut c_void);

impl StreamHandle {
    fn value(self, map: Map, name: &str, nth: usize, count: &mut usize) -> Option<Vec<u8>> {
        let mut value = EnvoyBuffer::NONE;
        let name = Buffer::of(name.as_bytes());
        // SAFETY: see above; Envoy writes to two places that are there for it.
        let found = unsafe {
            import::envoy_dynamic_module_callback_http_get_header(
                self.0, map as u32, name, &mut value, nth, count,
            )
        };
        // SAFETY: it has just been handed over.
        (found && nth < *count).then(|| unsafe { value.bytes() }.to_vec())
    }

    /// A header's first value.
    pub fn header(self, map: Map, name: &str) -> Option<Vec<u8>> {
        self.value(map, name, 0, &mut 0)
    }

    /// Every value of a header, in their order.
    pub fn headers(self, map: Map, name: &str) -> Vec<Vec<u8>> {
        let mut count = 0;
        (0..).map_while(|nth| self.value(map, name, nth, &mut count)).collect()
    }

    /// Makes this the only value of a header; without one, there is none from here on.
    pub fn set_header(self, map: Map, name: &str, value: Option<&[u8]>) {
        let value = value.map_or(Buffer::NONE, Buffer::of);
        let name = Buffer::of(name.as_bytes());
        // SAFETY: see above. Outside its phase the map is not there, and nothing happens.
        let _is_there =
            unsafe { import::envoy_dynamic_module_callback_http_set_header(self.0, map as u32, name, value) };
    }

    /// Adds a value to those of a header.
    pub fn add_header(self, map: Map, name: &str, value: &[u8]) {
        let (name, value) = (Buffer::of(name.as_bytes()), Buffer::of(value));
        // SAFETY: see above.
        let _is_there =
            unsafe { import::envoy_dynamic_module_callback_http_add_header(self.0, map as u32, name, value) };
    }

    /// The last bytes, at most so many, of the part of the response's body that has just come.
    pub fn response_body_end(self, most: usize) -> Vec<u8> {
        // SAFETY: it only asks.
        let count = unsafe {
            import::envoy_dynamic_module_callback_http_get_body_chunks_size(self.0, RECEIVED_RESPONSE_BODY)
        };
        let mut chunks = vec![EnvoyBuffer::NONE; count];
        // SAFETY: there is a place for each of as many as Envoy has just said.
        let there = count > 0
            && unsafe {
                import::envoy_dynamic_module_callback_http_get_body_chunks(
                    self.0,
                    RECEIVED_RESPONSE_BODY,
                    chunks.as_mut_ptr(),
                )
            };
        if !there {
            return Vec::new();
        }
        // SAFETY: they have just been handed over.
        let chunks: Vec<&[u8]> = chunks.into_iter().map(|chunk| unsafe { chunk.bytes() }).collect();
        let mut end = Vec::new();
        for chunk in chunks.iter().rev() {
            let wanted = most.saturating_sub(end.len()).min(chunk.len());
            end.extend(chunk.iter().rev().take(wanted));
        }
        end.reverse();
        end
    }

    /// An attribute, if it is known.
    pub fn attribute(self, attribute: Attribute) -> Option<Vec<u8>> {
        let mut value = EnvoyBuffer::NONE;
        // SAFETY: Envoy writes to a place that is there for it.
        let known = unsafe {
            import::envoy_dynamic_module_callback_http_filter_get_attribute_string(
                self.0,
                attribute as u32,
                &mut value,
            )
        };
        // SAFETY: it has just been handed over.
        known.then(|| unsafe { value.bytes() }.to_vec())
    }

    /// How often Envoy has tried, if it has.
    pub fn attempts(self) -> Option<u64> {
        if !tells_all() {
            return None;
        }
        let mut attempts = 0;
        // SAFETY: Envoy writes to a place that is there for it.
        let known = unsafe {
            import::envoy_dynamic_module_callback_http_filter_get_attribute_int(
                self.0,
                ATTEMPTS,
                &mut attempts,
            )
        };
        known.then_some(attempts)
    }

    /// The cluster of the route, if there is one.
    pub fn cluster_name(self) -> Option<Vec<u8>> {
        let mut name = EnvoyBuffer::NONE;
        // SAFETY: Envoy writes to a place that is there for it.
        let known = unsafe { import::envoy_dynamic_module_callback_http_get_cluster_name(self.0, &mut name) };
        // SAFETY: it has just been handed over.
        known.then(|| unsafe { name.bytes() }.to_vec())
    }

    /// The host that the request is to go to, unless Envoy knows better; whether it is an address.
    pub fn override_host(self, address: &[u8]) -> bool {
        // SAFETY: see above.
        unsafe {
            import::envoy_dynamic_module_callback_http_set_upstream_override_host(
                self.0,
                Buffer::of(address),
                false,
            )
        }
    }

    /// Leaves a value where the other filters of the request and the access log can read it.
    pub fn set_filter_state(self, key: &str, value: &[u8]) {
        let (key, value) = (Buffer::of(key.as_bytes()), Buffer::of(value));
        // SAFETY: see above.
        let _is_there =
            unsafe { import::envoy_dynamic_module_callback_http_set_filter_state_bytes(self.0, key, value) };
    }

    /// Adds to a counter, sets a gauge, or takes a value into a histogram of its configuration.
    pub fn record(self, kind: MetricKind, id: usize, labels: &[String], value: u64) {
        let mut labels: Vec<Buffer> = labels.iter().map(|label| Buffer::of(label.as_bytes())).collect();
        let record = match kind {
            MetricKind::Counter => import::envoy_dynamic_module_callback_http_filter_increment_counter,
            MetricKind::Gauge => import::envoy_dynamic_module_callback_http_filter_set_gauge,
            MetricKind::Histogram => import::envoy_dynamic_module_callback_http_filter_record_histogram_value,
        };
        // SAFETY: see above.
        let _unknown_metrics_show_nothing =
            unsafe { record(self.0, id, labels.as_mut_ptr(), labels.len(), value) };
    }

    /// Answers the request.
    pub fn respond(self, status: u32, headers: &[(String, String)], body: &[u8]) {
        let mut headers: Vec<Header> = headers.iter().map(|(name, value)| Header::of(name, value)).collect();
        // SAFETY: see above.
        unsafe {
            import::envoy_dynamic_module_callback_http_send_response(
                self.0,
                status,
                headers.as_mut_ptr(),
                headers.len(),
                Buffer::of(body),
                Buffer::of(b"evenkeel"),
            );
        }
    }
}
