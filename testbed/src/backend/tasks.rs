//! The asynchronous worker: a bounded queue that its slots process.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::metrics::Held;
use super::{FinishedTask, Shared, lock, work};
use crate::clock;

#[derive(Debug)]
struct Task {
    accepted: Instant,
    /// The work that its request asked for.
    asked: Option<Duration>,
    waits: Held,
    unfinished: Held,
}

#[derive(Debug)]
pub(super) struct Queue {
    bound: usize,
    waiting: Mutex<VecDeque<Task>>,
    arrived: Notify,
}

impl Queue {
    pub(super) fn new(bound: usize) -> Self {
        Self { bound, waiting: Mutex::default(), arrived: Notify::new() }
    }

    async fn next(&self) -> Task {
        loop {
            if let Some(task) = lock(&self.waiting).pop_front() {
                return task;
            }
            self.arrived.notified().await;
        }
    }
}

/// Accepts a task, with the work that its request asked for, unless the queue is full.
pub(super) fn accept(shared: &Shared, asked: Option<Duration>) -> bool {
    let mut waiting = lock(&shared.queue.waiting);
    if waiting.len() >= shared.queue.bound {
        return false;
    }
    let (waits, unfinished) = (shared.metrics.waits(), shared.metrics.accepted());
    waiting.push_back(Task { accepted: clock::now(), asked, waits, unfinished });
    drop(waiting);
    shared.queue.arrived.notify_one();
    true
}

/// The loop of one slot.
pub(super) async fn work_off(shared: Arc<Shared>) {
    loop {
        let Task { accepted, asked, waits, unfinished } = shared.queue.next().await;
        drop(waits);
        let mode = shared.mode();
        let work = shared.work.next(mode.behaviour, asked);
        clock::sleep_until(work::end_of_work(clock::now(), work, mode)).await;
        let sojourn = clock::now() - accepted;
        shared.metrics.worked(work);
        shared.metrics.task_done(sojourn);
        lock(&shared.finished).push(FinishedTask { accepted, sojourn });
        drop(unfinished);
    }
}
