//! All per-endpoint state of a cluster, in columns by endpoint index. When a slot passes to another endpoint,
//! [`EndpointTable::reset`] resets all columns at once.

use hashbrown::HashMap;

use super::failings::Failings;
use super::header_hints::HintTable;
use super::open_requests::OpenRequests;
use super::returning::Returning;
use crate::endpoint::{Counters, EndpointRef, EndpointSet, EndpointState, EndpointView, PeerTable, Tally};
use crate::estimate::{PeakEwma, Queueing, Reading};
use crate::policy::{PickContext, Turns};
use crate::time::Time;

/// Maximum number of endpoints that have left whose counters are kept.
const MAX_DEPARTED: usize = 10_000;

/// The endpoint set and the columns beside it.
pub(super) struct EndpointTable {
    /// Addresses, identities and attributes.
    pub set: EndpointSet,
    /// This worker's measurements.
    pub states: Vec<EndpointState>,
    /// The peers' reports.
    pub peers: PeerTable,
    /// Latency peaks; empty unless the policy compares them.
    pub peaks: Vec<PeakEwma>,
    /// Signal values, one row per endpoint.
    pub readings: Vec<Reading>,
    /// Recent failure ratios, if a threshold is set on them.
    pub failings: Failings,
    /// Requests that the client has not ended.
    pub open_requests: OpenRequests,
    /// Statements of endpoints in response headers.
    pub hints: HintTable,
    /// State of endpoints that have left recently.
    pub returning: Returning,
    /// Counters of endpoints that have left, and what was carried over from the states' own, so that no counter
    /// decreases.
    pub departed: HashMap<u64, Counters>,
    signals: usize,
    compares_peaks: bool,
}

impl EndpointTable {
    /// Creates an empty table with `signals` values per endpoint, and latency peaks if `peaks` is set.
    pub fn new(failings: Failings, signals: usize, peaks: bool) -> EndpointTable {
        EndpointTable {
            set: EndpointSet::default(),
            states: Vec::new(),
            peers: PeerTable::default(),
            peaks: Vec::new(),
            readings: Vec::new(),
            failings,
            open_requests: OpenRequests::default(),
            hints: HintTable::default(),
            returning: Returning::default(),
            departed: HashMap::new(),
            signals,
            compares_peaks: peaks,
        }
    }

    /// Grows all columns to the size of the set.
    pub fn make_room(&mut self) {
        let places = self.set.places();
        self.states.reserve_exact(places.saturating_sub(self.states.len()));
        self.states.resize_with(places, EndpointState::default);
        if self.compares_peaks {
            self.peaks.resize(places, PeakEwma::default());
        }
        self.readings.resize(places * self.signals, Reading::default());
        self.failings.make_room(places);
    }

    /// Passes the slot at `index` to another endpoint with the state `to`; nothing of the previous one is left.
    pub fn reset(&mut self, index: u32, to: EndpointState) {
        if let Some(endpoint) = self.states.get_mut(index as usize) {
            *endpoint = to;
        }
        self.peers.forget_one(index);
        self.failings.forget(index);
        self.hints.forget(index);
        if let Some(peak) = self.peaks.get_mut(index as usize) {
            *peak = PeakEwma::default();
        }
        let start = index as usize * self.signals;
        if let Some(readings) = self.readings.get_mut(start..start + self.signals) {
            readings.fill(Reading::default());
        }
    }

