//! Peer reports on each endpoint, merged anew on every tick.
//!
//! They are stored beside the endpoint states and take no memory if there are no other workers. Timestamps take six
//! bytes: the difference from the time of the merge.

use crate::endpoint::{EndpointState, EndpointView};
use crate::estimate::{Blend, InFlightReport};
use crate::health::{Evidence, GoodRun};
use crate::time::Time;

/// Age after which a worker's report is expired and the worker counts as gone, seconds.
pub const GONE_AFTER_S: f64 = 3.0;

/// The peers' measurements of an endpoint, merged; their health evidence is kept separately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PeerReport {
    /// Requests in flight.
    pub in_flight: InFlightReport,
    /// Latency estimate.
    pub latency: Blend,
    /// Highest failure ratio of any peer, 0..=1.
    pub error_ratio: f32,
}

impl PeerReport {
    /// Merges another worker's report.
    pub fn merge(&mut self, other: &PeerReport) {
        self.in_flight.merge(&other.in_flight);
        self.latency.merge(&other.latency);
        self.error_ratio = self.error_ratio.max(other.error_ratio);
    }
}

/// A timestamp as its difference from a reference, in nanoseconds: exact within 39 hours. An older one counts as 39
/// hours old, and none lies further ahead than that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ago([u16; 3]);

impl Ago {
    /// Code of no difference; the code 0 stands for [`Time::ZERO`].
    const NOW: u64 = 1 << 47;

    fn of(moment: Time, at: Time) -> Ago {
        let code = if moment == Time::ZERO {
            0
        } else if moment <= at {
            Ago::NOW.saturating_add(at.0 - moment.0).min(2 * Ago::NOW - 1)
        } else {
            Ago::NOW.saturating_sub(moment.0 - at.0).max(1)
        };
        Ago([code as u16, (code >> 16) as u16, (code >> 32) as u16])
    }

    fn moment(self, at: Time) -> Time {
        let [low, middle, high] = self.0.map(u64::from);
        match low | middle << 16 | high << 32 {
            0 => Time::ZERO,
            code => Time(at.0.saturating_add(Ago::NOW).saturating_sub(code)),
        }
    }
}

/// The merged peer reports on one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PeerState {
    total: u32,
    awaiting: u32,
    mean_age: f32,
    centre: f32,
    samples: f32,
    error_ratio: f32,
    quiet_since: Ago,
    updated: Ago,
    good_start: Ago,
    good: u16,
}

impl PeerState {
    /// Requests in flight from the peers.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Requests of the peers that await response headers.
    pub fn awaiting(&self) -> u32 {
        self.awaiting
    }

    /// Highest failure ratio of any peer, 0..=1.
    pub fn error_ratio(&self) -> f32 {
        self.error_ratio
    }

    /// When the endpoint last answered a peer, or went from idle to busy there; `at` is the time of the merge.
    pub fn quiet_since(&self, at: Time) -> Time {
        self.quiet_since.moment(at)
    }

    /// The peers' requests in flight.
    pub fn in_flight(&self, at: Time) -> InFlightReport {
        let PeerState { total, awaiting, mean_age, .. } = *self;
        InFlightReport { total, awaiting, mean_age, quiet_since: self.quiet_since(at) }
    }

    /// Whether any peer has an estimate of its latency.
    pub fn has_latency(&self) -> bool {
        self.samples > 0.0
    }

    /// The peers' latency estimate.
    pub fn latency(&self, at: Time) -> Blend {
        Blend::of((self.centre, self.samples, self.updated.moment(at)))
    }

    /// The peers' good answers.
    pub fn good(&self, at: Time) -> GoodRun {
        GoodRun { count: self.good, start: self.good_start.moment(at) }
    }
}

/// The merged peer reports on all endpoints, by index.
#[derive(Clone, Debug, Default)]
pub struct PeerTable {
    at: Time,
    /// Mean age of the reports when they were merged, seconds: half of the time since the merge before.
    lag_s: f32,
    states: Vec<PeerState>,
}

impl PeerTable {
    /// Clears all reports before they are merged anew, as of `at`.
    pub fn forget(&mut self, at: Time) {
        let since_last =
            if self.at == Time::ZERO { 0.0 } else { at.seconds_since(self.at).min(GONE_AFTER_S) };
        self.lag_s = (0.5 * since_last) as f32;
        self.at = at;
        if self.states.iter().all(|state| *state == PeerState::default()) {
            // No worker has reported anything since the last merge: there are no peers.
            self.states = Vec::new();
        } else {
            self.states.fill(PeerState::default());
        }
    }

    /// Clears the reports on the endpoint at `index`.
    pub fn forget_one(&mut self, index: u32) {
        if let Some(state) = self.states.get_mut(index as usize) {
            *state = PeerState::default();
        }
    }

    /// Time of the merge.
    pub fn at(&self) -> Time {
        self.at
    }

