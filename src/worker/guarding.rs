//! The guard over all workers: each publishes its counts, the leader judges them, and every worker follows the finding.

use hashbrown::HashMap;

use super::Worker;
use crate::host::Host;
use crate::host::event::{Event, Field};
use crate::sharing::guard::{self, Counted};
use crate::telemetry::status::guard::{day, sentence};
use config::{Config, Mode};
use engine::guard::{self as engine_guard, Arms, Guard};
use engine::time::Time;

/// The interval at which counts are published and judged, seconds.
const ROUND_S: f64 = 1.0;
/// Time for which a pause may last beyond its end if no leader ends it, seconds.
const OVERDUE_S: f64 = 30.0;

/// The state of the guards in one worker.
#[derive(Debug, Default)]
pub(super) struct Guarding {
    /// When it last published and judged.
    at: Time,
    led: bool,
    /// By worker and cluster: the counts at the last round.
    seen: HashMap<(u64, u64), Arms>,
    /// By cluster: the guard and its finding.
    guards: HashMap<u64, Guard>,
    /// The version of the guards that were read last.
    version: Option<u32>,
    /// The counts published last: the worker's id and the number of requests.
    published: (u64, u64),
}

/// Removes the guards in observe mode: nothing is steered, so there is nothing to compare.
pub(super) fn disable_in_observe_mode(config: &mut Config) {
    if config.mode == Mode::Observe {
        config.upstreams.iter_mut().for_each(|upstream| upstream.guard = None);
    }
}

impl Guarding {
    /// The guard of a cluster.
    pub(super) fn of(&self, cluster: u64) -> Option<&Guard> {
        self.guards.get(&cluster)
    }

    /// Takes over the findings of an older configuration; those that this one has no guard for are dropped later.
    pub(super) fn take_over(&mut self, old: &Guarding) {
        if self.guards.is_empty() {
            self.guards.clone_from(&old.guards);
        }
    }

    /// The counts since the last round, by cluster. A new worker contributes from its next round on.
    #[inline(never)]
    fn counts_since(
        &mut self,
        reports: Vec<(u64, Vec<Counted>)>,
        holdouts: &HashMap<u64, f64>,
    ) -> HashMap<u64, Arms> {
        let mut since: HashMap<u64, Arms> = HashMap::new();
        let mut seen = HashMap::with_capacity(self.seen.len());
        for (worker, counted) in reports {
            // Counts made under another holdout, of another configuration, cannot be compared.
            for Counted { cluster, holdout, arms } in counted {
                if holdouts.get(&cluster) != Some(&holdout) {
                    continue;
                }
                let before = self.seen.get(&(worker, cluster));
                if let Some(more) = before.and_then(|before| arms.since(before)) {
                    since.entry(cluster).or_default().merge(&more);
                }
                seen.insert((worker, cluster), arms);
            }
        }
        self.seen = seen;
        since
    }
}

impl Worker {
    /// Publishes, judges and follows the finding. Part of the maintenance.
    #[inline(never)]
    pub(super) fn guard(&mut self, host: &dyn Host, now: Time) {
        let of = |u: &engine::Cluster| u.arms().map(|(holdout, _)| (u.hash(), holdout));
        if self.engine.upstreams().iter().all(|u| of(u).is_none()) {
            return;
        }
        let is_leader = self.is_leader();
        if !is_leader || !self.guarding.led {
            self.read_guards(host, now);
        }
        if is_leader && !self.guarding.led {
            // Counts that a former leader has judged must not be judged again.
            self.guarding.seen.clear();
        }
        self.guarding.led = is_leader;
        if now.seconds_since(self.guarding.at) >= ROUND_S || now < self.guarding.at {
            self.guarding.at = now;
            let counted = guard::counted(&self.engine);
            self.publish_counts(host, &counted, now);
            if is_leader {
                let holdouts = self.engine.upstreams().iter().filter_map(of).collect();
                self.assess_guards(host, (counted, &holdouts), now);
            }
        }
        self.obey_guards(now);
    }

    /// Follows what the leader has found so far: requests that come before the first tick are not steered either where the
    /// guard has stepped aside.
    #[inline(never)]
    pub(super) fn begin_guarded(&mut self, host: &dyn Host, now: Time) {
        if self.engine.upstreams().iter().any(|upstream| upstream.arms().is_some()) {
            self.read_guards(host, now);
            self.obey_guards(now);
        }
    }

    /// Follows the findings: steers, or leaves the requests to Envoy's own policy.
    #[inline(never)]
    pub(super) fn obey_guards(&mut self, now: Time) {
        for at in 0..self.engine.upstreams().len() {
            let Some(upstream) = self.engine.upstream_mut(at) else { continue };
            let guard = self.guarding.guards.get(&upstream.hash());
            let aside = guard
                .is_some_and(|guard| guard.is_aside() && now.seconds_since(guard.aside_until) < OVERDUE_S);
            upstream.obey_guard(aside, self.membership.shard);
        }
    }

