//! Load reports in responses: ORCA's `endpoint-load-metrics` in its three forms (xDS `OrcaLoadReport`, prefixed with
//! `TEXT`, `JSON` or `BIN`; a header name that ends in `-bin` needs no prefix), or a header that is a plain number.

use crate::discovery::json::{self, Fields, Object, Unread};
use crate::host::Bytes;
use engine::settings::LoadReport;
use engine::time::Time;
use engine::{Balancer, RequestHandle};
use serde::de::DeserializeSeed;

/// The longest header that is read, bytes.
const MAX_BYTES: usize = 4096;
/// The scalar fields of `xds.data.orca.v3.OrcaLoadReport` with their field numbers, all of them doubles.
const SCALARS: [(&str, u64); 5] = [
    ("cpu_utilization", 1),
    ("mem_utilization", 2),
    ("rps_fractional", 6),
    ("eps", 7),
    ("application_utilization", 9),
];
const MAPS: [(&str, u64); 3] = [("request_cost", 4), ("utilization", 5), ("named_metrics", 8)];

/// Passes the load reports in headers or trailers of a response to the engine.
pub(crate) fn take(
    engine: &mut Balancer,
    handle: &RequestHandle,
    now: impl Fn() -> Time,
    header: impl Fn(&str) -> Option<Bytes>,
) {
    let mut signal = 0;
    while let Some(report) = engine.load_report(handle.upstream, signal) {
        if let Some(report) = report
            && let Some(bytes) = header(&report.header)
        {
            let value = read(&bytes, report);
            engine.load_reported(handle, signal, value, now());
        }
        signal += 1;
    }
}

/// The value that `report` names, from a header of any bytes; `None` if it is absent or cannot be read.
pub fn read(bytes: &[u8], report: &LoadReport) -> Option<f64> {
    if bytes.len() > MAX_BYTES {
        return None;
    }
    let text = core::str::from_utf8(bytes).ok()?.trim();
    if report.metric.is_empty() {
        return text.parse().ok();
    }
    let wanted = Wanted::of(&report.metric);
    if report.header.ends_with("-bin") {
        return of_binary(text, &wanted);
    }
    match text.split_once(' ') {
        Some(("BIN", rest)) => of_binary(rest.trim(), &wanted),
        Some(("JSON", rest)) => of_json(rest, &wanted),
        Some(("TEXT", rest)) => of_text(rest, &report.metric),
        _ => of_text(text, &report.metric),
    }
}

/// The value to look for: a field, or a key in a map.
struct Wanted<'m> {
    field: &'m str,
    key: Option<&'m str>,
}

impl Wanted<'_> {
    fn of(metric: &str) -> Wanted<'_> {
        match metric.split_once('.') {
            Some((map, key)) => Wanted { field: map, key: Some(key) },
            None => Wanted { field: metric, key: None },
        }
    }

    fn number(&self) -> Option<u64> {
        let fields: &[(&str, u64)] = if self.key.is_some() { &MAPS } else { &SCALARS };
        fields.iter().find(|(name, _)| *name == self.field).map(|(_, number)| *number)
    }
}

/// The value of `metric` in the text form: `cpu_utilization=0.3, named_metrics.queue=12`.
fn of_text(text: &str, metric: &str) -> Option<f64> {
    let mut pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| name.trim() == metric).and_then(|(_, value)| value.trim().parse().ok())
}

fn of_json(text: &str, wanted: &Wanted) -> Option<f64> {
    let mut found = Found { wanted, in_map: false, value: None };
    // From bytes, as everywhere else: a reader of text would be the whole of serde_json's code once more.
    let mut input = serde_json::Deserializer::from_slice(text.as_bytes());
    Object(&mut found).deserialize(&mut input).ok()?;
    input.end().ok()?;
    found.value
}

/// A visitor that picks the value from the object, or from the map inside it.
struct Found<'w> {
    wanted: &'w Wanted<'w>,
    in_map: bool,
    value: Option<f64>,
}

impl Fields for Found<'_> {
    fn field(&mut self, key: &str, value: &mut dyn json::Value) -> Result<(), Unread> {
        match self.wanted.key {
            Some(wanted) if self.in_map && key == wanted => self.value = Some(value.number()?),
            Some(_) if !self.in_map && is_named(key, self.wanted.field) => {
                let mut inside = Found { wanted: self.wanted, in_map: true, value: None };
                value.object(&mut inside)?;
                self.value = inside.value;
            }
            None if is_named(key, self.wanted.field) => self.value = Some(value.number()?),
            _ => value.skip()?,
        }
        Ok(())
    }
}

/// Whether `key` is the field's name in snake case or in the camel case of protobuf's JSON mapping.
fn is_named(key: &str, field: &str) -> bool {
    let mut declared = field.bytes();
    let same = key.bytes().all(|byte| match declared.next() {
        Some(b'_') if byte != b'_' => declared.next().is_some_and(|next| next.to_ascii_uppercase() == byte),
        expected => expected == Some(byte),
    });
    same && declared.next().is_none()
}

