//! What the workers of one proxy report to each other: the product's own reports and merge, kept in memory.

use engine::time::Time;
use engine::{Balancer, ProbeShard};
use evenkeel::sharing::{peers, worker_report};

/// What each worker last published.
pub struct Exchange {
    slots: Vec<Vec<u8>>,
}

impl Exchange {
    /// For `workers` workers.
    pub fn new(workers: usize) -> Exchange {
        Exchange { slots: vec![Vec::new(); workers] }
    }

    /// `worker` publishes what it knows, takes in what the others published last, and gets its part of the
    /// common work.
    pub fn swap(&mut self, worker: usize, engine: &mut Balancer, now: Time) -> ProbeShard {
        if self.slots.len() < 2 {
            return ProbeShard::ALONE;
        }
        self.slots[worker] = worker_report::encode(engine, true, now);
        let (shard, _) = peers::merge(engine, worker as u64, (0..).zip(&self.slots), now);
        shard
    }
}
