//! Asking Prometheus for signals and endpoints; each on time, one poll in flight at a time each.

use core::time::Duration;

use super::discovery::Discovery;
use crate::config::Config;
use crate::engine::Engine;
use crate::event::{Event, Field};
use crate::exchange::snapshot::{Samples, Snapshot};
use crate::fleet::{Finding, Origin};
use crate::host::{Body, Call, Host};
use crate::prometheus::{self, EndpointIndex};
use crate::random::{self, Rng};
use crate::time::Time;

/// The interval is varied by this share either way, so that several proxies do not ask in step.
const JITTER: f64 = 0.1;
/// Errors are kept up to this length, in characters.
const LONGEST_ERROR: usize = 200;
/// The largest answer that is read from Prometheus.
const LARGEST_ANSWER: usize = 8 << 20;

/// The queries of one worker; only the lease holder sends them.
pub struct Polls {
    queries: Vec<Query>,
    news: bool,
}

struct Query {
    upstream: usize,
    question: Question,
    path: String,
    due: Time,
    pending: Option<u32>,
    /// What the question is known by among workers.
    identity: u64,
}

/// What is asked for an upstream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    /// The signal at this position.
    Signal(usize),
    /// Endpoints in the labels of Prometheus.
    Endpoints,
}

/// How a question is put.
struct Terms<'c> {
    cluster: &'c str,
    authority: &'c str,
    headers: &'c [(String, String)],
    interval: Duration,
    timeout: Duration,
}

/// How every question is put.
fn terms(config: &Config) -> Option<Terms<'_>> {
    config.prometheus.as_ref().map(|of| Terms {
        cluster: &of.cluster,
        authority: &of.authority,
        headers: &of.headers,
        interval: of.interval,
        timeout: of.timeout,
    })
}

impl Polls {
    /// Every question of the configuration, its path prepared, the first due at once.
    pub fn new(config: &Config, now: Time) -> Polls {
        let mut polls = Polls { queries: Vec::new(), news: false };
        (0..config.upstreams.len()).for_each(|upstream| polls.add(config, upstream, now));
        polls
    }

    /// The questions of the upstream at this position.
    pub fn add(&mut self, config: &Config, upstream: usize, now: Time) {
        let (Some(balanced), Some(of)) = (config.upstreams.get(upstream), &config.prometheus) else { return };
        let mut ask = |question, query: &str| {
            let path = prometheus::request_path(&of.path_prefix, query, of.timeout);
            let identity = random::hash(balanced.cluster.as_bytes()) ^ random::hash(path.as_bytes());
            self.queries.push(Query { upstream, question, path, due: now, pending: None, identity });
        };
        // Who the endpoints are comes first: answers about them are of use only then.
        if let Some(endpoints) = &balanced.endpoints.prometheus {
            ask(Question::Endpoints, &endpoints.query);
        }
        for (at, signal) in balanced.signals.iter().enumerate() {
            ask(Question::Signal(at), &signal.query);
        }
    }

    /// Whether there is anything to ask.
    pub fn any(&self) -> bool {
        !self.queries.is_empty()
    }

    /// Drops the failures of questions that are not asked any more.
    pub fn retain(&self, failing: &mut Vec<u64>) {
        failing.retain(|identity| self.queries.iter().any(|query| query.identity == *identity));
    }

    /// Whether the snapshot has changed since the last call.
    pub fn take_news(&mut self) -> bool {
        core::mem::take(&mut self.news)
    }

    /// The fleet of `upstream` has new members: their signals are wanted at once.
    pub fn ask_again(&mut self, upstream: usize, now: Time) {
        for query in self.queries.iter_mut().filter(|query| query.upstream == upstream) {
            // An answer that is on its way is read against the fleet as it is when it comes.
            if matches!(query.question, Question::Signal(_)) && query.pending.is_none() {
                query.due = query.due.min(now);
            }
        }
    }

    /// Sends what is due.
    pub fn tick(
        &mut self,
        host: &dyn Host,
        config: &Config,
        (snapshot, discovery): (&mut Snapshot, &mut Discovery),
        rng: &mut Rng,
        now: Time,
    ) {
        for at in 0..self.queries.len() {
            let Some(query) = self.queries.get_mut(at) else { return };
            let Some(terms) = terms(config) else { continue };
            let interval = terms.interval.as_secs_f64();
            let clock_stepped_back = query.due.seconds_since(now) > 2.0 * interval;
            if now < query.due && !clock_stepped_back {
                continue;
            }
            // Envoy answers every call within its time-out, which is within the interval; one that is still
            // pending after a whole further interval was lost with the clock.
            query.due = now.after_secs(interval * (1.0 + JITTER * (2.0 * rng.unit() - 1.0)));
            query.pending = host.call(&Call {
                cluster: terms.cluster,
                authority: terms.authority,
                path: &query.path,
                headers: terms.headers,
                // Before the next is asked, however short the interval comes out.
                timeout: terms.timeout.min(terms.interval.mul_f64(1.0 - JITTER)),
            });
            let sent = query.pending.is_some();
            snapshot.stats.polls += 1;
            if !sent {
                let error = format!("cluster {:?} is unknown to Envoy", terms.cluster);
                self.failed(host, config, (snapshot, discovery), at, &error);
            }
        }
    }

