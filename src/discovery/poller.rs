//! Polls of Prometheus for signals and endpoints, one in flight per query.

mod masked;
mod query;
mod reading;

use crate::discovery::source::Origin;
use crate::discovery::sources::Discovery;
use crate::discovery::{notices, prometheus};
use crate::host::event::{Event, Field};
use crate::host::retry_after::pause_asked_for;
use crate::host::{Body, Call, CallError, Host};
use crate::sharing::snapshot::{Samples, Snapshot};
use config::Config;
use engine::Balancer;
use engine::rng::{self, Rng};
use engine::time::Time;
pub use query::Rest;
use query::{JITTER, PollKind, Query};

/// The longest error text that is kept, characters.
const MAX_ERROR: usize = 300;
/// Bytes of a response that are read: one more than allowed, so that a response that is too large is not mistaken for
/// one that was cut off.
const LARGEST_ANSWER: usize = prometheus::MAX_BYTES + 1;
/// So many different errors are logged until all is well again, and one for each query: an error may read otherwise each
/// time.
const MAX_LOGGED: usize = 8;
/// What the page says of a signal begins so while its query is refused.
const REFUSED: &str = "query failed: ";

/// The longest pause that a server is granted which asks for one, seconds: what is known of endpoints is of use for about as
/// long.
const MAX_HELD_S: f64 = 60.0;

/// Time without traffic after which polls become less frequent than configured, seconds.
const RESTS_AFTER_S: f64 = 30.0;
/// Time after the first request within which all polls have caught up, seconds.
const AWAKE_AFTER_S: f64 = 10.0;

/// The queries of one worker; only the lease holder sends them.
pub struct Poller {
    queries: Vec<Query>,
    /// The headers for Prometheus, secrets included; an error if one is missing, and then nothing is sent.
    headers: Result<Vec<(String, String)>, String>,
    news: bool,
    /// Errors that have been logged, or would have been by the worker that polled before, since all was well.
    logged: Vec<u64>,
    /// When any worker of the process was last seen with traffic.
    active: Time,
    busy: bool,
    /// When the process was last idle enough for less frequent polls.
    rested: Time,
    /// When the pause ends that the server has asked for.
    held: Time,
}

impl Poller {
    /// All queries of the configuration with their requests; the first polls are due at once.
    #[inline(never)]
    pub fn new(host: &dyn Host, config: &Config, now: Time) -> Poller {
        let headers = query::headers(host, config);
        if let Err(missing) = &headers {
            host.log_event(&Event {
                level: log::Level::Error,
                name: "source_impossible",
                message: &format!(
                    "prometheus: polling disabled: {missing}; requests are balanced without it"
                ),
                fields: &[("source", Field::Text("prometheus")), ("error", Field::Text(missing))],
            });
        }
        let mut polls = Poller {
            queries: Vec::new(),
            headers,
            news: false,
            logged: Vec::new(),
            active: now,
            busy: true,
            rested: Time::ZERO,
            held: Time::ZERO,
        };
        (0..config.upstreams.len()).for_each(|upstream| polls.add(config, upstream));
        polls
    }

    /// Adds the queries of the upstream at this position.
    pub fn add(&mut self, config: &Config, upstream: usize) {
        let (Some(balanced), Some(of)) = (config.upstreams.get(upstream), &config.prometheus) else { return };
        let mut ask = |kind, query: &str| {
            let request = prometheus::request(of, query);
            let form = request.form.as_deref().unwrap_or_default();
            let identity = rng::hash(balanced.cluster.as_bytes())
                ^ rng::hash(request.path.as_bytes())
                ^ rng::hash(form.as_bytes()).rotate_left(1);
            self.queries.push(Query::new(upstream, kind, request, identity));
        };
        // Endpoints come first: signals of unknown endpoints are useless.
        if let Some(endpoints) = &balanced.endpoints.prometheus {
            ask(PollKind::Endpoints, &endpoints.query);
        }
        for (at, signal) in balanced.signals.iter().enumerate().filter(|(_, s)| s.report.is_none()) {
            match signal.builtin.filter(|_| signal.query.is_empty()) {
                Some(builtin) => {
                    ask(PollKind::Signal(at), &prometheus::fleet_query(builtin, &balanced.cluster));
                }
                None => ask(PollKind::Signal(at), &signal.query),
            }
            if let Some(query) = &signal.timestamp_query {
                ask(PollKind::Timestamps(at), query);
            }
        }
    }

    /// Whether there are any queries.
    pub fn any(&self) -> bool {
        !self.queries.is_empty()
    }

