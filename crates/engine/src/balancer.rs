//! The balancer: all clusters of one worker, by name. It is the engine's interface to the filter.
//!
//! Calls go one way: the filter calls the balancer, which calls its parts; no part calls back. Nothing here reads a
//! clock, draws its own randomness, or talks to a host.

use hashbrown::HashMap;

use crate::ablation::Ablation;
use crate::decision::{Decision, RequestHandle};
use crate::endpoint::EndpointRef;
use crate::order;
use crate::pattern;
use crate::policy::{Candidates, Request};
use crate::rng::Rng;
use crate::settings::{self, Failures, LoadReport, Settings};
use crate::time::{LostTime, Time};

use crate::{Failure, Outcome, Quickness, RetryHint, Unsettled};

use crate::cluster::{Cluster, HeaderHints, ProbeShard};

/// Time without an event or a tick after which it counts as lost to requests in flight, nanoseconds: three of the longest
/// pauses between ticks of a worker that has any.
const LOST_AFTER_NS: u64 = 1_500_000_000;

/// All clusters of one worker.
pub struct Balancer {
    upstreams: Vec<Cluster>,
    by_cluster: HashMap<Box<str>, usize>,
    /// Patterns, those with the most literal characters first.
    patterns: Vec<Pattern>,
    any: Option<usize>,
    /// Number of clusters that were created for names that match a pattern.
    made: usize,
    /// Number of requests to clusters that are not balanced.
    unmatched: u64,
    /// `unmatched` as of the last recount, which another worker may take over.
    unmatched_published: u64,
    /// Whether a request has had an event, or an endpoint a report, since the last
    /// [`take_events`](Balancer::take_events).
    events: bool,
    /// The latest event or tick.
    seen: Time,
    /// Number of peers among which a part of each cluster's work may be divided; 0 if this worker takes no part in it.
    peers: u32,
    ablation: Ablation,
    poll_interval: Option<core::time::Duration>,
}

/// A cluster name with `*`.
struct Pattern {
    name: Box<str>,
    /// Index of the cluster that balances all matches together; `None` where each becomes a cluster of its own.
    upstream: Option<usize>,
}