fn of_binary(text: &str, wanted: &Wanted) -> Option<f64> {
    let bytes = base64(text)?;
    let number = wanted.number()?;
    let mut message = Wire(&bytes);
    let mut found = None;
    while let Some((field, value)) = message.next()? {
        match (wanted.key, value) {
            (None, Value::Double(value)) if field == number => found = Some(value),
            (Some(key), Value::Bytes(entry)) if field == number => {
                let (mut named, mut of_entry) = (false, 0.0);
                let mut entry = Wire(entry);
                while let Some((field, value)) = entry.next()? {
                    match (field, value) {
                        (1, Value::Bytes(name)) => named = name == key.as_bytes(),
                        (2, Value::Double(value)) => of_entry = value,
                        _ => {}
                    }
                }
                if named {
                    found = Some(of_entry);
                }
            }
            _ => {}
        }
    }
    // proto3 omits fields that are 0.
    found.or(wanted.key.is_none().then_some(0.0))
}

/// A reader of protobuf wire format, field by field.
struct Wire<'b>(&'b [u8]);

enum Value<'b> {
    Double(f64),
    Bytes(&'b [u8]),
    Other,
}

impl<'b> Wire<'b> {
    /// The next field; `None` if the bytes are malformed, `Some(None)` at their end.
    #[allow(clippy::option_option)]
    fn next(&mut self) -> Option<Option<(u64, Value<'b>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => self.varint().map(|_| Value::Other)?,
            1 => Value::Double(f64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Other)?,
            _ => return None,
        };
        Some(Some((tag >> 3, value)))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

/// Decodes base64 with or without padding, in either alphabet (RFC 4648, sections 4 and 5).
fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 3);
    for group in text.chunks(4) {
        let mut bits = 0u32;
        for byte in group {
            let digit = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(digit);
        }
        let whole = match group.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return None,
        };
        let [_, decoded @ ..] = (bits << (6 * (4 - group.len()))).to_be_bytes();
        bytes.extend(decoded.iter().take(whole));
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn report(header: &str, metric: &str) -> LoadReport {
        LoadReport { header: header.into(), metric: metric.into() }
    }

    /// `OrcaLoadReport { cpu_utilization: 0.25, named_metrics: { "queue": 12 }, application_utilization: 0.5 }`, as protoc
    /// encodes it.
    const MESSAGE: &str = "CQAAAAAAANA/QhAKBXF1ZXVlEQAAAAAAAChASQAAAAAAAOA/";

    #[test]
    fn every_form_of_a_report_is_read() {
        let text = "TEXT cpu_utilization=0.25, named_metrics.queue=12,application_utilization=0.5";
        let json = r#"JSON {"cpu_utilization": 0.25, "x": [{}], "namedMetrics": {"a.b": 7, "queue": 12}, "applicationUtilization": 0.5}"#;
        let binary = format!("BIN {MESSAGE}");
        for value in [text, json, &binary] {
            for (metric, expected) in
                [("cpu_utilization", 0.25), ("named_metrics.queue", 12.0), ("application_utilization", 0.5)]
            {
                let read = read(value.as_bytes(), &report("endpoint-load-metrics", metric));
                assert_eq!(read, Some(expected), "{value} {metric}");
            }
            assert_eq!(read(value.as_bytes(), &report("endpoint-load-metrics", "utilization.none")), None);
        }
        assert_eq!(
            read(MESSAGE.as_bytes(), &report("endpoint-load-metrics-bin", "cpu_utilization")),
            Some(0.25)
        );
        assert_eq!(read(MESSAGE.as_bytes(), &report("endpoint-load-metrics-bin", "eps")), Some(0.0));
        assert_eq!(read(json.as_bytes(), &report("endpoint-load-metrics", "named_metrics.a.b")), Some(7.0));
        assert_eq!(read(b" 17 ", &report("x-prequal-rif", "")), Some(17.0));
    }

    #[test]
    fn what_is_no_report_yields_nothing_and_never_panics() {
        for value in [
            "",
            "TEXT",
            "TEXT eps",
            "JSON {",
            "JSON {\"eps\": \"NaN\"}",
            "BIN !",
            "BIN A",
            "eps==1",
            "JSON []",
        ] {
            assert_eq!(read(value.as_bytes(), &report("endpoint-load-metrics", "eps")), None, "{value}");
        }
        assert_eq!(read(&[0xFF; 8], &report("x", "")), None);
        assert_eq!(read(&vec![b'1'; MAX_BYTES + 1], &report("x", "")), None);
        // Every prefix of a message, and the message with each byte changed.
        let bytes = base64(MESSAGE).expect("base64");
        for at in 0..bytes.len() {
            for flip in [1, 0x40, 0x80, 0xFF] {
                let mut hostile = bytes.clone();
                hostile[at] ^= flip;
                let mut wire = Wire(&hostile[..]);
                while let Some(Some(_)) = wire.next() {}
            }
            let mut wire = Wire(&bytes[..at]);
            while let Some(Some(_)) = wire.next() {}
        }
    }
}
