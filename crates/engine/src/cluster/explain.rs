//! The terms of an endpoint's cost and share, for the status page.

use super::Cluster;
use crate::policy::Turns;
use crate::time::Time;

/// The terms of an endpoint's cost and share.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Explained {
    /// The cost that the policy compares; `None` if it compares none or the cost is not finite.
    pub cost: Option<f32>,
    /// Expected latency when idle, seconds, without the error penalty; the subset's baseline as far as too little is
    /// known.
    pub expected_s: f64,
    /// Error penalty, seconds.
    pub error_penalty_s: f64,
    /// Lower bound of the latency from requests that are still unanswered, seconds.
    pub min_latency_s: f64,
    /// Factor on the latency for the requests in flight.
    pub queueing: f64,
    /// Factor on the share during slow start, at most 1.
    pub slow_start: f64,
    /// Factor of the signals on the share; 1 is neutral.
    pub signals: f64,
    /// Factor of a rule on the share, at most 1.
    pub rule: f64,
    /// The part of its version's requests that its subset gets, 0..=1.
    pub load: f64,
    /// Seconds until the next probe of an ejected endpoint, if scheduled.
    pub next_probe_s: Option<f64>,
}

impl Cluster {
    /// Explains the endpoint at `index`.
    pub fn explain(&self, index: u32, now: Time) -> Option<Explained> {
        let endpoint = self.endpoint(index)?;
        let subset = self.subset_of(index);
        let in_flight = subset.map_or(0, |g| g.in_flight);
        let view = self.endpoints.context(
            &self.queueing,
            in_flight,
            Turns { requests: self.traffic.requests, ..subset.map_or(Turns::default(), |g| g.turns) },
            now,
        );
        let (typical, failing) =
            subset.map_or((self.typical, 0.0), |g| (g.latency.typical, g.errors.failing));
        let error_penalty_s = endpoint.error_penalty(typical, failing, &self.ablation);
        let slow_start = super::shares::slow_start(&endpoint, self.config.slow_start, now);
        let rule = super::shares::left_by_rule(&endpoint);
        let others = f64::from(endpoint.weight) * slow_start * rule;
        let due = endpoint.health.next_probe(&self.config.health);
        Some(Explained {
            cost: subset.and_then(|g| g.policy.cost(view, index)).filter(|cost| cost.is_finite()),
            load: subset.map_or(0.0, |g| g.division.load),
            expected_s: (f64::from(endpoint.expected) - error_penalty_s).max(0.0),
            error_penalty_s,
            min_latency_s: f64::from(endpoint.silent(&self.queueing, now)),
            queueing: f64::from(
                self.queueing.cost(endpoint.pending() as f32 * view.turns.unit / endpoint.weight),
            ),
            slow_start,
            signals: if others > 0.0 { f64::from(endpoint.share) / others } else { 1.0 },
            rule,
            next_probe_s: (!endpoint.eligible && due != Time::ZERO).then(|| due.seconds_since(now)),
        })
    }

    /// Age of the most recent value of the signal at index `signal`, over all endpoints, seconds; `None` before the
    /// first.
    pub fn signal_age_s(&self, signal: usize, now: Time) -> Option<f64> {
        let readings = self.endpoints.set.iter().filter_map(|(index, _)| self.readings(index).get(signal));
        readings.filter_map(|reading| Some(reading.get(now)?.1)).min_by(f64::total_cmp)
    }

    /// Number of eligible endpoints.
    pub fn eligible(&self) -> usize {
        self.endpoints.states.iter().filter(|m| m.present && m.eligible).count()
    }

    /// Whether any tier is in panic: too few endpoints are eligible, so health is ignored.
    pub fn panics(&self) -> bool {
        self.ejection.panic
    }
}
