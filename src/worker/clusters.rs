//! Clusters of requests that have no upstream yet. One that matches a pattern of the configuration becomes an upstream
//! of its own; one that no entry matches is shown on the status page.
//!
//! Workers share them through shared data, because the worker that polls Envoy for endpoints may see no requests.

use crate::host::Host;
use crate::host::event::{Event, Field};
use crate::sharing::seen_clusters::{self, SeenCluster};
use config::Config;
use engine::settings::Upstream;
use engine::{Balancer, pattern};

/// The highest number of upstreams made from patterns.
pub(super) const MAX_INSTANCES: usize = 64;
/// The highest number of unmatched clusters that are remembered by name; the requests of all are counted.
const MAX_UNMATCHED: usize = 16;
/// The longest cluster name that is remembered, bytes.
const MAX_NAME: usize = 1024;

/// The clusters of requests that this worker knows.
pub(crate) struct Clusters {
    key: String,
    /// Entries whose cluster is a pattern: each matching cluster gets an upstream made from its entry.
    templates: Vec<Upstream>,
    version: Option<u32>,
    known: Vec<SeenCluster>,
    /// Seen since the last tick.
    fresh: Vec<SeenCluster>,
    full: bool,
}

/// Takes the entries out of the configuration that an upstream is made from for each matching cluster: those with a
/// pattern and `endpoints.envoy_admin`. Other entries with a pattern balance one set of endpoints for all matching
/// clusters.
pub(super) fn take_templates(config: &mut Config) -> Vec<Upstream> {
    let is_template = |u: &mut Upstream| pattern::is_pattern(&u.cluster) && u.endpoints.envoy_admin.is_some();
    config.upstreams.extract_if(.., is_template).collect()
}

impl Clusters {
    pub fn new(key: String, templates: Vec<Upstream>) -> Clusters {
        Clusters { key, templates, version: None, known: Vec::new(), fresh: Vec::new(), full: false }
    }

    /// The patterns that upstreams are made from.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.templates.iter().map(|template| template.cluster.as_str())
    }

    /// Makes later upstreams without probes.
    pub fn probe_none(&mut self) {
        self.templates.iter_mut().for_each(|template| template.health.probe = None);
    }

    /// Registers the patterns with the engine.
    pub fn announce(&self, engine: &mut Balancer) {
        engine.expect(self.patterns());
    }

    /// Whether a [tick](Clusters::tick) has something to do; `now_and_then` also makes it read what other workers have
    /// seen.
    pub fn is_wanted(&self, now_and_then: bool) -> bool {
        !self.templates.is_empty() || !self.fresh.is_empty() || now_and_then
    }

    /// A request to a cluster that has no upstream; `matches` if an entry's pattern matches it.
    #[inline(never)]
    pub fn meet(&mut self, name: &str, matches: bool) {
        let is_known = |seen: &SeenCluster| seen.name == name;
        let unmatched = |of: &[SeenCluster]| of.iter().filter(|seen| !seen.matches).count();
        let full = !matches && unmatched(&self.known) + unmatched(&self.fresh) >= MAX_UNMATCHED;
        let new = !self.known.iter().any(is_known) && !self.fresh.iter().any(is_known);
        if new && !full && self.fresh.len() < MAX_UNMATCHED && name.len() <= MAX_NAME {
            self.fresh.push(SeenCluster { matches, name: name.into() });
        }
    }

    /// The clusters that no entry matches.
    pub fn unmatched<'a>(&'a self, engine: &'a Balancer) -> impl Iterator<Item = &'a str> {
        let names = self.known.iter().map(|seen| seen.name.as_str());
        names.filter(|name| engine.route(name).is_none() && !engine.expects(name))
    }

    /// Publishes the clusters seen since the last tick and reads those of other workers; returns the upstreams to make.
    #[inline(never)]
    pub fn tick(&mut self, host: &dyn Host, engine: &Balancer) -> Vec<Upstream> {
        let (bytes, version) = host.shared_get(&self.key).unzip();
        if version != self.version || version.is_none() {
            self.version = version;
            self.known = bytes.and_then(|bytes| seen_clusters::decode(&bytes)).unwrap_or_default();
        }
        let fresh = core::mem::take(&mut self.fresh);
        let new: Vec<SeenCluster> = fresh.into_iter().filter(|seen| !self.known.contains(seen)).collect();
        if !new.is_empty() {
            // Drops matched clusters of an older configuration that no entry matches any more. Where all places are taken, it
            // drops those without endpoints as well, which Envoy may no longer have: the next configuration has room then.
            let full = engine.made() >= MAX_INSTANCES;
            let lives = |at: usize| engine.upstream(at).is_some_and(|upstream| !upstream.fleet().is_empty());
            let mut all = self.known.clone();
            all.retain(|seen| {
                let upstream = engine.route(&seen.name);
                !seen.matches || engine.expects(&seen.name) || upstream.is_some_and(|at| !full || lives(at))
            });
            all.extend(new.iter().cloned());
            if host.shared_replace(&self.key, &seen_clusters::encode(&all), version).is_ok() {
                new.iter().filter(|seen| !seen.matches).for_each(|seen| log_unmatched(host, &seen.name));
                self.known = all;
            } else {
                self.fresh = new;
            }
        }
        self.missing(host, engine)
    }

    #[inline(never)]
    fn missing(&mut self, host: &dyn Host, engine: &Balancer) -> Vec<Upstream> {
        if self.templates.is_empty() {
            return Vec::new();
        }
        let mut made = engine.made();
        let mut missing = Vec::new();
        for seen in self.known.iter().filter(|seen| engine.expects(&seen.name)) {
            let Some(template) = engine.expected(&seen.name) else { continue };
            let Some(template) = self.templates.iter().find(|of| of.cluster == template) else { continue };
            if made >= MAX_INSTANCES {
                if !core::mem::replace(&mut self.full, true) {
                    log_full(host, &seen.name);
                }
                break;
            }
            made += 1;
            missing.push(Upstream { cluster: seen.name.clone(), ..template.clone() });
        }
        missing
    }
}

