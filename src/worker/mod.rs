//! One worker thread: configuration, ticks and streams over any [`Host`].
//!
//! The filter wires this to proxy-wasm, the native module to its own ABI, tests to a fake host. Start with
//! [`Worker::configure`] and [`Worker::tick`].

mod admin_polls;
pub mod aside;
mod clusters;
mod guarding;
mod hints;
mod idle;
mod membership;
mod node_zone;
mod probes;
mod scaling;
mod status_handler;
pub mod successor;
mod tick_period;
mod transition_log;
mod unmet;

use crate::discovery::poller::Poller;
use crate::discovery::source::{Origin, Source};
use crate::discovery::sources::Discovery;
use crate::host::event::InJson;
use crate::host::{Body, Host};
use crate::request::correlation::RequestCorrelations;
use crate::request::decision_log::DecisionSinks;
use crate::request::steering::SteeringHeader;
use crate::request::stream;
use crate::sharing::counts::Counts;
use crate::sharing::news::News;
use crate::sharing::snapshot::Snapshot;
use crate::sharing::{self, lease, retired_counters};
use crate::telemetry::envoy_stats::EnvoyStats;
use admin_polls::AdminPolls;
use clusters::Clusters;
use config::{Config, Fault, LogFormat, Mode};
use engine::rng::{self, Rng};
use engine::time::Time;
use engine::{Balancer, Outcome};
use idle::Activity;
use membership::Membership;

/// The state of one worker.
pub struct Worker {
    pub(crate) config: Config,
    pub(crate) engine: Balancer,
    pub(crate) rng: Rng,
    /// A generator of its own, because its numbers are seen by clients.
    pub(crate) cookies: Rng,
    pub(crate) steer: SteeringHeader,
    pub(crate) clusters: Clusters,
    unmet: unmet::Unmet,
    poller: Poller,
    probes: probes::UnderWay,
    admin_polls: AdminPolls,
    pub(crate) correlations: RequestCorrelations,
    pub(crate) stats: EnvoyStats,
    pub(crate) sinks: DecisionSinks,
    keys: Keys,
    pub(crate) membership: Membership,
    pub(crate) activity: Activity,
    /// The version of the signals that were read last.
    signals_version: Option<u32>,
    snapshot: Snapshot,
    discovery: Discovery,
    news: News,
    hints: Vec<hints::Compared>,
    guarding: guarding::Guarding,
    pub(crate) route_sampler: stream::Sampler,
    pub(crate) answer_sampler: stream::Sampler,
    /// The paths of the faults in a later configuration that was refused while this one stays in force.
    refused: Vec<String>,
}

struct Keys {
    shared: retired_counters::Keys,
    asked: String,
    lease: String,
    signals: String,
    scaling: String,
    hints: String,
    guards: String,
}

/// The host whose log has events in this format.
pub(crate) fn in_form<'a>(format: LogFormat, text: &'a dyn Host, json: &'a InJson<'a>) -> &'a dyn Host {
    match format {
        LogFormat::Text => text,
        LogFormat::Json => json,
    }
}

