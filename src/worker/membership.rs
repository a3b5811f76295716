//! This worker among those of its process: its entry in the registry, its slot, the lease, the peers' reports, and its
//! shard of the work that is divided.

use super::Worker;
use crate::host::Host;
use crate::host::event::Event;
use crate::sharing::counts::Counts;
use crate::sharing::slot_id::SlotId;
use crate::sharing::{lease, peers, registry, retired_counters, worker_report};
use engine::ProbeShard;
use engine::time::Time;

/// What this worker is to the others.
pub(crate) struct Membership {
    pub(super) id: u64,
    /// The hash of the configuration's text.
    fingerprint: u64,
    /// The slot id of this worker's records in shared data, once it is registered.
    pub(super) slot_id: Option<SlotId>,
    /// The live workers, this one among them.
    pub(super) peers: Vec<SlotId>,
    pub(super) shard: ProbeShard,
    /// This worker's shard under the previous configuration, and when that ended.
    pub(super) shard_before: Option<(ProbeShard, Time)>,
    pub(super) lease: lease::Holder,
    pub(crate) carries_traffic: bool,
    /// Whether the retired counters have been set up.
    seeded: bool,
}

impl Membership {
    pub(super) fn new(id: u64, fingerprint: u64) -> Membership {
        Membership {
            id,
            fingerprint,
            slot_id: None,
            peers: Vec::new(),
            shard: ProbeShard::ALONE,
            shard_before: None,
            lease: lease::Holder::Unsettled,
            carries_traffic: false,
            seeded: false,
        }
    }

    /// The other live workers.
    pub(super) fn others(&self) -> impl Iterator<Item = &SlotId> {
        self.peers.iter().filter(|peer| peer.id != self.id)
    }
}

impl Worker {
    /// Whether this worker holds the lease, and so polls and decides for all.
    pub fn is_leader(&self) -> bool {
        self.membership.lease == lease::Holder::Me
    }

    /// Renews this worker's entry in the registry if it carries traffic, and retires expired workers.
    #[inline(never)]
    pub(super) fn enter(&mut self, host: &dyn Host, now: Time) {
        if !core::mem::replace(&mut self.membership.seeded, true) {
            retired_counters::seed(host, &self.keys.shared, now);
        }
        let mut listed = registry::update(
            host,
            &self.keys.shared.workers,
            self.membership.id,
            self.membership.carries_traffic,
            now,
        );
        if self.membership.carries_traffic && self.is_gone(host, &listed) {
            // What it had published is among the retired counters, now or when its entry is cleared: it counts on from
            // there under a new id.
            self.publish_stats(host, now);
            self.engine.forget_counts();
            self.membership.id = self.rng.next_u64();
            listed = registry::update(host, &self.keys.shared.workers, self.membership.id, true, now);
        }
        let keys = &self.keys.shared;
        self.membership.peers = listed.live;
        self.membership.slot_id = listed.mine;
        if !self.membership.carries_traffic {
            return;
        }
        listed.to_retire.iter().for_each(|slot_id| _ = retired_counters::retire(host, keys, *slot_id));
        self.engine.recount(now);
        if let Some(slot_id) = self.membership.slot_id {
            let counts = Counts::of(&self.engine, now).encode();
            let _the_next_maintenance_tries_again = slot_id.write(host, &keys.counts, counts);
        }
    }

    /// Whether this worker was taken for gone, and perhaps retired since.
    #[inline(never)]
    fn is_gone(&self, host: &dyn Host, listed: &registry::Listed) -> bool {
        listed.gone || (!listed.found && retired_counters::holds(host, &self.keys.shared, self.membership.id))
    }

    #[inline(never)]
    pub(super) fn lead(&mut self, host: &dyn Host, now: Time) {
        let led = self.is_leader();
        let me = lease::Candidate {
            id: self.membership.id,
            configuration: self.membership.fingerprint,
            since: self.activity.started,
            busy: self.membership.carries_traffic,
        };
        self.membership.lease = lease::hold(host, &self.keys.lease, me, now);
        if self.is_leader() && !led {
            // Continues from the signals of the former leader, which has counted the polls so far.
            self.read_signals(host, now);
            self.stats.counted_polls(&self.snapshot.stats);
            host.log_event(&Event {
                level: log::Level::Debug,
                name: "leads",
                message: "acquired the polling lease",
                fields: &[],
            });
        }
    }

    /// Publishes this worker's report for its peers.
    #[inline(never)]
    pub(super) fn publish_report(&mut self, host: &dyn Host, now: Time) {
        if let Some(slot_id) = self.membership.slot_id {
            let slot = worker_report::encode(&self.engine, !self.activity.is_idle(), now);
            let _the_next_tick_tries_again = slot_id.write(host, &self.keys.shared.slots, slot);
        }
    }

    /// This worker's `shard`, or that of the previous configuration, as long as the peers may not have reported yet:
    /// otherwise each worker would explore and probe for all of them.
    pub(super) fn divided(&self, shard: ProbeShard, now: Time) -> ProbeShard {
        let lasts =
            |since: &Time| now >= *since && now.seconds_since(*since) <= engine::endpoint::GONE_AFTER_S;
        match self.membership.shard_before.filter(|(_, since)| lasts(since)) {
            Some((before, _)) if before.workers > shard.workers => {
                ProbeShard { is_reporter: shard.is_reporter, ..before }
            }
            _ => shard,
        }
    }

    /// Reads the peers' reports, and returns this worker's shard among those that carry traffic.
    #[inline(never)]
    pub(super) fn merge_peers(&mut self, host: &dyn Host, now: Time) -> ProbeShard {
        let slots = &self.keys.shared.slots;
        let reports = self.membership.others().filter_map(|peer| Some((peer.id, peer.read(host, slots)?)));
        let (mut shard, peers) = peers::merge(&mut self.engine, self.membership.id, reports, now);
        // Workers with traffic see all changes and report them; without any, only the leader has something to report.
        if !self.membership.carries_traffic {
            shard.is_reporter = peers == 0 && self.is_leader();
        }
        self.engine.divide_among(if self.membership.carries_traffic { peers } else { 0 });
        self.divided(shard, now)
    }
}