    /// Drops the failures of queries that no longer exist.
    pub fn retain(&self, failing: &mut Vec<u64>) {
        failing.retain(|identity| self.queries.iter().any(|query| query.identity == *identity));
    }

    /// Whether the snapshot has changed since the last call.
    pub fn take_news(&mut self) -> bool {
        core::mem::take(&mut self.news)
    }

    /// Notes whether any worker of the process carries traffic now, as far as this one knows.
    pub fn see_traffic(&mut self, busy: bool, now: Time) {
        self.busy = busy;
        self.active = if busy { now } else { self.active.min(now) };
        self.rested = self.rested.min(now);
        if now.seconds_since(self.active) > RESTS_AFTER_S {
            self.rested = now;
        }
    }

    /// Whether the sources have lately been polled at the configured interval, so that a missing response means
    /// something.
    pub fn are_awake(&self, now: Time) -> bool {
        self.rested == Time::ZERO || now.seconds_since(self.rested) > AWAKE_AFTER_S
    }

    /// The idle time of the process, for poll intervals. With autoscaling it never counts as idle.
    pub fn rest(&self, config: &Config, now: Time) -> Rest {
        let scales = config.upstreams.iter().any(|upstream| upstream.autoscale.is_some());
        let idle_s = if scales { 0.0 } else { now.seconds_since(self.active) };
        Rest { busy: self.busy || scales, idle_s }
    }

    /// Polls the signals of `upstream` at once, because its endpoint set has new endpoints.
    pub fn ask_again(&mut self, upstream: usize) {
        for query in self.queries.iter_mut().filter(|query| query.upstream == upstream) {
            // A response in flight is read against the endpoints at its arrival.
            if matches!(query.kind, PollKind::Signal(_)) && query.pending.is_none() {
                query.sent = None;
            }
        }
    }

    /// Sends the polls that are due.
    #[inline(never)]
    pub fn tick(
        &mut self,
        host: &dyn Host,
        config: &Config,
        (snapshot, discovery): (&mut Snapshot, &mut Discovery),
        rng: &mut Rng,
        now: Time,
    ) {
        self.wake(config, snapshot, now);
        // A longer one is from before the clock stepped back.
        self.held = self.held.min(now.after_secs(MAX_HELD_S));
        if self.held > now {
            return;
        }
        for at in 0..self.queries.len() {
            let Some(query) = self.queries.get_mut(at) else { return };
            let known = self.headers.as_deref().unwrap_or_default();
            let Some(settings) = query.settings(config, known) else { continue };
            let interval_s = settings.interval.as_secs_f64();
            let idle_s = if settings.rests { now.seconds_since(self.active) } else { 0.0 };
            if !query.is_due(interval_s, self.busy || !settings.rests, now) {
                continue;
            }
            let pause_s = query.mark_sent(interval_s, idle_s, 2.0 * rng.unit() - 1.0, now);
            snapshot.stats.pause_s = pause_s as f32;
            if let Err(missing) = &self.headers {
                let missing = missing.clone();
                self.failed(host, config, (snapshot, discovery), at, (&missing, false));
                continue;
            }
            let sent = host.call(&Call {
                cluster: settings.cluster,
                authority: settings.authority,
                path: &query.request.path,
                headers: settings.headers,
                form: query.request.form.as_deref(),
                // The timeout ends before the next poll, however short the jittered interval.
                timeout: settings.timeout.min(settings.interval.mul_f64(1.0 - JITTER)),
            });
            query.pending = sent.ok();
            snapshot.stats.polls += 1;
            if let Err(error) = sent {
                let error = not_sent(settings.cluster, error);
                self.release(config, snapshot, at);
                self.failed(host, config, (snapshot, discovery), at, (&error, false));
            }
        }
    }

    /// Under traffic, shortens the pause that is published to the configured interval.
    #[inline(never)]
    fn wake(&mut self, config: &Config, snapshot: &mut Snapshot, now: Time) {
        let Some(interval) = config.prometheus.as_ref().map(|of| of.interval).filter(|_| self.busy) else {
            return;
        };
        // Until the next response the data is older than that, which is not a fault.
        let age_s = now.seconds_since(snapshot.stats.last_success);
        let usual_s = interval.as_secs_f64().max(age_s) as f32;
        if snapshot.stats.pause_s > usual_s {
            snapshot.stats.pause_s = usual_s;
            self.news = true;
        }
    }

