//! Events in, decisions out: the only thing the filter talks to.
//!
//! One direction: the filter calls the engine, the engine calls its parts, no part calls back. Nothing here
//! reads a clock, draws its own randomness, or talks to a host.

use hashbrown::HashMap;

use crate::ablation::Ablation;
use crate::decision::{Decision, RequestHandle};
use crate::endpoint::EndpointRef;
use crate::order;
use crate::pattern;
use crate::policy::Request;
use crate::rng::Rng;
use crate::settings::{self, Failures, LoadReport, Settings};
use crate::time::Time;

use crate::{Failure, Outcome, RetryHint};

use crate::cluster::{Cluster, ProbeShard, Said};

/// All upstreams of one worker.
pub struct Balancer {
    upstreams: Vec<Cluster>,
    by_cluster: HashMap<Box<str>, usize>,
    /// The most literal first.
    patterns: Vec<Pattern>,
    any: Option<usize>,
    /// How many upstreams have been made for clusters that match a pattern.
    made: usize,
    /// Requests to clusters that no upstream balances, and how many of them another has taken over.
    unmatched: u64,
    unmatched_told: u64,
    /// Something has happened to a request, or has been told of an endpoint, since this was last asked.
    events: bool,
    ablation: Ablation,
    poll_interval: Option<core::time::Duration>,
}

/// Clusters by a name with `*` in it.
struct Pattern {
    name: Box<str>,
    /// The upstream that balances all of them; none where each becomes an upstream of its own.
    upstream: Option<usize>,
}

