//! The record of a single request's decision, for the debug header, attributes and the decision log.
//!
//! It is taken when the decision is made, because the figures that it rests on have changed by the time of the
//! response. It costs nothing unless the configuration asks for it.

use core::fmt::Write;
use core::net::SocketAddr;

use crate::host::event::{Event, Field, InJson};
use crate::host::{Host, StreamHost};
use crate::request::Stream;
use crate::telemetry::status;
use crate::telemetry::trace_context::Trace;
use crate::worker::{Worker, in_form};
use config::{Attribute, Config, Mode};
use engine::policy::Candidates;
use engine::time::Time;
use engine::{Cluster, Decision, Explained, Failure, Reason};

/// The longest value of the debug header, bytes. Its present parts are bounded already; this bounds later additions.
const MAX_TEXT: usize = 512;
/// The highest number of decision log lines per second and worker, so that an outage does not flood the log.
const LINES_A_SECOND: u32 = 20;

/// The configured outputs of decision records.
#[derive(Debug)]
pub(crate) struct DecisionSinks {
    /// Whether there is any output.
    pub(crate) any: bool,
    attributes: bool,
    failures: bool,
    /// Fraction of the requests that are logged whatever their outcome, 0..=1.
    sample: f64,
    /// The second of the last line, the lines written in it, and the lines left out since the last one written.
    second: u64,
    lines: u32,
    left_out: u64,
}

/// A recorded decision.
#[derive(Clone, Debug)]
pub(crate) struct DecisionRecord {
    upstream: usize,
    reason: Reason,
    endpoint: Option<Named>,
    runner_up: Option<Named>,
    explained: Explained,
    in_flight: u32,
    why: &'static str,
    in_seconds: bool,
    observed: bool,
    /// Whether the client asked for the debug header and may see it.
    shown: bool,
    sampled: bool,
    logged: bool,
    /// The response status: read with the response headers, which are out of reach when the trailers arrive.
    status: Option<u64>,
    /// The trace context: read with the request headers, which are out of reach when the response arrives.
    trace: Trace,
}

#[derive(Clone, Debug)]
struct Named {
    address: String,
    cost: Option<f32>,
}

impl DecisionSinks {
    pub(crate) fn of(config: &Config) -> DecisionSinks {
        let (attributes, log) = (!config.attributes.is_empty(), config.log);
        let sample = log.sample_percent / 100.0;
        DecisionSinks {
            any: attributes || log.failures || sample > 0.0,
            attributes,
            failures: log.failures,
            sample,
            second: 0,
            lines: 0,
            left_out: 0,
        }
    }

    /// Takes one line from the budget of this second; `None` if it is used up, else the number of lines left out
    /// before.
    fn another_line(&mut self, now: Time) -> Option<u64> {
        let second = now.0 / 1_000_000_000;
        if core::mem::replace(&mut self.second, second) != second {
            self.lines = 0;
        }
        self.lines = self.lines.saturating_add(1);
        if self.lines > LINES_A_SECOND {
            self.left_out += 1;
            return None;
        }
        Some(core::mem::take(&mut self.left_out))
    }
}

impl Worker {
    /// Whether this request's client is shown the debug header. The header that carries its secret is removed, so that
    /// it does not reach the endpoint.
    pub(crate) fn wants_debug(&self, host: &dyn StreamHost) -> bool {
        let Some(debug) = &self.config.debug else { return false };
        let Some(asking) = &debug.asking else { return true };
        let given = host.request_header(&asking.header);
        if given.is_some() {
            host.remove_request_header(&asking.header);
        }
        given.is_some_and(|given| same(&given, asking.secret.as_bytes()))
    }

