//! One endpoint: slots, a queue, and its faults.

use std::collections::VecDeque;

use engine::time::Time;

use crate::scenario::Mode;

/// Time constant of the load that an endpoint reports, seconds.
const REPORT_S: f64 = 1.0;
/// Number of completed requests remembered for probes.
const REMEMBERED: usize = 64;
/// Maximum age of a completed request for probes, seconds.
const RECENT_S: f64 = 5.0;
/// Number of completed requests in the median.
const NEAREST: usize = 7;

/// A completed request.
#[derive(Clone, Copy, Debug)]
struct Completed {
    company: u32,
    seconds: f64,
    at: Time,
}

/// A request that has reached an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// The request's id.
    pub request: u32,
    /// Distinguishes successive uses of an id.
    pub generation: u32,
    /// Work at normal speed, seconds.
    pub demand: f64,
    /// When it arrived at the endpoint.
    pub arrived: Time,
    /// Number of requests that it found there.
    pub company: u32,
    /// Service time here, seconds, known once it has started.
    pub takes: f64,
}

impl Work {
    /// No work.
    pub const NONE: Work =
        Work { request: 0, generation: 0, demand: 0.0, arrived: Time::ZERO, company: 0, takes: 0.0 };
}

/// Work in a slot.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// The work.
    pub work: Work,
    /// When it will be done, unless it is paused.
    pub finish: Time,
    /// Distinguishes this use of the slot from others.
    pub turn: u32,
}

/// An endpoint.
#[derive(Clone, Debug)]
pub struct Server {
    /// Whether it is part of the fleet.
    pub present: bool,
    /// How it treats requests.
    pub mode: Mode,
    /// Factor on service times.
    pub slow: f64,
    /// Work in each slot.
    pub slots: Vec<Option<Running>>,
    /// Waiting work, in order of arrival.
    pub queue: VecDeque<Work>,
    /// End of the current pause.
    pub paused_until: Time,
    /// Number of requests in transit to it.
    pub coming: u32,
    busy: usize,
    turns: u32,
    load: Load,
    completed: VecDeque<Completed>,
}

/// Load that an endpoint reports with each answer, as in an ORCA load report.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Fraction of busy slots, averaged over about a second.
    pub utilisation: f64,
    /// Requests answered per second, averaged likewise.
    pub qps: f64,
    /// Errors per second, averaged likewise.
    pub eps: f64,
    updated: Time,
}

impl Load {
    fn advance(&mut self, utilisation: f64, now: Time) {
        let keep = (-now.seconds_since(self.updated) / REPORT_S).exp();
        self.utilisation = self.utilisation * keep + utilisation * (1.0 - keep);
        self.qps *= keep;
        self.eps *= keep;
        self.updated = now;
    }
}

impl Server {
    /// Creates an idle endpoint.
    pub fn new(slots: usize, present: bool) -> Server {
        Server {
            present,
            mode: Mode::Serve,
            slow: 1.0,
            slots: vec![None; slots],
            queue: VecDeque::new(),
            paused_until: Time::ZERO,
            coming: 0,
            busy: 0,
            turns: 0,
            load: Load::default(),
            completed: VecDeque::with_capacity(REMEMBERED),
        }
    }

    /// Number of requests, waiting or running.
    pub fn in_flight(&self) -> usize {
        self.busy + self.queue.len()
    }

    /// The load that it reports.
    pub fn load(&self) -> Load {
        self.load
    }

    /// Accepts `work`. If a slot is free, returns the slot and the running work.
    pub fn accept(&mut self, mut work: Work, now: Time) -> Option<(usize, Running)> {
        work.company = self.in_flight() as u32;
        let Some(free) = self.slots.iter().position(Option::is_none) else {
            self.queue.push_back(work);
            return None;
        };
        Some((free, self.occupy(free, work, now)))
    }

    fn occupy(&mut self, slot: usize, mut work: Work, now: Time) -> Running {
        self.note_load(now);
        self.turns += 1;
        self.busy += 1;
        work.takes = work.demand * self.slow;
        let running =
            Running { work, finish: now.max(self.paused_until).after_secs(work.takes), turn: self.turns };
        self.slots[slot] = Some(running);
        running
    }

