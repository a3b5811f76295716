//! Where an upstream's endpoints and signals come from, and what of that cannot be used.

use serde::Serialize;

use super::rounding::{fine, short};
use crate::discovery::source::{Origin, Source};
use crate::sharing::snapshot::Snapshot;
use engine::Cluster;
use engine::time::Time;

/// What the sources of an upstream's endpoints say.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Discovery<'a> {
    /// Each source that is asked.
    pub sources: Vec<Asked<'a>>,
    /// Addresses that other sources name and Envoy's cluster does not have: they get no requests.
    pub unknown_to_envoy: usize,
    /// The part of the requests that is left to Envoy's own policy, because some hosts have no IP address; 0 to 1.
    pub left_to_envoy: f64,
}

/// A source of endpoints.
#[derive(Clone, Debug, Serialize)]
pub struct Asked<'a> {
    /// `prometheus` or `envoy_admin`.
    pub source: &'static str,
    /// Endpoints of its list.
    pub endpoints: usize,
    /// Of these, endpoints that its latest answers did not name.
    pub absent: usize,
    /// Entries of its latest answer that name no address.
    pub skipped: u32,
    /// What the first of those are called.
    pub examples: &'a str,
    /// Usable answers.
    pub answers: u64,
    /// Questions without one.
    pub failures: u64,
    /// None before the first usable answer.
    pub answered_age_s: Option<f64>,
    /// None if the latest question was answered.
    pub error: Option<&'a str>,
}

impl<'a> Asked<'a> {
    #[inline(never)]
    fn of(origin: Origin, source: &'a Source, now: Time) -> Asked<'a> {
        Asked {
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

/// What the latest answer for a signal had to do with the endpoints.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SignalFit<'a> {
    /// The signal's name.
    pub name: &'a str,
    /// How many series the answer had; none before the first.
    pub series: Option<u32>,
    /// How many of them name an endpoint.
    pub matched: Option<u32>,
    /// What is wrong; none while an endpoint is named.
    pub problem: Option<&'a str>,
    /// How firmly it is acted on, up to 1.
    pub firmness: f64,
}

#[inline(never)]
pub(super) fn discovery<'a>(
    upstream: &Cluster,
    sources: Option<&(Vec<(Origin, &'a Source)>, usize)>,
    now: Time,
) -> Discovery<'a> {
    let left_to_envoy = fine(upstream.left_to_envoy());
    let Some((sources, unknown_to_envoy)) = sources else {
        return Discovery { left_to_envoy, ..Discovery::default() };
    };
    let sources = sources.iter().map(|(origin, source)| Asked::of(*origin, source, now)).collect();
    Discovery { sources, unknown_to_envoy: *unknown_to_envoy, left_to_envoy }
}

#[inline(never)]
pub(super) fn signal_fit<'a>(
    (at, signal): (usize, &'a engine::settings::Signal),
    upstream: &Cluster,
    snapshot: &'a Snapshot,
) -> SignalFit<'a> {
    let fit = snapshot.get(upstream.hash(), &signal.name).map(|samples| &samples.fit);
    SignalFit {
        name: &signal.name,
        series: fit.map(|fit| fit.series),
        matched: fit.map(|fit| fit.matched),
        problem: fit.map(|fit| fit.problem.as_str()).filter(|problem| !problem.is_empty()),
        firmness: fine(upstream.signal_firmness(at)),
    }
}