impl Balancer {
    /// An engine that knows nothing yet but the configuration.
    pub fn new<'s>(settings: impl Into<Settings<'s>>, now: Time) -> Balancer {
        Balancer::with_ablation(settings, Ablation::ALL, now)
    }

    /// An engine whose adaptive policy is made of `ablation` only.
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
            unmatched_told: 0,
            events: true,
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

    /// For each cluster that matches one of these patterns an upstream is to be [made](Balancer::make) when it is met.
    pub fn expect<'p>(&mut self, patterns: impl Iterator<Item = &'p str>) {
        self.patterns.extend(patterns.map(|name| Pattern { name: name.into(), upstream: None }));
        self.sort_patterns();
    }

    /// The upstream that balances `cluster`, if any does.
    pub fn route(&self, cluster: &str) -> Option<usize> {
        self.by_cluster.get(cluster).copied().or_else(|| match self.pattern_of(cluster) {
            Some(pattern) => pattern.upstream,
            None => self.any,
        })
    }

    fn pattern_of(&self, cluster: &str) -> Option<&Pattern> {
        self.patterns.iter().find(|pattern| pattern::matches(&pattern.name, cluster))
    }

    /// Whether an upstream is to be made for `cluster`.
    pub fn expects(&self, cluster: &str) -> bool {
        self.expected(cluster).is_some()
    }

    /// The pattern by which an upstream is to be made for `cluster`.
    pub fn expected(&self, cluster: &str) -> Option<&str> {
        if self.by_cluster.contains_key(cluster) {
            return None;
        }
        self.pattern_of(cluster).filter(|pattern| pattern.upstream.is_none()).map(|pattern| &*pattern.name)
    }

    /// Makes an upstream for a cluster that matches a pattern, the next after those that there are.
    pub fn make(&mut self, config: &settings::Upstream, now: Time) {
        self.by_cluster.insert(config.cluster.as_str().into(), self.upstreams.len());
        self.upstreams.push(Cluster::new(config, self.poll_interval, self.ablation, now));
        self.made += 1;
    }

    /// How many upstreams have been made for clusters that match a pattern.
    pub fn made(&self) -> usize {
        self.made
    }

    /// A request went to a cluster that no upstream balances.
    pub fn pass_by(&mut self) {
        self.unmatched += 1;
    }

    /// Requests to clusters that no upstream balances.
    pub fn unmatched(&self) -> u64 {
        self.unmatched
    }

    /// The upstream that balances every cluster, where that needs no look at the cluster's name.
    pub fn route_any(&self) -> Option<usize> {
        self.any.filter(|_| self.by_cluster.is_empty() && self.patterns.is_empty())
    }

    /// The upstream whose cluster name has this [`crate::rng::hash`].
    pub fn index_of_hash(&self, hash: u64) -> Option<usize> {
        self.upstreams.iter().position(|u| u.hash() == hash)
    }

    /// All upstreams in the order of the configuration.
    pub fn upstreams(&self) -> &[Cluster] {
        &self.upstreams
    }

    /// One upstream.
    pub fn upstream(&self, index: usize) -> Option<&Cluster> {
        self.upstreams.get(index)
    }

    /// One upstream, to be told something.
    pub fn upstream_mut(&mut self, index: usize) -> Option<&mut Cluster> {
        self.upstreams.get_mut(index)
    }

    /// Whether anything has happened to a request, or has been told of an endpoint, since the last call.
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

    /// The upstream that `ticket` is of, to be told something.
    fn of(&mut self, ticket: &RequestHandle) -> Option<&mut Cluster> {
        self.events = true;
        self.upstreams.get_mut(ticket.upstream)
    }

    /// Where a decision named `named` and was only shown, Envoy used `used`.
    pub fn compare(&mut self, upstream: usize, named: EndpointRef, used: u32) {
        if let Some(upstream) = self.upstreams.get_mut(upstream)
            && upstream.fleet().is_current(named)
        {
            upstream.compare(named.index, used);
        }
    }

    /// A request was answered by another host than the one that was named, though it was no retry.
    pub fn not_followed(&mut self, upstream: usize) {
        if let Some(upstream) = self.upstreams.get_mut(upstream) {
            upstream.not_followed();
        }
    }

    /// A request came to this upstream by a route that was chosen after the decision, if there was one at all.
    pub fn rerouted(&mut self, upstream: usize) {
        if let Some(upstream) = self.upstreams.get_mut(upstream) {
            upstream.rerouted();
        }
    }

    /// A decision for this upstream took so long. Whether that is believed.
    pub fn decided_within(&mut self, upstream: usize, ns: u64) -> bool {
        self.upstreams.get_mut(upstream).is_some_and(|upstream| upstream.decided_within(ns))
    }

    /// A request is sent to the endpoint at `index`.
    pub fn started(&mut self, upstream: usize, index: u32, now: Time) -> Option<RequestHandle> {
        self.events = true;
        let (endpoint, depth) = self.upstreams.get_mut(upstream)?.started(index, now)?;
        Some(RequestHandle { upstream, endpoint, started: now, depth })
    }

    /// The client still sends the request's body: until [`Balancer::uploaded`] no answer is due.
    pub fn uploading(&mut self, ticket: &RequestHandle) {
        if let Some(upstream) = self.of(ticket) {
            upstream.uploading(ticket.endpoint, ticket.started);
        }
    }

    /// The client has begun a request that it has not ended.
    pub fn opened(&mut self, ticket: &RequestHandle) {
        if let Some(upstream) = self.of(ticket) {
            upstream.opened(ticket.endpoint, ticket.started);
        }
    }

    /// Such a request moves on: a part of it came. The endpoint's time counts from the last.
    pub fn moves(&mut self, ticket: &mut RequestHandle, now: Time) {
        let moved = core::mem::replace(&mut ticket.started, now);
        if let Some(upstream) = self.of(ticket) {
            upstream.moves(ticket.endpoint, moved, now);
        }
    }

    /// Such a request is complete, answered, or over.
    pub fn closed(&mut self, ticket: &RequestHandle, now: Time) {
        if let Some(upstream) = self.of(ticket) {
            upstream.closed(ticket.endpoint, ticket.started, now);
        }
    }

    /// The request is complete, or is answered before it is: the endpoint's time counts from `since`.
    pub fn uploaded(&mut self, ticket: &mut RequestHandle, since: Time) {
        ticket.started = since;
        if let Some(upstream) = self.of(ticket) {
            upstream.uploaded(ticket.endpoint, since);
        }
    }

    /// The first sign of the outcome: response headers, a reset, the end without an answer.
    pub fn record_response(&mut self, ticket: &RequestHandle, outcome: Outcome, now: Time) {
        if let Some(upstream) = self.of(ticket) {
            upstream.record_response(ticket, outcome, now);
        }
    }

    /// The request turned out to be served by the endpoint at `to`, not by the one it was sent to.
    pub fn reassigned(&mut self, ticket: &RequestHandle, to: u32) -> Option<RequestHandle> {
        let upstream = self.of(ticket)?;
        let (endpoint, depth) = upstream.reassigned(ticket.endpoint, to, ticket.started)?;
        Some(RequestHandle { endpoint, depth, ..*ticket })
    }

    /// What only the end of the response told: the verdict on a request that [`Outcome::Undecided`] left open.
    pub fn record_outcome(&mut self, ticket: &RequestHandle, failure: Option<Failure>, now: Time) {
        if let Some(upstream) = self.of(ticket) {
            upstream.record_outcome(ticket.endpoint, ticket.started, failure, now);
        }
    }

    /// The request was given up at the endpoint of `ticket` for a reason that was not seen, and answered by another, to
    /// which it has been moved. That answer gives a hint.
    pub fn record_failed_attempt(&mut self, ticket: &RequestHandle, hint: RetryHint, now: Time) {
        if let Some(upstream) = self.of(ticket) {
            upstream.record_failed_attempt(ticket.endpoint, ticket.started, hint, now);
        }
    }

    /// Whether `ticket` is of the endpoint that stands at `index` now.
    pub fn names(&self, ticket: &RequestHandle, index: u32) -> bool {
        let upstream = self.upstreams.get(ticket.upstream);
        upstream.and_then(|u| u.fleet().reference(index)) == Some(ticket.endpoint)
    }

    /// What counts as a failure of an upstream's endpoints.
    pub fn counts(&self, upstream: usize) -> Option<&Failures> {
        self.upstreams.get(upstream).map(|u| &u.config().health.failures)
    }

    /// Whether what endpoints say of themselves is heeded.
    pub fn heeds_headers(&self, upstream: usize) -> bool {
        self.upstreams.get(upstream).is_some_and(|u| u.config().health.heed_headers)
    }

    /// What the endpoint of `ticket` says of itself in an answer that has been taken already.
    pub fn said(&mut self, ticket: &RequestHandle, said: Said, now: Time) {
        if let Some(upstream) = self.of(ticket) {
            upstream.said(ticket.endpoint, ticket.started, said, now);
        }
    }

    /// Where answers of `upstream`'s endpoints report the value of `signal`, if they do; `None` behind the last signal.
    pub fn load_report(&self, upstream: usize, signal: usize) -> Option<Option<&LoadReport>> {
        let signals = &self.upstreams.get(upstream)?.config().signals;
        signals.get(signal).map(|signal| signal.report.as_ref())
    }

    /// What the endpoint of `ticket` reported of its load for `signal` in its answer; nothing where that was no number.
    pub fn load_reported(&mut self, ticket: &RequestHandle, signal: usize, value: Option<f64>, now: Time) {
        if let Some(upstream) = self.of(ticket) {
            upstream.set_reported(signal, ticket.endpoint, value, now);
        }
    }

    /// The endpoints of `upstream` are not probed out of band.
    pub fn probe_none(&mut self, upstream: usize) {
        if let Some(upstream) = self.upstreams.get_mut(upstream) {
            upstream.probe_none();
        }
    }

    /// The endpoint of `upstream` that is to be probed out of band at `now`, if one is. Its holder owes a
    /// [`Balancer::record_probe`].
    pub fn take_probe(&mut self, upstream: usize, now: Time) -> Option<RequestHandle> {
        let endpoint = self.upstreams.get_mut(upstream)?.take_probe(now)?;
        Some(RequestHandle { upstream, endpoint, started: now, depth: 0 })
    }

    /// How the probe of `ticket` went: a good answer, a failure, or it never came to the endpoint.
    pub fn record_probe(&mut self, ticket: &RequestHandle, outcome: Outcome, now: Time) {
        if let Some(upstream) = self.of(ticket) {
            upstream.record_probe(ticket, outcome, now);
        }
    }

    /// The request is over.
    pub fn finished(&mut self, ticket: &RequestHandle, now: Time) {
        if let Some(upstream) = self.of(ticket) {
            upstream.finished(ticket.endpoint, now);
        }
    }

    /// Counts the latest picks.
    pub fn recount(&mut self, now: Time) {
        self.upstreams.iter_mut().for_each(|u| u.recount(now));
        self.unmatched_told = self.unmatched;
    }

    /// What had been counted at the last [`recount`](Balancer::recount) is another's now: what came since is left.
    pub fn forget_counts(&mut self) {
        self.upstreams.iter_mut().for_each(Cluster::forget_counts);
        self.unmatched -= core::mem::take(&mut self.unmatched_told).min(self.unmatched);
    }

    /// Forgets what the other workers know, to be told anew as of `told`.
    pub fn forget_others(&mut self, told: Time) {
        self.upstreams.iter_mut().for_each(|u| u.forget_others(told));
    }

    /// Time passes: draws conclusions, refreshes the policies' view, schedules probes.
    pub fn tick(&mut self, shard: ProbeShard, now: Time) {
        self.upstreams.iter_mut().for_each(|u| u.tick(shard, now));
    }

    /// The longest of the upstreams' typical latencies, seconds, as far as there have been requests to them; infinite where
    /// there was none to any.
    pub fn longest_typical(&self) -> f64 {
        let used = self.upstreams.iter().filter(|upstream| upstream.has_been_used());
        used.map(Cluster::typical).reduce(f64::max).unwrap_or(f64::INFINITY)
    }

    /// Requests per second of all workers of the process, about.
    pub fn pace(&self) -> f64 {
        self.upstreams.iter().map(Cluster::pace).sum()
    }

    /// Looks at the pressure of every upstream and draws conclusions on replicas; for one worker of the process.
    pub fn scale_replicas(&mut self, now: Time) {
        self.upstreams.iter_mut().for_each(|u| u.scale_replicas(now));
    }

    /// The clock stepped back to `now`, as wall clocks do: what seems to come from the future would otherwise
    /// outweigh everything new until the clock is there again.
    pub fn not_after(&mut self, now: Time) {
        self.upstreams.iter_mut().for_each(|u| u.not_after(now));
    }

    /// Takes over what `old` has learnt of the endpoints that both know.
    pub fn take_over(&mut self, old: &mut Balancer, now: Time) {
        for upstream in &mut self.upstreams {
            if let Some(known) = old.upstreams.iter_mut().find(|o| o.cluster() == upstream.cluster()) {
                upstream.take_over(known, now);
            }
        }
    }
}