    /// Handles the due time of the work in `slot`, if it is still that of `turn`.
    pub fn due(&mut self, slot: usize, turn: u32, now: Time) -> Due {
        match self.slots[slot] {
            Some(running) if running.turn == turn && running.finish > now => Due::Later(running.finish),
            Some(running) if running.turn == turn => {
                self.note_load(now);
                self.slots[slot] = None;
                self.busy -= 1;
                if self.completed.len() == REMEMBERED {
                    self.completed.pop_back();
                }
                self.completed.push_front(Completed {
                    company: running.work.company,
                    seconds: now.seconds_since(running.work.arrived),
                    at: now,
                });
                let next = self.queue.pop_front().map(|work| self.occupy(slot, work, now));
                Due::Done { work: running.work, next }
            }
            _ => Due::Gone,
        }
    }

    /// Counts an answer for the load report.
    pub fn complete(&mut self, good: bool, now: Time) {
        self.note_load(now);
        self.load.qps += 1.0 / REPORT_S;
        self.load.eps += if good { 0.0 } else { 1.0 / REPORT_S };
    }

    fn note_load(&mut self, now: Time) {
        self.load.advance(self.busy as f64 / self.slots.len() as f64, now);
    }

    /// Pauses all work for `seconds`.
    pub fn pause(&mut self, seconds: f64, now: Time) {
        self.paused_until = self.paused_until.max(now.after_secs(seconds));
        for running in self.slots.iter_mut().flatten() {
            running.finish = running.finish.after_secs(seconds);
        }
    }

    /// Loses all its work, which is returned.
    pub fn crash(&mut self, now: Time) -> Vec<Work> {
        self.note_load(now);
        self.busy = 0;
        self.slots.iter_mut().filter_map(Option::take).map(|r| r.work).chain(self.queue.drain(..)).collect()
    }

    /// Time until a slot is free for one more request, seconds, given the running and waiting work and the requests in
    /// transit, with `mean` seconds of work each.
    pub fn wait(&self, mean: f64, now: Time) -> f64 {
        if self.busy + (self.coming as usize) < self.slots.len() {
            return self.paused_until.seconds_since(now);
        }
        let mut free: Vec<f64> =
            self.slots.iter().map(|s| s.map_or(0.0, |r| r.finish.seconds_since(now))).collect();
        let coming = (0..self.coming).map(|_| mean);
        for demand in self.queue.iter().map(|w| w.demand).chain(coming) {
            if let Some(first) = free.iter_mut().min_by(|a, b| a.total_cmp(b)) {
                *first += demand * self.slow;
            }
        }
        free.into_iter().fold(f64::INFINITY, f64::min).max(self.paused_until.seconds_since(now))
    }

    /// The answer to a probe: requests in flight, and the median of recent latencies at a similar number of them
    /// (Wydrowski et al., "Load is not what you should balance: Introducing Prequal", NSDI 2024, §4); zero without any,
    /// so that the endpoint is tried.
    pub fn probe(&self, now: Time) -> (u32, f64) {
        let in_flight = self.in_flight() as u32;
        let recent = self.completed.iter().take_while(|c| now.seconds_since(c.at) < RECENT_S);
        let mut near: Vec<(u32, f64)> = recent.map(|c| (c.company.abs_diff(in_flight), c.seconds)).collect();
        // The sort is stable and the newest are first: among equally near ones the newest count.
        near.sort_by_key(|(distance, _)| *distance);
        near.truncate(NEAREST);
        near.sort_by(|a, b| a.1.total_cmp(&b.1));
        (in_flight, near.get(near.len() / 2).map_or(0.0, |(_, seconds)| *seconds))
    }
}

/// Result of a due time.
#[derive(Clone, Copy, Debug)]
pub enum Due {
    /// Postponed by a pause.
    Later(Time),
    /// Done; the slot has taken the next work.
    Done {
        /// The work that is done.
        work: Work,
        /// The work that the slot has taken.
        next: Option<Running>,
    },
    /// The work was lost before.
    Gone,
}
