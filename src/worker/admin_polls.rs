//! Polls of Envoy's admin interface for the endpoints of clusters and the weights of their localities.
//!
//! One request names all upstreams that poll the same target: an Envoy that ignores the filter answers each request with
//! everything it has. Large answers are requested in turns, and an answer that took long is not requested again soon:
//! while Envoy writes it, its main thread does nothing else.

pub(crate) mod bypassed;
mod outages;
mod pace;

use core::time::Duration;

use crate::discovery::poller::{Rest, not_sent};
use crate::discovery::source::Origin;
use crate::discovery::sources::Discovery;
use crate::discovery::{envoy_admin, localities};
use crate::host::event::{Event, Field};
use crate::host::{Body, Call, CallError, Host};
use config::Config;
use engine::rng::{self, Rng};
use engine::time::Time;
use pace::Pace;

/// The `Host` of polls. Envoy's admin interface accepts any valid one, and cluster names need not be valid.
const AUTHORITY: &str = "localhost";

/// Relative variation of the interval in either direction, so that proxies do not poll in step.
const JITTER: f64 = 0.1;
/// The longest error text that is kept, characters.
const MAX_ERROR: usize = 200;
/// Number of hosts that one poll asks for: some two megabytes, which Envoy writes in about 30 ms.
const HOSTS_AT_A_TIME: usize = 2000;
/// The pause after an answer, as a multiple of the time it took: polls use at most a tenth of Envoy's main thread.
const PAUSE_FOR_ANSWERS: f64 = 10.0;
/// The longest path of a poll, bytes. Envoy's own limit for all headers together is 60 KiB.
const MAX_PATH: usize = 16 << 10;

/// The polls of one worker; only the lease holder sends them.
pub(super) struct AdminPolls {
    targets: Vec<AdminTarget>,
}

/// Upstreams that are polled together, at one cluster of the admin interface.
struct AdminTarget {
    cluster: String,
    interval: Duration,
    clusters: Vec<PolledCluster>,
    hosts: Poll,
    localities: Poll,
    policies: bypassed::PolicyPolls,
    pace: Pace,
    /// Whether Envoy answered with clusters that were not asked for, so it ignores the filter.
    unfiltered: bool,
    /// Whether polls are less frequent because there is no traffic.
    rests: bool,
}

struct PolledCluster {
    upstream: usize,
    name: String,
    /// The name under which Envoy requests its endpoints (EDS service name), if it differs.
    eds_name: Option<String>,
    /// Its name in stats, without colons.
    stat_name: String,
    hosts: usize,
    /// Whether these are in several zones.
    zones: bool,
    /// Whether the configuration says which zone is the proxy's.
    heeds_zone: bool,
    /// Whether it has several localities, whose weights must be respected.
    weights: bool,
    respects_weights: bool,
    /// What its own policy does.
    policy: bypassed::Reading,
}

/// A repeated poll, which covers the upstreams in turns.
struct Poll {
    due: Time,
    sent: Time,
    pending: Option<u32>,
    /// Positions in [`AdminTarget::clusters`].
    covered: Vec<usize>,
    next: usize,
}

impl Poll {
    fn new(now: Time) -> Poll {
        Poll { due: now, sent: now, pending: None, covered: Vec::new(), next: 0 }
    }

    /// Whether to send it now. A poll that may still be answered is waited for.
    fn is_due(&self, waits_s: f64, now: Time) -> bool {
        let clock_stepped_back = now < self.sent;
        let waits = self.pending.is_some() && now.seconds_since(self.sent) < waits_s;
        (now >= self.due && !waits) || clock_stepped_back
    }

    /// After an answer: delays the next poll in proportion to the time that this one took.
    fn rest(&mut self, now: Time) {
        self.due = self.due.max(self.sent.after_secs(PAUSE_FOR_ANSWERS * self.took_s(now)));
    }

    /// The time that its answer took, seconds.
    fn took_s(&self, now: Time) -> f64 {
        now.seconds_since(self.sent)
    }
}

impl AdminPolls {
    /// All polls of the configuration; the first are due at once.
    pub fn new(config: &Config, now: Time) -> AdminPolls {
        let mut poller = AdminPolls { targets: Vec::new() };
        (0..config.upstreams.len()).for_each(|upstream| poller.add(config, upstream, now));
        poller
    }

