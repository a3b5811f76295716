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

/// The samples in a response, one per endpoint; `wall` is the wall-clock time, by which servers date them.
pub(super) fn samples(
    signal: &engine::settings::Signal,
    upstream: &Cluster,
    reply: Reply<'_>,
    (now, wall): (Time, Time),
) -> Result<Samples, String> {
    let (status, body) = answered(reply)?;
    let mut answer =
        prometheus::parse(status, body, &signal.address_label).map_err(|error| error.to_string())?;
    answer.samples.iter_mut().for_each(|sample| sample.at = sample.at.filter(|at| !is_to_come(*at, wall)));
    let fleet = upstream.fleet();
    let index = EndpointIndex::new(fleet.iter().map(|(_, endpoint)| endpoint.address()));
    let assigned = index.assign(&answer.samples, signal.port);
    let clock = Clock::of(assigned.times.iter().flatten().copied(), wall);
    let values =
        fleet.iter().zip(assigned.values).zip(assigned.times).filter_map(|(((_, endpoint), value), at)| {
            let age_s = at.map_or(0.0, |at| clock.age_s(at)) as f32;
            Some(Value { endpoint: endpoint.hash, value: value?, age_s })
        });
    let values = values.collect();
    let histograms = answer.histograms > 0 && answer.histograms == answer.samples.len();
    let matched = if histograms { 0 } else { assigned.matched + assigned.unknown };
    let series = answer.samples.len() + answer.unnamed;
    let problem = match (fleet.is_empty(), series) {
        // The endpoints are not known yet.
        (true, _) => String::new(),
        (_, 0) => "the query returns no series".to_owned(),
        (_, 1..) if matched > 0 => String::new(),
        _ if histograms => format!(
            "all {series} series are native histograms, which have no single value: use histogram_quantile() or histogram_avg()"
        ),
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

/// Sets the age of the values by the response to the timestamp query, which is dated as that for the values.
pub(super) fn date(
    samples: &mut Samples,
    signal: &engine::settings::Signal,
    upstream: &Cluster,
    reply: Reply<'_>,
    wall: Time,
) -> Result<(), String> {
    let (status, body) = answered(reply)?;
    let answer = prometheus::parse(status, body, &signal.address_label).map_err(|error| error.to_string())?;
    let fleet = upstream.fleet();
    let index = EndpointIndex::new(fleet.iter().map(|(_, endpoint)| endpoint.address()));
    let assigned = index.assign(&answer.samples, signal.port);
    // By the server's own clock, at which it evaluated the query.
    let server = answer.samples.iter().filter_map(|sample| sample.at).filter(|at| is_time(*at, wall));
    let clock = Clock { now: server.reduce(f64::max).unwrap_or(seconds(wall)), is_dated: true };
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
    fn of(times: impl Iterator<Item = f64>, wall: Time) -> Clock {
        let latest = times.filter(|at| is_time(*at, wall)).reduce(f64::max);
        let lag = latest.map_or(0.0, |latest| seconds(wall) - latest);
        let at = if lag > CLOCKS_DIFFER_S { seconds(wall) } else { latest.unwrap_or(0.0) };
        Clock { now: at, is_dated: latest.is_some() }
    }

    fn age_s(&self, at: f64) -> f64 {
        if self.is_dated { (self.now - at).max(0.0) } else { 0.0 }
    }
}

fn seconds(now: Time) -> f64 {
    now.0 as f64 * 1e-9
}

/// Whether `at` is within an hour of `wall`, and so can be a timestamp.
fn is_time(at: f64, wall: Time) -> bool {
    (seconds(wall) - at).abs() < NO_TIME_S
}

/// Whether `at` is so much later than `wall` that it is no timestamp: one such would make all others look old.
fn is_to_come(at: f64, wall: Time) -> bool {
    at - seconds(wall) >= NO_TIME_S
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

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use engine::Balancer;

    const NOW_S: f64 = 1_700_000_000.0;

    /// The ages of the values of three endpoints whose samples are dated so, where the wall clock is `ahead_s` ahead of the
    /// proxy's own.
    fn ages(at: [f64; 3], ahead_s: f64) -> Vec<f32> {
        let json = br#"{"prometheus":{"cluster":"prometheus","authority":"p"},"upstreams":[{"cluster":"web",
            "endpoints":{"static":["10.0.0.1:80","10.0.0.2:80","10.0.0.3:80"]},"signals":[{"name":"queue","query":"queue"}]}]}"#;
        let now = Time::from_secs_f64(NOW_S);
        let engine = Balancer::new(&config::parse(json).unwrap(), now);
        let upstream = engine.upstream(0).unwrap();
        let series: Vec<String> = (1..)
            .zip(at)
            .map(|(n, at)| format!(r#"{{"metric":{{"instance":"10.0.0.{n}"}},"value":[{at:?},"1"]}}"#))
            .collect();
        let body = format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{}]}}}}"#,
            series.join(",")
        );
        let (reply, wall) = ((Some(200), body.as_bytes()), now.after_secs(ahead_s).before_secs(-ahead_s));
        let samples = samples(&upstream.config().signals[0], upstream, reply, (now, wall)).unwrap();
        assert_eq!(samples.at, now);
        samples.values.iter().map(|value| value.age_s.round()).collect()
    }

    #[test]
    fn a_time_to_come_makes_no_other_old() {
        for absurd in [NOW_S * 1000.0, 1e300, NOW_S + 4000.0] {
            assert_eq!(ages([absurd, NOW_S - 7.0, NOW_S], 0.0), [0.0, 7.0, 0.0], "{absurd}");
        }
        assert_eq!(ages([NOW_S * 1000.0; 3], 0.0), [0.0; 3], "milliseconds");
        assert_eq!(ages([NOW_S + 7200.0; 3], 0.0), [0.0; 3], "another time zone");
        assert_eq!(
            ages([NOW_S - 60.0, NOW_S - 30.0, NOW_S - 30.0], 0.0),
            [60.0, 30.0, 30.0],
            "it lags as a whole"
        );
    }

    /// As `rate(latency_seconds[1m])` gives them.
    #[test]
    fn a_query_that_returns_histograms_has_a_problem() {
        let json = br#"{"prometheus":{"cluster":"prometheus","authority":"p"},"upstreams":[{"cluster":"web",
            "endpoints":{"static":["10.0.0.1:80","10.0.0.2:80"]},"signals":[{"name":"queue","query":"queue"}]}]}"#;
        let now = Time::from_secs_f64(NOW_S);
        let engine = Balancer::new(&config::parse(json).unwrap(), now);
        let upstream = engine.upstream(0).unwrap();
        let of = |second: &str| {
            let body = format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[
                    {{"metric":{{"instance":"10.0.0.1"}},"histogram":[{NOW_S},{{"count":"7","sum":"3","buckets":[]}}]}},
                    {{"metric":{{"instance":"10.0.0.2"}},{second}}}]}}}}"#
            );
            let reply = (Some(200), body.as_bytes());
            let samples = samples(&upstream.config().signals[0], upstream, reply, (now, now)).unwrap();
            (samples.fit.matched, samples.values.len(), samples.fit.problem)
        };
        let (matched, values, problem) = of(r#""histogram":[1,{}]"#);
        assert_eq!((matched, values), (0, 0));
        assert!(problem.starts_with("all 2 series are native histograms"), "{problem}");
        assert_eq!(of(r#""value":[1,"2"]"#), (2, 1, String::new()));
        // An endpoint without requests has no quantile, which is no fault.
        assert_eq!(of(r#""value":[1,"NaN"]"#), (2, 0, String::new()));
    }

    /// The native module's own clock does not step, and servers date their answers by the wall clock.
    #[test]
    fn values_are_as_old_as_the_wall_clock_says() {
        for ahead_s in [-600.0, 600.0, 90.0] {
            let at = |ago: f64| NOW_S + ahead_s - ago;
            assert_eq!(ages([at(0.0), at(8.0), at(1.0)], ahead_s), [0.0, 8.0, 1.0], "{ahead_s}");
        }
    }
}