#[inline(never)]
fn log_unmatched(host: &dyn Host, cluster: &str) {
    host.log_event(&Event {
        level: log::Level::Info,
        name: "cluster_not_balanced",
        message: &format!(
            "routing: cluster={cluster:?}: requests are not balanced: no entry of upstreams matches this cluster"
        ),
        fields: &[("cluster", Field::Text(cluster))],
    });
}

#[inline(never)]
fn log_full(host: &dyn Host, cluster: &str) {
    host.log_event(&Event {
        level: log::Level::Warn,
        name: "clusters_left_out",
        message: &format!(
            "routing: cluster={cluster:?}: requests are not balanced: patterns have already matched {MAX_INSTANCES} clusters, the limit"
        ),
        fields: &[("cluster", Field::Text(cluster))],
    });
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::sharing::fake::Shared;
    use engine::endpoint::Spec;
    use engine::time::Time;

    #[test]
    fn where_all_places_are_taken_clusters_that_are_gone_leave_them_to_others() {
        let json = br#"{"upstreams":[{"cluster":"web-*","endpoints":{"envoy_admin":{"cluster":"admin"}}}]}"#;
        let mut config = config::parse(json).expect("valid");
        let templates = take_templates(&mut config);
        let mut engine = Balancer::new(&config, Time::ZERO);
        let mut clusters = Clusters::new("clusters".into(), templates);
        clusters.announce(&mut engine);
        let host = Shared::default();
        let place = Spec::at(std::net::SocketAddr::from(([10, 0, 0, 1], 80)));
        for n in 0..MAX_INSTANCES + 2 {
            clusters.meet(&format!("web-{n}"), true);
            for (at, upstream) in clusters.tick(&host, &engine).iter().enumerate() {
                engine.make(upstream, Time::ZERO);
                // Every second one is gone.
                let fleet: &[Spec] = if (n + at) % 2 == 0 { std::slice::from_ref(&place) } else { &[] };
                engine.upstream_mut(engine.made() - 1).expect("made").set_fleet(fleet, Time::ZERO);
            }
        }
        assert_eq!(engine.made(), MAX_INSTANCES, "no more in a configuration");
        let mut next = Clusters::new("clusters".into(), clusters.templates.clone());
        let mut engine = Balancer::new(&config, Time::ZERO);
        next.announce(&mut engine);
        let made: Vec<String> =
            next.tick(&host, &engine).into_iter().map(|upstream| upstream.cluster).collect();
        let expected = (0..MAX_INSTANCES).step_by(2).chain(MAX_INSTANCES..MAX_INSTANCES + 2);
        assert_eq!(made, expected.map(|n| format!("web-{n}")).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_remembered_of_names_is_bounded() {
        let mut clusters = Clusters::new(String::new(), Vec::new());
        clusters.meet(&"x".repeat(MAX_NAME + 1), false);
        assert_eq!(clusters.fresh.len(), 0, "too long");
        for n in 0..10 * MAX_UNMATCHED {
            clusters.meet(&format!("cluster {n}"), false);
            clusters.meet("cluster 0", false);
        }
        assert_eq!(clusters.fresh.len(), MAX_UNMATCHED);
        // All of them are known: no other is remembered, unless a pattern matches it.
        clusters.known = core::mem::take(&mut clusters.fresh);
        clusters.meet("one more", false);
        clusters.meet("cluster 3", false);
        assert_eq!(clusters.fresh.len(), 0);
        (0..10 * MAX_UNMATCHED).for_each(|n| clusters.meet(&format!("matching {n}"), true));
        assert_eq!(clusters.fresh.len(), MAX_UNMATCHED);
        clusters.meet(&"y".repeat(MAX_NAME), true);
        assert_eq!(clusters.fresh.len(), MAX_UNMATCHED, "not more at a tick");
    }
}
