//! Endpoint sets from the sources: the lease holder polls them, and every worker follows.

use crate::discovery::discovered;
use crate::discovery::found::Finding;
use crate::discovery::localities::{self, Locality};
use crate::discovery::merge::Sources;
use crate::discovery::notices::Notices;
use crate::discovery::source::{Origin, Source};
use crate::host::Host;
use crate::host::event::{Event, Field};
use config::{Config, MAX_ENDPOINTS, Via};
use engine::Balancer;
use engine::endpoint::Standing;
use engine::rng;
use engine::time::Time;

/// Time after the start within which a newly found endpoint counts as an old one, seconds: endpoints of a set that is
/// still being discovered are not newcomers and need no slow start.
const FINDING_OUT_S: f64 = 30.0;

/// The sources of all upstreams, and the endpoint sets made from them.
pub struct Discovery {
    key: String,
    version: Option<u32>,
    heard: Vec<SourceChange>,
    /// By upstream: whether all of its sources had answered when its endpoint set was last made.
    complete: Vec<bool>,
    /// By upstream: the problems that have been logged.
    notices: Vec<Notices>,
    weights_unknown: bool,
    known_to_envoy_only: bool,
    started: Time,
    news: bool,
    complained: bool,
}

/// One source of one upstream.
struct SourceChange {
    upstream: usize,
    key: discovered::Key,
    source: Source,
    /// The poll interval, seconds.
    every_s: f64,
    /// The weights of Envoy's localities, as far as they are known.
    localities: Vec<Locality>,
}

impl Discovery {
    /// The sources of `config`, none of which has answered yet. Their state is shared under `key`.
    #[inline(never)]
    pub fn new(config: &Config, key: String, now: Time) -> Discovery {
        let mut discovery = Discovery {
            key,
            version: None,
            heard: Vec::new(),
            complete: Vec::new(),
            notices: Vec::new(),
            weights_unknown: false,
            // The other ways of steering reach any address, whether or not Envoy's cluster has it.
            known_to_envoy_only: matches!(config.steering.via, Via::OverrideHost | Via::StatefulSession),
            started: now,
            news: false,
            complained: false,
        };
        (0..config.upstreams.len()).for_each(|upstream| discovery.add(config, upstream));
        discovery
    }

    /// Adds the sources of the upstream at this position, the next one.
    pub fn add(&mut self, config: &Config, upstream: usize) {
        let Some(balanced) = config.upstreams.get(upstream) else { return };
        let cluster = rng::hash(balanced.cluster.as_bytes());
        let interval_s = |interval: core::time::Duration| interval.as_secs_f64();
        let polled_s = config.prometheus.as_ref().map_or(0.0, |p| interval_s(p.interval));
        let prometheus = balanced.endpoints.prometheus.as_ref().map(|_| (Origin::Prometheus, polled_s));
        let envoy = balanced.endpoints.envoy_admin.as_ref();
        let envoy = envoy.map(|admin| (Origin::Envoy, interval_s(admin.interval)));
        for (origin, every_s) in [prometheus, envoy].into_iter().flatten() {
            let (key, source) = ((cluster, origin), Source::default());
            self.heard.push(SourceChange { upstream, key, source, every_s, localities: Vec::new() });
        }
        self.complete.push(false);
        self.notices.push(Notices::default());
        // Shared data may have its state already.
        self.version = None;
    }

    /// Takes over what an older configuration's sources have answered, where this one's have not; returns the upstreams
    /// that this changes.
    #[inline(never)]
    pub fn take_over(&mut self, old: &Discovery) -> Vec<usize> {
        let mut changed = Vec::new();
        for heard in self.heard.iter_mut().filter(|heard| heard.source.known().is_none()) {
            let known = old.heard.iter().find(|known| known.key == heard.key);
            if let Some(known) = known.filter(|known| known.source.known().is_some()) {
                heard.source = known.source.clone();
                heard.localities.clone_from(&known.localities);
                changed.push(heard.upstream);
            }
        }
        changed
    }

    /// A source of the upstream at this position in the configuration.
    pub fn source(&self, upstream: usize, origin: Origin) -> Option<&Source> {
        self.heard.iter().find(|h| h.upstream == upstream && h.key.1 == origin).map(|h| &h.source)
    }

    fn source_mut(&mut self, upstream: usize, origin: Origin) -> Option<&mut Source> {
        self.heard.iter_mut().find(|h| h.upstream == upstream && h.key.1 == origin).map(|h| &mut h.source)
    }

    /// Takes a source's response to `question`; returns whether that changes the endpoints.
    #[inline(never)]
    pub fn accept_finding(
        &mut self,
        upstream: usize,
        (origin, question): (Origin, u64),
        finding: Finding,
        now: Time,
    ) -> bool {
        self.news = true;
        let mut finding = finding;
        let heard = self.heard.iter_mut().find(|h| h.upstream == upstream && h.key.1 == origin);
        heard.is_some_and(|heard| {
            localities::weigh(&mut finding.found, &heard.localities);
            heard.source.answer(finding, (origin, question), now)
        })
    }

    /// Takes the weights of Envoy's localities; returns whether that changes anything.
    pub fn weigh(&mut self, upstream: usize, told: Vec<Locality>) -> bool {
        let heard = self.heard.iter_mut().find(|h| h.upstream == upstream && h.key.1 == Origin::Envoy);
        let Some(heard) = heard else { return false };
        heard.localities = told;
        let before = heard.source.found.clone();
        localities::weigh(&mut heard.source.found, &heard.localities);
        let changed = before != heard.source.found;
        self.news |= changed;
        changed
    }

