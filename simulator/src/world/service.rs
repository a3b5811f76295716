//! How endpoints serve requests.

use engine::rng::Rng;
use engine::{Failure, Outcome};

use super::event::{Event, Inbound};
use super::{AT_ONCE_S, START, World};
use crate::balancer::Reply;
use crate::distribution::exponential;
use crate::run::Task;
use crate::scenario::{Long, Mode};
use crate::server::{Due, Work};

impl World<'_> {
    pub(super) fn serve(&mut self, endpoint: usize, mut work: Work) {
        work.arrived = self.now;
        self.servers[endpoint].coming -= 1;
        match self.servers[endpoint].mode {
            Mode::Hole => return,
            Mode::Refuse => return self.reply_at_once(endpoint, &work, Outcome::Failed(Failure::Refused)),
            Mode::Errors(share) if self.coin(&work) < share => {
                return self.reply_at_once(endpoint, &work, Outcome::Failed(Failure::Status5xx));
            }
            Mode::Limits(share) if self.coin(&work) < share => {
                return self.reply_at_once(endpoint, &work, Outcome::Failed(Failure::TooMany));
            }
            _ => {}
        }
        if self.scenario.errors > 0.0 && 1.0 - self.coin(&work) <= self.scenario.errors {
            return self.reply_at_once(endpoint, &work, Outcome::Failed(Failure::Status5xx));
        }
        if let Some(long) = self.requests[work.request as usize].long {
            return self.serve_long(endpoint, &work, long);
        }
        if self.scenario.asynchronous.is_some() && self.requests[work.request as usize].own {
            return self.reply_at_once(endpoint, &work, Outcome::Good);
        }
        if let Some(longest) = self.scenario.asynchronous {
            if self.servers[endpoint].queue.len() >= longest {
                return self.reply_at_once(endpoint, &work, Outcome::Failed(Failure::Status5xx));
            }
            self.reply_at_once(endpoint, &work, Outcome::Good);
            self.open += 1;
        }
        if let Some((slot, running)) = self.servers[endpoint].accept(work, self.now) {
            self.at(running.finish, Event::Due { endpoint, slot, turn: running.turn });
        }
    }

    /// Serves a request that occupies no slot: headers at once or at the end, after a duration that depends on the
    /// request alone.
    fn serve_long(&mut self, endpoint: usize, work: &Work, long: Long) {
        let (request, generation) = (work.request, work.generation);
        let reply = self.report(endpoint, AT_ONCE_S, Outcome::Good);
        if long.streams {
            let at = self.now.after_secs(AT_ONCE_S + self.scenario.way(endpoint));
            self.at(
                at.max(self.servers[endpoint].paused_until),
                Event::Opened { request, generation, reply },
            );
        }
        let mut rng = Rng::new(self.requests[request as usize].coin);
        let seconds = 2.0 * AT_ONCE_S + long.seconds * exponential(&mut rng);
        let at = self.now.after_secs(seconds + self.scenario.way(endpoint));
        self.at(at.max(self.servers[endpoint].paused_until), Event::Reply { request, generation, reply });
    }

    /// Uniform in 0..1, the same for the same attempt of the same request, whichever endpoint serves it.
    fn coin(&self, work: &Work) -> f64 {
        let request = &self.requests[work.request as usize];
        Rng::new(request.coin.wrapping_add(u64::from(request.retries_left))).unit()
    }

    fn reply_at_once(&mut self, endpoint: usize, work: &Work, outcome: Outcome) {
        let after = AT_ONCE_S + 2.0 * self.scenario.way(endpoint);
        let at = self.requests[work.request as usize].sent.started.after_secs(after);
        let reply = self.report(endpoint, AT_ONCE_S, outcome);
        let (request, generation) = (work.request, work.generation);
        self.at(at.max(self.servers[endpoint].paused_until), Event::Reply { request, generation, reply });
    }

    fn report(&mut self, endpoint: usize, service: f64, outcome: Outcome) -> Reply {
        let server = &mut self.servers[endpoint];
        server.complete(outcome == Outcome::Good, self.now);
        let load = server.load();
        Reply {
            outcome,
            service: service as f32,
            queue: server.queue.len() as f32,
            utilisation: load.utilisation as f32,
            qps: load.qps as f32,
            eps: load.eps as f32,
        }
    }

    pub(super) fn due(&mut self, endpoint: usize, slot: usize, turn: u32) {
        match self.servers[endpoint].due(slot, turn, self.now) {
            Due::Gone => {}
            Due::Later(at) => self.at(at, Event::Due { endpoint, slot, turn }),
            Due::Done { work, next } => {
                if let Some(running) = next {
                    self.at(running.finish, Event::Due { endpoint, slot, turn: running.turn });
                }
                if self.scenario.asynchronous.is_some() {
                    self.open -= 1;
                    self.run.tasks.push(Task {
                        accepted_us: ((work.arrived.0 - START.0) / 1000) as u32,
                        sojourn_us: ((self.now.0 - work.arrived.0) / 1000) as u32,
                    });
                    return;
                }
                let reply = self.report(endpoint, work.takes, Outcome::Good);
                let (request, generation) = (work.request, work.generation);
                self.come(endpoint, Inbound::Reply { request, generation, reply });
            }
        }
    }

    pub(super) fn crash(&mut self, endpoint: usize) {
        for work in self.servers[endpoint].crash(self.now) {
            if self.scenario.asynchronous.is_some() {
                self.open -= 1;
                continue;
            }
            let (request, generation) = (work.request, work.generation);
            // Each request has a connection of its own.
            let reply = Reply::bare(Outcome::Failed(Failure::Broken(request as u64 + 1)));
            self.come(endpoint, Inbound::Reply { request, generation, reply });
        }
    }
}
