//! The same as Prometheus text: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
//!
//! Samples of one name stand together below its help, which is why this goes over the endpoints once a name. Series
//! grow with endpoints and configured signals and with nothing else.

use core::fmt::Write;

use super::names::STATES;
use super::report::{Asked, ClusterReport, Line, Report, Share, SignalFit};
use crate::discovery::source::Origin;
use engine::BOUNDS_NS;
use engine::rng;

/// The longest value of a label in Kubernetes.
const MAX_SELECTED: usize = 63;

/// A series a line of each endpoint, of each upstream.
struct Text {
    out: String,
    /// By upstream and endpoint: the labels, written and escaped once.
    labels: Vec<(String, Vec<String>)>,
}

/// Everything, as text.
pub fn text(report: &Report<'_>) -> String {
    let labels = report.upstreams.iter().map(|u| {
        let upstream = format!("upstream=\"{}\"", escaped(u.cluster));
        let endpoints = u.endpoints.iter();
        let endpoints =
            endpoints.map(|e| format!("{upstream},endpoint=\"{}\"", escaped(e.address))).collect();
        (upstream, endpoints)
    });
    let endpoints: usize = report.upstreams.iter().map(|u| u.endpoints.len()).sum();
    let mut text = Text { labels: labels.collect(), out: String::with_capacity(4096 + 2048 * endpoints) };
    process(&mut text, report);
    upstreams(&mut text, &report.upstreams);
    endpoints_of(&mut text, &report.upstreams);
    signals(&mut text, &report.upstreams);
    text.out
}

fn process(text: &mut Text, report: &Report<'_>) {
    let polls = &report.prometheus;
    text.head("evenkeel_build_info", "gauge", "Always 1; the label tells the filter's version.");
    text.sample("evenkeel_build_info", &format!("version=\"{}\"", escaped(report.version)), 1.0);
    text.head("evenkeel_uptime_seconds", "gauge", "Time since this process first loaded the filter.");
    text.sample("evenkeel_uptime_seconds", "", report.uptime_s);
    text.head("evenkeel_workers", "gauge", "Worker threads that carry traffic.");
    text.sample("evenkeel_workers", "", report.workers as f64);
    let name = "evenkeel_unmatched_requests_total";
    text.head(name, "counter", "Requests to clusters that no entry of upstreams names.");
    text.sample(name, "", report.unmatched.requests as f64);
    refused(text, !report.configuration_refused.is_empty());
    text.head("evenkeel_prometheus_polls_total", "counter", "Queries sent to Prometheus.");
    text.sample("evenkeel_prometheus_polls_total", "", polls.polls as f64);
    text.head(
        "evenkeel_prometheus_poll_failures_total",
        "counter",
        "Queries to Prometheus without a usable answer.",
    );
    text.sample("evenkeel_prometheus_poll_failures_total", "", polls.failures as f64);
    if let Some(age) = polls.last_success_age_s {
        let name = "evenkeel_prometheus_last_success_age_seconds";
        text.head(name, "gauge", "Age of the latest usable answer from Prometheus.");
        text.sample(name, "", age);
    }
    if let Some(pause_s) = polls.pause_s {
        let name = "evenkeel_prometheus_poll_pause_seconds";
        text.head(name, "gauge", "Pause between polls at present; it grows while there is no traffic.");
        text.sample(name, "", pause_s);
    }
}

fn refused(text: &mut Text, refused: bool) {
    let name = "evenkeel_configuration_refused";
    text.head(
        name,
        "gauge",
        "1 while the latest configuration is refused and the filter stands aside from it.",
    );
    text.sample(name, "", f64::from(u8::from(refused)));
}

/// All that there is to say without a configuration that could be used.
pub fn text_without_configuration() -> String {
    let mut text = Text { labels: Vec::new(), out: String::new() };
    refused(&mut text, true);
    text.out
}

