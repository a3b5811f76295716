//! The report as Prometheus text: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
//!
//! Samples of one name stand together below its help text, so each name takes a pass over the endpoints. The number of
//! series depends only on the endpoints in the report, at most a thousand, and on the configured signals.

mod endpoints;
mod guard;
mod scaling;
mod text;
mod upstreams;

use super::report::Report;
use text::{Text, escaped};

/// The whole report as text.
#[inline(never)]
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
    upstreams::upstreams(&mut text, &report.upstreams);
    guard::guard(&mut text, &report.upstreams);
    endpoints::endpoints(&mut text, &report.upstreams);
    endpoints::signals(&mut text, &report.upstreams);
    text.out
}

#[inline(never)]
fn process(text: &mut Text, report: &Report<'_>) {
    let polls = &report.prometheus;
    text.head("evenkeel_build_info", "gauge", "Always 1; the label is the filter's version.");
    text.sample("evenkeel_build_info", &format!("version=\"{}\"", escaped(report.version)), 1.0);
    text.head("evenkeel_uptime_seconds", "gauge", "Time since this process first loaded the filter.");
    text.sample("evenkeel_uptime_seconds", "", report.uptime_s);
    text.head("evenkeel_workers", "gauge", "Worker threads that carry traffic.");
    text.sample("evenkeel_workers", "", report.workers as f64);
    let name = "evenkeel_unmatched_requests_total";
    text.head(name, "counter", "Requests to clusters that no entry of upstreams matches.");
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

#[inline(never)]
fn refused(text: &mut Text, refused: bool) {
    let name = "evenkeel_configuration_refused";
    text.head(name, "gauge", "1 while the latest configuration is refused.");
    text.sample(name, "", f64::from(refused));
}

/// The only metric that exists without a usable configuration.
pub fn text_without_configuration() -> String {
    let mut text = Text { labels: Vec::new(), out: String::new() };
    refused(&mut text, true);
    text.out
}
