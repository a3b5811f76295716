//! The peers' reports: what the engine learns of them, and this worker's shard of the work that is divided.

use super::Worker;
use crate::host::Host;
use crate::sharing::peers;
use engine::ProbeShard;
use engine::time::Time;

impl Worker {
    /// The shard of the previous configuration, as long as the peers may not have reported yet: otherwise each worker
    /// would explore and probe for all of them.
    fn divided_as_before(&self, now: Time) -> Option<ProbeShard> {
        let (shard, since) = self.shard_before?;
        (now >= since && now.seconds_since(since) <= engine::endpoint::GONE_AFTER_S).then_some(shard)
    }

    /// Reads the peers' reports, and returns this worker's shard among those that carry traffic.
    #[inline(never)]
    pub(super) fn merge_peers(&mut self, host: &dyn Host, now: Time) -> ProbeShard {
        let slots = &self.keys.shared.slots;
        let reports = self.peers.iter().filter(|peer| peer.id != self.id);
        let reports = reports.filter_map(|peer| Some((peer.id, peer.read(host, slots)?)));
        let (mut shard, any) = peers::merge(&mut self.engine, self.id, reports, now);
        // Workers with traffic see all changes and report them; without any, only the leader has something to report.
        if !self.carries_traffic {
            shard.is_reporter = !any && self.is_leader();
        }
        match self.divided_as_before(now) {
            Some(before) if before.workers > shard.workers => {
                ProbeShard { is_reporter: shard.is_reporter, ..before }
            }
            _ => shard,
        }
    }
}
