//! Peer reports of an older configuration's workers, until the workers of the new one have reported.
//!
//! A worker knows most slow or failing endpoints from its peers' reports: one worker met them, all of them avoid them.
//! Where the old workers end at once, as with ECDS, no peer reports for a moment, and without the handover each new
//! worker would meet such an endpoint once itself.

use super::Cluster;
use crate::endpoint::{EndpointView, GONE_AFTER_S, PeerReport};
use crate::health::Evidence;
use crate::time::Time;

/// Peer report on one endpoint.
#[derive(Clone, Copy, Debug)]
struct HandoverEntry {
    identity: u64,
    others: PeerReport,
    evidence: Evidence,
}

/// The reports that were handed over. They expire after [`GONE_AFTER_S`], when a worker that reports nothing counts as
/// gone.
#[derive(Clone, Debug)]
pub(super) struct HandoverState {
    since: Time,
    known: Vec<HandoverEntry>,
}

impl HandoverState {
    /// No reports yet; handed over at `since`.
    pub(super) fn new(since: Time) -> HandoverState {
        HandoverState { since, known: Vec::new() }
    }

    /// Adds what the older configuration's worker knew of `identity` from its peers.
    pub(super) fn add(&mut self, identity: u64, endpoint: EndpointView<'_>) {
        let (others, evidence) = (endpoint.others(), endpoint.others_evidence());
        if others.latency.centre().is_some() || evidence != Evidence::default() {
            self.known.push(HandoverEntry { identity, others, evidence });
        }
    }
}

impl Cluster {
    /// Fills in endpoints that no worker has reported on yet. Where one has, its report alone counts, so that nothing
    /// counts twice.
    #[inline(never)]
    pub(super) fn restore(&mut self, now: Time) {
        let Some(inherited) = self.handover.as_ref() else { return };
        if now < inherited.since || now.seconds_since(inherited.since) > GONE_AFTER_S {
            self.handover = None;
            return;
        }
        for entry in &inherited.known {
            let Some(index) = self.endpoints.set.index_of_hash(entry.identity) else { continue };
            let Some(endpoint) = self.endpoints.states.get_mut(index as usize) else { continue };
            let places = self.endpoints.set.places();
            self.endpoints.peers.restore((index, endpoint), places, &entry.others, &entry.evidence);
        }
    }
}