fn upstreams(text: &mut Text, of: &[ClusterReport<'_>]) {
    text.upstream("unmet", "gauge", "1 if there is traffic, and none of it to this cluster.", of, |u| {
        Some(f64::from(u8::from(u.unmet)))
    });
    text.upstream("endpoints", "gauge", "Endpoints known.", of, |u| Some(u.endpoints.len() as f64));
    text.upstream("eligible_endpoints", "gauge", "Endpoints that may be chosen.", of, |u| {
        Some(u.eligible as f64)
    });
    text.upstream("panic", "gauge", "1 while so few endpoints are well that health is ignored.", of, |u| {
        Some(f64::from(u8::from(u.panic)))
    });
    text.upstream("ejections_total", "counter", "Times an endpoint was taken out of traffic.", of, |u| {
        Some(u.ejections as f64)
    });
    let help = "Steered requests that another host answered than the one that was named, retries apart.";
    text.upstream("not_followed_total", "counter", help, of, |u| Some(u.not_followed as f64));
    let help =
        "Requests whose route was chosen after evenkeel had looked at them, so that they are not steered.";
    text.upstream("rerouted_total", "counter", help, of, |u| Some(u.rerouted as f64));
    let help =
        "Load reports in answers that were no number, negative or without the value that is configured.";
    text.upstream("unusable_reports_total", "counter", help, of, |u| Some(u.unusable_reports as f64));
    scaling(text, of);
    let name = "evenkeel_upstream_decisions_total";
    text.head(name, "counter", "Requests by what decided where they go.");
    for (at, upstream) in of.iter().enumerate() {
        for (reason, count) in upstream.decisions.by_reason() {
            let labels = format!("{},reason=\"{reason}\"", text.upstream_labels(at));
            text.sample(name, &labels, count as f64);
        }
    }
    let name = "evenkeel_upstream_state_changes_total";
    text.head(name, "counter", "Changes of an endpoint's state, by the new one.");
    for (at, upstream) in of.iter().enumerate() {
        let changes = upstream.state_changes;
        for (state, count) in [
            ("healthy", changes.healthy),
            ("suspect", changes.suspect),
            ("failed", changes.failed),
            ("recovering", changes.recovering),
        ] {
            let labels = format!("{},state=\"{state}\"", text.upstream_labels(at));
            text.sample(name, &labels, count as f64);
        }
    }
    discovery(text, of);
    parts(text, of);
    decision_times(text, of);
    if of.iter().any(|u| u.observed.is_some()) {
        let observed = |f: fn(&super::report::Observed) -> u64| {
            move |u: &ClusterReport<'_>| u.observed.as_ref().map(|o| f(o) as f64)
        };
        let help = "Observe mode: decisions that could be compared with Envoy's own.";
        text.upstream("observed_decisions_total", "counter", help, of, observed(|o| o.compared));
        let help = "Observe mode: decisions that named the endpoint that Envoy chose.";
        text.upstream("observed_agreements_total", "counter", help, of, observed(|o| o.agreed));
        let help = "Observe mode: expected latency saved by following the decisions, mean since the start.";
        text.upstream("observed_gain_seconds", "gauge", help, of, |u| {
            u.observed.as_ref().and_then(|o| o.gain_ms).map(|ms| ms / 1e3)
        });
    }
}

/// What the sources of endpoints say, where any is asked.
fn discovery(text: &mut Text, of: &[ClusterReport<'_>]) {
    type Value = fn(&Asked<'_>) -> Option<f64>;
    let all: [(&str, &str, &str, Value); 5] = [
        ("endpoints", "gauge", "Endpoints of the source's list.", |s| Some(s.endpoints as f64)),
        ("absent_endpoints", "gauge", "Endpoints that the source's latest answers did not name.", |s| {
            Some(s.absent as f64)
        }),
        ("skipped", "gauge", "Entries of the source's latest answer that name no address.", |s| {
            Some(f64::from(s.skipped))
        }),
        ("failures_total", "counter", "Questions to the source without a usable answer.", |s| {
            Some(s.failures as f64)
        }),
        ("answer_age_seconds", "gauge", "Age of the source's latest usable answer.", |s| s.answered_age_s),
    ];
    for (what, kind, help, value) in all {
        let mut headed = false;
        let name = format!("evenkeel_upstream_discovery_{what}");
        for (at, upstream) in of.iter().enumerate() {
            for source in &upstream.discovery.sources {
                let Some(value) = value(source) else { continue };
                if !core::mem::replace(&mut headed, true) {
                    text.head(&name, kind, help);
                }
                let labels = format!("{},source=\"{}\"", text.upstream_labels(at), source.source);
                text.sample(&name, &labels, value);
            }
        }
    }
    let help = "Addresses from other sources that Envoy's cluster does not have; they get no requests.";
    text.upstream("unknown_to_envoy", "gauge", help, of, |u| {
        let told = u.discovery.sources.iter().any(|s| s.source == Origin::Envoy.name());
        told.then_some(u.discovery.unknown_to_envoy as f64)
    });
}

/// What replicas are scaled by. The further label is one that Kubernetes can select by.
fn scaling(text: &mut Text, of: &[ClusterReport<'_>]) {
    type Value = fn(&ClusterReport<'_>) -> Option<f64>;
    let both: [(&str, &str, Value); 2] = [
        ("evenkeel_upstream_pressure", "Load of the fleet; the autoscaling target is its measure.", |u| {
            u.pressure
        }),
        ("evenkeel_upstream_desired_replicas", "Endpoints that the load asks for.", |u| {
            u.desired_replicas.map(f64::from)
        }),
    ];
    for (name, help, value) in both {
        let known: Vec<_> =
            of.iter().enumerate().filter_map(|(at, u)| Some((at, u.cluster, value(u)?))).collect();
        if !known.is_empty() {
            text.head(name, "gauge", help);
        }
        for (at, cluster, value) in known {
            let labels = format!("{},selector=\"{}\"", text.upstream_labels(at), selector(cluster));
            text.sample(name, &labels, value);
        }
    }
}

/// The name of a cluster as a label's value in Kubernetes, where selectors know no others: letters, digits, `-`, `_`
/// and `.`, at most 63, the first and the last a letter or digit. Names such as `outbound|80||web.default` are longer
/// than that and have other characters; where something had to be cut, a hash keeps them apart.
fn selector(cluster: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let spelt: String = cluster.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    let end = |c: char| !c.is_ascii_alphanumeric();
    let spelt = spelt.trim_matches(end);
    if spelt.len() <= MAX_SELECTED && !spelt.is_empty() {
        return spelt.to_owned();
    }
    let hash = rng::hash(cluster.as_bytes()) as u32;
    let head = spelt.get(..spelt.len().min(MAX_SELECTED - 9)).unwrap_or_default().trim_end_matches(end);
    if head.is_empty() { format!("{hash:08x}") } else { format!("{head}-{hash:08x}") }
}

/// Shares by version, priority and zone, where requests are divided at all.
fn parts(text: &mut Text, of: &[ClusterReport<'_>]) {
    type Value = fn(&Share<'_>) -> Option<f64>;
    let divided = |u: &&ClusterReport<'_>| u.parts.len() > 1;
    let both: [(&str, &str, Value); 2] = [
        ("load", "Part of the upstream's requests that these endpoints are to get, 0 to 1.", |p| {
            Some(p.load)
        }),
        ("pressure", "How busy these endpoints are beside those of other zones; 1 is full.", |p| p.pressure),
    ];
    for (what, help, value) in both {
        if !of.iter().filter(divided).flat_map(|u| &u.parts).any(|part| value(part).is_some()) {
            continue;
        }
        let name = format!("evenkeel_upstream_part_{what}");
        text.head(&name, "gauge", help);
        for (at, upstream) in of.iter().enumerate().filter(|(_, u)| divided(u)) {
            for part in &upstream.parts {
                let zone = part.local.map_or("", |local| if local { "local" } else { "other" });
                let (version, priority) = (escaped(part.version), part.priority);
                let locality = match part.locality {
                    "" => String::new(),
                    name => format!(",locality=\"{}\"", escaped(name)),
                };
                let labels = format!(
                    "{},version=\"{version}\",priority=\"{priority}\",zone=\"{zone}\"{locality}",
                    text.upstream_labels(at)
                );
                value(part).into_iter().for_each(|value| text.sample(&name, &labels, value));
            }
        }
    }
}

/// A sample of the decisions, as a histogram.
fn decision_times(text: &mut Text, of: &[ClusterReport<'_>]) {
    let timed = |u: &ClusterReport<'_>| u.decision_time.map(|time| time.times);
    if of.iter().all(|u| timed(u).is_none()) {
        return;
    }
    let name = "evenkeel_upstream_decision_seconds";
    text.head(name, "histogram", "Time that a decision took, of one in 64.");
    for (at, times) in of.iter().enumerate().filter_map(|(at, u)| Some((at, timed(u)?))) {
        let upstream = text.upstream_labels(at).to_owned();
        let bounds = BOUNDS_NS.iter().map(|ns| format!("{}", *ns as f64 / 1e9)).chain(["+Inf".to_owned()]);
        let mut below = 0;
        for (bound, bucket) in bounds.zip(times.buckets) {
            below += bucket;
            text.sample(&format!("{name}_bucket"), &format!("{upstream},le=\"{bound}\""), below as f64);
        }
        text.sample(&format!("{name}_sum"), &upstream, times.sum_ns as f64 / 1e9);
        text.sample(&format!("{name}_count"), &upstream, below as f64);
    }
}

fn endpoints_of(text: &mut Text, of: &[ClusterReport<'_>]) {
    text.endpoint("picks_total", "counter", "Times the endpoint was chosen.", of, |e| Some(e.picks as f64));
    text.endpoint("requests_total", "counter", "Requests to the endpoint that ended.", of, |e| {
        Some(e.requests as f64)
    });
    text.endpoint("failures_total", "counter", "Requests that failed by the endpoint's fault.", of, |e| {
        Some(e.failures as f64)
    });
    text.endpoint("in_flight", "gauge", "Requests on their way to the endpoint.", of, |e| {
        Some(f64::from(e.in_flight))
    });
    text.endpoint("latency_seconds", "gauge", "Typical time to response headers.", of, |e| {
        e.latency_ms.map(|ms| ms / 1e3)
    });
    text.endpoint("error_ratio", "gauge", "Failures among the latest answers, 0 to 1.", of, |e| {
        Some(e.error_ratio)
    });
    text.endpoint(
        "pressure",
        "gauge",
        "Load of the endpoint; 1 is full by the operator's measure.",
        of,
        |e| e.pressure,
    );
    text.endpoint("eligible", "gauge", "1 if the endpoint may be chosen.", of, |e| {
        Some(f64::from(u8::from(e.eligible)))
    });
    text.endpoint("share", "gauge", "Part of the latest picks that chose the endpoint, 0 to 1.", of, |e| {
        Some(e.share)
    });
    text.endpoint("weight", "gauge", "Relative capacity of the endpoint.", of, |e| Some(e.weight));
    if of.iter().any(|u| u.cost_in_seconds) {
        let name = "evenkeel_endpoint_cost_seconds";
        text.head(name, "gauge", "What the next request to the endpoint is expected to cost.");
        for (at, upstream) in of.iter().enumerate().filter(|(_, u)| u.cost_in_seconds) {
            text.lines(name, "", at, upstream, |e| e.cost);
        }
    }
    let name = "evenkeel_endpoint_state";
    text.head(name, "gauge", "1 for the state that the endpoint is in, 0 for the others.");
    for (at, upstream) in of.iter().enumerate() {
        for state in STATES {
            let more = format!(",state=\"{state}\"");
            text.lines(name, &more, at, upstream, |e| Some(f64::from(u8::from(e.state == state))));
        }
    }
}

/// What the series of each signal have to do with the endpoints.
fn signal_fits(text: &mut Text, of: &[ClusterReport<'_>]) {
    type Count = fn(&SignalFit<'_>) -> Option<u32>;
    let both: [(&str, &str, Count); 2] = [
        ("evenkeel_upstream_signal_series", "Series in the latest answer for a signal.", |s| s.series),
        ("evenkeel_upstream_signal_matched_series", "Of these, series that name an endpoint.", |s| s.matched),
    ];
    for (name, help, count) in both {
        let told: Vec<(usize, &str, u32)> = of
            .iter()
            .enumerate()
            .flat_map(|(at, u)| u.signals.iter().filter_map(move |s| Some((at, s.name, count(s)?))))
            .collect();
        if !told.is_empty() {
            text.head(name, "gauge", help);
        }
        for (at, signal, count) in told {
            let labels = format!("{},signal=\"{}\"", text.upstream_labels(at), escaped(signal));
            text.sample(name, &labels, f64::from(count));
        }
    }
}

fn signals(text: &mut Text, of: &[ClusterReport<'_>]) {
    signal_fits(text, of);
    type Value = fn(&super::report::Signal) -> Option<f64>;
    let both: [(&str, &str, Value); 2] = [
        ("evenkeel_endpoint_signal", "Value of a signal, smoothed.", |s| s.value),
        ("evenkeel_endpoint_signal_age_seconds", "Age of a signal's latest value.", |s| s.age_s),
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
                text.lines(name, &more, at, upstream, |e| e.signals.get(signal).and_then(|(_, s)| value(s)));
            }
        }
    }
}

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _strings_do_not_fail = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        self.out.push_str(name);
        if !labels.is_empty() {
            self.out.push('{');
            self.out.push_str(labels);
            self.out.push('}');
        }
        self.value(value);
    }

    fn value(&mut self, value: f64) {
        self.out.push(' ');
        let whole = value as i64;
        // By far the most are whole, and those are quicker to write.
        let _strings_do_not_fail = match whole as f64 == value && whole.unsigned_abs() < 1 << 53 {
            true if (0..10).contains(&whole) => {
                self.out.push(char::from(b'0' + whole as u8));
                Ok(())
            }
            true => write!(self.out, "{whole}"),
            false => write!(self.out, "{value}"),
        };
        self.out.push('\n');
    }

    fn upstream_labels(&self, at: usize) -> &str {
        self.labels.get(at).map_or("", |(labels, _)| labels)
    }

    fn upstream(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        of: &[ClusterReport<'_>],
        value: impl Fn(&ClusterReport<'_>) -> Option<f64>,
    ) {
        let name = format!("evenkeel_upstream_{name}");
        let known: Vec<_> = of.iter().enumerate().filter_map(|(at, u)| Some((at, value(u)?))).collect();
        if !known.is_empty() {
            self.head(&name, kind, help);
        }
        for (at, value) in known {
            let labels = self.upstream_labels(at).to_owned();
            self.sample(&name, &labels, value);
        }
    }

    fn endpoint(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        of: &[ClusterReport<'_>],
        value: impl Fn(&Line<'_>) -> Option<f64>,
    ) {
        let name = format!("evenkeel_endpoint_{name}");
        if !of.iter().flat_map(|u| &u.endpoints).any(|e| value(e).is_some()) {
            return;
        }
        self.head(&name, kind, help);
        for (at, upstream) in of.iter().enumerate() {
            self.lines(&name, "", at, upstream, &value);
        }
    }

    /// A sample for each endpoint of the upstream at `at`; `more` labels begin with a comma.
    fn lines(
        &mut self,
        name: &str,
        more: &str,
        at: usize,
        upstream: &ClusterReport<'_>,
        value: impl Fn(&Line<'_>) -> Option<f64>,
    ) {
        let labels = self.labels.get_mut(at).map(|(_, labels)| core::mem::take(labels)).unwrap_or_default();
        for (endpoint, labels) in upstream.endpoints.iter().zip(&labels) {
            let Some(value) = value(endpoint) else { continue };
            for part in [name, "{", labels, more, "}"] {
                self.out.push_str(part);
            }
            self.value(value);
        }
        if let Some((_, place)) = self.labels.get_mut(at) {
            *place = labels;
        }
    }
}

/// A label's value, with what would end it escaped.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_label_cannot_end_its_line() {
        assert_eq!(escaped("a\"} 1\nb\\"), "a\\\"} 1\\nb\\\\");
    }

    #[test]
    fn what_is_selected_by_is_a_label_value_of_kubernetes() {
        assert_eq!(selector("web"), "web");
        assert_eq!(
            selector("outbound|80||web.default.svc.cluster.local"),
            "outbound_80__web.default.svc.cluster.local"
        );
        assert_eq!(selector("*"), format!("{:08x}", rng::hash(b"*") as u32));
        let long = ["a", "b"].map(|end| selector(&format!("outbound|8080|{}|web.{end}", "v".repeat(60))));
        assert_ne!(long[0], long[1]);
        for text in long.iter().chain([&selector("|-é-|"), &selector(&"ü".repeat(100))]) {
            assert!(text.len() <= 63 && text.starts_with(|c: char| c.is_ascii_alphanumeric()), "{text}");
            assert!(text.ends_with(|c: char| c.is_ascii_alphanumeric()), "{text}");
        }
    }
}