impl Worker {
    /// A worker for `json`, or every fault in it. `name` scopes the shared data, `seed` the randomness.
    #[inline(never)]
    pub fn configure(host: &dyn Host, json: &[u8], name: &str, seed: u64) -> Result<Worker, Vec<Fault>> {
        let mut config = config::parse(json)?;
        let in_json = InJson(host);
        let host = in_form(config.log.format, host, &in_json);
        for path in config::without_effect(&config) {
            hints::without_effect(host, &path);
        }
        node_zone::resolve(host, &mut config);
        if config.mode == Mode::Observe {
            config.upstreams.iter_mut().for_each(|upstream| upstream.health.probe = None);
        }
        guarding::disable_in_observe_mode(&mut config);
        let prefix = sharing::prefix(name);
        let asked = sharing::asked_for(&prefix, config.upstreams.iter().map(|u| u.cluster.as_str()));
        let templates = clusters::take_templates(&mut config);
        let now = host.now();
        let mut rng = Rng::new(seed);
        let mut worker = Worker {
            engine: Balancer::new(&config, now),
            steer: SteeringHeader::new(&config),
            clusters: Clusters::new(format!("{asked}/clusters"), templates),
            unmet: unmet::Unmet::default(),
            poller: Poller::new(host, &config, now),
            probes: Vec::new(),
            admin_polls: AdminPolls::new(&config, now),
            discovery: Discovery::new(&config, format!("{asked}/fleet"), now),
            correlations: RequestCorrelations::default(),
            stats: EnvoyStats::new(&config),
            sinks: DecisionSinks::of(&config),
            membership: Membership::new(rng.next_u64(), rng::hash(json)),
            cookies: Rng::new(rng.next_u64()),
            rng,
            keys: Keys {
                shared: retired_counters::Keys::under(&prefix),
                lease: format!("{asked}/lease"),
                signals: format!("{asked}/signals"),
                scaling: format!("{asked}/scaling"),
                hints: format!("{prefix}/said"),
                guards: format!("{asked}/guards"),
                asked: format!("{asked}/"),
            },
            activity: Activity::new(now),
            signals_version: None,
            snapshot: Snapshot::default(),
            news: News::under(&prefix),
            hints: hints::none(config.upstreams.len()),
            guarding: guarding::Guarding::default(),
            route_sampler: stream::Sampler::at_routes(),
            answer_sampler: stream::Sampler::at_good_answers(),
            refused: Vec::new(),
            config,
        };
        worker.clusters.announce(&mut worker.engine);
        worker.expand(host, now);
        let known = worker.discovery.read(host, now);
        worker.rebuild_endpoints(host, &known, now);
        worker.begin_guarded(host, now);
        worker.correlations.start_at(worker.membership.id);
        Ok(worker)
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Records that a later configuration was refused, with faults at these paths, and this one stays in force.
    pub fn outlive(&mut self, refused: Vec<String>) {
        self.refused = refused;
    }

    /// The engine: what is measured and decided.
    pub fn engine(&self) -> &Balancer {
        &self.engine
    }

    /// The latest signals from Prometheus, and the state of the polls.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The beginning of the keys that workers of configurations for the same clusters share.
    pub fn scope(&self) -> &str {
        &self.keys.asked
    }

    /// When this worker was configured.
    pub fn started(&self) -> Time {
        self.activity.started
    }

    /// The latest state of a source of endpoints, for the upstream at this position in the configuration.
    pub fn source(&self, upstream: usize, origin: Origin) -> Option<&Source> {
        self.discovery.source(upstream, origin)
    }

    /// Sets whether the filter also runs among upstream filters, so that a request's attempts can be followed.
    pub fn follow_attempts(&mut self, wanted: bool) {
        self.correlations.wanted = wanted;
    }

    /// Limits decisions to one endpoint, for a proxy that chooses the endpoint of retries itself.
    pub fn name_one(&mut self) {
        self.steer.name_one();
    }

    /// Runs a tick: publish, read the peers, poll as the leader, and let the engine assess.
    pub fn tick(&mut self, host: &dyn Host) {
        let in_json = InJson(host);
        let host = in_form(self.config.log.format, host, &in_json);
        let now = host.now();
        if self.activity.tick(now) {
            self.step_back(now);
        }
        self.engine.advance_to(now);
        let maintains = self.activity.maintenance_is_due(now);
        if maintains {
            self.maintain(host, now);
        } else if self.membership.lease == lease::Holder::Unsettled {
            // A worker without endpoints does not wait for the next maintenance.
            self.lead(host, now);
        }
        let events = self.engine.take_events();
        if !(events || maintains || self.refresh_is_due(now) || self.news.any(host)) {
            // Nothing has changed since the last refresh.
            return;
        }
        self.activity.refreshed = now;
        self.expand(host, now);
        self.poller.see_traffic(!self.activity.is_idle() || self.membership.shard.workers > 1, now);
        let found = if self.is_leader() { self.poll(host, now) } else { self.follow(host, now) };
        self.read_signals(host, now);
        self.publish_report(host, now);
        if events || found {
            self.news.spread(host);
        }
        // Marks the news as seen before the peers are read: what they write later is read at the next tick.
        self.news.any(host);
        self.membership.shard = self.merge_peers(host, now);
        self.engine.tick(self.membership.shard, now);
        self.probe(host, now);
        self.log_transitions(host, now);
        self.activity.rests = self.may_rest();
    }

    /// Adjusts all times to a clock that stepped back to `now`.
    #[inline(never)]
    fn step_back(&mut self, now: Time) {
        self.engine.not_after(now);
        self.snapshot.not_after(now);
        self.discovery.not_after(now);
    }

    /// What is done a few times a second: registry, lease, scaling, guard, metrics and warnings.
    #[inline(never)]
    fn maintain(&mut self, host: &dyn Host, now: Time) {
        self.enter(host, now);
        self.lead(host, now);
        self.scale(host, now);
        self.guard(host, now);
        self.publish_stats(host, now);
        if self.is_leader() {
            self.log_unmet(host, now);
            self.log_unserved(host);
        }
        self.hint(host, now);
    }

    /// As the leader: sends the polls that are due, and publishes what has come in; returns whether that is news.
    #[inline(never)]
    fn poll(&mut self, host: &dyn Host, now: Time) -> bool {
        let rest = self.poller.rest(&self.config, now);
        self.admin_polls.tick(host, &mut self.discovery, &mut self.rng, (rest, now));
        let known = (&mut self.snapshot, &mut self.discovery);
        self.poller.tick(host, &self.config, known, &mut self.rng, now);
        // A source that is not polled because there is no traffic does not count as silent.
        let mut changed = match self.poller.are_awake(now) {
            true => self.discovery.drop_stale_health(now),
            false => Vec::new(),
        };
        changed.extend(self.discovery.remove_absent(&self.engine, now));
        self.rebuild_endpoints(host, &changed, now);
        self.discovery.log_notices(Some(host), &self.config);
        self.discovery.publish(host) | self.publish_signals(host)
    }

    /// Takes the endpoints that the leader has published, which is no news to the others.
    #[inline(never)]
    fn follow(&mut self, host: &dyn Host, now: Time) -> bool {
        let changed = self.discovery.read(host, now);
        self.discovery.log_notices(None, &self.config);
        self.rebuild_endpoints(host, &changed, now);
        false
    }

    /// The response to one of the worker's own HTTP calls: its status, or `None` if there was none.
    pub fn receive_response(&mut self, host: &dyn Host, token: u32, status: Option<u32>, body: &dyn Body) {
        if let Some(handle) = self.take_probe(token) {
            return self.receive_probe(host, &handle, (status, body));
        }
        if !self.is_leader() {
            // The lease has moved, and the new leader polls anew.
            return;
        }
        let in_json = InJson(host);
        let host = in_form(self.config.log.format, host, &in_json);
        // The next tick refreshes in any case.
        self.activity.refreshed = Time::ZERO;
        let answer = (status, body);
        let changed = self
            .admin_polls
            .receive_response(host, (&mut self.discovery, &self.keys.hints), token, answer)
            .unwrap_or_else(|| {
                let known = (&mut self.snapshot, &mut self.discovery);
                self.poller
                    .receive_response(host, &self.engine, &self.config, known, token, answer)
                    .into_iter()
                    .collect()
            });
        let mut has_news = self.publish_signals(host);
        if !changed.is_empty() {
            let now = host.now();
            self.rebuild_endpoints(host, &changed, now);
            has_news |= self.discovery.publish(host);
        }
        // Published now and not at the next tick, so that the other workers have it at theirs.
        if has_news {
            self.news.spread(host);
        }
    }

    /// One of the worker's own calls has ended with the configuration that sent it. That says nothing of what was asked,
    /// which is asked again in its time.
    #[inline(never)]
    pub fn lose_call(&mut self, host: &dyn Host, token: u32) {
        if let Some(handle) = self.take_probe(token) {
            return self.engine.record_probe(&handle, Outcome::Unrelated, host.now());
        }
        self.admin_polls.lose(token);
        self.poller.lose(token);
    }

    /// Makes upstreams for clusters that requests have met and a pattern matches.
    #[inline(never)]
    fn expand(&mut self, host: &dyn Host, now: Time) {
        if !self.clusters.is_wanted(now == self.activity.maintained) {
            return;
        }
        for upstream in self.clusters.tick(host, &self.engine) {
            let at = self.config.upstreams.len();
            self.engine.make(&upstream, now);
            self.steer.add(&upstream);
            self.stats.add();
            self.config.upstreams.push(upstream);
            self.discovery.add(&self.config, at);
            self.poller.add(&self.config, at);
            self.admin_polls.add(&self.config, at, now);
            self.rebuild_endpoints(host, &[at], now);
        }
    }

    /// Rebuilds the endpoint sets of these upstreams.
    #[inline(never)]
    fn rebuild_endpoints(&mut self, host: &dyn Host, upstreams: &[usize], now: Time) {
        for upstream in upstreams {
            let at = (*upstream, self.is_leader());
            let before = self.addresses(*upstream);
            if self.discovery.rebuild(host, &self.config, &mut self.engine, at, now) > 0 {
                self.poller.ask_again(*upstream);
            }
            if self.addresses(*upstream) != before {
                self.addresses_changed(*upstream);
            }
        }
    }

    /// A number that changes with the addresses of an upstream's endpoints.
    fn addresses(&self, upstream: usize) -> u64 {
        let fleet = self.engine.upstream(upstream).map(|u| u.fleet());
        fleet.map_or(0, |fleet| fleet.present().fold(0, |all, (_, identity)| all ^ identity))
    }

    /// Ends a worker whose configuration is no longer in force, after its last request: adds its counts to the retired
    /// counters and removes everything else it has in shared data.
    pub fn end(&mut self, host: &dyn Host) {
        if self.is_leader() {
            self.release(host);
        }
        if core::mem::take(&mut self.membership.carries_traffic) {
            self.publish_stats(host, host.now());
            let counted = Counts::of(&self.engine, host.now());
            let Membership { id, slot_id, .. } = &mut self.membership;
            retired_counters::end(host, &self.keys.shared, *id, slot_id.take(), &counted);
        }
    }

    /// Clears what this worker has published as the leader, unless another one leads by now: otherwise each set of clusters that
    /// there ever was would keep its endpoints and samples, and one that comes back after days would begin with those of then.
    /// The worker that leads next publishes what it asks for.
    #[inline(never)]
    fn release(&self, host: &dyn Host) {
        if !lease::is_held_by(host, &self.keys.lease, self.membership.id) {
            return;
        }
        self.discovery.release(host);
        if self.poller.any() {
            let _it_stays = host.shared_set(&self.keys.signals, &[], None);
        }
    }

    fn publish_stats(&mut self, host: &dyn Host, now: Time) {
        let is_leader = self.is_leader();
        self.stats.publish(host, &self.engine, &self.snapshot.stats, is_leader, now);
    }

    #[inline(never)]
    fn publish_signals(&mut self, host: &dyn Host) -> bool {
        let news = self.poller.take_news();
        if news {
            let _the_next_poll_tries_again =
                host.shared_set(&self.keys.signals, &self.snapshot.encode(), None);
        }
        news
    }

    #[inline(never)]
    fn read_signals(&mut self, host: &dyn Host, now: Time) {
        if !self.poller.any() {
            return;
        }
        let Some((bytes, version)) = host.shared_get(&self.keys.signals) else { return };
        if self.signals_version == Some(version) {
            return;
        }
        self.signals_version = Some(version);
        if let Some(mut snapshot) = Snapshot::decode(&bytes) {
            snapshot.not_after(now);
            snapshot.retain(&self.engine);
            self.poller.retain(&mut snapshot.stats.failing);
            snapshot.apply(&mut self.engine);
            self.snapshot = snapshot;
        }
    }
}
