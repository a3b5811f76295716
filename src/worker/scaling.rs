//! Pressure and desired replicas: computed by the leader, read by every worker.

use super::Worker;
use crate::host::Host;
use crate::sharing::scaling;
use engine::time::Time;

impl Worker {
    /// Publishes and reads the capacity of endpoints and the state of autoscaling. Part of the maintenance: neither
    /// changes within a fraction of a second.
    #[inline(never)]
    pub(super) fn scale(&mut self, host: &dyn Host, now: Time) {
        if let Some(slot_id) = self.membership.slot_id {
            let slots = scaling::encode_slots(&self.engine, now);
            let _the_next_maintenance_tries_again = slot_id.write(host, &self.keys.shared.capacities, slots);
        }
        // Nothing new arrives while the process rests.
        if !self.activity.rests || self.membership.shard.workers > 1 {
            self.read_capacities(host, now);
        }
        if !self.is_leader() {
            // Also to continue from there if this worker takes over the lease.
            if let Some((bytes, _)) = host.shared_get(&self.keys.scaling) {
                scaling::apply(&bytes, &mut self.engine, now);
            }
            return;
        }
        self.engine.scale_replicas(now);
        let _the_next_maintenance_tries_again =
            host.shared_set(&self.keys.scaling, &scaling::encode(&self.engine), None);
    }

    #[inline(never)]
    fn read_capacities(&mut self, host: &dyn Host, now: Time) {
        let others = self.membership.others();
        let published = others.filter_map(|peer| peer.read(host, &self.keys.shared.capacities));
        let lives = |bytes: &Vec<u8>| {
            let gone = |written| now.seconds_since(written) > engine::endpoint::GONE_AFTER_S;
            scaling::slots_written(bytes)
                .is_some_and(|written| !written.from_the_future(now) && !gone(written))
        };
        let live: Vec<Vec<u8>> = published.filter(lives).collect();
        scaling::apply_slots(live.iter().map(Vec::as_slice), &mut self.engine);
    }
}