    /// The view of the endpoint at `index`: own measurements and peer reports.
    pub fn view(&self, index: u32) -> Option<EndpointView<'_>> {
        let endpoint = self.states.get(index as usize).filter(|m| m.present)?;
        Some(self.peers.of(index, endpoint))
    }

    /// The views of all endpoints, with their indices.
    pub fn views(&self) -> impl Iterator<Item = (u32, EndpointView<'_>)> {
        let present = (0u32..).zip(&self.states).filter(|(_, m)| m.present);
        present.map(|(index, endpoint)| (index, self.peers.of(index, endpoint)))
    }

    /// The context in which a policy picks.
    #[inline]
    pub fn context<'a>(
        &'a self,
        queueing: &'a Queueing,
        in_flight: u32,
        turns: Turns,
        now: Time,
    ) -> PickContext<'a> {
        PickContext {
            states: &self.states,
            peers: &self.peers,
            identities: self.set.identities(),
            peaks: &self.peaks,
            queueing,
            in_flight,
            now,
            turns,
        }
    }

    /// The state of `endpoint`, if its slot has not passed to another one.
    pub fn current(&mut self, endpoint: EndpointRef) -> Option<&mut EndpointState> {
        if !self.set.is_current(endpoint) {
            return None;
        }
        self.states.get_mut(endpoint.index as usize)
    }

    /// Signal values of the endpoint at `index`, in the order of the configured signals.
    pub fn readings(&self, index: u32) -> &[Reading] {
        let start = (index as usize).saturating_mul(self.signals);
        self.readings.get(start..start + self.signals).unwrap_or_default()
    }

    /// Removes the endpoint at `index`: its counters are kept, and its state for as long as it may return.
    pub fn leave(&mut self, index: u32, now: Time) {
        let Some(identity) = self.set.identities().get(index as usize).copied() else { return };
        let Some(endpoint) = self.states.get_mut(index as usize).filter(|m| m.present) else { return };
        let endpoint = core::mem::take(endpoint);
        let kept = self.departed.len() < MAX_DEPARTED || self.departed.contains_key(&identity);
        if endpoint.counters != Tally::default() && kept {
            self.departed.entry(identity).or_default().merge(&endpoint.counters.into());
        }
        self.returning.leave(identity, endpoint, now);
        self.reset(index, EndpointState::default());
        self.open_requests.forget(index, now);
    }

    /// Lifetime counters of the endpoint at `index`.
    pub fn counted(&self, index: u32, identity: u64) -> Counters {
        let mut counters =
            self.states.get(index as usize).map_or_else(Counters::default, |m| m.counters.into());
        self.departed.get(&identity).into_iter().for_each(|before| counters.merge(before));
        counters
    }

    /// Caps timestamps at `now` after the clock stepped back.
    pub fn not_after(&mut self, now: Time) {
        self.states.iter_mut().for_each(|endpoint| endpoint.not_after(now));
        self.peers.not_after(now);
        self.peaks.iter_mut().for_each(|peak| peak.not_after(now));
        self.readings.iter_mut().for_each(|reading| reading.not_after(now));
        self.failings.not_after(now);
        self.returning.not_after(now);
        self.open_requests.restart(now);
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::endpoint::Spec;

    fn table() -> EndpointTable {
        let mut table = EndpointTable::new(Failings::default(), 0, false);
        let specs = ["10.0.0.1:80", "10.0.0.2:80"].map(|text| Spec::at(text.parse().unwrap()));
        let changes = table.set.update(&specs);
        table.make_room();
        for index in changes.joined {
            table.reset(index, EndpointState { present: true, weight: 1.0, ..EndpointState::default() });
        }
        table
    }

    #[test]
    fn a_place_that_another_takes_keeps_nothing_of_the_one_before() {
        let mut table = table();
        let first = table.set.reference(0).unwrap();
        table.current(first).unwrap().counters.pick();
        table.leave(0, Time(1));
        assert!(table.view(0).is_none() && table.view(1).is_some());
        assert_eq!(table.states[0].counters, Tally::default());
        let identity = table.set.identities()[0];
        assert_eq!(table.counted(0, identity).picks, 1, "counts stay");
    }

    #[test]
    fn an_endpoint_that_returns_is_known() {
        let mut table = table();
        table.states[1].weight = 3.0;
        let identity = table.set.identities()[1];
        table.leave(1, Time(1));
        assert_eq!(table.returning.take(identity, Time(2)).map(|m| m.weight), Some(3.0));
        assert!(table.returning.take(identity, Time(2)).is_none(), "once");
    }
}
