//! What Prometheus answered: one sample a series, of which only the address and the number are kept.

use core::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::discovery::json::{Fields, Object, skip};
use config::printable::printable;

/// A query for one number an endpoint has no business being longer.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;
/// No address, zone or version is longer; a label that is holds something else.
const MAX_LABEL: usize = 512;
const MAX_SHOWN: usize = 200;

/// The useful part of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// One for each series that has the address label.
    pub samples: Vec<Sample>,
    /// How many series lack it.
    pub unnamed: usize,
    /// The labels that the first of those has instead, printable and cut.
    pub labels_instead: String,
    /// How many warnings came along; the data is good all the same.
    pub warnings: usize,
}

/// One number, and where it was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// The address label's value, as it came.
    pub address: String,
    /// The number; `None` where it is NaN, infinite, a histogram or no number at all.
    pub value: Option<f64>,
    /// When it was measured or worked out, seconds since 1970, as far as the server says.
    pub at: Option<f64>,
    /// The values of the further labels that were asked for, in their order.
    pub labels: Vec<Option<String>>,
}

/// Why an answer says nothing about endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// More bytes than are read. How many more is not known: the rest is left where it is.
    TooLarge,
    /// An HTTP status other than 2xx, and what its body says of it, printable and cut; empty if nothing.
    Status(u32, String),
    /// Not what Prometheus answers: the reason, printable.
    Malformed(String),
    /// Prometheus refused the query.
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
            Unusable::Malformed(reason) => write!(f, "not an answer of Prometheus: {reason}"),
            Unusable::Refused { kind, message } => {
                write!(f, "Prometheus refused the query: {kind}: {message}")
            }
            Unusable::NamesNoEndpoint => {
                f.write_str("the query yields a scalar or a string, which names no endpoint")
            }
        }
    }
}

impl core::error::Error for Unusable {}

/// Reads the answer to an instant query; `address_label` is the label that names the endpoint.
pub fn parse(status: u32, body: &[u8], address_label: &str) -> Result<Answer, Unusable> {
    parse_with(status, body, address_label, &[])
}

/// The same, with the values of `further` labels.
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

/// What a body that is no JSON says, such as Envoy's own "no healthy upstream"; a page for browsers says nothing.
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
    /// Something that is no series stands in the result.
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

    /// An empty list, as some servers write it.
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
        let mut one = OneSeries { labels, point: Point::default() };
        Object(&mut one).visit_map(object)?;
        let Point { at, value } = one.point;
        let answer = &mut self.0.answer;
        match one.labels.address {
            Some(address) => answer.samples.push(Sample { address, value, at, labels: one.labels.found }),
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
}

impl<'de> Fields<'de> for OneSeries<'_> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "metric" => object.next_value_seed(Object(&mut self.labels))?,
            "value" => self.point = object.next_value()?,
            "values" => self.point = object.next_value::<LastPoint>()?.0,
            _ => skip(object)?,
        }
        Ok(())
    }
}

struct Labels<'l> {
    wanted: &'l str,
    further: &'l [&'l str],
    address: Option<String>,
    found: Vec<Option<String>>,
    /// The names of the first few labels that are not asked for.
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
        // One label may say several things, such as zone and version.
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