    /// The response to one of these polls; returns the upstream whose endpoints it changes, if it does.
    #[inline(never)]
    pub fn receive_response(
        &mut self,
        host: &dyn Host,
        engine: &Balancer,
        config: &Config,
        (snapshot, discovery): (&mut Snapshot, &mut Discovery),
        token: u32,
        (status, body): (Option<u32>, &dyn Body),
    ) -> Option<usize> {
        let at = self.queries.iter().position(|q| q.pending == Some(token))?;
        let query = self.queries.get_mut(at)?;
        query.pending = None;
        let (index, kind, identity) = (query.upstream, query.kind, query.identity);
        let upstream = engine.upstream(index)?;
        let (now, wall) = (host.now(), host.wall());
        let pause_s =
            status.and_then(|status| pause_asked_for(status, || body.header("retry-after"), || wall));
        let body = body.part(0, LARGEST_ANSWER);
        let answer = (status, body.as_slice());
        let read = match kind {
            PollKind::Signal(of) => {
                let signal = upstream.config().signals.get(of)?;
                reading::samples(signal, upstream, answer, (now, wall)).map(|samples| {
                    match self.dated_by(index, of) {
                        Some(query) => query.held = Some(samples),
                        None => put(host, snapshot, upstream.cluster(), signal, samples),
                    }
                    false
                })
            }
            PollKind::Timestamps(of) => {
                let signal = upstream.config().signals.get(of)?;
                let held = query.held.as_mut();
                let dated =
                    held.map_or(Ok(()), |samples| reading::date(samples, signal, upstream, answer, wall));
                if let Some(samples) = query.held.take() {
                    put(host, snapshot, upstream.cluster(), signal, samples);
                }
                dated.map(|()| false)
            }
            PollKind::Endpoints => reading::endpoints(upstream.config(), answer)
                .map(|finding| discovery.accept_finding(index, (Origin::Prometheus, identity), finding, now)),
        };
        match read {
            Ok(changed) => {
                self.succeeded(host, snapshot, at, now);
                changed.then_some(index)
            }
            Err(mut error) => {
                if let Some(pause_s) = pause_s.filter(|pause_s| *pause_s > 0.0) {
                    error.push_str(&self.hold(pause_s, now));
                }
                // What is answered with such a status is not the query's fault.
                let by_the_query = status.is_some_and(|status| status < 500);
                self.failed(host, config, (snapshot, discovery), at, (&error, by_the_query));
                None
            }
        }
    }

    /// Sends nothing for as long as the server has asked for, within bounds; returns what that adds to the error.
    #[inline(never)]
    fn hold(&mut self, pause_s: f64, now: Time) -> String {
        let pause_s = pause_s.min(MAX_HELD_S);
        self.held = self.held.max(now.after_secs(pause_s));
        format!("; no query for {pause_s:.0} s (retry-after)")
    }

    /// The call with this token will not be answered.
    pub fn lose(&mut self, token: u32) {
        let lost = self.queries.iter_mut().filter(|query| query.pending == Some(token));
        lost.for_each(|query| query.pending = None);
    }

    /// The query for the timestamps of the signal at `of`, if it has one.
    fn dated_by(&mut self, upstream: usize, of: usize) -> Option<&mut Query> {
        let wanted = PollKind::Timestamps(of);
        self.queries.iter_mut().find(|query| query.upstream == upstream && query.kind == wanted)
    }

    /// Publishes values without their age, because the query for their timestamps cannot be sent.
    fn release(&mut self, config: &Config, snapshot: &mut Snapshot, at: usize) {
        let Some(query) = self.queries.get_mut(at) else { return };
        let PollKind::Timestamps(of) = query.kind else { return };
        let upstream = config.upstreams.get(query.upstream);
        let signal = upstream.and_then(|upstream| upstream.signals.get(of));
        if let (Some(samples), Some(upstream), Some(signal)) = (query.held.take(), upstream, signal) {
            snapshot.put(&upstream.cluster, &signal.name, samples);
        }
    }

    fn failing(&self, failing: &[u64]) -> bool {
        self.queries.iter().any(|query| failing.contains(&query.identity))
    }

    /// Notes a successful poll, and logs it if it ends the last failure.
    #[inline(never)]
    fn succeeded(&mut self, host: &dyn Host, snapshot: &mut Snapshot, at: usize, now: Time) {
        let Some(query) = self.queries.get_mut(at) else { return };
        let identity = query.identity;
        snapshot.stats.last_success = now;
        query.failed = false;
        self.news = true;
        let Some(logged) = snapshot.stats.failing.iter().position(|failing| *failing == identity) else {
            return;
        };
        snapshot.stats.failing.swap_remove(logged);
        if !self.failing(&snapshot.stats.failing) {
            self.logged.clear();
            notices::log_answers(host, Origin::Prometheus);
        }
    }