    /// The view of `endpoint`, the endpoint at `index`, with its reports.
    pub fn of<'a>(&'a self, index: u32, endpoint: &'a EndpointState) -> EndpointView<'a> {
        EndpointView::new(endpoint, self.states.get(index as usize), (self.at, self.lag_s))
    }

    /// Merges a peer's report on `endpoint` at `index`; the set has `places` slots.
    pub fn merge(
        &mut self,
        (index, endpoint): (u32, &mut EndpointState),
        places: usize,
        other: &PeerReport,
        evidence: &Evidence,
    ) {
        if *other == PeerReport::default() && *evidence == Evidence::default() {
            return;
        }
        let known = self.of(index, endpoint);
        let (mut others, good) = (known.others(), known.good());
        others.merge(other);
        let good = endpoint.health.merge_other(good, evidence);
        self.put(index, places, &others, good);
    }

    /// Fills in an older report on `endpoint`, as far as no peer has reported on it yet.
    pub fn restore(
        &mut self,
        (index, endpoint): (u32, &mut EndpointState),
        places: usize,
        before: &PeerReport,
        evidence: &Evidence,
    ) {
        let known = self.of(index, endpoint);
        let (mut others, mut good) = (known.others(), known.good());
        if others.latency.centre().is_none()
            && (before.latency.centre().is_some() || before.error_ratio > 0.0)
        {
            others.latency = before.latency;
            others.error_ratio = others.error_ratio.max(before.error_ratio);
        }
        if endpoint.health.others(good) == Evidence::default() {
            good = endpoint.health.merge_other(good, evidence);
        }
        self.put(index, places, &others, good);
    }

    fn put(&mut self, index: u32, places: usize, others: &PeerReport, good: GoodRun) {
        let PeerReport { in_flight, latency, error_ratio } = *others;
        let (centre, samples, updated) = latency.parts();
        if self.at == Time::ZERO {
            self.at = in_flight.quiet_since.max(updated).max(good.start);
        }
        if self.states.len() < places {
            self.states.reserve_exact(places - self.states.len());
            self.states.resize(places, PeerState::default());
        }
        let ago = |moment| Ago::of(moment, self.at);
        let merged = PeerState {
            total: in_flight.total,
            awaiting: in_flight.awaiting,
            mean_age: in_flight.mean_age,
            centre,
            samples,
            error_ratio,
            quiet_since: ago(in_flight.quiet_since),
            updated: ago(updated),
            good_start: ago(good.start),
            good: good.count,
        };
        if let Some(state) = self.states.get_mut(index as usize) {
            *state = merged;
        }
    }

    /// Caps timestamps at `now` after the clock stepped back: evidence from the future would outweigh all that follows.
    pub fn not_after(&mut self, now: Time) {
        for state in &mut self.states {
            state.good_start = Ago::of(state.good_start.moment(self.at).min(now), self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn is_small() {
        assert_eq!(size_of::<PeerState>(), 44);
    }

    #[test]
    fn a_moment_of_the_last_day_is_kept_to_the_nanosecond() {
        let at = Time::from_secs_f64(1.7e9);
        for ago in [0, 1, 999, 86_400_000_000_001, -1, -86_400_000_000_001] {
            let moment = Time(at.0.wrapping_add_signed(-ago));
            assert_eq!(Ago::of(moment, at).moment(at), moment);
        }
        assert_eq!(Ago::of(Time::ZERO, at), Ago::default());
        assert_eq!(Ago::default().moment(at), Time::ZERO);
        assert_eq!(Ago::of(Time(1), at).moment(at), Time(at.0 - Ago::NOW + 1), "long ago, but not never");
        assert!(Ago::of(Time(u64::MAX), at).moment(at) > at);
        assert_eq!(Ago::of(Time(5), Time(9)).moment(Time(9)), Time(5));
    }

    #[test]
    fn single_peer_report_is_kept_unchanged() {
        let (mut table, mut endpoint) = (PeerTable::default(), EndpointState::default());
        let at = Time::from_secs_f64(1000.0);
        table.forget(at);
        let mut others = PeerReport { error_ratio: 0.1, ..PeerReport::default() };
        others.in_flight =
            InFlightReport { total: 3, awaiting: 2, mean_age: 0.7, quiet_since: Time(at.0 - 7) };
        others.latency.add((-3.3, 7.7, Time(at.0 - 123_456_789)));
        let evidence =
            Evidence { good: GoodRun { count: 3, start: Time(at.0 - 987_654_321) }, ..Evidence::default() };
        table.merge((1, &mut endpoint), 3, &PeerReport::default(), &Evidence::default());
        assert_eq!(table.states.capacity(), 0, "nothing takes no place");
        table.merge((1, &mut endpoint), 3, &others, &evidence);
        let known = table.of(1, &endpoint);
        assert_eq!((known.others(), known.others_evidence()), (others, evidence));
        table.forget(at);
        assert_eq!(table.of(1, &endpoint).others(), PeerReport::default());
        table.forget(at);
        assert_eq!(table.states.capacity(), 0, "no report is left");
    }
}
