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
mod node_zone;
mod peer_reports;
mod probes;
mod scaling;
mod status_handler;
mod successor;
mod tick_period;
mod transition_log;
mod unmet;

use crate::discovery::poller::Poller;
use crate::discovery::source::{Origin, Source};
use crate::discovery::sources::Discovery;
use crate::host::event::{Event, InJson};
use crate::host::{Body, Host};
use crate::request::correlation::RequestCorrelations;
use crate::request::decision_log::DecisionSinks;
use crate::request::steering::SteeringHeader;
use crate::request::stream;
use crate::sharing::counts::Counts;
use crate::sharing::news::News;
use crate::sharing::slot_id::SlotId;
use crate::sharing::snapshot::Snapshot;
use crate::sharing::{self, lease, registry, retired_counters, worker_report};
use crate::telemetry::envoy_stats::EnvoyStats;
use admin_polls::AdminPolls;
use clusters::Clusters;
use config::{Config, Fault, LogFormat, Mode};
use engine::rng::{self, Rng};
use engine::time::Time;
use engine::{Balancer, ProbeShard};

/// The interval at which lease, registry, scaling, guard and Envoy stats are maintained, seconds.
const MAINTENANCE_S: f64 = 0.25;

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
    id: u64,
    /// [`rng::hash`] of the configuration's text.
    fingerprint: u64,
    keys: Keys,
    /// The slot id of this worker's records in shared data, once it is registered.
    slot_id: Option<SlotId>,
    peers: Vec<SlotId>,
    shard: ProbeShard,
    /// This worker's shard under the previous configuration, and when that ended.
    shard_before: Option<(ProbeShard, Time)>,
    pub(crate) carries_traffic: bool,
    /// Whether requests came since the last tick.
    pub(crate) busy: bool,
    /// Ticks in a row without a request.
    idle_ticks: u32,
    /// The latest tick that followed a request; at first the time of configuration.
    used: Time,
    /// Whether ticks are rare until a request comes.
    rests: bool,
    seeded: bool,
    lease: lease::Holder,
    maintenance_at: Time,
    signals_version: Option<u32>,
    snapshot: Snapshot,
    discovery: Discovery,
    started: Time,
    pub(crate) ticked: Time,
    /// When the engine was last ticked.
    refreshed: Time,
    news: News,
    hints: Vec<hints::Looked>,
    guarding: guarding::Guarding,
    pub(crate) looks: stream::Looks,
    pub(crate) doubts: stream::Looks,
    /// The paths of the faults in a later configuration that was refused while this one stays in force.
    refused: Vec<String>,
}

