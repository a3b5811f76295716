//! Reports among the workers of one proxy: the product's own format and merge, kept in memory.

use engine::time::Time;
use engine::{Balancer, ProbeShard};
use evenkeel::sharing::{peers, worker_report};

/// The last report of each worker.
pub struct Exchange {
    slots: Vec<Vec<u8>>,
}

impl Exchange {
    /// Without reports from `workers` workers.
    pub fn new(workers: usize) -> Exchange {
        Exchange { slots: vec![Vec::new(); workers] }
    }

    /// Publishes the report of `worker`, merges the last ones of its peers, and returns its part of the shared work.
    pub fn swap(&mut self, worker: usize, engine: &mut Balancer, now: Time) -> ProbeShard {
        if self.slots.len() < 2 {
            return ProbeShard::ALONE;
        }
        self.slots[worker] = worker_report::encode(engine, true, now);
        let (shard, _) = peers::merge(engine, worker as u64, (0..).zip(&self.slots), now);
        shard
    }
}