impl Balancer {
    /// Creates a balancer from its configuration, without measurements.
    pub fn new<'s>(settings: impl Into<Settings<'s>>, now: Time) -> Balancer {
        Balancer::with_ablation(settings, Ablation::ALL, now)
    }

    /// Creates a balancer whose adaptive policy has only the parts in `ablation`.
    pub fn with_ablation<'s>(settings: impl Into<Settings<'s>>, ablation: Ablation, now: Time) -> Balancer {
        let settings = settings.into();
        let upstream = |u| Cluster::new(u, settings.poll_interval, ablation, now);
        let upstreams: Vec<_> = settings.upstreams.iter().map(upstream).collect();
        let named = settings.upstreams.iter().enumerate().filter(|(_, u)| u.cluster != "*");
        let (patterns, named): (Vec<_>, Vec<_>) = named.partition(|(_, u)| pattern::is_pattern(&u.cluster));
        let patterns =
            patterns.into_iter().map(|(i, u)| Pattern { name: u.cluster.as_str().into(), upstream: Some(i) });
        let mut engine = Balancer {
            by_cluster: named.into_iter().map(|(i, u)| (u.cluster.as_str().into(), i)).collect(),
            patterns: patterns.collect(),
            any: settings.upstreams.iter().position(|u| u.cluster == "*"),
            upstreams,
            made: 0,
            unmatched: 0,
            unmatched_published: 0,
            events: true,
            seen: now,
            peers: 0,
            ablation,
            poll_interval: settings.poll_interval,
        };
        engine.sort_patterns();
        engine
    }

    fn sort_patterns(&mut self) {
        order::sort_few_by_key(&mut self.patterns, |pattern| {
            core::cmp::Reverse(pattern::literal(&pattern.name))
        });
    }

    /// Adds patterns; for each cluster that matches one, the caller [makes](Balancer::make) a cluster when it is first
    /// met.
    pub fn expect<'p>(&mut self, patterns: impl Iterator<Item = &'p str>) {
        self.patterns.extend(patterns.map(|name| Pattern { name: name.into(), upstream: None }));
        self.sort_patterns();
    }

    /// Index of the cluster that balances `cluster`, if any.
    pub fn route(&self, cluster: &str) -> Option<usize> {
        self.by_cluster.get(cluster).copied().or_else(|| match self.pattern_of(cluster) {
            Some(pattern) => pattern.upstream,
            None => self.any,
        })
    }

    fn pattern_of(&self, cluster: &str) -> Option<&Pattern> {
        self.patterns.iter().find(|pattern| pattern::matches(&pattern.name, cluster))
    }

    /// Whether a cluster has to be made for `cluster`.
    pub fn expects(&self, cluster: &str) -> bool {
        self.expected(cluster).is_some()
    }

    /// The pattern by which a cluster has to be made for `cluster`.
    pub fn expected(&self, cluster: &str) -> Option<&str> {
        if self.by_cluster.contains_key(cluster) {
            return None;
        }
        self.pattern_of(cluster).filter(|pattern| pattern.upstream.is_none()).map(|pattern| &*pattern.name)
    }

    /// Adds a cluster whose name matches a pattern; its index is the next one.
    pub fn make(&mut self, config: &settings::Upstream, now: Time) {
        self.by_cluster.insert(config.cluster.as_str().into(), self.upstreams.len());
        self.upstreams.push(Cluster::new(config, self.poll_interval, self.ablation, now));
        self.made += 1;
    }

    /// Number of clusters that were made for names that match a pattern.
    pub fn made(&self) -> usize {
        self.made
    }

    /// Counts a request to a cluster that is not balanced.
    pub fn pass_by(&mut self) {
        self.unmatched += 1;
    }

    /// Number of requests to clusters that are not balanced.
    pub fn unmatched(&self) -> u64 {
        self.unmatched
    }

    /// Index of the cluster that balances every request, if that does not depend on the cluster's name.
    pub fn route_any(&self) -> Option<usize> {
        self.any.filter(|_| self.by_cluster.is_empty() && self.patterns.is_empty())
    }

    /// Index of the cluster whose name has this [`crate::rng::hash`].
    pub fn index_of_hash(&self, hash: u64) -> Option<usize> {
        self.upstreams.iter().position(|u| u.hash() == hash)
    }

    /// All clusters, in the order of the configuration.
    pub fn upstreams(&self) -> &[Cluster] {
        &self.upstreams
    }

    /// The cluster at `index`.
    pub fn upstream(&self, index: usize) -> Option<&Cluster> {
        self.upstreams.get(index)
    }

    /// The cluster at `index`, for updates.
    pub fn upstream_mut(&mut self, index: usize) -> Option<&mut Cluster> {
        self.upstreams.get_mut(index)
    }

    /// Notes that it is `now`. If nothing has happened for much longer than ticks are apart, requests in flight have not
    /// waited for that time: the clock was set forward, or the process was stopped.
    #[inline]
    pub fn advance_to(&mut self, now: Time) {
        let Some(since_ns) = now.0.checked_sub(self.seen.0) else { return };
        if since_ns > LOST_AFTER_NS {
            self.lose_time(LostTime { from: self.seen, to: now });
        }
        self.seen = now;
    }

    #[cold]
    #[inline(never)]
    fn lose_time(&mut self, lost: LostTime) {
        if !self.upstreams.iter().all(Cluster::rests) {
            self.upstreams.iter_mut().for_each(|upstream| upstream.lose_time(lost));
        }
    }

    /// Whether a request has had an event, or an endpoint a report, since the last call.
    pub fn take_events(&mut self) -> bool {
        core::mem::take(&mut self.events)
    }

    /// Decides where a request goes.
    pub fn pick(&mut self, upstream: usize, request: Request, now: Time, rng: &mut Rng) -> Decision {
        self.events = true;
        match self.upstreams.get_mut(upstream) {
            Some(upstream) => upstream.pick(request, now, rng),
            None => Decision::Fallback,
        }
    }

    /// Names endpoints for another attempt of a request, without any effect on the next decisions:
    /// [`Cluster::pick_again`].
    pub fn pick_again(&mut self, upstream: usize, request: Request, now: Time, rng: &mut Rng) -> Candidates {
        let upstream = self.upstreams.get_mut(upstream);
        upstream.map(|upstream| upstream.pick_again(request, now, rng)).unwrap_or_default()
    }

    /// The cluster of `handle`, for updates.
    fn of(&mut self, handle: &RequestHandle) -> Option<&mut Cluster> {
        self.events = true;
        self.upstreams.get_mut(handle.upstream)
    }

    /// The cluster of `handle`, for an event at `now` that shows what the request has taken.
    fn at(&mut self, handle: &RequestHandle, now: Time) -> Option<&mut Cluster> {
        self.advance_to(now);
        self.of(handle)
    }

    /// Observe mode: compares the decision `named`, which was not applied, with Envoy's choice `used`.
    pub fn compare(&mut self, upstream: usize, named: EndpointRef, used: u32) {
        if let Some(upstream) = self.upstreams.get_mut(upstream)
            && upstream.fleet().is_current(named)
        {
            upstream.compare(named.index, used);
        }
    }

    /// Counts a request that was answered by a host other than the steered one, without a retry.
    pub fn not_followed(&mut self, upstream: usize) {
        if let Some(upstream) = self.upstreams.get_mut(upstream) {
            upstream.not_followed();
        }
    }

    /// Counts a request whose route was chosen after the decision, if there was one at all.
    pub fn rerouted(&mut self, upstream: usize) {
        if let Some(upstream) = self.upstreams.get_mut(upstream) {
            upstream.rerouted();
        }
    }

    /// Records a decision time; returns whether it was plausible and counted.
    pub fn decided_within(&mut self, upstream: usize, ns: u64) -> bool {
        self.upstreams.get_mut(upstream).is_some_and(|upstream| upstream.decided_within(ns))
    }

    /// Records that a request was sent to the endpoint at `index`; returns its handle.
    pub fn started(&mut self, upstream: usize, index: u32, now: Time) -> Option<RequestHandle> {
        self.advance_to(now);
        self.events = true;
        let (endpoint, depth) = self.upstreams.get_mut(upstream)?.started(index, now)?;
        Some(RequestHandle { upstream, endpoint, started: now, depth })
    }

    /// The request body is still being sent: no answer is due until [`Balancer::uploaded`].
    pub fn uploading(&mut self, handle: &RequestHandle) {
        if let Some(upstream) = self.of(handle) {
            upstream.uploading(handle.endpoint, handle.started);
        }
    }

    /// The client began a request and has not ended it: an open request.
    pub fn opened(&mut self, handle: &RequestHandle) {
        if let Some(upstream) = self.of(handle) {
            upstream.opened(handle.endpoint, handle.started);
        }
    }

    /// An open request makes progress: a part of it arrived. The endpoint's time counts from the last part.
    pub fn moves(&mut self, handle: &mut RequestHandle, now: Time) {
        let moved = core::mem::replace(&mut handle.started, now);
        if let Some(upstream) = self.at(handle, now) {
            upstream.moves(handle.endpoint, moved, now);
        }
    }

    /// An open request is complete, answered or over.
    pub fn closed(&mut self, handle: &RequestHandle, now: Time) {
        if let Some(upstream) = self.at(handle, now) {
            upstream.closed(handle.endpoint, handle.started, now);
        }
    }

    /// The request is complete, or was answered before: the endpoint's time counts from `since`.
    pub fn uploaded(&mut self, handle: &mut RequestHandle, since: Time) {
        handle.started = since;
        if let Some(upstream) = self.of(handle) {
            upstream.uploaded(handle.endpoint, since);
        }
    }

    /// Records the first result: response headers, a reset, or the end without an answer.
    pub fn record_response(&mut self, handle: &RequestHandle, outcome: Outcome, now: Time) {
        self.record_answer(handle, outcome, Quickness::Shown, now);
    }

    /// The same for an answer of which `shows` says what its time may show. The result goes to
    /// [`settle`](Balancer::settle) once that is known.
    pub fn record_answer(
        &mut self,
        handle: &RequestHandle,
        outcome: Outcome,
        shows: Quickness,
        now: Time,
    ) -> Unsettled {
        self.at(handle, now)
            .map_or(Unsettled::Nothing, |upstream| upstream.record_response(handle, outcome, shows, now))
    }

    /// Settles what an answer at `answered` left unsettled; `declined` if it did not do what was asked.
    pub fn settle(&mut self, handle: &RequestHandle, unsettled: Unsettled, declined: bool, answered: Time) {
        if unsettled != Unsettled::Nothing
            && let Some(upstream) = self.of(handle)
        {
            upstream.settle(handle, unsettled, declined, answered);
        }
    }

    /// The request turned out to be served by the endpoint at `to` rather than the one it was sent to.
    pub fn reassigned(&mut self, handle: &RequestHandle, to: u32) -> Option<RequestHandle> {
        let upstream = self.of(handle)?;
        let (endpoint, depth) = upstream.reassigned(handle.endpoint, to, handle.started)?;
        Some(RequestHandle { endpoint, depth, ..*handle })
    }

    /// Records the outcome that only the end of the response shows, after [`Outcome::Undecided`].
    pub fn record_outcome(&mut self, handle: &RequestHandle, failure: Option<Failure>, now: Time) {
        if let Some(upstream) = self.at(handle, now) {
            upstream.record_outcome(handle.endpoint, handle.started, failure, now);
        }
    }

    /// Records an attempt that failed at the endpoint of `handle` for an unknown reason, before the request was
    /// reassigned and answered elsewhere; that answer gives the `hint`.
    pub fn record_failed_attempt(&mut self, handle: &RequestHandle, hint: RetryHint, now: Time) {
        if let Some(upstream) = self.at(handle, now) {
            upstream.record_failed_attempt(handle, hint, now);
        }
    }

    /// Records that the answer of the endpoint of `handle` was not seen, because another was put in its place.
    pub fn record_replaced(&mut self, handle: &RequestHandle, now: Time) {
        if let Some(upstream) = self.at(handle, now) {
            upstream.record_unseen(handle.endpoint, handle.started, (RetryHint::Unseen, false), now);
        }
    }

    /// Whether the endpoint of `handle` is the one at `index` now.
    pub fn names(&self, handle: &RequestHandle, index: u32) -> bool {
        let upstream = self.upstreams.get(handle.upstream);
        upstream.and_then(|u| u.fleet().reference(index)) == Some(handle.endpoint)
    }

    /// What counts as a failure in the cluster.
    pub fn counts(&self, upstream: usize) -> Option<&Failures> {
        self.upstreams.get(upstream).map(|u| &u.config().health.failures)
    }

    /// Whether the cluster's configuration heeds statements of endpoints in response headers.
    pub fn heeds_headers(&self, upstream: usize) -> bool {
        self.upstreams.get(upstream).is_some_and(|u| u.config().health.heed_headers)
    }

    /// Processes the endpoint's statements in the headers of an answer that has been recorded.
    pub fn take_hints(&mut self, handle: &RequestHandle, hints: HeaderHints, now: Time) {
        if let Some(upstream) = self.of(handle) {
            upstream.take_hints(handle.endpoint, handle.started, hints, now);
        }
    }

    /// Where answers report the value of `signal`, if they do; `None` after the last signal.
    pub fn load_report(&self, upstream: usize, signal: usize) -> Option<Option<&LoadReport>> {
        let signals = &self.upstreams.get(upstream)?.config().signals;
        signals.get(signal).map(|signal| signal.report.as_ref())
    }

    /// Records the load that the endpoint reported for `signal` in its answer; unusable values are only counted.
    pub fn load_reported(&mut self, handle: &RequestHandle, signal: usize, value: Option<f64>, now: Time) {
        if let Some(upstream) = self.of(handle) {
            upstream.set_reported(signal, handle.endpoint, value, now);
        }
    }

    /// Disables out-of-band probes in the cluster.
    pub fn probe_none(&mut self, upstream: usize) {
        if let Some(upstream) = self.upstreams.get_mut(upstream) {
            upstream.probe_none();
        }
    }

    /// The endpoint to probe out of band at `now`, if any. The caller must report the result with
    /// [`Balancer::record_probe`].
    pub fn take_probe(&mut self, upstream: usize, now: Time) -> Option<RequestHandle> {
        let endpoint = self.upstreams.get_mut(upstream)?.take_probe(now)?;
        Some(RequestHandle { upstream, endpoint, started: now, depth: 0 })
    }

    /// Records the result of the probe `handle`: a good answer, a failure, or any other outcome if it never reached the
    /// endpoint.
    pub fn record_probe(&mut self, handle: &RequestHandle, outcome: Outcome, now: Time) {
        if let Some(upstream) = self.at(handle, now) {
            upstream.record_probe(handle, outcome, now);
        }
    }

    /// Records the end of a request.
    pub fn finished(&mut self, handle: &RequestHandle, now: Time) {
        if let Some(upstream) = self.of(handle) {
            upstream.finished(handle.endpoint, now);
        }
    }

    /// Updates the recent picks.
    pub fn recount(&mut self, now: Time) {
        self.upstreams.iter_mut().for_each(|u| u.recount(now));
        self.unmatched_published = self.unmatched;
    }

    /// Subtracts what had been counted at the last [`recount`](Balancer::recount), which another worker now reports.
    pub fn forget_counts(&mut self) {
        self.upstreams.iter_mut().for_each(Cluster::forget_counts);
        self.unmatched -= core::mem::take(&mut self.unmatched_published).min(self.unmatched);
    }

    /// Sets the number of peers that have reported, or 0 if this worker takes no part in what is divided. Peers that
    /// balance other clusters alone have no part in these.
    pub fn divide_among(&mut self, peers: u32) {
        self.peers = peers;
    }

    /// Clears the peers' reports before they are merged anew, as of `at`.
    pub fn forget_others(&mut self, at: Time) {
        self.upstreams.iter_mut().for_each(|u| u.forget_others(at));
    }

    /// Updates the state of all clusters and schedules probes; called every few milliseconds.
    pub fn tick(&mut self, shard: ProbeShard, now: Time) {
        self.advance_to(now);
        let peers = self.peers;
        self.upstreams.iter_mut().for_each(|u| u.tick(u.divided(shard, peers), now));
    }

    /// The longest typical latency of all clusters with requests, seconds; infinite if there are none.
    pub fn longest_typical(&self) -> f64 {
        let used = self.upstreams.iter().filter(|upstream| upstream.has_been_used());
        used.map(Cluster::typical).reduce(f64::max).unwrap_or(f64::INFINITY)
    }

    /// Estimated requests per second of all workers in the process.
    pub fn pace(&self) -> f64 {
        self.upstreams.iter().map(Cluster::pace).sum()
    }

    /// Requests of all workers that awaited an answer at the latest tick, as far as their reports say.
    pub fn in_flight(&self) -> f64 {
        self.upstreams.iter().map(Cluster::in_flight).sum()
    }

    /// Measures the pressure of every cluster and updates its desired replicas; called in one worker of the process.
    pub fn scale_replicas(&mut self, now: Time) {
        self.upstreams.iter_mut().for_each(|u| u.scale_replicas(now));
    }

    /// Caps timestamps at `now` after the clock stepped back: otherwise data from the future would outweigh everything
    /// new until the clock catches up.
    pub fn not_after(&mut self, now: Time) {
        self.seen = self.seen.min(now);
        self.upstreams.iter_mut().for_each(|u| u.not_after(now));
    }

    /// Takes over what the balancer of an older configuration has learnt about the clusters that both have.
    pub fn take_over(&mut self, old: &mut Balancer, now: Time) {
        for upstream in &mut self.upstreams {
            if let Some(known) = old.upstreams.iter_mut().find(|o| o.cluster() == upstream.cluster()) {
                upstream.take_over(known, now);
            }
        }
    }
}