    /// Records a decision, if an output wants it.
    #[inline(never)]
    pub(crate) fn record_decision(
        &mut self,
        host: &dyn StreamHost,
        (upstream, decision): (usize, &Decision),
        shown: bool,
        now: Time,
    ) -> Option<Box<DecisionRecord>> {
        let sampled = self.sinks.sample > 0.0 && self.rng.unit() < self.sinks.sample;
        if !(shown || sampled || self.sinks.failures || self.sinks.attributes) {
            return None;
        }
        let of = self.engine.upstream(upstream)?;
        let named: &[u32] = match decision {
            Decision::Steer(candidates) => candidates.as_slice(),
            _ => &[],
        };
        let [first, second] = [0, 1].map(|at| named.get(at).copied());
        let explained = first.and_then(|first| of.explain(first, now)).unwrap_or_default();
        let state = first.and_then(|first| Some((of.endpoint(first)?, first)));
        let name = |index: Option<u32>, cost| {
            let address = of.fleet().get(index?)?.text.to_owned();
            Some(Named { address, cost })
        };
        Some(Box::new(DecisionRecord {
            upstream,
            reason: of.reason(),
            endpoint: name(first, explained.cost),
            runner_up: name(second, second.and_then(|second| of.explain(second, now)?.cost)),
            explained,
            in_flight: state.map_or(0, |(state, _)| state.total_in_flight()),
            why: state.map_or("", |(state, at)| status::reason(of, (&state, at), &explained)),
            in_seconds: status::costs_seconds(&of.config().policy),
            observed: self.config.mode == Mode::Observe,
            shown,
            sampled,
            logged: false,
            status: None,
            trace: if sampled || self.sinks.failures { Trace::of(host) } else { Trace::default() },
        }))
    }

    /// Sets the configured attributes, for other parts of Envoy.
    #[inline(never)]
    pub(crate) fn attribute(&self, host: &dyn StreamHost, record: &DecisionRecord) {
        for attribute in &self.config.attributes {
            let (path, value) = match attribute {
                Attribute::Endpoint => ("evenkeel.endpoint", record.endpoint_text().to_owned()),
                Attribute::Reason => ("evenkeel.reason", record.reason.name().to_owned()),
                Attribute::Cost => ("evenkeel.cost", record.cost_text()),
                Attribute::Decision => ("evenkeel.decision", record.text()),
            };
            // An empty value would read as a known one.
            if !value.is_empty() {
                host.set_property(&[path], value.as_bytes());
            }
        }
    }

    /// Writes the log line of a request that ended in `failure`, or well.
    fn log_request(&mut self, host: &dyn StreamHost, record: &mut DecisionRecord, failure: Option<Failure>) {
        let wanted = record.sampled || (failure.is_some() && self.sinks.failures);
        if !wanted || core::mem::replace(&mut record.logged, true) {
            return;
        }
        let Some(left_out) = self.sinks.another_line(host.now()) else { return };
        let Some(upstream) = self.engine.upstream(record.upstream) else { return };
        let in_json = InJson(host.process());
        let to = in_form(self.config.log.format, host.process(), &in_json);
        record.log(to, upstream, failure, (served(host).as_deref(), left_out));
    }
}

impl DecisionRecord {
    fn endpoint_text(&self) -> &str {
        self.endpoint.as_ref().map_or("", |endpoint| &endpoint.address)
    }

    fn cost(&self) -> Option<f32> {
        self.endpoint.as_ref().and_then(|endpoint| endpoint.cost)
    }

    /// The cost in milliseconds, or in the unit of the policy.
    fn cost_text(&self) -> String {
        self.cost().map_or(String::new(), |cost| number(self.scaled(cost)))
    }

    fn scaled(&self, cost: f32) -> f64 {
        f64::from(cost) * if self.in_seconds { 1e3 } else { 1.0 }
    }