    /// An answer came; the upstream whose endpoints it changes, if it is one of these queries and does.
    pub fn answered(
        &mut self,
        host: &dyn Host,
        engine: &Engine,
        config: &Config,
        (snapshot, discovery): (&mut Snapshot, &mut Discovery),
        token: u32,
        (status, body): (Option<u32>, &dyn Body),
    ) -> Option<usize> {
        let at = self.queries.iter().position(|q| q.pending == Some(token))?;
        let query = self.queries.get_mut(at)?;
        query.pending = None;
        let (index, question, identity) = (query.upstream, query.question, query.identity);
        let upstream = engine.upstream(index)?;
        let now = host.now();
        let body = body.part(0, LARGEST_ANSWER);
        let answer = (status, body.as_slice());
        let read = match question {
            Question::Signal(at) => {
                let signal = upstream.config().signals.get(at)?;
                samples(signal, upstream, answer, now).map(|samples| {
                    snapshot.put(upstream.cluster(), &signal.name, samples);
                    false
                })
            }
            Question::Endpoints => endpoints(upstream.config(), answer)
                .map(|finding| discovery.answered(index, (Origin::Prometheus, identity), finding, now)),
        };
        match read {
            Ok(changed) => {
                self.succeeded(host, snapshot, at, now);
                changed.then_some(index)
            }
            Err(error) => {
                self.failed(host, config, (snapshot, discovery), at, &error);
                None
            }
        }
    }

    fn failing(&self, failing: &[u64]) -> bool {
        self.queries.iter().any(|query| failing.contains(&query.identity))
    }

    /// Logs the last of all failures to be over.
    fn succeeded(&mut self, host: &dyn Host, snapshot: &mut Snapshot, at: usize, now: Time) {
        let Some(query) = self.queries.get_mut(at) else { return };
        snapshot.stats.last_success = now;
        self.news = true;
        let Some(logged) = snapshot.stats.failing.iter().position(|failing| *failing == query.identity)
        else {
            return;
        };
        snapshot.stats.failing.swap_remove(logged);
        if !self.failing(&snapshot.stats.failing) {
            host.tell(&Event {
                level: log::Level::Info,
                name: "source_answers",
                message: "Prometheus answers again",
                fields: &[("source", Field::Text("prometheus"))],
            });
        }
    }

    /// Counts a failure, and logs the first of a row.
    fn failed(
        &mut self,
        host: &dyn Host,
        config: &Config,
        (snapshot, discovery): (&mut Snapshot, &mut Discovery),
        at: usize,
        error: &str,
    ) {
        let Some(query) = self.queries.get(at) else { return };
        let (index, question) = (query.upstream, query.question);
        let Some(upstream) = config.upstreams.get(index) else { return };
        let of = match question {
            Question::Signal(at) => {
                format!("signal {:?}", upstream.signals.get(at).map_or("", |signal| &signal.name))
            }
            _ => "endpoints".to_owned(),
        };
        let error: String =
            format!("{of} of {:?}: {error}", upstream.cluster).chars().take(LONGEST_ERROR).collect();
        snapshot.stats.failures += 1;
        snapshot.stats.last_error.clone_from(&error);
        self.news = true;
        if question == Question::Endpoints {
            discovery.failed(index, Origin::Prometheus, &error);
        }
        let before = self.failing(&snapshot.stats.failing);
        if !snapshot.stats.failing.contains(&query.identity) {
            snapshot.stats.failing.push(query.identity);
        }
        if !before {
            host.tell(&Event {
                level: log::Level::Warn,
                name: "source_fails",
                message: &format!("Prometheus does not help: {error}"),
                fields: &[
                    ("source", Field::Text("prometheus")),
                    ("upstream", Field::Text(&upstream.cluster)),
                    ("error", Field::Text(&error)),
                ],
            });
        }
    }
}

/// The samples in an answer, one an endpoint.
fn samples(
    signal: &crate::config::Signal,
    upstream: &crate::engine::Upstream,
    (status, body): (Option<u32>, &[u8]),
    now: Time,
) -> Result<Samples, String> {
    let Some(status) = status else { return Err("no answer in time".into()) };
    let answer = prometheus::parse(status, body, &signal.address_label).map_err(|error| error.to_string())?;
    let fleet = upstream.fleet();
    let index = EndpointIndex::new(fleet.iter().map(|(_, endpoint)| endpoint.address()));
    let assigned = index.assign(&answer.samples, signal.port);
    let values = fleet
        .iter()
        .zip(assigned.values)
        .filter_map(|((_, endpoint), value)| Some((endpoint.hash, value?)))
        .collect();
    Ok(Samples { at: now, values })
}

/// The endpoints in an answer.
fn endpoints(
    upstream: &crate::config::Upstream,
    (status, body): (Option<u32>, &[u8]),
) -> Result<Finding, String> {
    let Some(status) = status else { return Err("no answer in time".into()) };
    let Some(query) = &upstream.endpoints.prometheus else { return Ok(Finding::default()) };
    let finding = prometheus::endpoints(status, body, query).map_err(|error| error.to_string())?;
    if finding.found.is_empty() && finding.skipped > 0 {
        return Err(format!(
            "none of {} series has an address in the label: {}",
            finding.skipped,
            finding.examples.join(", ")
        ));
    }
    Ok(finding)
}
