//! From what the sources say to the fleets: the lease holder listens, every worker follows.

use crate::config::{Config, MOST_ENDPOINTS, Via};
use crate::engine::Engine;
use crate::event::{Event, Field};
use crate::exchange::discovered;
use crate::fleet::{Finding, Origin, Source, Sources};
use crate::host::Host;
use crate::random;
use crate::time::Time;

/// Whoever is found within this time of the start, seconds, was there before: a fleet that is being found out about is
/// no fleet of newcomers.
const FINDING_OUT_S: f64 = 30.0;

/// The sources of all upstreams, and which fleets follow from them.
pub struct Discovery {
    key: String,
    version: Option<u32>,
    heard: Vec<Heard>,
    /// By upstream: whether all of its sources had answered when its fleet was last made.
    complete: Vec<bool>,
    members_only: bool,
    started: Time,
    news: bool,
    complained: bool,
}

/// One source of one upstream.
struct Heard {
    upstream: usize,
    key: discovered::Key,
    source: Source,
    /// Seconds between two questions.
    every_s: f64,
}

impl Discovery {
    /// The sources that `config` names, none of which has been heard yet. What is known is shared under `key`.
    pub fn new(config: &Config, key: String, now: Time) -> Discovery {
        let mut heard = Vec::new();
        for (upstream, balanced) in config.upstreams.iter().enumerate() {
            let cluster = random::hash(balanced.cluster.as_bytes());
            let interval_s = |interval: core::time::Duration| interval.as_secs_f64();
            let polled_s = config.prometheus.as_ref().map_or(0.0, |p| interval_s(p.interval));
            let prometheus = balanced.endpoints.prometheus.as_ref().map(|_| (Origin::Prometheus, polled_s));
            let envoy = balanced.endpoints.envoy_admin.as_ref();
            let envoy = envoy.map(|admin| (Origin::Envoy, interval_s(admin.interval)));
            for (origin, every_s) in [prometheus, envoy].into_iter().flatten() {
                heard.push(Heard { upstream, key: (cluster, origin), source: Source::default(), every_s });
            }
        }
        Discovery {
            key,
            version: None,
            heard,
            complete: vec![false; config.upstreams.len()],
            // The other ways to steer go where they are told, whether or not Envoy has heard of it before.
            members_only: matches!(config.steering.via, Via::OverrideHost | Via::StatefulSession),
            started: now,
            news: false,
            complained: false,
        }
    }

    /// A source of the upstream at this position in the configuration.
    pub fn source(&self, upstream: usize, origin: Origin) -> Option<&Source> {
        self.heard.iter().find(|h| h.upstream == upstream && h.key.1 == origin).map(|h| &h.source)
    }

    fn source_mut(&mut self, upstream: usize, origin: Origin) -> Option<&mut Source> {
        self.heard.iter_mut().find(|h| h.upstream == upstream && h.key.1 == origin).map(|h| &mut h.source)
    }

    /// A source answered. Whether that changes who the endpoints are.
    pub fn answered(&mut self, upstream: usize, origin: Origin, finding: Finding, now: Time) -> bool {
        self.news = true;
        self.source_mut(upstream, origin).is_some_and(|source| source.answer(finding, now))
    }

    /// A source did not answer, or nothing usable.
    pub fn failed(&mut self, upstream: usize, origin: Origin, error: &str) {
        self.news = true;
        self.source_mut(upstream, origin).into_iter().for_each(|source| source.fail(error));
    }

    /// What silent sources said of conditions is forgotten; the upstreams that this changes.
    pub fn forget_conditions(&mut self, now: Time) -> Vec<usize> {
        let silent = self
            .heard
            .iter_mut()
            .filter_map(|h| h.source.forget_conditions(h.every_s, now).then_some(h.upstream));
        let changed: Vec<usize> = silent.collect();
        self.news |= !changed.is_empty();
        changed
    }

    /// Tells the other workers what has been heard since the last call.
    pub fn publish(&mut self, host: &dyn Host) {
        if core::mem::take(&mut self.news) {
            let bytes = discovered::encode(self.heard.iter().map(|h| (h.key, &h.source)));
            let _the_next_poll_tries_again = host.shared_set(&self.key, &bytes, None);
        }
    }

    /// Reads what the lease holder has heard; the upstreams whose endpoints this changes.
    pub fn read(&mut self, host: &dyn Host, now: Time) -> Vec<usize> {
        let mut changed = Vec::new();
        if self.heard.is_empty() {
            return changed;
        }
        let Some((bytes, version)) = host.shared_get(&self.key) else { return changed };
        if self.version.replace(version) == Some(version) {
            return changed;
        }
        for (key, mut source) in discovered::decode(&bytes).unwrap_or_default() {
            source.not_after(now);
            let Some(heard) = self.heard.iter_mut().find(|h| h.key == key) else { continue };
            if heard.source.known() != source.known() {
                changed.push(heard.upstream);
            }
            heard.source = source;
        }
        changed
    }

    /// Makes the fleet of an upstream anew. How many endpoints are new.
    pub fn settle(
        &mut self,
        host: &dyn Host,
        config: &Config,
        engine: &mut Engine,
        upstream: usize,
        now: Time,
    ) -> usize {
        let Some(balanced) = config.upstreams.get(upstream) else { return 0 };
        let endpoints = &balanced.endpoints;
        let known = |origin| self.source(upstream, origin).and_then(Source::known);
        let (prometheus, envoy) = (known(Origin::Prometheus), known(Origin::Envoy));
        let complete = (endpoints.prometheus.is_none() || prometheus.is_some())
            && (endpoints.envoy_admin.is_none() || envoy.is_some());
        let sources = Sources { fixed: &endpoints.fixed, prometheus, envoy, members_only: self.members_only };
        let merged = sources.merge();
        let was_complete =
            self.complete.get_mut(upstream).is_some_and(|was| core::mem::replace(was, complete));
        let finding_out = !was_complete && now.seconds_since(self.started) < FINDING_OUT_S;
        if merged.beyond > 0 && !core::mem::replace(&mut self.complained, true) {
            let line = format!(
                "{:?} has {} endpoints beyond the {MOST_ENDPOINTS} that are balanced; they are left out",
                balanced.cluster, merged.beyond,
            );
            host.tell(&Event {
                level: log::Level::Warn,
                name: "endpoints_left_out",
                message: &line,
                fields: &[
                    ("upstream", Field::Text(&balanced.cluster)),
                    ("left_out", Field::Whole(merged.beyond as u64)),
                ],
            });
        }
        let joined = if finding_out { Time::ZERO } else { now };
        engine.upstream_mut(upstream).map_or(0, |u| u.set_fleet_joined(&merged.specs, joined, now))
    }

    /// The clock stepped back to `now`.
    pub fn not_after(&mut self, now: Time) {
        self.heard.iter_mut().for_each(|h| h.source.not_after(now));
    }
}
