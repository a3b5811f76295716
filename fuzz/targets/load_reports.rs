//! Load reports in responses: plain numbers and ORCA's formats, and reports that are written here and read back.

use core::fmt::Write;

use engine::settings::LoadReport;
use evenkeel::request::read_load_report;

use super::input::{Input, within};

const METRICS: [&str; 6] =
    ["", "cpu_utilization", "application_utilization", "eps", "named_metrics.queue", "utilization.a.b"];
const HEADERS: [&str; 3] = ["endpoint-load-metrics", "endpoint-load-metrics-bin", "x-load"];

fn read(bytes: &[u8], header: &str, metric: &str) -> Option<f64> {
    let report = LoadReport { header: header.into(), metric: metric.into() };
    within(bytes.len(), 24, || read_load_report(bytes, &report))
}

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let (form, metric, header) =
        (input.of(&["", "BIN ", "JSON ", "TEXT "]), input.of(&METRICS), input.of(&HEADERS));
    let bytes = [form.as_bytes(), input.0].concat();
    let value = read(&bytes, header, metric);
    assert!(bytes.len() <= 4096 || value.is_none(), "more than is read");
    let padded = [b" ", &bytes[..], b" "].concat();
    if metric.is_empty() && padded.len() <= 4096 {
        assert_eq!(
            read(&padded, header, metric).map(f64::to_bits),
            value.map(f64::to_bits),
            "blanks around it"
        );
    }
    let numbers = [input.f64(), input.f64()];
    if numbers.iter().all(|number| number.is_finite()) {
        written(numbers);
    }
}

/// Maximum rounding error of a number, in units in the last place. The filter reads JSON without `float_roundtrip` of
/// `serde_json`: the digits, the power of ten and their product are each rounded once, and an exponent beyond 308 takes
/// two powers. The workspace's tests have the feature (`jsonschema` enables it) and read exactly.
const MAX_UNITS: u64 = 4;

/// Number of floating-point numbers from one to the other.
fn units_apart(a: f64, b: f64) -> u64 {
    let place = |number: f64| {
        let size = (number.to_bits() << 1 >> 1) as i64;
        if number.is_sign_negative() { -size } else { size }
    };
    place(a).abs_diff(place(b))
}

/// A report of two numbers is read as these numbers in each format.
fn written([cpu, queue]: [f64; 2]) {
    let text = format!("cpu_utilization={cpu}, named_metrics.queue={queue}");
    let json = serde_json::json!({ "cpu_utilization": cpu, "named_metrics": { "other": 1, "queue": queue } });
    let binary = base64(&message(cpu, queue));
    for form in [format!("TEXT {text}"), text, format!("JSON {json}"), format!("BIN {binary}")] {
        for (metric, expected) in [("cpu_utilization", cpu), ("named_metrics.queue", queue)] {
            let read = read(form.as_bytes(), HEADERS[0], metric);
            if form.starts_with("JSON ") {
                assert!(
                    read.is_some_and(|read| units_apart(read, expected) <= MAX_UNITS),
                    "{form}: {read:?}"
                );
            } else {
                assert_eq!(read, Some(expected), "{form}");
            }
        }
    }
    assert_eq!(read(binary.as_bytes(), HEADERS[1], METRICS[1]), Some(cpu));
}

/// `OrcaLoadReport { cpu_utilization, named_metrics: { queue } }`.
fn message(cpu: f64, queue: f64) -> Vec<u8> {
    let mut bytes = vec![1 << 3 | 1];
    bytes.extend(cpu.to_le_bytes());
    let mut entry = vec![1 << 3 | 2, 5];
    entry.extend(b"queue");
    entry.push(2 << 3 | 1);
    entry.extend(queue.to_le_bytes());
    bytes.extend([8 << 3 | 2, entry.len() as u8]);
    bytes.extend(entry);
    bytes
}

fn base64(bytes: &[u8]) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, at| bits << 8 | u32::from(*group.get(at).unwrap_or(&0)));
        for digit in 0..=group.len() {
            write!(text, "{}", char::from(digits[(bits >> (18 - 6 * digit)) as usize & 63]))
                .expect("a string");
        }
    }
    text
}