    /// Adds the polls of the upstream at this position, if it has any.
    pub fn add(&mut self, config: &Config, upstream: usize, now: Time) {
        let Some(balanced) = config.upstreams.get(upstream) else { return };
        let Some(admin) = &balanced.endpoints.envoy_admin else { return };
        let cluster = PolledCluster {
            upstream,
            name: balanced.cluster.clone(),
            eds_name: None,
            stat_name: bypassed::in_stats(&balanced.cluster),
            hosts: 0,
            zones: false,
            heeds_zone: balanced.zone.is_some(),
            weights: false,
            respects_weights: admin.locality_weights && balanced.zone.is_none(),
            policy: bypassed::Reading::new(now),
        };
        match self.targets.iter_mut().find(|target| target.cluster == admin.cluster) {
            Some(target) => {
                target.interval = target.interval.min(admin.interval);
                target.pace.reset_wait(target.interval);
                target.clusters.push(cluster);
                // Polls for the new upstream at once.
                target.hosts.due = now;
                target.hosts.next = target.clusters.len() - 1;
                if now == target.hosts.sent {
                    target.hosts.next = 0;
                }
            }
            None => self.targets.push(AdminTarget {
                cluster: admin.cluster.clone(),
                interval: admin.interval,
                clusters: vec![cluster],
                hosts: Poll::new(now),
                localities: Poll::new(now),
                policies: bypassed::PolicyPolls::new(now),
                pace: Pace::at(admin.interval),
                unfiltered: false,
                rests: false,
            }),
        }
    }

    /// Sends the polls that are due.
    #[inline(never)]
    pub fn tick(
        &mut self,
        host: &dyn Host,
        discovery: &mut Discovery,
        rng: &mut Rng,
        (rest, now): (Rest, Time),
    ) {
        for target in &mut self.targets {
            target.ask_for_policies(host, now);
            let Err((why, failed)) = target.ask(host, rng, rest, now) else { continue };
            for upstream in failed {
                let error = not_sent(&target.cluster, why);
                outages::fail(host, discovery, (upstream, &target.name_of(upstream)), &error);
            }
        }
    }

    /// The response to one of these polls; returns the upstreams whose endpoints it changes. `None` for other tokens. What
    /// it says once is published under keys that begin with `said`.
    pub fn receive_response(
        &mut self,
        host: &dyn Host,
        (discovery, said): (&mut Discovery, &str),
        token: u32,
        (status, body): (Option<u32>, &dyn Body),
    ) -> Option<Vec<usize>> {
        for target in &mut self.targets {
            if target.policies.poll.pending == Some(token) {
                return Some(target.receive_policies(host, (discovery, said), (status, body)));
            }
            if target.hosts.pending == Some(token) {
                return Some(target.receive_hosts(host, discovery, status, body));
            }
            if target.localities.pending == Some(token) {
                return Some(target.receive_localities(host, discovery, status, body));
            }
        }
        None
    }

    /// The call with this token will not be answered.
    pub fn lose(&mut self, token: u32) {
        for target in &mut self.targets {
            for poll in [&mut target.hosts, &mut target.localities, &mut target.policies.poll] {
                if poll.pending == Some(token) {
                    poll.pending = None;
                    poll.next = core::mem::take(&mut poll.covered).first().copied().unwrap_or(poll.next);
                }
            }
        }
    }
}

impl AdminTarget {
    fn name_of(&self, upstream: usize) -> String {
        self.clusters.iter().find(|of| of.upstream == upstream).map_or_else(String::new, |of| of.name.clone())
    }

