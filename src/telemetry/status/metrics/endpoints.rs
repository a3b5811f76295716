//! Series per endpoint, and per signal of one.

use super::super::names::STATES;
use super::super::report::{ClusterReport, Signal, SignalFit};
use super::text::{OfEndpoint, Text, escaped};

/// Name, kind and help of what each endpoint has one number of, and the number.
const NUMBERS: &[(&str, &str, &str, OfEndpoint)] = &[
    ("picks_total", "counter", "Times the endpoint was chosen.", |e| Some(e.picks as f64)),
    ("requests_total", "counter", "Requests to the endpoint that ended.", |e| Some(e.requests as f64)),
    ("failures_total", "counter", "Requests that failed by the endpoint's fault.", |e| {
        Some(e.failures as f64)
    }),
    ("in_flight", "gauge", "Requests in flight to the endpoint.", |e| Some(f64::from(e.in_flight))),
    ("latency_seconds", "gauge", "Typical time to response headers.", |e| Some(e.latency_ms? / 1e3)),
    ("error_ratio", "gauge", "Failures among the latest answers, 0 to 1.", |e| Some(e.error_ratio)),
    ("pressure", "gauge", "Load of the endpoint; 1 is full, by the configured autoscaling terms.", |e| {
        e.pressure
    }),
    ("eligible", "gauge", "1 if the endpoint may be chosen.", |e| Some(f64::from(e.eligible))),
    ("share", "gauge", "Share of the latest picks, 0 to 1.", |e| Some(e.share)),
    ("weight", "gauge", "Relative capacity of the endpoint.", |e| Some(e.weight)),
];

#[inline(never)]
pub(super) fn endpoints(text: &mut Text, of: &[ClusterReport<'_>]) {
    for (name, kind, help, value) in NUMBERS {
        text.endpoint((name, kind, help), of, *value);
    }
    if of.iter().any(|u| u.cost_in_seconds) {
        let name = "evenkeel_endpoint_cost_seconds";
        text.head(name, "gauge", "What the next request to the endpoint is expected to cost.");
        for (at, upstream) in of.iter().enumerate().filter(|(_, u)| u.cost_in_seconds) {
            text.lines(name, "", at, upstream, &|e| e.cost);
        }
    }
    let name = "evenkeel_endpoint_state";
    text.head(name, "gauge", "1 for the state that the endpoint is in, 0 for the others.");
    for (at, upstream) in of.iter().enumerate() {
        for state in STATES {
            let more = format!(",state=\"{state}\"");
            text.lines(name, &more, at, upstream, &|e| Some(f64::from(e.state == state)));
        }
    }
}

/// How the series of each signal match the endpoints.
#[inline(never)]
fn signal_fits(text: &mut Text, of: &[ClusterReport<'_>]) {
    type Value = fn(&SignalFit<'_>) -> Option<f64>;
    let all: [(&str, &str, Value); 3] = [
        ("evenkeel_upstream_signal_series", "Series in the latest answer for a signal.", |s| {
            s.series.map(f64::from)
        }),
        ("evenkeel_upstream_signal_matched_series", "Of these, series that name an endpoint.", |s| {
            s.matched.map(f64::from)
        }),
        ("evenkeel_upstream_signal_firmness", "Strength with which a signal is acted on, up to 1.", |s| {
            Some(s.firmness)
        }),
    ];
    for (name, help, value) in all {
        let values: Vec<(usize, &str, f64)> = of
            .iter()
            .enumerate()
            .flat_map(|(at, u)| u.signals.iter().filter_map(move |s| Some((at, s.name, value(s)?))))
            .collect();
        if !values.is_empty() {
            text.head(name, "gauge", help);
        }
        for (at, signal, value) in values {
            let labels = format!("{},signal=\"{}\"", text.upstream_labels(at), escaped(signal));
            text.sample(name, &labels, value);
        }
    }
}

#[inline(never)]
pub(super) fn signals(text: &mut Text, of: &[ClusterReport<'_>]) {
    signal_fits(text, of);
    type Value = fn(&Signal) -> Option<f64>;
    let both: [(&str, &str, Value); 2] = [
        ("evenkeel_endpoint_signal", "Value of a signal, smoothed.", |s| s.value),
        ("evenkeel_endpoint_signal_age_seconds", "Age of a polled signal's latest value.", |s| {
            s.age_s.filter(|_| s.polled)
        }),
    ];
    for (name, help, value) in both {
        let mut headed = false;
        for (at, upstream) in of.iter().enumerate() {
            let width = upstream.endpoints.first().map_or(0, |e| e.signals.len());
            for signal in 0..width {
                if !core::mem::replace(&mut headed, true) {
                    text.head(name, "gauge", help);
                }
                let called =
                    upstream.endpoints.first().and_then(|e| e.signals.get(signal)).map_or("", |(n, _)| n);
                let more = format!(",signal=\"{}\"", escaped(called));
                text.lines(name, &more, at, upstream, &|e| e.signals.get(signal).and_then(|(_, s)| value(s)));
            }
        }
    }
}