    /// Counts a failed poll, and logs the first of several in a row. Where Prometheus cannot be had, every query fails alike, and one
    /// line is enough; what is wrong with a single query is logged by itself, whatever else fails.
    #[inline(never)]
    fn failed(
        &mut self,
        host: &dyn Host,
        config: &Config,
        (snapshot, discovery): (&mut Snapshot, &mut Discovery),
        at: usize,
        (error, by_the_query): (&str, bool),
    ) {
        let Some(query) = self.queries.get_mut(at) else { return };
        let (index, kind, identity) = (query.upstream, query.kind, query.identity);
        let failed_before = core::mem::replace(&mut query.failed, true);
        let Some(upstream) = config.upstreams.get(index) else { return };
        let signal = |at: usize| upstream.signals.get(at).map_or("", |signal| &signal.name);
        let of = match kind {
            PollKind::Signal(at) => format!("signal={}", signal(at)),
            PollKind::Timestamps(at) => format!("timestamps of signal={}", signal(at)),
            _ => "endpoints".to_owned(),
        };
        let parameters = config.prometheus.as_ref().map_or(&[][..], |server| &server.parameters);
        let error = masked::masked(error, self.headers.as_deref().unwrap_or_default(), parameters);
        if let (PollKind::Signal(at), true) = (kind, by_the_query)
            && let Some(signal) = upstream.signals.get(at)
        {
            let problem: String = format!("{REFUSED}{error}").chars().take(MAX_ERROR).collect();
            snapshot.doubt(&upstream.cluster, &signal.name, problem);
        }
        let hash = rng::hash(error.as_bytes());
        let error = format!("cluster={} {of}: {error}", upstream.cluster);
        let error: String = error.chars().take(MAX_ERROR).collect();
        snapshot.stats.failures += 1;
        snapshot.stats.last_error.clone_from(&error);
        self.news = true;
        if kind == PollKind::Endpoints {
            discovery.failed(index, Origin::Prometheus, &error);
        }
        let before = self.failing(&snapshot.stats.failing);
        let first = !snapshot.stats.failing.contains(&identity);
        if first {
            snapshot.stats.failing.push(identity);
        }
        let most = self.queries.len().max(MAX_LOGGED);
        let is_news = !self.logged.contains(&hash) && self.logged.len() < most;
        let is_logged = !before || (by_the_query && is_news && (first || failed_before));
        if is_news {
            self.logged.push(hash);
        }
        if is_logged {
            notices::log_fails(host, (Origin::Prometheus, &upstream.cluster), &error);
        }
    }
}

/// Why a call was not sent, as far as Envoy tells a plugin.
pub(crate) fn not_sent(cluster: &str, error: CallError) -> String {
    match error {
        CallError::UnknownCluster => format!("cluster {cluster:?} is unknown to Envoy"),
        CallError::NotSent => format!(
            "cluster {cluster:?} accepts no request now: no healthy host, name not resolved yet, or circuit breaker open"
        ),
        CallError::Postponed => format!(
            "cluster {cluster:?} is asked later: another accepted no request in the same moment, and there are upstream filters"
        ),
    }
}

/// Stores the samples of a signal, and logs when its series cease or begin to match endpoints.
fn put(
    host: &dyn Host,
    snapshot: &mut Snapshot,
    cluster: &str,
    signal: &engine::settings::Signal,
    samples: Samples,
) {
    let before = snapshot.get(rng::hash(cluster.as_bytes()), &signal.name).map(|before| &before.fit);
    let fitted = before.is_none_or(|fit| fit.problem.is_empty() || fit.problem.starts_with(REFUSED));
    let fits = samples.fit.problem.is_empty();
    let change = if fitted && !fits {
        Some((log::Level::Warn, "signal_matches_none", samples.fit.problem.as_str()))
    } else if fits && !fitted && samples.fit.matched > 0 {
        Some((log::Level::Info, "signal_matches", "series match endpoints again"))
    } else {
        None
    };
    if let Some((level, name, what)) = change {
        host.log_event(&Event {
            level,
            name,
            message: &format!("cluster={cluster} signal={}: {what}", signal.name),
            fields: &[
                ("upstream", Field::Text(cluster)),
                ("signal", Field::Text(&signal.name)),
                ("series", Field::Whole(samples.fit.series.into())),
                ("matched", Field::Whole(samples.fit.matched.into())),
            ],
        });
    }
    snapshot.put(cluster, &signal.name, samples);
}