    fn cost_name(&self) -> &'static str {
        if self.in_seconds { "cost_ms" } else { "cost" }
    }

    /// The whole record as a dictionary of structured fields (RFC 8941). Nothing in it comes from a client.
    pub(crate) fn text(&self) -> String {
        let mut out = String::with_capacity(MAX_TEXT);
        let _strings_do_not_fail = self.write(&mut out);
        cut(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> core::fmt::Result {
        write!(out, "by={}", self.reason.name())?;
        if self.observed {
            out.push_str(", mode=observe");
        }
        let cost_name = self.cost_name();
        let Some(endpoint) = &self.endpoint else {
            out.push_str(", why=\"no endpoint is eligible\"");
            return Ok(());
        };
        write!(out, ", endpoint=\"{}\"", endpoint.address)?;
        if let Some(cost) = endpoint.cost {
            write!(out, ", {cost_name}={}", number(self.scaled(cost)))?;
        }
        if let Some(second) = &self.runner_up {
            write!(out, ", runner_up=\"{}\"", second.address)?;
            if let Some(cost) = second.cost {
                write!(out, ", runner_up_{cost_name}={}", number(self.scaled(cost)))?;
            }
        }
        let Explained {
            expected_s, error_penalty_s, min_latency_s, queueing, signals, slow_start, load, ..
        } = self.explained;
        for (name, value, usual) in [
            ("expected_ms", expected_s * 1e3, f64::NAN),
            ("errors_ms", error_penalty_s * 1e3, 0.0),
            ("floor_ms", min_latency_s * 1e3, 0.0),
            ("queueing", queueing, 1.0),
            ("signals", signals, 1.0),
            ("slow_start", slow_start, 1.0),
            ("load", load, 1.0),
        ] {
            // Factors at their usual value are left out.
            if (value - usual).abs() >= 5e-4 || usual.is_nan() {
                write!(out, ", {name}={}", number(value))?;
            }
        }
        write!(out, ", in_flight={}", self.in_flight)?;
        write!(out, ", why=\"{}\"", self.why())
    }

    fn why(&self) -> &'static str {
        match (self.why, self.reason, self.cost(), &self.runner_up) {
            (why, ..) if !why.is_empty() => why,
            (_, Reason::Probe, ..) => "probe: a single request to an endpoint without traffic",
            (_, _, Some(_), Some(_)) => "lowest cost of the endpoints compared",
            (_, _, Some(_), None) => "the only endpoint compared",
            _ => "the policy's choice",
        }
    }

    fn log(
        &self,
        host: &dyn Host,
        upstream: &Cluster,
        failure: Option<Failure>,
        (served, left_out): (Option<&str>, u64),
    ) {
        let (failed, trace) = (failure.map(Failure::name), &self.trace);
        let cluster = upstream.cluster();
        let ended = match (failed, &trace.id) {
            (Some(failed), Some(id)) => format!("; {failed}, trace {id}"),
            (Some(failed), None) => format!("; {failed}"),
            (None, Some(id)) => format!("; trace {id}"),
            (None, None) => String::new(),
        };
        host.log_event(&Event {
            level: if failed.is_some() { log::Level::Warn } else { log::Level::Info },
            name: "decision",
            message: &format!("decision: cluster={cluster}: {}{ended}", self.text()),
            fields: &[
                ("upstream", Field::Text(cluster)),
                ("endpoint", Field::text(self.endpoint.as_ref().map(|endpoint| endpoint.address.as_str()))),
                ("served_by", Field::text(served)),
                ("reason", Field::Text(self.reason.name())),
                (self.cost_name(), Field::number(self.cost().map(|cost| rounded(self.scaled(cost))))),
                ("runner_up", Field::text(self.runner_up.as_ref().map(|second| second.address.as_str()))),
                ("in_flight", Field::Whole(self.in_flight.into())),
                (
                    "why",
                    Field::Text(if self.endpoint.is_some() { self.why() } else { "no endpoint is eligible" }),
                ),
                ("status", self.status.map_or(Field::Unknown, Field::Whole)),
                ("failure", Field::text(failed)),
                ("trace_id", Field::text(trace.id.as_deref())),
                ("request_id", Field::text(trace.request_id.as_deref())),
                ("lines_left_out", if left_out > 0 { Field::Whole(left_out) } else { Field::Unknown }),
            ],
        });
    }
}

