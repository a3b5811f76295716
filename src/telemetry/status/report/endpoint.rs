//! One endpoint: what is measured of it, and what its cost and its share are made of.

use serde::Serialize;

use super::names;
use super::reason::reason;
use super::rounding::{as_written, fine, short};
use crate::sharing::counts::EndpointCounts;
use engine::endpoint::{AnnouncedHealth, Endpoint, EndpointView};
use engine::time::Time;
use engine::{Cluster, Explained};

/// One endpoint.
#[derive(Clone, Debug, Serialize)]
pub struct Line<'a> {
    /// `ip:port`.
    pub address: &'a str,
    /// Empty if unknown.
    pub zone: &'a str,
    /// Empty if unknown.
    pub version: &'a str,
    /// Relative capacity.
    pub weight: f64,
    /// 0 is used first.
    pub priority: u32,
    /// `healthy`, `suspect`, `failed` or `draining`.
    pub state: &'static str,
    /// Whether it may be chosen.
    pub eligible: bool,
    /// Why it is not, or why it is all the same; empty if there is nothing to say.
    pub reason: &'static str,
    /// Requests on their way.
    pub in_flight: u32,
    /// To response headers; none before the first answer.
    pub latency_ms: Option<f64>,
    /// Failures among the latest answers, 0 to 1.
    pub error_ratio: f64,
    /// How loaded it is, by the same terms as the upstream.
    pub pressure: Option<f64>,
    /// Requests that ended.
    pub requests: u64,
    /// Of these, failures.
    pub failures: u64,
    /// Times it was chosen.
    pub picks: u64,
    /// Of the upstream's picks of about the last ten seconds, 0 to 1.
    pub share: f64,
    /// What the policy compares; none for policies without costs.
    pub cost: Option<f64>,
    /// What the cost and the share are made of.
    pub terms: CostBreakdown,
    /// By name.
    #[serde(serialize_with = "as_map")]
    pub signals: Vec<(&'a str, Signal)>,
}

/// What the cost and the share of an endpoint are made of.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CostBreakdown {
    /// Expected latency when idle, as far as it is known to differ from the fleet's.
    pub expected_ms: f64,
    /// Latency that requests without an answer prove.
    pub floor_ms: f64,
    /// What its requests in flight multiply the latency by.
    pub queueing: f64,
    /// What failures add.
    pub error_surcharge_ms: f64,
    /// What signals multiply its share by.
    pub signals: f64,
    /// What its slow start leaves of its share.
    pub slow_start: f64,
    /// The part of its version's requests that its priority and its side of the zone's border get, 0 to 1.
    pub load: f64,
    /// What a rule does to it, if one holds.
    pub rule: Option<&'static str>,
    /// Until its next single request, where it gets no other.
    pub next_probe_s: Option<f64>,
}

/// One signal of one endpoint.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Signal {
    /// Smoothed; none if unknown.
    pub value: Option<f64>,
    /// How old it is.
    pub age_s: Option<f64>,
    /// Whether it still counts.
    pub used: bool,
}

fn as_map<S: serde::Serializer>(signals: &[(&str, Signal)], out: S) -> Result<S::Ok, S::Error> {
    out.collect_map(signals.iter().map(|(name, signal)| (name, signal)))
}

#[inline(never)]
pub(super) fn line<'a>(
    upstream: &'a Cluster,
    (endpoint, member, index): (Endpoint<'a>, EndpointView<'_>, u32),
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
        state: match member.constraints.announced {
            AnnouncedHealth::Draining => "draining",
            _ => names::state(member.health.state()),
        },
        eligible: member.eligible,
        reason: reason(upstream, (&member, index), explained),
        in_flight: member.total_in_flight(),
        latency_ms: member.centre().map(|(centre, _)| short(centre.exp() * 1e3)),
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
            rule: member.constraints.ruled.map(names::action),
            next_probe_s: explained.next_probe_s.map(short),
        },
        signals: readings
            .map(|(signal, reading)| {
                let (value, age_s) = reading.get(now).unzip();
                let used = signal.weight > 0.0 && reading.trust(now, upstream.fresh_s()) > 0.0;
                (signal.name.as_str(), Signal { value: value.map(fine), age_s: age_s.map(short), used })
            })
            .collect(),
    }
}
