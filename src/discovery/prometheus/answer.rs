//! Parsing of Prometheus responses: one sample per series, with only address, value, time and the labels asked for.

use core::fmt;

use serde::de::DeserializeSeed;

use crate::discovery::json::{Elements, Fields, Object, Point, Unread, Value};
use config::printable::printable;

/// The largest response, bytes; one number per endpoint needs much less.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;
/// The longest label value, bytes: a longer one is not an address, zone or version.
const MAX_LABEL: usize = 512;
/// The longest text from a response in a message, characters.
const MAX_SHOWN: usize = 200;

/// The useful part of a response.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// One sample for each series with the address label.
    pub samples: Vec<Sample>,
    /// The number of these that are native histograms, which have no value.
    pub histograms: usize,
    /// The number of series without it.
    pub unnamed: usize,
    /// The labels that the first of those has instead, printable and cut.
    pub labels_instead: String,
    /// The number of warnings; the data is valid all the same.
    pub warnings: usize,
}

/// One value, and the address where it was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// The value of the address label, unchanged.
    pub address: String,
    /// The value; `None` if it is NaN, infinite, a histogram or not a number.
    pub value: Option<f64>,
    /// When it was measured or computed, seconds since 1970, if the server says so.
    pub at: Option<f64>,
    /// The values of the further labels, in the order in which they were asked for.
    pub labels: Vec<Option<String>>,
}

/// Why a response says nothing about endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It has more bytes than are read; how many more is unknown, because the rest is not read.
    TooLarge,
    /// An HTTP status other than 2xx, and the text of its body, printable and cut; empty if there is none.
    Status(u32, String),
    /// Not a Prometheus response: the reason, printable.
    Malformed(String),
    /// Prometheus rejected the query.
    Refused {
        /// Its `errorType`, such as `bad_data` or `timeout`; printable.
        kind: String,
        /// Its `error`, printable and cut.
        message: String,
    },
    /// A scalar or a string: one value that names no endpoint.
    NamesNoEndpoint,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::TooLarge => write!(f, "the answer has more than {MAX_BYTES} bytes"),
            Unusable::Status(status, text) if text.is_empty() => write!(f, "HTTP status {status}"),
            Unusable::Status(status, text) => write!(f, "HTTP status {status}: {text}"),
            Unusable::Malformed(reason) => write!(f, "not a Prometheus response: {reason}"),
            Unusable::Refused { kind, message } => {
                write!(f, "Prometheus refused the query: {kind}: {message}")
            }
            Unusable::NamesNoEndpoint => f.write_str("the query returns a scalar or a string, not a vector"),
        }
    }
}

impl core::error::Error for Unusable {}

/// Reads the response to an instant query; `address_label` is the label that names the endpoint.
pub fn parse(status: u32, body: &[u8], address_label: &str) -> Result<Answer, Unusable> {
    parse_with(status, body, address_label, &[])
}

/// The same, with the values of `further` labels.
#[inline(never)]
pub fn parse_with(
    status: u32,
    body: &[u8],
    address_label: &str,
    further: &[&str],
) -> Result<Answer, Unusable> {
    if body.len() > MAX_BYTES {
        return Err(Unusable::TooLarge);
    }
    let mut envelope =
        Envelope { data: Data { address_label, further, ..Data::default() }, ..Envelope::default() };
    let mut input = serde_json::Deserializer::from_slice(body);
    let read = Object(&mut envelope).deserialize(&mut input).and_then(|()| input.end());

    if read.is_ok() && envelope.status == "error" {
        let shown = |text: Option<String>| printable(text.as_deref().unwrap_or("unknown"), MAX_SHOWN);
        return Err(Unusable::Refused { kind: shown(envelope.kind), message: shown(envelope.message) });
    }
    if !(200..300).contains(&status) {
        return Err(Unusable::Status(status, plain_text(body)));
    }
    read.map_err(|error| Unusable::Malformed(printable(&error.to_string(), MAX_SHOWN)))?;
    if envelope.status != "success" {
        return Err(Unusable::Malformed("its status is not \"success\"".into()));
    }
    match (envelope.data.result_type.as_deref(), envelope.data.bare_value) {
        (Some("scalar" | "string"), _) | (_, true) => Err(Unusable::NamesNoEndpoint),
        (Some("vector" | "matrix"), false) => {
            Ok(Answer { warnings: envelope.warnings, ..envelope.data.answer })
        }
        _ => Err(Unusable::Malformed("its result type is neither vector nor matrix".into())),
    }
}