    /// Sends the polls that are due, or returns why one could not be sent and for which upstreams.
    #[inline(never)]
    fn ask(
        &mut self,
        host: &dyn Host,
        rng: &mut Rng,
        rest: Rest,
        now: Time,
    ) -> Result<(), (CallError, Vec<usize>)> {
        let usual_s = self.interval.as_secs_f64();
        let interval_s = rest.pause_s(usual_s);
        if rest.busy && core::mem::take(&mut self.rests) {
            // Polls that were left out for lack of traffic are made up for.
            for poll in [&mut self.hosts, &mut self.localities] {
                poll.due = poll.due.min(poll.sent.after_secs(usual_s));
            }
        }
        self.rests |= interval_s > usual_s;
        let timeout = self.pace.wait();
        let waits_s = timeout.as_secs_f64();
        if self.hosts.is_due(waits_s, now) {
            let covered = self.turn(self.hosts.next, |_| true);
            let part = covered.len() as f64 / self.clusters.len().max(1) as f64;
            let names: Vec<&str> =
                covered.iter().filter_map(|at| Some(self.clusters.get(*at)?.name.as_str())).collect();
            let path = envoy_admin::clusters_path(&names);
            let due = now.after_secs(interval_s * part * (1.0 + JITTER * (2.0 * rng.unit() - 1.0)));
            let cluster = self.cluster.clone();
            if let Err(why) = self.hosts.put(host, &cluster, &path, (covered, timeout), (now, due)) {
                let covered = self.hosts.covered.iter();
                let upstreams = covered.filter_map(|at| Some(self.clusters.get(*at)?.upstream));
                return Err((why, upstreams.collect()));
            }
        }
        let weighed = self.clusters.iter().filter(|of| of.weights).count();
        if weighed > 0 && self.localities.is_due(waits_s, now) {
            let covered = self.turn(self.localities.next, |of| of.weights);
            let part = covered.len() as f64 / weighed as f64;
            let names: Vec<&str> =
                covered.iter().filter_map(|at| Some(self.clusters.get(*at)?.eds_name())).collect();
            let path = envoy_admin::localities_path(&names);
            let due = now.after_secs(interval_s * part * (1.0 + JITTER * (2.0 * rng.unit() - 1.0)));
            let cluster = self.cluster.clone();
            // A poll that cannot be sent has been logged for the endpoints already.
            let _sent = self.localities.put(host, &cluster, &path, (covered, timeout), (now, due));
        }
        Ok(())
    }

    /// The positions that the next poll covers: from `next` on, as many as the limits on hosts, upstreams and path
    /// allow, each at most once.
    fn turn(&self, next: usize, wanted: impl Fn(&PolledCluster) -> bool) -> Vec<usize> {
        let all = self.clusters.len();
        let (mut hosts, mut length) = (0, 0);
        let mut covered = Vec::new();
        for at in (next..all).chain(0..next.min(all)) {
            let Some(of) = self.clusters.get(at).filter(|of| wanted(of)) else { continue };
            hosts += of.hosts;
            length += 4 * of.name.len();
            let full = hosts > HOSTS_AT_A_TIME || covered.len() >= self.pace.most() || length > MAX_PATH;
            if full && !covered.is_empty() && (!self.unfiltered || length > MAX_PATH) {
                break;
            }
            covered.push(at);
        }
        covered
    }

    /// The upstreams of a poll, each with the name under which it was asked for.
    fn polled(&self, covered: &[usize], name: impl Fn(&PolledCluster) -> &str) -> Vec<(usize, String)> {
        let of = covered.iter().filter_map(|at| self.clusters.get(*at));
        of.map(|of| (of.upstream, name(of).to_owned())).collect()
    }

    #[inline(never)]
    fn receive_hosts(
        &mut self,
        host: &dyn Host,
        discovery: &mut Discovery,
        status: Option<u32>,
        body: &dyn Body,
    ) -> Vec<usize> {
        self.hosts.pending = None;
        let covered = core::mem::take(&mut self.hosts.covered);
        let polled = self.polled(&covered, |of| &of.name);
        let names: Vec<&str> = polled.iter().map(|(_, name)| name.as_str()).collect();
        let listing = match status {
            None | Some(504) => {
                self.pace.timed_out(covered.len());
                Err("timed out".to_owned())
            }
            Some(status) => envoy_admin::parse(status, body, &names).map_err(|error| error.to_string()),
        };
        let now = host.now();
        self.hosts.rest(now);
        if listing.is_ok() {
            self.pace.answered(self.hosts.took_s(now), self.clusters.len());
        }
        let listing = match listing {
            Ok(listing) => listing,
            Err(error) => {
                for (upstream, name) in &polled {
                    outages::fail(host, discovery, (*upstream, name), &error);
                }
                return Vec::new();
            }
        };
        if listing.others > 0 && !core::mem::replace(&mut self.unfiltered, true) {
            log_unfiltered(host, listing.others + names.len(), body.size());
        }
        let (mut changed, mut changes) = (Vec::new(), outages::Changes::new(discovery));
        for ((at, (upstream, name)), hosts) in covered.iter().zip(&polled).zip(listing.clusters) {
            match hosts {
                Err(error) => changes.unusable(discovery, (*upstream, name), &error.to_string()),
                Ok(hosts) => {
                    changes.usable = true;
                    if self.take_hosts(discovery, *at, hosts, now) {
                        changed.push(*upstream);
                    }
                }
            }
        }
        changes.log(host, discovery);
        changed
    }

