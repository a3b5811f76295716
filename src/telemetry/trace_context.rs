//! The trace of a request, from the headers of tracers.
//!
//! They come from clients: values that are not hexadecimal or too long are ignored.

use crate::host::StreamHost;

/// The longest request id that is accepted, bytes; a UUID has 36.
const MAX_REQUEST_ID: usize = 64;

/// The trace context of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    /// The trace id: 16 or 32 hexadecimal digits in lower case.
    pub id: Option<String>,
    /// The request id: hexadecimal digits and dashes.
    pub request_id: Option<String>,
}

impl Trace {
    /// From W3C's `traceparent`, otherwise from B3, and from Envoy's `x-request-id`.
    pub(crate) fn of(host: &dyn StreamHost) -> Trace {
        let id = host.request_header("traceparent").and_then(|value| of_traceparent(&value));
        let id = id.or_else(|| host.request_header("x-b3-traceid").and_then(|value| trace_id(&value)));
        let id = id.or_else(|| host.request_header("b3").and_then(|value| of_b3(&value)));
        Trace { id, request_id: host.request_header("x-request-id").and_then(|value| request_id(&value)) }
    }
}

/// `00-TRACE-PARENT-FLAGS`, <https://www.w3.org/TR/trace-context/#traceparent-header>.
fn of_traceparent(value: &[u8]) -> Option<String> {
    let mut parts = value.split(|byte| *byte == b'-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let wide = version.len() == 2 && version.iter().all(u8::is_ascii_hexdigit) && trace.len() == 32;
    if wide { trace_id(trace) } else { None }
}

/// `TRACE-SPAN-…`, <https://github.com/openzipkin/b3-propagation#single-header>.
fn of_b3(value: &[u8]) -> Option<String> {
    trace_id(value.split(|byte| *byte == b'-').next()?)
}

/// A trace id; all zeros mean none.
fn trace_id(value: &[u8]) -> Option<String> {
    let id = matches!(value.len(), 16 | 32) && value.iter().all(u8::is_ascii_hexdigit);
    (id && value.iter().any(|byte| *byte != b'0')).then(|| lower(value))
}

fn request_id(value: &[u8]) -> Option<String> {
    let fits = (8..=MAX_REQUEST_ID).contains(&value.len());
    (fits && value.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-')).then(|| lower(value))
}

fn lower(value: &[u8]) -> String {
    value.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect()
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const W3C: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn identities_are_taken_from_their_places() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(of_traceparent(W3C).as_deref(), Some(trace));
        assert_eq!(of_b3(b"0AF7651916CD43DD8448EB211C80319C-05e3ac9a4f6e3b90-1").as_deref(), Some(trace));
        assert_eq!(of_b3(b"05e3ac9a4f6e3b90").as_deref(), Some("05e3ac9a4f6e3b90"));
        assert_eq!(
            request_id(b"6A9b7f1e-0f1c-4a5e-9f67-00e8d1f4f7aa").as_deref(),
            Some("6a9b7f1e-0f1c-4a5e-9f67-00e8d1f4f7aa")
        );
    }

    #[test]
    fn anything_else_is_none() {
        for value in [
            &b""[..],
            b"0",
            b"00-00000000000000000000000000000000-b7ad6b7169203331-01",
            b"00-0af7651916cd43dd8448eb211c80319c0-b7ad6b7169203331-01",
            b"zz-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            b"00-0af7651916cd43dd8448eb211c80319\n-b7ad6b7169203331-01",
            b"00-\"}{'<script>alert(1)</script>aaaa-b7ad6b7169203331-01",
        ] {
            assert_eq!(of_traceparent(value), None, "{}", value.escape_ascii());
            assert_eq!(of_b3(value), None, "{}", value.escape_ascii());
        }
        for value in [&b""[..], b"1234567", b"6a9b7f1e 0f1c", b"\"}{'<script>", b"6a9b7f1e\n", b"xyz-xyz-xyz"]
        {
            assert_eq!(request_id(value), None, "{}", value.escape_ascii());
        }
        assert_eq!(request_id(&[b'a'; MAX_REQUEST_ID + 1]), None);
    }

    #[cfg(not(target_family = "wasm"))]
    proptest::proptest! {
        #[test]
        fn whatever_is_sent_only_hexadecimal_comes_out(value in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            for found in [of_traceparent(&value), of_b3(&value), request_id(&value)].into_iter().flatten() {
                proptest::prop_assert!(found.len() <= MAX_REQUEST_ID);
                proptest::prop_assert!(found.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'));
            }
        }
    }
}
