//! Operations on a stream.

use core::ffi::c_void;

use evenkeel::host::MetricKind;

use super::{Buffer, EnvoyBuffer, Header, import, tells_all};

/// Header maps, with Envoy's numbers.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub enum Map {
    /// Request headers.
    RequestHeaders = 0,
    /// Response headers.
    ResponseHeaders = 2,
    /// Response trailers.
    ResponseTrailers = 3,
}

/// String attributes, with Envoy's numbers.
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

/// Number of the integer attribute `upstream.request_attempt_count`.
const ATTEMPTS: u32 = 53;
const RECEIVED_RESPONSE_BODY: u32 = 2;

/// A stream, valid while one of its events runs.
#[derive(Clone, Copy)]
pub struct StreamHandle(pub *mut c_void);

impl StreamHandle {
    fn value(self, map: Map, name: &str, nth: usize, count: &mut usize) -> Option<Vec<u8>> {
        let mut value = EnvoyBuffer::NONE;
        let name = Buffer::of(name.as_bytes());
        // SAFETY: see above; Envoy writes to two valid places.
        let found = unsafe {
            import::envoy_dynamic_module_callback_http_get_header(
                self.0, map as u32, name, &mut value, nth, count,
            )
        };
        // SAFETY: it was passed in this event.
        (found && nth < *count).then(|| unsafe { value.bytes() }.to_vec())
    }

    /// A header's first value.
    pub fn header(self, map: Map, name: &str) -> Option<Vec<u8>> {
        self.value(map, name, 0, &mut 0)
    }

    /// All values of a header, in order.
    pub fn headers(self, map: Map, name: &str) -> Vec<Vec<u8>> {
        let mut count = 0;
        (0..).map_while(|nth| self.value(map, name, nth, &mut count)).collect()
    }

    /// Replaces all values of a header by this one; `None` removes the header.
    pub fn set_header(self, map: Map, name: &str, value: Option<&[u8]>) {
        let value = value.map_or(Buffer::NONE, Buffer::of);
        let name = Buffer::of(name.as_bytes());
        // SAFETY: see above. Outside its phase the map does not exist, and nothing happens.
        let _is_there =
            unsafe { import::envoy_dynamic_module_callback_http_set_header(self.0, map as u32, name, value) };
    }

    /// Appends a value to a header.
    pub fn add_header(self, map: Map, name: &str, value: &[u8]) {
        let (name, value) = (Buffer::of(name.as_bytes()), Buffer::of(value));
        // SAFETY: see above.
        let _is_there =
            unsafe { import::envoy_dynamic_module_callback_http_add_header(self.0, map as u32, name, value) };
    }

    /// Up to `most` last bytes of the response body chunk that has just arrived.
    pub fn response_body_end(self, most: usize) -> Vec<u8> {
        // SAFETY: a query without side effects.
        let count = unsafe {
            import::envoy_dynamic_module_callback_http_get_body_chunks_size(self.0, RECEIVED_RESPONSE_BODY)
        };
        let mut chunks = vec![EnvoyBuffer::NONE; count];
        // SAFETY: there is room for the number of chunks that Envoy has just returned.
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
        // SAFETY: they were passed in this event.
        let chunks: Vec<&[u8]> = chunks.into_iter().map(|chunk| unsafe { chunk.bytes() }).collect();
        let mut end = Vec::new();
        for chunk in chunks.iter().rev() {
            let wanted = most.saturating_sub(end.len()).min(chunk.len());
            end.extend(chunk.iter().rev().take(wanted));
        }
        end.reverse();
        end
    }

    /// A string attribute, if known.
    pub fn attribute(self, attribute: Attribute) -> Option<Vec<u8>> {
        let mut value = EnvoyBuffer::NONE;
        // SAFETY: Envoy writes to a valid place.
        let known = unsafe {
            import::envoy_dynamic_module_callback_http_filter_get_attribute_string(
                self.0,
                attribute as u32,
                &mut value,
            )
        };
        // SAFETY: it was passed in this event.
        known.then(|| unsafe { value.bytes() }.to_vec())
    }

    /// Number of attempts, if known.
    pub fn attempts(self) -> Option<u64> {
        if !tells_all() {
            return None;
        }
        let mut attempts = 0;
        // SAFETY: Envoy writes to a valid place.
        let known = unsafe {
            import::envoy_dynamic_module_callback_http_filter_get_attribute_int(
                self.0,
                ATTEMPTS,
                &mut attempts,
            )
        };
        known.then_some(attempts)
    }

    /// The cluster of the route, if any.
    pub fn cluster_name(self) -> Option<Vec<u8>> {
        let mut name = EnvoyBuffer::NONE;
        // SAFETY: Envoy writes to a valid place.
        let known = unsafe { import::envoy_dynamic_module_callback_http_get_cluster_name(self.0, &mut name) };
        // SAFETY: it was passed in this event.
        known.then(|| unsafe { name.bytes() }.to_vec())
    }

    /// Sets the host that the request should go to, if Envoy can use it; returns whether `address` is an address.
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

    /// A filter state value that a module has set.
    pub fn filter_state(self, key: &str) -> Option<Vec<u8>> {
        let mut value = EnvoyBuffer::NONE;
        // SAFETY: see above; Envoy writes to a valid place.
        let found = unsafe {
            import::envoy_dynamic_module_callback_http_get_filter_state_bytes(
                self.0,
                Buffer::of(key.as_bytes()),
                &mut value,
            )
        };
        // SAFETY: it was passed in this event.
        found.then(|| unsafe { value.bytes() }.to_vec())
    }

    /// Sets a filter state value, readable by other filters of the request and by the access log. Envoy lets none be set
    /// twice.
    pub fn set_filter_state(self, key: &str, value: &[u8]) {
        let (key, value) = (Buffer::of(key.as_bytes()), Buffer::of(value));
        // SAFETY: see above.
        let _is_there =
            unsafe { import::envoy_dynamic_module_callback_http_set_filter_state_bytes(self.0, key, value) };
    }

    /// Adds to a counter, sets a gauge, or records a histogram value, of the stream's configuration.
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

    /// Sends a local reply.
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
