//! Parsing of Prometheus responses: one sample per series, with only address, value, time and the labels asked for.

use core::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::discovery::json::{Fields, Object, skip};
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

impl<'de> Fields<'de> for Envelope<'_> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "status" => self.status = object.next_value()?,
            "errorType" => self.kind = object.next_value()?,
            "error" => self.message = object.next_value()?,
            "warnings" => {
                self.warnings = object.next_value::<Option<Vec<IgnoredAny>>>()?.map_or(0, |list| list.len())
            }
            "data" => object.next_value_seed(Object(&mut self.data))?,
            _ => skip(object)?,
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

impl<'de> Fields<'de> for Data<'_> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "resultType" => self.result_type = object.next_value()?,
            "result" => object.next_value_seed(Series(self))?,
            _ => skip(object)?,
        }
        Ok(())
    }
}

/// The result: an array of series, or `[time, value]` for a scalar or a string.
struct Series<'d, 'l>(&'d mut Data<'l>);

impl<'de> DeserializeSeed<'de> for Series<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Series<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of series")
    }

    /// `null`: an empty list, as some servers write it.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while array.next_element_seed(Item(self.0))?.is_some() {}
        Ok(())
    }
}

struct Item<'d, 'l>(&'d mut Data<'l>);

impl<'de> DeserializeSeed<'de> for Item<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Item<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a series")
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.0.bare_value = true;
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.visit_f64(0.0)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.visit_f64(0.0)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.visit_f64(0.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<(), A::Error> {
        let (wanted, further) = (self.0.address_label, self.0.further);
        let labels = Labels {
            wanted,
            further,
            address: None,
            found: vec![None; further.len()],
            others: String::new(),
        };
        let mut one = OneSeries { labels, point: Point::default(), histogram: false };
        Object(&mut one).visit_map(object)?;
        let Point { at, value } = one.point;
        let answer = &mut self.0.answer;
        match one.labels.address {
            Some(address) => {
                answer.histograms += usize::from(one.histogram && value.is_none());
                answer.samples.push(Sample { address, value, at, labels: one.labels.found });
            }
            None => {
                answer.unnamed += 1;
                if answer.unnamed == 1 {
                    answer.labels_instead = printable(&one.labels.others, MAX_SHOWN);
                }
            }
        }
        Ok(())
    }
}

struct OneSeries<'l> {
    labels: Labels<'l>,
    point: Point,
    histogram: bool,
}

impl<'de> Fields<'de> for OneSeries<'_> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "metric" => object.next_value_seed(Object(&mut self.labels))?,
            "value" => self.point = object.next_value()?,
            "values" => self.point = object.next_value::<LastPoint>()?.0,
            other => {
                self.histogram |= matches!(other, "histogram" | "histograms");
                skip(object)?;
            }
        }
        Ok(())
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

impl<'de> Fields<'de> for Labels<'_> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        if key != self.wanted && !self.further.contains(&key) {
            if self.others.len() < MAX_SHOWN {
                self.others.push_str(if self.others.is_empty() { "" } else { ", " });
                self.others.push_str(key);
            }
            return skip(object);
        }
        let text: String = object.next_value()?;
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

/// `[time, "value"]`
#[derive(Clone, Copy, Default)]
struct Point {
    at: Option<f64>,
    value: Option<f64>,
}

impl<'de> serde::Deserialize<'de> for Point {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let (Number(at), Number(value)) = <(Number, Number)>::deserialize(input)?;
        Ok(Point { at, value })
    }
}

/// `[[time, "value"], …]`, oldest first; of an empty list there is no last point.
struct LastPoint(Point);

impl<'de> serde::Deserialize<'de> for LastPoint {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_seq(LastPoint(Point::default()))
    }
}

impl<'de> Visitor<'de> for LastPoint {
    type Value = LastPoint;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of points")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<LastPoint, A::Error> {
        let mut last = self;
        while let Some(point) = array.next_element()? {
            last = LastPoint(point);
        }
        Ok(last)
    }
}

/// A finite number, written as text so that NaN and infinities can be written too.
struct Number(Option<f64>);

impl<'de> serde::Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(Number(None))
    }
}

impl Visitor<'_> for Number {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number in quotes")
    }

    fn visit_str<E>(self, text: &str) -> Result<Number, E> {
        Ok(Number(text.parse().ok().filter(|value: &f64| value.is_finite())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Number, E> {
        Ok(Number(Some(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Number, E> {
        Ok(Number(Some(value as f64)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Number, E> {
        Ok(Number(Some(value as f64)))
    }
}

#[cfg(test)]
mod tests;