    /// Publishes this worker's counts for the leader, if they have changed.
    #[inline(never)]
    fn publish_counts(&mut self, host: &dyn Host, counted: &[Counted], now: Time) {
        let requests = |counted: &Counted| counted.arms.requests();
        let now_counted = (self.membership.id, counted.iter().map(requests).fold(0, u64::saturating_add));
        let Some(slot_id) = self.membership.slot_id.filter(|_| self.guarding.published != now_counted) else {
            return;
        };
        let bytes = guard::encode_counted(counted, now);
        if slot_id.write(host, &self.keys.shared.arms, bytes).is_ok() {
            self.guarding.published = now_counted;
        }
    }

    #[inline(never)]
    fn assess_guards(
        &mut self,
        host: &dyn Host,
        (own, holdouts): (Vec<Counted>, &HashMap<u64, f64>),
        now: Time,
    ) {
        let mut reports = vec![(self.membership.id, own)];
        for peer in self.membership.others() {
            let bytes = peer.read(host, &self.keys.shared.arms);
            reports.extend(bytes.map(|bytes| {
                (peer.id, guard::decode_counted(&bytes, |cluster| holdouts.contains_key(&cluster)))
            }));
        }
        let since = self.guarding.counts_since(reports, holdouts);
        let nothing = Arms::default();
        for upstream in self.engine.upstreams() {
            let Some(holdout) = holdouts.get(&upstream.hash()).copied() else { continue };
            let guards = &mut self.guarding.guards;
            let guard = guards.entry(upstream.hash()).or_insert_with(|| Guard::new(holdout, now));
            if guard.holdout != holdout {
                *guard = Guard::new(holdout, now);
            }
            let configured = upstream.config().guard.map(|guard| guard.pause.as_secs_f64());
            guard.first_pause_s = configured.unwrap_or(guard.first_pause_s);
            if guard.ends_day(now) {
                log_day(host, upstream.cluster(), guard);
            }
            if let Some(event) = guard.take(since.get(&upstream.hash()).unwrap_or(&nothing), now) {
                log_change(host, upstream.cluster(), guard, event, now);
            }
        }
        self.guarding.guards.retain(|cluster, _| holdouts.contains_key(cluster));
        let guards = self.guarding.guards.iter().map(|(cluster, guard)| (*cluster, guard));
        let _the_next_round_tries_again = host.shared_set(&self.keys.guards, &guard::encode(guards), None);
    }

    /// Reads the guards, also to continue from there if this worker takes over the lease.
    #[inline(never)]
    fn read_guards(&mut self, host: &dyn Host, now: Time) {
        let Some((bytes, version)) = host.shared_get(&self.keys.guards) else { return };
        if self.guarding.version != Some(version) {
            self.guarding.version = Some(version);
            self.guarding.guards = guard::decode(&bytes, now).into_iter().collect();
        }
    }
}

#[inline(never)]
fn log_change(host: &dyn Host, cluster: &str, guard: &Guard, event: engine_guard::Event, now: Time) {
    let (level, name) = match event {
        engine_guard::Event::SteppedAside(_) => (log::Level::Warn, "guard_stepped_aside"),
        engine_guard::Event::Resumed => (log::Level::Info, "guard_resumed"),
        engine_guard::Event::Found(_) => (log::Level::Info, "guard_found"),
    };
    let sentence = match event {
        engine_guard::Event::Resumed => "steering resumed, to test whether it is still worse".to_owned(),
        _ => sentence(guard, now),
    };
    host.log_event(&Event {
        level,
        name,
        message: &format!("guard: cluster={cluster}: {sentence}"),
        fields: &[("upstream", Field::Text(cluster)), ("verdict", Field::Text(guard.finding.name()))],
    });
}

/// The daily log line.
#[inline(never)]
fn log_day(host: &dyn Host, cluster: &str, guard: &Guard) {
    let of = guard.estimates();
    let change = |at: usize| {
        Field::number(of.quantiles.get(at).and_then(|quantile| quantile.change).map(|change| change.estimate))
    };
    host.log_event(&Event {
        level: log::Level::Info,
        name: "guard_day",
        message: &format!("guard: cluster={cluster}: summary of the day (UTC): {}", day(guard)),
        fields: &[
            ("upstream", Field::Text(cluster)),
            ("verdict", Field::Text(guard.finding.name())),
            ("p50_change", change(0)),
            ("p90_change", change(1)),
            ("p99_change", change(2)),
            ("failures_avoided", Field::Number(of.failures.avoided)),
            ("held_out", Field::Whole(of.held_out)),
        ],
    });
}
