//! The report of an upstream's sources of endpoints and signals.

use serde::Serialize;

use super::rounding::{fine, short};
use crate::discovery::source::{Origin, Source};
use crate::sharing::snapshot::Snapshot;
use engine::Cluster;
use engine::time::Time;

/// The sources of an upstream's endpoints.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Discovery<'a> {
    /// Each source that is polled.
    pub sources: Vec<PolledSource<'a>>,
    /// Addresses of other sources that Envoy's cluster does not have: they get no requests.
    pub unknown_to_envoy: usize,
    /// The fraction of the requests left to Envoy's own policy, because some hosts have no IP address; 0..=1.
    pub left_to_envoy: f64,
    /// What the cluster's own policy does and steering bypasses: `subsets`, `zone_aware`; absent if nothing is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bypassed: Vec<&'static str>,
}

/// A source of endpoints.
#[derive(Clone, Debug, Serialize)]
pub struct PolledSource<'a> {
    /// `prometheus` or `envoy_admin`.
    pub source: &'static str,
    /// The number of endpoints in its list.
    pub endpoints: usize,
    /// Endpoints of the list that are missing from its latest responses.
    pub absent: usize,
    /// Entries of its latest response without an address.
    pub skipped: u32,
    /// The names of the first of those.
    pub examples: &'a str,
    /// Usable responses.
    pub answers: u64,
    /// Polls without a usable response.
    pub failures: u64,
    /// The age of the latest usable response, seconds; `None` before the first.
    pub answered_age_s: Option<f64>,
    /// The error of the latest poll; `None` if it succeeded.
    pub error: Option<&'a str>,
}

impl<'a> PolledSource<'a> {
    #[inline(never)]
    fn of(origin: Origin, source: &'a Source, now: Time) -> PolledSource<'a> {
        PolledSource {
            source: origin.name(),
            endpoints: source.found.len(),
            absent: source.absences.open.len(),
            skipped: source.skipped,
            examples: &source.examples,
            answers: source.answers,
            failures: source.failures,
            answered_age_s: source.known().map(|_| short(now.seconds_since(source.last_success))),
            error: Some(source.error.as_str()).filter(|error| !error.is_empty()),
        }
    }
}

/// How the series of a signal's latest response match the endpoints.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SignalFit<'a> {
    /// The signal's name.
    pub name: &'a str,
    /// The number of series in the response; `None` before the first.
    pub series: Option<u32>,
    /// The number of series that belong to an endpoint.
    pub matched: Option<u32>,
    /// The reason why no series belongs to an endpoint; `None` if one does.
    pub problem: Option<&'a str>,
    /// The weight that decisions give the signal, up to 1.
    pub firmness: f64,
}

#[inline(never)]
pub(super) fn discovery<'a>(
    upstream: &Cluster,
    sources: Option<&(Vec<(Origin, &'a Source)>, usize)>,
    bypassed: Vec<&'static str>,
    now: Time,
) -> Discovery<'a> {
    let left_to_envoy = fine(upstream.left_to_envoy());
    let Some((sources, unknown_to_envoy)) = sources else {
        return Discovery { left_to_envoy, bypassed, ..Discovery::default() };
    };
    let sources = sources.iter().map(|(origin, source)| PolledSource::of(*origin, source, now)).collect();
    Discovery { sources, unknown_to_envoy: *unknown_to_envoy, left_to_envoy, bypassed }
}

#[inline(never)]
pub(super) fn signal_fit<'a>(
    (at, signal): (usize, &'a engine::settings::Signal),
    upstream: &Cluster,
    snapshot: &'a Snapshot,
) -> SignalFit<'a> {
    let samples = snapshot.get(upstream.hash(), &signal.name);
    let fit = samples.map(|samples| &samples.fit);
    let answer = samples.filter(|samples| samples.at != Time::ZERO).map(|samples| &samples.fit);
    SignalFit {
        name: &signal.name,
        series: answer.map(|fit| fit.series),
        matched: answer.map(|fit| fit.matched),
        problem: fit.map(|fit| fit.problem.as_str()).filter(|problem| !problem.is_empty()),
        firmness: fine(upstream.signal_firmness(at)),
    }
}