    /// Takes the hosts of the upstream at `at` in [`AdminTarget::clusters`]; returns whether that changes its endpoints.
    fn take_hosts(
        &mut self,
        discovery: &mut Discovery,
        at: usize,
        hosts: envoy_admin::ClusterHosts,
        now: Time,
    ) -> bool {
        let Some(of) = self.clusters.get_mut(at) else { return false };
        let before = core::mem::replace(&mut of.hosts, hosts.finding.found.len() + hosts.finding.skipped);
        of.policy.hosts(before, of.hosts, now);
        of.eds_name = hosts.eds_name.filter(|eds_name| *eds_name != of.name);
        of.stat_name = bypassed::in_stats(hosts.stat_name.as_deref().unwrap_or(&of.name));
        of.zones = bypassed::are_in_several_zones(&hosts.finding.found);
        let several = of.respects_weights && localities::are_several(&hosts.finding.found);
        if several && !of.weights {
            self.localities.due = now;
        }
        of.weights = several;
        let query = rng::hash(of.name.as_bytes());
        discovery.accept_finding(of.upstream, (Origin::Envoy, query), hosts.finding, now)
    }

    #[inline(never)]
    fn receive_localities(
        &mut self,
        host: &dyn Host,
        discovery: &mut Discovery,
        status: Option<u32>,
        body: &dyn Body,
    ) -> Vec<usize> {
        self.localities.pending = None;
        let covered = core::mem::take(&mut self.localities.covered);
        let polled = self.polled(&covered, PolledCluster::eds_name);
        let names: Vec<&str> = polled.iter().map(|(_, name)| name.as_str()).collect();
        let read = match status {
            None | Some(504) => Err("timed out".to_owned()),
            Some(status) => {
                envoy_admin::parse_localities(status, body, &names).map_err(|error| error.to_string())
            }
        };
        self.localities.rest(host.now());
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                discovery.weights_unknown(host, &error);
                return Vec::new();
            }
        };
        discovery.weights_answered();
        let mut changed = Vec::new();
        for ((upstream, name), localities) in polled.iter().zip(read) {
            // Its hosts are in several: where the answer has none, it says nothing of their weights.
            if localities.is_empty() {
                discovery.weights_missing(host, *upstream, name);
            } else if discovery.set_localities(*upstream, localities) {
                changed.push(*upstream);
            }
        }
        changed
    }
}

impl PolledCluster {
    fn eds_name(&self) -> &str {
        self.eds_name.as_deref().unwrap_or(&self.name)
    }
}

impl Poll {
    /// Sends the poll.
    fn put(
        &mut self,
        host: &dyn Host,
        cluster: &str,
        path: &str,
        (covered, timeout): (Vec<usize>, Duration),
        (now, due): (Time, Time),
    ) -> Result<(), CallError> {
        self.next = covered.last().map_or(0, |last| last + 1);
        self.covered = covered;
        (self.sent, self.due) = (now, due);
        let call = Call { cluster, authority: AUTHORITY, path, headers: &[], form: None, timeout };
        let sent = host.call(&call);
        self.pending = sent.ok();
        sent.map(|_| ())
    }
}

#[inline(never)]
fn log_unfiltered(host: &dyn Host, clusters: usize, bytes: usize) {
    host.log_event(&Event {
        level: log::Level::Info,
        name: "admin_filter_ignored",
        message: &format!(
            "envoy_admin: /clusters ignores filter=, as in Envoy before 1.38: the answer has all {clusters} clusters, {bytes} \
             bytes"
        ),
        fields: &[("clusters", Field::Whole(clusters as u64)), ("bytes", Field::Whole(bytes as u64))],
    });
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn s(seconds: f64) -> Time {
        Time::from_secs_f64(1_000_000.0 + seconds)
    }

    #[test]
    fn an_answer_that_took_long_is_not_asked_for_again_soon() {
        let mut poll = Poll::new(s(0.0));
        (poll.sent, poll.due) = (s(0.0), s(1.0));
        poll.rest(s(0.05));
        assert!(poll.is_due(1.0, s(1.0)), "a quick one");
        poll.rest(s(0.9));
        assert!(!poll.is_due(1.0, s(8.9)) && poll.is_due(1.0, s(9.1)), "ten times as long");
        assert!(poll.is_due(1.0, s(-0.1)), "the clock stepped back");
        poll.pending = Some(1);
        assert!(!poll.is_due(20.0, s(9.1)), "it may still be answered");
    }
}
