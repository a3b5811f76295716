//! Prometheus responses as samples of endpoints, and as endpoints.

use crate::discovery::found::Finding;
use crate::discovery::prometheus::{self, EndpointIndex};
use crate::sharing::snapshot::{Fit, Samples, Value};
use config::printable::printable;
use engine::Cluster;
use engine::time::Time;

/// The difference between the clocks of server and proxy that is ignored, seconds; a larger one counts as the
/// response's age.
const CLOCKS_DIFFER_S: f64 = 5.0;
/// The age beyond which a timestamp is ignored, seconds: it is not a time, or the server's clock is not set.
const NO_TIME_S: f64 = 3600.0;
/// The number of series shown in the message that none names an endpoint.
const MAX_LABELS: usize = 3;
/// The longest label value in that message, characters.
const MAX_SHOWN: usize = 60;

/// A response: the status, `None` if there was none, and the body.
pub(super) type Reply<'a> = (Option<u32>, &'a [u8]);

fn answered((status, body): Reply<'_>) -> Result<(u32, &[u8]), String> {
    let status = status.ok_or("no response: timed out, or the connection broke")?;
    Ok((status, body))
}

/// The samples in a response, one per endpoint.
pub(super) fn samples(
    signal: &engine::settings::Signal,
    upstream: &Cluster,
    reply: Reply<'_>,
    now: Time,
) -> Result<Samples, String> {
    let (status, body) = answered(reply)?;
    let answer = prometheus::parse(status, body, &signal.address_label).map_err(|error| error.to_string())?;
    let fleet = upstream.fleet();
    let index = EndpointIndex::new(fleet.iter().map(|(_, endpoint)| endpoint.address()));
    let assigned = index.assign(&answer.samples, signal.port);
    let clock = Clock::of(assigned.times.iter().flatten().copied(), now);
    let values =
        fleet.iter().zip(assigned.values).zip(assigned.times).filter_map(|(((_, endpoint), value), at)| {
            let age_s = at.map_or(0.0, |at| clock.age_s(at)) as f32;
            Some(Value { endpoint: endpoint.hash, value: value?, age_s })
        });
    let values = values.collect();
    let matched = assigned.matched + assigned.unknown;
    let series = answer.samples.len() + answer.unnamed;
    let problem = match (fleet.is_empty(), series) {
        // The endpoints are not known yet.
        (true, _) => String::new(),
        (_, 0) => "the query returns no series".to_owned(),
        (_, 1..) if matched > 0 => String::new(),
        _ if answer.samples.is_empty() => format!(
            "none of {series} series has the label {:?}; the first has {}",
            signal.address_label, answer.labels_instead
        ),
        _ => {
            let first = answer.samples.iter().take(MAX_LABELS);
            let first: Vec<_> =
                first.map(|sample| format!("\"{}\"", printable(&sample.address, MAX_SHOWN))).collect();
            let (label, first) = (&signal.address_label, first.join(", "));
            format!("none of {series} series matches an endpoint by label {label}: first {first}")
        }
    };
    let fit = Fit { series: bounded(series), matched: bounded(matched), problem };
    Ok(Samples { at: now, fit, values })
}

fn bounded(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Sets the age of the values by the response to the timestamp query.
pub(super) fn date(
    samples: &mut Samples,
    signal: &engine::settings::Signal,
    upstream: &Cluster,
    reply: Reply<'_>,
    now: Time,
) -> Result<(), String> {
    let (status, body) = answered(reply)?;
    let answer = prometheus::parse(status, body, &signal.address_label).map_err(|error| error.to_string())?;
    let fleet = upstream.fleet();
    let index = EndpointIndex::new(fleet.iter().map(|(_, endpoint)| endpoint.address()));
    let assigned = index.assign(&answer.samples, signal.port);
    // By the server's own clock, at which it evaluated the query.
    let server = answer.samples.iter().filter_map(|sample| sample.at).reduce(f64::max);
    let clock = Clock { now: server.filter(|at| is_time(*at, now)).unwrap_or(seconds(now)), is_dated: true };
    for ((_, endpoint), measured) in fleet.iter().zip(assigned.values) {
        let of = samples.values.iter_mut().find(|value| value.endpoint == endpoint.hash);
        if let (Some(of), Some(measured)) = (of, measured) {
            of.age_s = of.age_s.max(clock.age_s(measured) as f32);
        }
    }
    Ok(())
}

/// The server's time, as far as its response has it.
struct Clock {
    now: f64,
    is_dated: bool,
}

impl Clock {
    /// The clock by the timestamps in a response. The latest is the server's time, whatever the proxy's clock says,
    /// unless it lags further than clocks differ.
    fn of(times: impl Iterator<Item = f64>, now: Time) -> Clock {
        let latest = times.reduce(f64::max).filter(|latest| is_time(*latest, now));
        let lag = latest.map_or(0.0, |latest| seconds(now) - latest);
        let at = if lag > CLOCKS_DIFFER_S { seconds(now) } else { latest.unwrap_or(0.0) };
        Clock { now: at, is_dated: latest.is_some() }
    }

    fn age_s(&self, at: f64) -> f64 {
        if self.is_dated { (self.now - at).max(0.0) } else { 0.0 }
    }
}

fn seconds(now: Time) -> f64 {
    now.0 as f64 * 1e-9
}

/// Whether `at` is within an hour of `now`, and so can be a timestamp.
fn is_time(at: f64, now: Time) -> bool {
    (seconds(now) - at).abs() < NO_TIME_S
}

/// The endpoints in a response.
pub(super) fn endpoints(upstream: &engine::settings::Upstream, reply: Reply<'_>) -> Result<Finding, String> {
    let (status, body) = answered(reply)?;
    let Some(query) = &upstream.endpoints.prometheus else { return Ok(Finding::default()) };
    let finding = prometheus::endpoints(status, body, query).map_err(|error| error.to_string())?;
    if finding.found.is_empty() && finding.skipped > 0 {
        return Err(format!(
            "none of {} series has an address in the label: {}",
            finding.skipped,
            finding.examples.join(", ")
        ));
    }
    Ok(finding)
}