struct Keys {
    shared: retired_counters::Keys,
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
        node_zone::settle(host, &mut config);
        if config.mode == Mode::Observe {
            config.upstreams.iter_mut().for_each(|upstream| upstream.health.probe = None);
        }
        guarding::settle(&mut config);
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
            id: rng.next_u64(),
            cookies: Rng::new(rng.next_u64()),
            fingerprint: rng::hash(json),
            rng,
            keys: Keys {
                shared: retired_counters::Keys::under(&prefix),
                lease: format!("{asked}/lease"),
                signals: format!("{asked}/signals"),
                scaling: format!("{asked}/scaling"),
                hints: format!("{prefix}/said"),
                guards: format!("{asked}/guards"),
            },
            slot_id: None,
            peers: Vec::new(),
            shard: ProbeShard::ALONE,
            shard_before: None,
            carries_traffic: false,
            busy: false,
            idle_ticks: 0,
            used: now,
            rests: false,
            seeded: false,
            lease: lease::Holder::Unsettled,
            maintenance_at: Time::ZERO,
            signals_version: None,
            snapshot: Snapshot::default(),
            started: now,
            ticked: now,
            refreshed: Time::ZERO,
            news: News::under(&prefix),
            hints: hints::none(config.upstreams.len()),
            guarding: guarding::Guarding::default(),
            looks: stream::Looks::at_routes(),
            doubts: stream::Looks::at_good_answers(),
            refused: Vec::new(),
            config,
        };
        worker.clusters.announce(&mut worker.engine);
        worker.expand(host, now);
        let known = worker.discovery.read(host, now);
        worker.settle(host, &known, now);
        worker.correlations.start_at(worker.id);
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

    /// When this worker was configured.
    pub fn started(&self) -> Time {
        self.started
    }

    /// The latest state of a source of endpoints, for the upstream at this position in the configuration.
    pub fn source(&self, upstream: usize, origin: Origin) -> Option<&Source> {
        self.discovery.source(upstream, origin)
    }

    /// Whether this worker holds the lease, and so polls and decides for all.
    pub fn is_leader(&self) -> bool {
        self.lease == lease::Holder::Me
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
        self.idle_ticks = if core::mem::take(&mut self.busy) { 0 } else { self.idle_ticks.saturating_add(1) };
        if now < core::mem::replace(&mut self.ticked, now) {
            self.engine.not_after(now);
            self.snapshot.not_after(now);
            self.discovery.not_after(now);
            self.started = self.started.min(now);
            self.used = self.used.min(now);
        }
        if self.idle_ticks == 0 {
            self.used = now;
        }
        let upkeep = now.seconds_since(self.maintenance_at) >= MAINTENANCE_S || now < self.maintenance_at;
        if upkeep {
            self.maintenance_at = now;
            self.enter(host, now);
            self.lead(host, now);
            self.scale(host, now);
            self.guard(host, now);
            self.tell_stats(host, now);
            if self.is_leader() {
                self.tell_unmet(host, now);
                self.tell_unserved(host);
            }
            self.hint(host, now);
        } else if self.lease == lease::Holder::Unsettled {
            // A worker without endpoints does not wait for the next maintenance.
            self.lead(host, now);
        }
        let mut told = self.engine.take_events();
        if !(told || upkeep || self.refresh_is_due(now) || self.news.any(host)) {
            // Nothing has changed since the last refresh.
            return;
        }
        self.refreshed = now;
        self.expand(host, now);
        let busy = !self.is_idle() || self.shard.workers > 1;
        self.poller.see_traffic(busy, now);
        if self.is_leader() {
            let rest = self.poller.rest(&self.config, now);
            self.admin_polls.tick(host, &mut self.discovery, &mut self.rng, (rest, now));
            let known = (&mut self.snapshot, &mut self.discovery);
            self.poller.tick(host, &self.config, known, &mut self.rng, now);
            // A source that is not polled because there is no traffic does not count as silent.
            let mut changed = match self.poller.are_awake(now) {
                true => self.discovery.forget_conditions(now),
                false => Vec::new(),
            };
            changed.extend(self.discovery.believe_absences(&self.engine, now));
            self.settle(host, &changed, now);
            self.discovery.tell(Some(host), &self.config);
            told |= self.discovery.publish(host);
            told |= self.publish_signals(host);
        } else {
            let changed = self.discovery.read(host, now);
            self.discovery.tell(None, &self.config);
            self.settle(host, &changed, now);
        }
        self.read_signals(host, now);
        if let Some(slot_id) = self.slot_id {
            let slot = worker_report::encode(&self.engine, !self.is_idle(), now);
            let _the_next_tick_tries_again = slot_id.write(host, &self.keys.shared.slots, slot);
        }
        if told {
            self.news.spread(host);
        }
        // Marks the news as seen before the peers are read: what they write later is read at the next tick.
        self.news.any(host);
        self.shard = self.merge_peers(host, now);
        self.engine.tick(self.shard, now);
        self.probe(host, now);
        self.tell_changes(host, now);
        self.rests = self.may_rest();
    }

    /// The response to one of the worker's own HTTP calls: its status, or `None` if there was none.
    pub fn call_answered(&mut self, host: &dyn Host, token: u32, status: Option<u32>, body: &dyn Body) {
        if let Some(handle) = self.take_probe(token) {
            return self.probe_answered(host, &handle, (status, body));
        }
        if !self.is_leader() {
            // The lease has moved, and the new leader polls anew.
            return;
        }
        let in_json = InJson(host);
        let host = in_form(self.config.log.format, host, &in_json);
        // The next tick refreshes in any case.
        self.refreshed = Time::ZERO;
        let answer = (status, body);
        let changed =
            self.admin_polls.answered(host, &mut self.discovery, token, answer).unwrap_or_else(|| {
                let known = (&mut self.snapshot, &mut self.discovery);
                self.poller
                    .receive_response(host, &self.engine, &self.config, known, token, answer)
                    .into_iter()
                    .collect()
            });
        let mut told = self.publish_signals(host);
        if !changed.is_empty() {
            let now = host.now();
            self.settle(host, &changed, now);
            told |= self.discovery.publish(host);
        }
        // Published now and not at the next tick, so that the other workers have it at theirs.
        if told {
            self.news.spread(host);
        }
    }

    /// Makes upstreams for clusters that requests have met and a pattern matches.
    #[inline(never)]
    fn expand(&mut self, host: &dyn Host, now: Time) {
        if !self.clusters.is_wanted(now == self.maintenance_at) {
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
            self.settle(host, &[at], now);
        }
    }

    /// Rebuilds the endpoint sets of these upstreams.
    #[inline(never)]
    fn settle(&mut self, host: &dyn Host, upstreams: &[usize], now: Time) {
        for upstream in upstreams {
            let at = (*upstream, self.is_leader());
            if self.discovery.settle(host, &self.config, &mut self.engine, at, now) > 0 {
                self.poller.ask_again(*upstream);
            }
        }
    }

    /// Ends a worker whose configuration is no longer in force, after its last request: adds its counts to the retired
    /// counters and removes everything else it has in shared data.
    pub fn end(&mut self, host: &dyn Host) {
        if core::mem::take(&mut self.carries_traffic) {
            self.tell_stats(host, host.now());
            let counted = Counts::of(&self.engine, host.now());
            retired_counters::end(host, &self.keys.shared, self.id, self.slot_id.take(), &counted);
        }
    }

    fn tell_stats(&mut self, host: &dyn Host, now: Time) {
        let leads = self.is_leader();
        self.stats.tell(host, &self.engine, &self.snapshot.stats, leads, now);
    }

    /// Renews this worker's entry in the registry if it carries traffic, and retires expired workers.
    #[inline(never)]
    fn enter(&mut self, host: &dyn Host, now: Time) {
        if !core::mem::replace(&mut self.seeded, true) {
            retired_counters::seed(host, &self.keys.shared, now);
        }
        let mut listed =
            registry::update(host, &self.keys.shared.workers, self.id, self.carries_traffic, now);
        if self.carries_traffic && self.is_retired(host, &listed) {
            // What it had published is among the retired counters: it counts on from there under a new id.
            self.tell_stats(host, now);
            self.engine.forget_counts();
            self.stats.catch_up(&self.engine);
            self.id = self.rng.next_u64();
            listed = registry::update(host, &self.keys.shared.workers, self.id, true, now);
        }
        let keys = &self.keys.shared;
        self.peers = listed.live;
        self.slot_id = listed.mine;
        if !self.carries_traffic || listed.gone.is_some() {
            return;
        }
        listed.to_retire.iter().for_each(|slot_id| _ = retired_counters::retire(host, keys, *slot_id));
        self.engine.recount(now);
        if let Some(slot_id) = self.slot_id {
            let counts = Counts::of(&self.engine, now).encode();
            let _the_next_maintenance_tries_again = slot_id.write(host, &keys.counts, counts);
        }
    }

    /// Whether this worker was taken for gone, and what it has published is retired: by another worker, or now.
    #[inline(never)]
    fn is_retired(&self, host: &dyn Host, listed: &registry::Listed) -> bool {
        let keys = &self.keys.shared;
        match listed.gone {
            Some(slot_id) => retired_counters::retire(host, keys, slot_id).is_ok(),
            None => !listed.found && retired_counters::holds(host, keys, self.id),
        }
    }

    #[inline(never)]
    fn lead(&mut self, host: &dyn Host, now: Time) {
        let led = self.is_leader();
        let me = lease::Candidate {
            id: self.id,
            configuration: self.fingerprint,
            since: self.started,
            busy: self.carries_traffic,
        };
        self.lease = lease::hold(host, &self.keys.lease, me, now);
        if self.is_leader() && !led {
            // Continues from the signals of the former leader.
            self.read_signals(host, now);
            host.tell(&Event {
                level: log::Level::Debug,
                name: "leads",
                message: "acquired the polling lease",
                fields: &[],
            });
        }
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
