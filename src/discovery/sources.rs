//! Endpoint sets from the sources: the lease holder polls them, and every worker follows.

use crate::discovery::discovered;
use crate::discovery::found::{Finding, Found};
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
    sources: Vec<UpstreamSource>,
    /// By upstream: whether all of its sources had answered when its endpoint set was last made.
    complete: Vec<bool>,
    /// By upstream: the problems that have been logged.
    notices: Vec<Notices>,
    weights_unknown: bool,
    known_to_envoy_only: bool,
    started: Time,
    news: bool,
    logged_beyond: bool,
}

/// What is failing among the sources of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Failing {
    /// Whether polls have no usable answer.
    pub outage: bool,
    /// Whether answers cannot be used for one upstream alone.
    pub alone: bool,
}

/// One source of one upstream.
struct UpstreamSource {
    upstream: usize,
    key: discovered::Key,
    source: Source,
    /// The poll interval, seconds.
    every_s: f64,
    /// Whether the weights of Envoy's localities count.
    weighed: bool,
    /// These weights; `None` before this worker has read them. Until then those of the endpoints stay.
    localities: Option<Vec<Locality>>,
    /// Whether it has been logged that an answer lacks them.
    unlisted: bool,
}

#[inline(never)]
fn log_weights_unknown(host: &dyn Host, error: &str) {
    host.log_event(&Event {
        level: log::Level::Warn,
        name: "locality_weights_unknown",
        message: &format!(
            "discovery: locality weights unknown: /config_dump: {error}; those known before stay, else endpoint weights divide the requests"
        ),
        fields: &[("error", Field::Text(error))],
    });
}

impl UpstreamSource {
    /// Sets the locality weights of the endpoints in a response.
    fn weigh(&self, found: &mut [Found]) {
        match &self.localities {
            Some(localities) => localities::weigh(found, localities),
            None if self.weighed => localities::keep(found, &self.source.found),
            None => localities::weigh(found, &[]),
        }
    }

    /// Leaves all requests to Envoy if it chooses by subsets.
    fn respect_subsets(&mut self) {
        if self.source.subsets {
            self.source.unsteerable = 1.0;
        }
    }
}