impl Stream {
    /// At the response headers: writes the debug header and the log line. A header of the same name from the endpoint
    /// is removed.
    #[inline(never)]
    pub(crate) fn write_debug_header(
        &mut self,
        worker: &mut Worker,
        host: &dyn StreamHost,
        failure: Option<Failure>,
    ) {
        if let Some(debug) = &worker.config.debug {
            host.remove_response_header(&debug.header);
            if let Some(record) = self.record.as_ref().filter(|record| record.shown) {
                let mut text = record.text();
                if let Some(served) = served(host).filter(|served| served != record.endpoint_text()) {
                    let _strings_do_not_fail = write!(text, ", served=\"{served}\"");
                }
                cut(&mut text);
                host.add_response_header(&debug.header, text.as_bytes());
            }
        }
        if let Some(record) = &mut self.record {
            record.status = status_of(host);
        }
        self.report(worker, host, failure);
    }

    /// Writes the log line with the request's failure, if there is one.
    pub(crate) fn report(&mut self, worker: &mut Worker, host: &dyn StreamHost, failure: Option<Failure>) {
        if let Some(record) = &mut self.record {
            worker.log_request(host, record, failure);
        }
    }

    /// Whether the failure of this request must be logged.
    pub(crate) fn is_watched(&self, worker: &Worker) -> bool {
        self.record.is_some() && (worker.sinks.failures || worker.sinks.sample > 0.0)
    }
}

/// The first `want` candidates; more were picked to know the runner-up.
pub(crate) fn named(candidates: Candidates, want: usize) -> Candidates {
    let mut named = candidates;
    named.truncate(want);
    named
}

/// Compares a secret in constant time.
fn same(given: &[u8], secret: &[u8]) -> bool {
    let differ = given.iter().zip(secret).fold(0, |differ, (a, b)| differ | (a ^ b));
    !secret.is_empty() && given.len() == secret.len() && core::hint::black_box(differ) == 0
}

/// The address of the host that answered; `None` if it is not an IP address.
fn served(host: &dyn StreamHost) -> Option<String> {
    let address = host.served_by()?;
    let address: SocketAddr = core::str::from_utf8(&address).ok()?.parse().ok()?;
    Some(address.to_string())
}

fn status_of(host: &dyn StreamHost) -> Option<u64> {
    let status = host.response_header(":status")?;
    core::str::from_utf8(&status).ok()?.parse().ok().filter(|status| *status < 1000)
}

fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// A number with at most three decimals and twelve integer digits, the limits of structured fields (RFC 8941).
fn number(value: f64) -> String {
    let shown = if value.is_finite() { value.clamp(-999e9, 999e9) } else { 0.0 };
    format!("{:.3}", shown)
}

fn cut(text: &mut String) {
    // The text is ASCII, so any cut is at a character boundary.
    text.truncate(MAX_TEXT);
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn only_the_whole_secret_is_the_secret() {
        assert!(same(b"open sesame", b"open sesame"));
        for other in [&b""[..], b"open sesam", b"open sesame ", b"Open sesame", b"open sesame,open sesame"] {
            assert!(!same(other, b"open sesame"));
        }
        assert!(!same(b"", b""), "an empty secret matches nothing");
    }

    #[test]
    fn lines_of_an_outage_are_limited() {
        let config = config::parse(
            br#"{ "log": { "failures": true },
                  "upstreams": [{ "cluster": "web", "endpoints": { "static": ["10.0.0.1:80"] } }] }"#,
        );
        let mut sinks = DecisionSinks::of(&config.unwrap());
        let lines = |sinks: &mut DecisionSinks, second: u64| {
            (0..100).filter_map(|_| sinks.another_line(Time(second * 1_000_000_000))).collect::<Vec<_>>()
        };
        assert_eq!(lines(&mut sinks, 1), [0; 20]);
        let next = lines(&mut sinks, 2);
        assert_eq!((next.len(), next[0], next[1]), (20, 80, 0), "what was left out is told");
    }

    #[test]
    fn numbers_keep_to_structured_fields() {
        assert_eq!(
            [1.0, 0.12345, f64::NAN, -0.0, 1e300].map(number),
            ["1.000", "0.123", "0.000", "-0.000", "999000000000.000"]
        );
    }
}
