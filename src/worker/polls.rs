//! Asking: Prometheus for signals and endpoints, Envoy's admin interface for the members of its clusters; each on
//! time, one poll in flight at a time each.

use core::time::Duration;

use super::discovery::Discovery;
use crate::admin;
use crate::config::Config;
use crate::engine::Engine;
use crate::event::{Event, Field};
use crate::exchange::snapshot::{Samples, Snapshot};
use crate::fleet::{Finding, Origin};
use crate::host::{Call, Host};
use crate::prometheus::{self, EndpointIndex};
use crate::random::{self, Rng};
use crate::time::Time;

/// The interval is varied by this share either way, so that several proxies do not ask in step.
const JITTER: f64 = 0.1;
/// Errors are kept up to this length, in characters.
const LONGEST_ERROR: usize = 200;
/// The admin interface answers from Envoy's own memory: it takes this long only if Envoy is in trouble.
const LONGEST_ADMIN_WAIT: Duration = Duration::from_secs(2);

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
    /// The members of Envoy's cluster.
    Members,
}

impl Question {
    /// Who is asked.
    fn of(self) -> Origin {
        match self {
            Question::Signal(_) | Question::Endpoints => Origin::Prometheus,
            Question::Members => Origin::Envoy,
        }
    }
}

/// How a question is put.
struct Terms<'c> {
    cluster: &'c str,
    authority: &'c str,
    headers: &'c [(String, String)],
    interval: Duration,
    timeout: Duration,
}

impl Query {
    fn terms<'c>(&self, config: &'c Config) -> Option<Terms<'c>> {
        match self.question.of() {
            Origin::Prometheus => config.prometheus.as_ref().map(|of| Terms {
                cluster: &of.cluster,
                authority: &of.authority,
                headers: &of.headers,
                interval: of.interval,
                timeout: of.timeout,
            }),
            Origin::Envoy => {
                let of = config.upstreams.get(self.upstream)?.endpoints.envoy_admin.as_ref()?;
                Some(Terms {
                    cluster: &of.cluster,
                    authority: &of.cluster,
                    headers: &[],
                    interval: of.interval,
                    timeout: LONGEST_ADMIN_WAIT.min(of.interval / 2),
                })
            }
        }
    }
}

impl Polls {
    /// Every question of the configuration, its path prepared, the first due at once.
    pub fn new(config: &Config, now: Time) -> Polls {
        let mut queries = Vec::new();
        for (upstream, balanced) in config.upstreams.iter().enumerate() {
            let mut ask = |question, path: String| {
                let identity = random::hash(balanced.cluster.as_bytes()) ^ random::hash(path.as_bytes());
                queries.push(Query { upstream, question, path, due: now, pending: None, identity });
            };
            // Who the endpoints are comes first: answers about them are of use only then.
            if balanced.endpoints.envoy_admin.is_some() {
                ask(Question::Members, admin::request_path(&balanced.cluster));
            }
            let Some(of) = &config.prometheus else { continue };
            let path = |query: &str| prometheus::request_path(&of.path_prefix, query, of.timeout);
            if let Some(endpoints) = &balanced.endpoints.prometheus {
                ask(Question::Endpoints, path(&endpoints.query));
            }
            for (at, signal) in balanced.signals.iter().enumerate() {
                ask(Question::Signal(at), path(&signal.query));
            }
        }
        Polls { queries, news: false }
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
            let Some(terms) = query.terms(config) else { continue };
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
            if query.question.of() == Origin::Prometheus {
                snapshot.stats.polls += 1;
            }
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
        answer: (Option<u32>, &[u8]),
    ) -> Option<usize> {
        let at = self.queries.iter().position(|q| q.pending == Some(token))?;
        let query = self.queries.get_mut(at)?;
        query.pending = None;
        let (index, question) = (query.upstream, query.question);
        let upstream = engine.upstream(index)?;
        let now = host.now();
        let read = match question {
            Question::Signal(at) => {
                let signal = upstream.config().signals.get(at)?;
                samples(signal, upstream, answer, now).map(|samples| {
                    snapshot.put(upstream.cluster(), &signal.name, samples);
                    false
                })
            }
            _ => endpoints(upstream.config(), question, answer)
                .map(|finding| discovery.answered(index, question.of(), finding, now)),
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

    fn failing(&self, failing: &[u64], origin: Origin) -> bool {
        self.queries.iter().any(|query| query.question.of() == origin && failing.contains(&query.identity))
    }

    /// Logs the last of all failures to be over.
    fn succeeded(&mut self, host: &dyn Host, snapshot: &mut Snapshot, at: usize, now: Time) {
        let Some(query) = self.queries.get_mut(at) else { return };
        let origin = query.question.of();
        if origin == Origin::Prometheus {
            snapshot.stats.last_success = now;
            self.news = true;
        }
        let Some(logged) = snapshot.stats.failing.iter().position(|failing| *failing == query.identity)
        else {
            return;
        };
        snapshot.stats.failing.swap_remove(logged);
        self.news = true;
        if !self.failing(&snapshot.stats.failing, origin) {
            host.tell(&Event {
                level: log::Level::Info,
                name: "source_answers",
                message: &format!("{} answers again", name(origin)),
                fields: &[("source", Field::Text(word(origin)))],
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
        let origin = question.of();
        let Some(upstream) = config.upstreams.get(index) else { return };
        let of = match question {
            Question::Signal(at) => {
                format!("signal {:?}", upstream.signals.get(at).map_or("", |signal| &signal.name))
            }
            _ => "endpoints".to_owned(),
        };
        let error: String =
            format!("{of} of {:?}: {error}", upstream.cluster).chars().take(LONGEST_ERROR).collect();
        if question != Question::Members {
            snapshot.stats.failures += 1;
            snapshot.stats.last_error.clone_from(&error);
            self.news = true;
        }
        if !matches!(question, Question::Signal(_)) {
            discovery.failed(index, origin, &error);
        }
        let before = self.failing(&snapshot.stats.failing, origin);
        if !snapshot.stats.failing.contains(&query.identity) {
            snapshot.stats.failing.push(query.identity);
            self.news = true;
        }
        if !before {
            host.tell(&Event {
                level: log::Level::Warn,
                name: "source_fails",
                message: &format!("{} does not help: {error}", name(origin)),
                fields: &[
                    ("source", Field::Text(word(origin))),
                    ("upstream", Field::Text(&upstream.cluster)),
                    ("error", Field::Text(&error)),
                ],
            });
        }
    }
}

fn name(origin: Origin) -> &'static str {
    match origin {
        Origin::Prometheus => "Prometheus",
        Origin::Envoy => "Envoy's admin interface",
    }
}

fn word(origin: Origin) -> &'static str {
    match origin {
        Origin::Prometheus => "prometheus",
        Origin::Envoy => "envoy_admin",
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
    question: Question,
    (status, body): (Option<u32>, &[u8]),
) -> Result<Finding, String> {
    let Some(status) = status else { return Err("no answer in time".into()) };
    let finding = match (&upstream.endpoints.prometheus, question) {
        (Some(query), Question::Endpoints) => {
            prometheus::endpoints(status, body, query).map_err(|error| error.to_string())?
        }
        _ => admin::parse(status, body, &upstream.cluster).map_err(|error| error.to_string())?,
    };
    if finding.found.is_empty() && finding.skipped > 0 {
        return Err(format!("none of {} series has an address in the label", finding.skipped));
    }
    Ok(finding)
}
