//! The guards' findings, if there are any guards.

use super::super::guard::{GuardReport, Quantile};
use super::super::report::ClusterReport;
use super::text::Text;

#[inline(never)]
pub(super) fn guard(text: &mut Text, of: &[ClusterReport<'_>]) {
    type Value = fn(&GuardReport) -> f64;
    let all: [(&str, &str, &str, Value); 7] = [
        ("guard_aside", "gauge", "1 while the guard has paused steering because it was worse.", |g| {
            f64::from(g.aside)
        }),
        ("guard_asides_total", "counter", "Times the guard has paused steering because it was worse.", |g| {
            f64::from(g.asides)
        }),
        ("guard_verdict", "gauge", "Verdict on steering: 1 better, 0 open or mixed, -1 worse.", |g| match g
            .verdict
        {
            "better" => 1.0,
            "worse" => -1.0,
            _ => 0.0,
        }),
        (
            "guard_held_out_today",
            "gauge",
            "Compared requests that were left to Envoy's own policy since midnight UTC.",
            |g| g.today.held_out as f64,
        ),
        ("guard_steered_today", "gauge", "Compared requests that were steered since midnight UTC.", |g| {
            g.today.steered as f64
        }),
        ("guard_failures_avoided_today", "gauge", "Failures avoided by steering since midnight UTC.", |g| {
            g.today.failures.avoided
        }),
        ("guard_failures_avoided_today_at_least", "gauge", "The lower bound of that, at 95 %.", |g| {
            g.today.failures.low
        }),
    ];
    for (name, kind, help, value) in all {
        text.upstream((name, kind, help), of, &|u| u.guard.as_ref().map(value));
    }
    quantiles(text, of);
}

/// The change in latency by quantile: estimate and bounds.
#[inline(never)]
fn quantiles(text: &mut Text, of: &[ClusterReport<'_>]) {
    type Value = fn(&Quantile) -> Option<f64>;
    let all: [(&str, &str, Value); 3] = [
        ("", "Latency of the steered over that of those left to Envoy today, less 1.", |q| q.change),
        ("_low", "The lower bound of that, at 95 %.", |q| q.low),
        ("_high", "The upper bound of that, at 95 %.", |q| q.high),
    ];
    for (what, help, value) in all {
        let name = format!("evenkeel_upstream_guard_latency_change{what}");
        let mut headed = false;
        for (at, guard) in of.iter().enumerate().filter_map(|(at, u)| Some((at, u.guard.as_ref()?))) {
            for quantile in &guard.today.quantiles {
                let Some(value) = value(quantile) else { continue };
                if !core::mem::replace(&mut headed, true) {
                    text.head(&name, "gauge", help);
                }
                let labels = format!("{},quantile=\"{}\"", text.upstream_labels(at), quantile.quantile);
                text.sample(&name, &labels, value);
            }
        }
    }
}
