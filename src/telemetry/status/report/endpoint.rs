//! The report of an endpoint: its measurements, and the terms of its cost and share.

use serde::Serialize;

use super::names;
use super::reason::reason;
use super::rounding::{as_written, fine, short};
use crate::sharing::counts::EndpointCounts;
use engine::endpoint::{AnnouncedHealth, Endpoint, EndpointView};
use engine::time::Time;
use engine::{Cluster, Explained};

/// The report of an endpoint.
#[derive(Clone, Debug, Serialize)]
pub struct Line<'a> {
    /// `ip:port`.
    pub address: &'a str,
    /// Zone; empty if unknown.
    pub zone: &'a str,
    /// Version; empty if unknown.
    pub version: &'a str,
    /// Relative capacity.
    pub weight: f64,
    /// Priority; 0 is used first.
    pub priority: u32,
    /// `healthy`, `suspect`, `failed` or `draining`.
    pub state: &'static str,
    /// Whether it may be chosen.
    pub eligible: bool,
    /// Why it is not eligible, or is eligible although something is wrong; empty if nothing is wrong.
    pub reason: &'static str,
    /// Requests in flight.
    pub in_flight: u32,
    /// Typical time to response headers, milliseconds; `None` before the first response.
    pub latency_ms: Option<f64>,
    /// The failure ratio of the latest responses, 0..=1.
    pub error_ratio: f64,
    /// Its load, by the same measure as the upstream's.
    pub pressure: Option<f64>,
    /// Requests that ended.
    pub requests: u64,
    /// Requests that failed.
    pub failures: u64,
    /// Number of decisions that chose it.
    pub picks: u64,
    /// Its fraction of the upstream's picks in about the last ten seconds, 0..=1.
    pub share: f64,
    /// The cost that the policy compares; `None` for policies without costs.
    pub cost: Option<f64>,
    /// The terms of its cost and share.
    pub terms: CostBreakdown,
    /// Signals by name.
    #[serde(serialize_with = "as_map")]
    pub signals: Vec<(&'a str, Signal)>,
}

/// The terms of an endpoint's cost and share.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CostBreakdown {
    /// Expected latency when idle, as far as it is known to differ from that of all endpoints.
    pub expected_ms: f64,
    /// The minimum latency, from requests without a response.
    pub floor_ms: f64,
    /// The factor by which requests in flight raise the latency.
    pub queueing: f64,
    /// The error penalty.
    pub error_surcharge_ms: f64,
    /// The factor that signals put on its share.
    pub signals: f64,
    /// The factor that slow start puts on its share.
    pub slow_start: f64,
    /// The fraction of its version's requests that its priority and its side of the zone's border get, 0..=1.
    pub load: f64,
    /// The action of the rule that applies to it, if one does.
    pub rule: Option<&'static str>,
    /// Seconds until its next probe, if it gets no other requests.
    pub next_probe_s: Option<f64>,
}

/// A signal of an endpoint.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Signal {
    /// The smoothed value; `None` if unknown.
    pub value: Option<f64>,
    /// The age of the latest value, seconds.
    pub age_s: Option<f64>,
    /// Whether it still counts.
    pub used: bool,
    /// Whether Prometheus is asked for it; the endpoints report the others themselves.
    #[serde(skip)]
    pub polled: bool,
}

fn as_map<S: serde::Serializer>(signals: &[(&str, Signal)], out: S) -> Result<S::Ok, S::Error> {
    out.collect_map(signals.iter().map(|(name, signal)| (name, signal)))
}

#[inline(never)]
pub(super) fn line<'a>(
    upstream: &'a Cluster,
    (endpoint, view, index): (Endpoint<'a>, EndpointView<'_>, u32),
    explained: &Explained,
    (counted, all_recent): (EndpointCounts, f32),
    now: Time,
) -> Line<'a> {
    let share = if all_recent > 0.0 { f64::from(counted.recent / all_recent) } else { 0.0 };
    let readings = upstream.config().signals.iter().zip(upstream.readings(index));
    Line {
        address: endpoint.text,
        zone: endpoint.zone(),
        version: endpoint.version(),
        weight: as_written(endpoint.weight),
        priority: endpoint.priority(),
        state: match view.constraints.announced {
            AnnouncedHealth::Draining => "draining",
            _ => names::state(view.health.state()),
        },
        eligible: view.eligible,
        reason: reason(upstream, (&view, index), explained),
        in_flight: view.total_in_flight(),
        latency_ms: view.centre().map(|(centre, _)| short(centre.exp() * 1e3)),
        error_ratio: fine(upstream.error_ratio(index, now)),
        pressure: upstream.endpoint_pressure(index, now).map(fine),
        requests: counted.counters.requests,
        failures: counted.counters.failures,
        picks: counted.counters.picks,
        share: fine(share),
        cost: explained.cost.map(|cost| fine(f64::from(cost))),
        terms: CostBreakdown {
            expected_ms: short(explained.expected_s * 1e3),
            floor_ms: short(explained.min_latency_s * 1e3),
            queueing: short(explained.queueing),
            error_surcharge_ms: short(explained.error_penalty_s * 1e3),
            signals: short(explained.signals),
            slow_start: short(explained.slow_start),
            load: short(explained.load),
            rule: view.constraints.ruled.map(names::action),
            next_probe_s: explained.next_probe_s.map(short),
        },
        signals: readings
            .map(|(signal, reading)| {
                let (value, age_s) = reading.get(now).unzip();
                let used = signal.weight > 0.0 && reading.confidence(now, upstream.fresh_s()) > 0.0;
                let polled = signal.report.is_none();
                (
                    signal.name.as_str(),
                    Signal { value: value.map(fine), age_s: age_s.map(short), used, polled },
                )
            })
            .collect(),
    }
}