/// The text of a body that is not JSON, such as Envoy's own "no healthy upstream"; empty for HTML.
#[inline(never)]
fn plain_text(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..body.len().min(4 * MAX_SHOWN)).unwrap_or_default());
    let text = text.trim();
    if text.starts_with(['<', '{', '[']) { String::new() } else { printable(text, MAX_SHOWN) }
}

#[derive(Default)]
struct Envelope<'l> {
    status: String,
    kind: Option<String>,
    message: Option<String>,
    warnings: usize,
    data: Data<'l>,
}

impl Fields for Envelope<'_> {
    fn field(&mut self, key: &str, value: &mut dyn Value) -> Result<(), Unread> {
        match key {
            "status" => self.status = value.text()?,
            "errorType" => self.kind = value.text_or_null()?,
            "error" => self.message = value.text_or_null()?,
            "warnings" => self.warnings = value.length()?,
            "data" => value.object(&mut self.data)?,
            _ => value.skip()?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct Data<'l> {
    address_label: &'l str,
    further: &'l [&'l str],
    result_type: Option<String>,
    answer: Answer,
    /// Whether the result has an element that is not a series.
    bare_value: bool,
}

impl Fields for Data<'_> {
    fn field(&mut self, key: &str, value: &mut dyn Value) -> Result<(), Unread> {
        match key {
            "resultType" => self.result_type = value.text_or_null()?,
            "result" => {
                let one = OneSeries::new(self);
                value.array(&mut Series { data: self, one })?;
            }
            _ => value.skip()?,
        }
        Ok(())
    }
}

/// The result: an array of series, or `[time, value]` for a scalar or a string.
struct Series<'d, 'l> {
    data: &'d mut Data<'l>,
    one: OneSeries<'l>,
}

impl Fields for Series<'_, '_> {
    fn field(&mut self, key: &str, value: &mut dyn Value) -> Result<(), Unread> {
        match key {
            "metric" => value.object(&mut self.one.labels)?,
            "value" => self.one.point = value.point()?,
            "values" => self.one.point = value.last_point()?,
            other => {
                self.one.histogram |= matches!(other, "histogram" | "histograms");
                value.skip()?;
            }
        }
        Ok(())
    }
}

impl Elements for Series<'_, '_> {
    fn begin(&mut self) {
        self.one = OneSeries::new(self.data);
    }

    fn end(&mut self) {
        let OneSeries { labels, point: Point { at, value }, histogram } = &mut self.one;
        let answer = &mut self.data.answer;
        match labels.address.take() {
            Some(address) => {
                answer.histograms += usize::from(*histogram && value.is_none());
                let labels = core::mem::take(&mut labels.found);
                answer.samples.push(Sample { address, value: *value, at: *at, labels });
            }
            None => {
                answer.unnamed += 1;
                if answer.unnamed == 1 {
                    answer.labels_instead = printable(&labels.others, MAX_SHOWN);
                }
            }
        }
    }

    fn bare(&mut self) {
        self.data.bare_value = true;
    }

    fn expected(&self) -> [&'static str; 2] {
        ["an array of series", "a series"]
    }
}

struct OneSeries<'l> {
    labels: Labels<'l>,
    point: Point,
    histogram: bool,
}

impl<'l> OneSeries<'l> {
    fn new(of: &Data<'l>) -> OneSeries<'l> {
        let (wanted, further) = (of.address_label, of.further);
        let found = vec![None; further.len()];
        let labels = Labels { wanted, further, address: None, found, others: String::new() };
        OneSeries { labels, point: Point::default(), histogram: false }
    }
}

struct Labels<'l> {
    wanted: &'l str,
    further: &'l [&'l str],
    address: Option<String>,
    found: Vec<Option<String>>,
    /// The names of the first labels that were not asked for.
    others: String,
}

impl Fields for Labels<'_> {
    fn field(&mut self, key: &str, value: &mut dyn Value) -> Result<(), Unread> {
        if key != self.wanted && !self.further.contains(&key) {
            if self.others.len() < MAX_SHOWN {
                self.others.push_str(if self.others.is_empty() { "" } else { ", " });
                self.others.push_str(key);
            }
            return value.skip();
        }
        let text = value.text()?;
        let text = (1..=MAX_LABEL).contains(&text.len()).then_some(text);
        // One label may be used for several fields, such as zone and version.
        let named = self.further.iter().zip(&mut self.found).filter(|(label, _)| **label == key);
        named.for_each(|(_, slot)| slot.clone_from(&text));
        if key == self.wanted {
            self.address = text;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
