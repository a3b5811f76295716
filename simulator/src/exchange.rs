//! The workers of one proxy telling each other what they know: the product's own slots, kept in memory.

use engine::time::Time;
use engine::{Balancer, ProbeShard};
use evenkeel::sharing::worker_report;

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
        engine.forget_others(now);
        let mut duty = ProbeShard::ALONE;
        for (other, slot) in self.slots.iter().enumerate() {
            if other != worker && !slot.is_empty() {
                duty.workers += 1;
                duty.rank += u32::from(other < worker);
                let _always_well_formed = worker_report::merge(slot, engine);
            }
        }
        duty.is_reporter = duty.rank == 0;
        duty
    }
}