impl Discovery {
    /// The sources of `config`, none of which has answered yet. Their state is shared under `key`.
    #[inline(never)]
    pub fn new(config: &Config, key: String, now: Time) -> Discovery {
        let mut discovery = Discovery {
            key,
            version: None,
            sources: Vec::new(),
            complete: Vec::new(),
            notices: Vec::new(),
            weights_unknown: false,
            // The other ways of steering reach any address, whether or not Envoy's cluster has it.
            known_to_envoy_only: matches!(config.steering.via, Via::OverrideHost | Via::StatefulSession),
            started: now,
            news: false,
            logged_beyond: false,
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
        let weighed = envoy.is_some_and(|admin| admin.locality_weights && balanced.zone.is_none());
        let envoy = envoy.map(|admin| (Origin::Envoy, interval_s(admin.interval)));
        for (origin, every_s) in [prometheus, envoy].into_iter().flatten() {
            let (key, source) = ((cluster, origin), Source::default());
            let weighed = weighed && origin == Origin::Envoy;
            let (localities, unlisted) = (None, false);
            self.sources.push(UpstreamSource {
                upstream,
                key,
                source,
                every_s,
                weighed,
                localities,
                unlisted,
            });
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
        for entry in &mut self.sources {
            let Some(known) = old.sources.iter().find(|known| known.key == entry.key) else { continue };
            if entry.weighed {
                entry.localities.clone_from(&known.localities);
            }
            if entry.source.known().is_none() && known.source.known().is_some() {
                entry.source = known.source.clone();
                changed.push(entry.upstream);
            }
        }
        changed
    }

    /// A source of the upstream at this position in the configuration.
    pub fn source(&self, upstream: usize, origin: Origin) -> Option<&Source> {
        self.sources.iter().find(|h| h.upstream == upstream && h.key.1 == origin).map(|h| &h.source)
    }

    fn source_mut(&mut self, upstream: usize, origin: Origin) -> Option<&mut Source> {
        self.sources.iter_mut().find(|h| h.upstream == upstream && h.key.1 == origin).map(|h| &mut h.source)
    }

    /// Takes a source's response to `question`; returns whether that changes the endpoints, or the part that is left to
    /// Envoy.
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
        let entry = self.sources.iter_mut().find(|h| h.upstream == upstream && h.key.1 == origin);
        entry.is_some_and(|entry| {
            entry.weigh(&mut finding.found);
            let before = entry.source.unsteerable;
            let changed = entry.source.answer(finding, (origin, question), now);
            entry.respect_subsets();
            changed || entry.source.unsteerable != before
        })
    }

    /// Whether Envoy chooses the hosts of a cluster by subsets, as far as is known.
    pub fn subsets(&self, upstream: usize) -> bool {
        self.sources.iter().any(|h| h.upstream == upstream && h.key.1 == Origin::Envoy && h.source.subsets)
    }

    /// Takes whether Envoy chooses the hosts of a cluster by subsets; returns whether that changes anything.
    pub fn set_subsets(&mut self, upstream: usize, subsets: bool) -> bool {
        let entry = self.sources.iter_mut().find(|h| h.upstream == upstream && h.key.1 == Origin::Envoy);
        let Some(entry) = entry.filter(|entry| entry.source.subsets != subsets) else { return false };
        entry.source.subsets = subsets;
        // The next answer has the part that is left to Envoy for other reasons.
        entry.source.unsteerable = 0.0;
        entry.respect_subsets();
        self.news = true;
        true
    }

    /// Takes the weights of Envoy's localities; returns whether that changes anything.
    pub fn set_localities(&mut self, upstream: usize, localities: Vec<Locality>) -> bool {
        let entry = self.sources.iter_mut().find(|h| h.upstream == upstream && h.key.1 == Origin::Envoy);
        let Some(entry) = entry else { return false };
        let before = entry.source.found.clone();
        localities::weigh(&mut entry.source.found, &localities);
        entry.localities = Some(localities);
        entry.unlisted = false;
        let changed = before != entry.source.found;
        self.news |= changed;
        changed
    }

    /// The weights of localities cannot be read; logged once until they can.
    pub fn weights_unknown(&mut self, host: &dyn Host, error: &str) {
        if !core::mem::replace(&mut self.weights_unknown, true) {
            log_weights_unknown(host, error);
        }
    }

    /// Envoy has answered which weights localities have.
    pub fn weights_answered(&mut self) {
        self.weights_unknown = false;
    }

    /// The answer lacks an upstream, called `name` there; logged once until it has it.
    pub fn weights_missing(&mut self, host: &dyn Host, upstream: usize, name: &str) {
        let entry = self.sources.iter_mut().find(|h| h.upstream == upstream && h.key.1 == Origin::Envoy);
        if entry.is_some_and(|entry| !core::mem::replace(&mut entry.unlisted, true)) {
            log_weights_unknown(host, &format!("the answer has no {name:?}"));
        }
    }

    /// What is failing among the sources of this kind.
    pub fn failing(&self, origin: Origin) -> Failing {
        let any = |failing: fn(&Source) -> bool| {
            self.sources.iter().any(|entry| entry.key.1 == origin && failing(&entry.source))
        };
        Failing { outage: any(|source| source.outage), alone: any(|source| source.alone) }
    }

    /// Removes endpoints whose absence has lasted long enough; returns the upstreams that this changes.
    #[inline(never)]
    pub fn remove_absent(&mut self, engine: &Balancer, now: Time) -> Vec<usize> {
        let mut changed = Vec::new();
        for entry in &mut self.sources {
            let upstream = engine.upstream(entry.upstream);
            let standing = |address| match entry.key.1 {
                // Envoy sends no requests to a host that it does not have.
                Origin::Envoy => Standing::Unknown,
                Origin::Prometheus => upstream.map(|u| u.standing(address, now)).unwrap_or_default(),
            };
            if entry.source.remove_absent(entry.every_s, now, standing) {
                changed.push(entry.upstream);
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

    /// A poll was answered, but not usably for this upstream; returns whether that is new.
    pub fn failed_alone(&mut self, upstream: usize, origin: Origin, error: &str) -> bool {
        self.news = true;
        self.source_mut(upstream, origin).is_some_and(|source| source.fail_alone(error))
    }

    /// An answer could be used for an upstream: it is no outage where it could not.
    pub fn answered(&mut self, origin: Origin) {
        let alone = self.sources.iter_mut().filter(|entry| entry.key.1 == origin && entry.source.alone);
        alone.for_each(|entry| entry.source.outage = false);
    }

    /// Drops the health that sources announced which no longer answer; returns the upstreams that this changes.
    #[inline(never)]
    pub fn drop_stale_health(&mut self, now: Time) -> Vec<usize> {
        let stale = self
            .sources
            .iter_mut()
            .filter_map(|h| h.source.drop_stale_health(h.every_s, now).then_some(h.upstream));
        let changed: Vec<usize> = stale.collect();
        self.news |= !changed.is_empty();
        changed
    }

    /// Publishes the state of the sources, if it has changed since the last call; returns whether it had.
    #[inline(never)]
    pub fn publish(&mut self, host: &dyn Host) -> bool {
        let news = core::mem::take(&mut self.news);
        if news {
            let bytes = discovered::encode(self.sources.iter().map(|h| (h.key, &h.source)));
            let _the_next_poll_tries_again = host.shared_set(&self.key, &bytes, None);
        }
        news
    }

    /// Clears what has been published.
    pub fn release(&self, host: &dyn Host) {
        if !self.sources.is_empty() {
            let _it_stays = host.shared_set(&self.key, &[], None);
        }
    }

    /// Reads what the lease holder has published; returns the upstreams whose endpoints this changes.
    #[inline(never)]
    pub fn read(&mut self, host: &dyn Host, now: Time) -> Vec<usize> {
        let mut changed = Vec::new();
        if self.sources.is_empty() {
            return changed;
        }
        let Some((bytes, version)) = host.shared_get(&self.key) else { return changed };
        if self.version.replace(version) == Some(version) {
            return changed;
        }
        for (key, mut source) in discovered::decode(&bytes).unwrap_or_default() {
            source.not_after(now);
            let Some(entry) = self.sources.iter_mut().find(|h| h.key == key) else { continue };
            if entry.source.known() != source.known() || entry.source.unsteerable != source.unsteerable {
                changed.push(entry.upstream);
            }
            entry.source = source;
            // Another leader may have read other weights since this worker did.
            entry.localities = None;
        }
        changed
    }

    /// Rebuilds the endpoint set of an upstream; `logs` in the worker that logs for all. Returns the number of new
    /// endpoints.
    #[inline(never)]
    pub fn rebuild(
        &mut self,
        host: &dyn Host,
        config: &Config,
        engine: &mut Balancer,
        (upstream, logs): (usize, bool),
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
        if merged.beyond > 0 && !core::mem::replace(&mut self.logged_beyond, true) {
            let line = format!(
                "discovery: cluster={}: {} endpoints are left out: the limit is {MAX_ENDPOINTS}",
                balanced.cluster, merged.beyond,
            );
            host.log_event(&Event {
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
            notices.unknown_to_envoy(logs.then_some(host), &balanced.cluster, merged.unknown_to_envoy);
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
    pub fn log_notices(&mut self, host: Option<&dyn Host>, config: &Config) {
        for entry in &self.sources {
            let name = config.upstreams.get(entry.upstream).map_or("", |u| u.cluster.as_str());
            if let Some(notices) = self.notices.get_mut(entry.upstream) {
                notices.source(host, (name, entry.key.1), &entry.source);
            }
        }
    }

    /// The sources of an upstream, and how many of its addresses Envoy's cluster does not have.
    pub fn shown(&self, upstream: usize) -> (Vec<(Origin, &Source)>, usize) {
        let sources = self.sources.iter().filter(|entry| entry.upstream == upstream);
        let unknown = self.notices.get(upstream).map_or(0, |notices| notices.unknown);
        (sources.map(|entry| (entry.key.1, &entry.source)).collect(), unknown)
    }

    /// Adjusts all times to a clock that stepped back to `now`.
    pub fn not_after(&mut self, now: Time) {
        self.sources.iter_mut().for_each(|h| h.source.not_after(now));
    }
}
