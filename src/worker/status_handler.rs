//! Requests for the status page: the only requests that read shared data.

use super::Worker;
use super::admin_polls::bypassed::{self, Bypassed};
use crate::host::{Host, StreamHost};
use crate::sharing::counts::Counts;
use crate::sharing::retired_counters::{self, Gathered};
use crate::telemetry::status::{Answer, Route, Sources};
use engine::time::Time;

impl Worker {
    /// Answers a request for the status page; returns whether it was one.
    pub(crate) fn shows_status(&self, host: &dyn StreamHost) -> bool {
        self.config.status.is_some() && self.answers_for_status(host)
    }

    #[inline(never)]
    fn answers_for_status(&self, host: &dyn StreamHost) -> bool {
        let Some(status) = &self.config.status else { return false };
        let Some(path) = host.request_header(":path") else { return false };
        if !path.starts_with(status.path.as_bytes()) {
            return false;
        }
        let method = host.request_header(":method").unwrap_or_default();
        let Some(route) = Route::of(&status.path, &method, &path) else { return false };
        let answer = self.status(host.process(), route);
        host.respond(answer.status, &answer.headers, &answer.body);
        true
    }

    /// A resource of the status page, of all workers.
    pub fn status(&self, host: &dyn Host, route: Route) -> Answer {
        Answer::to(route, &self.config, || self.sources(host))
    }

    fn bypassed(&self, host: &dyn Host, upstream: u64) -> Vec<&'static str> {
        let said = host.shared_get(&bypassed::key(&self.keys.hints, upstream));
        let byte = said.and_then(|(bytes, _)| bytes.first().copied());
        byte.map(Bypassed::from_byte).unwrap_or_default().names()
    }

    #[inline(never)]
    fn sources(&self, host: &dyn Host) -> Sources<'_> {
        let now = host.now();
        let Gathered { mut counts, others, founded } =
            retired_counters::gather(host, &self.keys.shared, self.membership.id, now);
        counts.merge(&Counts::of(&self.engine, now));
        Sources {
            config: &self.config,
            engine: &self.engine,
            snapshot: &self.snapshot,
            unmatched: self.clusters.unmatched(&self.engine).collect(),
            guards: self.engine.upstreams().iter().map(|u| self.guarding.of(u.hash())).collect(),
            discovery: (0..self.engine.upstreams().len()).map(|at| self.discovery.shown(at)).collect(),
            bypassed: self.engine.upstreams().iter().map(|u| self.bypassed(host, u.hash())).collect(),
            counts,
            workers: others + usize::from(self.membership.carries_traffic),
            founded: if founded == Time::ZERO { self.activity.started } else { founded },
            refused: &self.refused,
            now,
        }
    }
}