/// `[[time, "value"], …]`, oldest first; an empty list has no last one.
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
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn result(kind: &str, result: &str) -> String {
        format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}}}"#)
    }

    fn samples(body: &str) -> Vec<(String, Option<f64>)> {
        let answer = parse(200, body.as_bytes(), "instance").unwrap();
        answer.samples.into_iter().map(|sample| (sample.address, sample.value)).collect()
    }

    fn unusable(status: u32, body: &str) -> Unusable {
        parse(status, body.as_bytes(), "instance").unwrap_err()
    }

    #[test]
    fn a_vector_has_one_sample_a_series() {
        let body = result(
            "vector",
            r#"[{"metric":{"__name__":"queue","instance":"10.0.0.1:80","job":"web"},"value":[1731.781,"17.5"]},
                {"value":[1731,"NaN"],"metric":{"instance":"10.0.0.2:80"}},
                {"metric":{"instance":"10.0.0.3:80"},"value":[1731,"+Inf"]},
                {"metric":{"instance":"10.0.0.4:80"},"value":[1731,"-Inf"]},
                {"metric":{"instance":"10.0.0.5:80"},"value":[1731,"-1e-3"]},
                {"metric":{"instance":"10.0.0.6:80"},"histogram":[1731,{"count":"7","sum":"3","buckets":[[0,"1","2","7"]]}]},
                {"metric":{"instance":"10.0.0.7:80"},"value":[1731,"many"]},
                {"metric":{"\u0069nstance":"10.0.0.8\u003a80"},"value":[1731,3]}]"#,
        );
        let expected = [Some(17.5), None, None, None, Some(-1e-3), None, None, Some(3.0)];
        let expected: Vec<_> =
            expected.into_iter().zip(1..).map(|(value, host)| (format!("10.0.0.{host}:80"), value)).collect();
        assert_eq!(samples(&body), expected);
    }

    #[test]
    fn a_matrix_counts_with_its_last_point() {
        let body = result(
            "matrix",
            r#"[{"metric":{"instance":"a"},"values":[[1,"1"],[2,"2"],[3,"5"]]},
                {"metric":{"instance":"b"},"values":[[1,"1"],[2,"NaN"]]},
                {"metric":{"instance":"c"},"values":[]}]"#,
        );
        assert_eq!(samples(&body), [("a".into(), Some(5.0)), ("b".into(), None), ("c".into(), None)]);
    }

    #[test]
    fn the_address_label_is_whichever_is_asked_for() {
        let body = result(
            "vector",
            r#"[{"metric":{"instance":"a","pod_ip":"b"},"value":[1,"2"]},{"metric":{},"value":[1,"2"]}]"#,
        );
        let answer = parse(200, body.as_bytes(), "pod_ip").unwrap();
        assert_eq!(
            answer.samples,
            [Sample { address: "b".into(), value: Some(2.0), at: Some(1.0), ..Sample::default() }]
        );
        assert_eq!(answer.unnamed, 1);
    }

    #[test]
    fn nothing_found_is_an_answer() {
        for body in [result("vector", "[]"), result("vector", "null"), result("matrix", "[]")] {
            assert_eq!(samples(&body), []);
        }
    }

    #[test]
    fn the_order_of_fields_does_not_matter_and_warnings_do_no_harm() {
        let body = r#"{"infos":["i"],"warnings":["w","x"],"data":{"result":[{"metric":{"instance":"a"},"value":[1,"2"]}],
                       "stats":{"timings":{}},"resultType":"vector"},"status":"success"}"#;
        let answer = parse(200, body.as_bytes(), "instance").unwrap();
        assert_eq!((answer.samples.len(), answer.warnings), (1, 2));
    }

    /// The servers that speak Prometheus' language, each with what only it adds.
    #[test]
    fn the_answers_of_mimir_thanos_and_victoria_metrics_are_read() {
        let series = r#"{"metric":{"__name__":"up","instance":"10.0.0.1:80","replica":"a"},"value":[1731.781,"1"]},
                        {"metric":{"instance":"10.0.0.2:80"},"value":[1731.781,"0.25"]}"#;
        let data = format!(r#""resultType":"vector","result":[{series}]"#);
        for (server, body) in [
            (
                "Mimir",
                format!(
                    r#"{{"status":"success","data":{{{data}}},"infos":["metric might not be a counter"]}}"#
                ),
            ),
            (
                "Thanos",
                format!(
                    r#"{{"status":"success","data":{{{data},"analysis":{{"name":"[vectorSelector]","children":[]}}}},
                        "warnings":["receive series from store: rpc error: code = Unavailable"]}}"#
                ),
            ),
            (
                "VictoriaMetrics",
                format!(
                    r#"{{"status":"success","isPartial":true,"data":{{{data}}},
                        "stats":{{"seriesFetched":"2","executionTimeMsec":3}},"trace":{{"duration_msec":0.1}}}}"#
                ),
            ),
            (
                "Prometheus",
                format!(
                    r#"{{"status":"success","data":{{{data},"stats":{{"samples":{{"peakSamples":2}}}}}}}}"#
                ),
            ),
        ] {
            let expected = [("10.0.0.1:80".into(), Some(1.0)), ("10.0.0.2:80".into(), Some(0.25))];
            assert_eq!(samples(&body), expected, "{server}");
        }
        // A tenant is missing, a tenant's limit is reached, a cluster's part does not answer.
        assert_eq!(unusable(401, "no org id\n"), Unusable::Status(401, "no org id".into()));
        let refused =
            r#"{"status":"error","errorType":"too_many_requests","error":"the request has been rejected"}"#;
        assert!(unusable(429, refused).to_string().contains("too_many_requests"));
        let refused = r#"{"status":"error","errorType":"422","error":"cannot execute query"}"#;
        assert!(unusable(422, refused).to_string().contains("cannot execute query"));
    }

    #[test]
    fn a_value_without_labels_names_no_endpoint() {
        for body in [
            result("scalar", r#"[1731.781,"1"]"#),
            result("string", r#"[1731.781,"web"]"#),
            result("vector", r#"[1731,"1"]"#),
        ] {
            assert_eq!(unusable(200, &body), Unusable::NamesNoEndpoint, "{body}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_words_of_prometheus() {
        let body =
            r#"{"status":"error","errorType":"bad_data","error":"1:4: parse error:\nunexpected \"}\""}"#;
        let expected = r#"Prometheus refused the query: bad_data: 1:4: parse error:\nunexpected \"}\""#;
        assert_eq!(unusable(400, body).to_string(), expected);
        let long = format!(r#"{{"status":"error","error":"{}","data":null}}"#, "x".repeat(10_000));
        let line = unusable(503, &long).to_string();
        assert!(line.contains("unknown: xxx") && line.len() < 300, "{line}");
    }

    #[test]
    fn whatever_else_comes_back_is_named() {
        assert_eq!(unusable(502, "<html>Bad gateway</html>"), Unusable::Status(502, String::new()));
        assert_eq!(unusable(0, ""), Unusable::Status(0, String::new()));
        assert_eq!(unusable(500, &result("vector", "[]")), Unusable::Status(500, String::new()));
        for body in [
            "",
            "null",
            "[]",
            "<html>",
            "{}",
            r#"{"status":"success"}"#,
            r#"{"status":"success","data":null}"#,
            r#"{"status":"success","data":{"resultType":"streams","result":[]}}"#,
            r#"{"status":"success","data":{"result":[]}}"#,
            &result("vector", r#"[{"metric":{"instance":7},"value":[1,"2"]}]"#),
            &result("vector", r#"[{"metric":{"instance":"a"},"value":[1]}]"#),
            &result("vector", r#"[{"metric":{"instance":"a"},"value":"2"}]"#),
            &result("vector", "[null]"),
            &result("vector", "{}"),
            &(result("vector", "[]") + "{}"),
            &result("vector", &"[".repeat(10_000)),
        ] {
            assert!(matches!(unusable(200, body), Unusable::Malformed(_)), "{body}");
        }
        let large = vec![b' '; MAX_BYTES + 1];
        assert_eq!(parse(200, &large, "instance"), Err(Unusable::TooLarge));
    }
}