    /// Logs once that the weights of localities cannot be read.
    pub fn say_weights_unknown(&mut self, host: &dyn Host, error: &str) {
        if !core::mem::replace(&mut self.weights_unknown, true) {
            host.tell(&Event {
                level: log::Level::Warn,
                name: "locality_weights_unknown",
                message: &format!(
                    "discovery: locality weights unknown: /config_dump: {error}; requests are divided by endpoint weights"
                ),
                fields: &[("error", Field::Text(error))],
            });
        }
    }

    /// Whether a source of this kind has failed to answer its latest poll.
    pub fn any_failing(&self, origin: Origin) -> bool {
        self.heard.iter().any(|heard| heard.key.1 == origin && !heard.source.error.is_empty())
    }

    /// Removes endpoints whose absence has lasted long enough; returns the upstreams that this changes.
    #[inline(never)]
    pub fn believe_absences(&mut self, engine: &Balancer, now: Time) -> Vec<usize> {
        let mut changed = Vec::new();
        for heard in &mut self.heard {
            let upstream = engine.upstream(heard.upstream);
            let standing = |address| match heard.key.1 {
                // Envoy sends no requests to a host that it does not have.
                Origin::Envoy => Standing::Unknown,
                Origin::Prometheus => upstream.map(|u| u.standing(address, now)).unwrap_or_default(),
            };
            if heard.source.believe_absences(heard.every_s, now, standing) {
                changed.push(heard.upstream);
            }
        }
        self.news |= !changed.is_empty();
        changed
    }

    /// A poll of a source failed.
    pub fn failed(&mut self, upstream: usize, origin: Origin, error: &str) {
        self.news = true;
        self.source_mut(upstream, origin).into_iter().for_each(|source| source.fail(error));
    }

    /// Drops the health that sources announced which no longer answer; returns the upstreams that this changes.
    #[inline(never)]
    pub fn forget_conditions(&mut self, now: Time) -> Vec<usize> {
        let silent = self
            .heard
            .iter_mut()
            .filter_map(|h| h.source.forget_conditions(h.every_s, now).then_some(h.upstream));
        let changed: Vec<usize> = silent.collect();
        self.news |= !changed.is_empty();
        changed
    }

    /// Publishes the state of the sources, if it has changed since the last call; returns whether it had.
    #[inline(never)]
    pub fn publish(&mut self, host: &dyn Host) -> bool {
        let news = core::mem::take(&mut self.news);
        if news {
            let bytes = discovered::encode(self.heard.iter().map(|h| (h.key, &h.source)));
            let _the_next_poll_tries_again = host.shared_set(&self.key, &bytes, None);
        }
        news
    }

    /// Reads what the lease holder has published; returns the upstreams whose endpoints this changes.
    #[inline(never)]
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

    /// Rebuilds the endpoint set of an upstream; `speaks` in the worker that logs for all. Returns the number of new
    /// endpoints.
    #[inline(never)]
    pub fn settle(
        &mut self,
        host: &dyn Host,
        config: &Config,
        engine: &mut Balancer,
        (upstream, speaks): (usize, bool),
        now: Time,
    ) -> usize {
        let Some(balanced) = config.upstreams.get(upstream) else { return 0 };
        let endpoints = &balanced.endpoints;
        let known = |origin| self.source(upstream, origin).and_then(Source::known);
        let (prometheus, envoy) = (known(Origin::Prometheus), known(Origin::Envoy));
        let complete = (endpoints.prometheus.is_none() || prometheus.is_some())
            && (endpoints.envoy_admin.is_none() || envoy.is_some());
        let sources = Sources {
            fixed: &endpoints.fixed,
            prometheus,
            envoy,
            known_to_envoy_only: self.known_to_envoy_only,
        };
        let merged = sources.merge();
        let was_complete =
            self.complete.get_mut(upstream).is_some_and(|was| core::mem::replace(was, complete));
        let finding_out = !was_complete && now.seconds_since(self.started) < FINDING_OUT_S;
        if merged.beyond > 0 && !core::mem::replace(&mut self.complained, true) {
            let line = format!(
                "discovery: cluster={}: {} endpoints are left out: the limit is {MAX_ENDPOINTS}",
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
        if let Some(notices) = self.notices.get_mut(upstream) {
            notices.unknown_to_envoy(speaks.then_some(host), &balanced.cluster, merged.unknown_to_envoy);
        }
        let unsteerable = self.source(upstream, Origin::Envoy).map_or(0.0, |source| source.unsteerable);
        let joined = if finding_out { Time::ZERO } else { now };
        engine.upstream_mut(upstream).map_or(0, |u| {
            u.leave_to_envoy(unsteerable);
            u.set_fleet_joined(&merged.specs, joined, now)
        })
    }

    /// Logs new problems of the sources: entries without an address, and endpoints that are no longer listed. Without a
    /// host another worker logs them.
    #[inline(never)]
    pub fn tell(&mut self, host: Option<&dyn Host>, config: &Config) {
        for heard in &self.heard {
            let name = config.upstreams.get(heard.upstream).map_or("", |u| u.cluster.as_str());
            if let Some(notices) = self.notices.get_mut(heard.upstream) {
                notices.source(host, (name, heard.key.1), &heard.source);
            }
        }
    }

    /// The sources of an upstream, and how many of its addresses Envoy's cluster does not have.
    pub fn shown(&self, upstream: usize) -> (Vec<(Origin, &Source)>, usize) {
        let sources = self.heard.iter().filter(|heard| heard.upstream == upstream);
        let unknown = self.notices.get(upstream).map_or(0, |notices| notices.unknown);
        (sources.map(|heard| (heard.key.1, &heard.source)).collect(), unknown)
    }

    /// Adjusts all times to a clock that stepped back to `now`.
    pub fn not_after(&mut self, now: Time) {
        self.heard.iter_mut().for_each(|h| h.source.not_after(now));
    }
}
