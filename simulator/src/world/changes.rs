//! Changes during a run: faults, the number of endpoints, and signals.

use super::event::Event;
use super::{START, World};
use crate::run::Fleet;
use crate::scenario::{Mode, SignalFault, What};

impl World<'_> {
    pub(super) fn change(&mut self, index: usize) {
        let change = self.scenario.changes[index];
        let server = &mut self.servers[change.endpoint];
        match change.what {
            What::Slow(factor) => server.slow = factor,
            What::Pause(seconds) => server.pause(seconds, self.now),
            What::Mode(mode) => {
                server.mode = mode;
                if mode == Mode::Refuse {
                    self.crash(change.endpoint);
                }
            }
            What::Join | What::Leave => {
                server.present = change.what == What::Join;
                self.announce();
            }
        }
    }

    /// Informs every proxy which endpoints are present.
    fn announce(&mut self) {
        let present: Vec<bool> = self.servers.iter().map(|s| s.present).collect();
        self.balancers.iter_mut().for_each(|b| b.fleet(&present, self.now));
    }

    /// Starts and stops endpoints to match the largest number that any proxy desires.
    pub(super) fn scale(&mut self) {
        let Some(scaling) = self.scenario.scaling else { return };
        let wishes: Vec<_> = self.balancers.iter().map(|b| b.wish()).collect();
        let wanted = wishes.iter().filter_map(|wish| wish.replicas).max();
        let there = self.servers.iter().filter(|s| s.present).count();
        if let Some(wanted) = wanted.map(|wanted| wanted as usize) {
            for _ in there + self.starting.len()..wanted {
                let absent = |e: &usize| !self.servers[*e].present && !self.starting.contains(e);
                let Some(endpoint) = (0..self.servers.len()).find(absent) else { break };
                self.starting.push(endpoint);
                self.at(self.now.after_secs(scaling.start), Event::Start { endpoint });
            }
            // Endpoints that are still starting are stopped first, then the last ones that are present.
            for _ in wanted..there + self.starting.len() {
                if self.starting.pop().is_none()
                    && let Some(server) = self.servers.iter_mut().rfind(|s| s.present)
                {
                    server.present = false;
                }
            }
            if self.servers.iter().filter(|s| s.present).count() != there {
                self.announce();
            }
        }
        self.run.fleet.push(Fleet {
            at: self.now.seconds_since(START),
            present: self.servers.iter().filter(|s| s.present).count(),
            starting: self.starting.len(),
            wanted,
            pressure: wishes.iter().filter_map(|wish| wish.pressure).reduce(f64::max),
        });
        self.at(self.now.after_secs(1.0), Event::Scale);
    }

    pub(super) fn start(&mut self, endpoint: usize) {
        let before = self.starting.len();
        self.starting.retain(|starting| *starting != endpoint);
        if self.starting.len() < before {
            self.servers[endpoint].present = true;
            self.announce();
        }
    }

    pub(super) fn scrape(&mut self, endpoint: usize) {
        let Some(signal) = self.scenario.signal else { return };
        let server = &self.servers[endpoint];
        let depth = server.queue.len() as f64;
        let told = match signal.fault {
            SignalFault::AbsentFrom(seconds) if self.now >= START.after_secs(seconds) => None,
            SignalFault::Lies => Some(if server.in_flight() > 0 { 0.0 } else { signal.max.unwrap_or(100.0) }),
            _ => Some(depth),
        };
        if let Some(value) = told.filter(|_| server.mode != Mode::Refuse) {
            self.samples[endpoint] = Some((value, self.now));
        }
        self.at(self.now.after_secs(signal.scrape), Event::Scrape { endpoint });
    }

    pub(super) fn poll(&mut self, proxy: usize) {
        let Some(signal) = self.scenario.signal else { return };
        let mut known = 0;
        for (endpoint, sample) in self.samples.iter().enumerate() {
            if let Some((value, at)) = sample.filter(|_| self.servers[endpoint].present) {
                self.balancers[proxy].signal(endpoint, value, at);
                known += 1;
            }
        }
        self.balancers[proxy].signals_told(known, self.now);
        self.at(self.now.after_secs(signal.poll), Event::Poll { proxy });
    }
}
