//! What the workers of an older configuration had reported to each other, until those of the new one have reported.
//!
//! A worker knows most endpoints that are slow or failing by its peers' reports: one worker met them, all of them
//! avoid them. Where the old workers end at once, as with ECDS, no worker can be asked for a moment, and without this
//! each new worker would meet such an endpoint once.

use super::Cluster;
use crate::endpoint::EndpointView;
use crate::endpoint::GONE_AFTER_S;
use crate::endpoint::PeerReport;
use crate::health::Evidence;
use crate::time::Time;

/// What peers had reported of one endpoint.
#[derive(Clone, Copy, Debug)]
struct HandoverEntry {
    identity: u64,
    others: PeerReport,
    evidence: Evidence,
}

/// The reports that were handed over; they hold for as long as a worker that reports nothing counts as live.
#[derive(Clone, Debug)]
pub(super) struct HandoverState {
    since: Time,
    known: Vec<HandoverEntry>,
}

impl HandoverState {
    /// Nothing yet, taken over at `since`.
    pub(super) fn new(since: Time) -> HandoverState {
        HandoverState { since, known: Vec::new() }
    }

    /// What the worker of the older configuration knew of `identity` from its peers.
    pub(super) fn add(&mut self, identity: u64, member: EndpointView<'_>) {
        let (others, evidence) = (member.others(), member.others_evidence());
        if others.latency.centre().is_some() || evidence != Evidence::default() {
            self.known.push(HandoverEntry { identity, others, evidence });
        }
    }
}

impl Cluster {
    /// Fills in what no worker has reported yet. Where one has, that counts alone, so that nothing counts twice.
    #[inline(never)]
    pub(super) fn restore(&mut self, now: Time) {
        let Some(inherited) = self.handover.as_ref() else { return };
        if now < inherited.since || now.seconds_since(inherited.since) > GONE_AFTER_S {
            self.handover = None;
            return;
        }
        for entry in &inherited.known {
            let Some(index) = self.endpoints.set.index_of_hash(entry.identity) else { continue };
            let Some(member) = self.endpoints.states.get_mut(index as usize) else { continue };
            let places = self.endpoints.set.places();
            self.endpoints.peers.restore((index, member), places, &entry.others, &entry.evidence);
        }
    }
}
