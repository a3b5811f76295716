//! Asking Prometheus: one query a signal, on time, one poll in flight at a time each.

use crate::config::Config;
use crate::engine::Engine;
use crate::exchange::snapshot::{Samples, Snapshot};
use crate::host::{Call, Host};
use crate::prometheus::{self, EndpointIndex};
use crate::random::Rng;
use crate::time::Time;

/// The interval is varied by this share either way, so that several proxies do not ask in step.
const JITTER: f64 = 0.1;
/// Errors are kept up to this length, in characters.
const LONGEST_ERROR: usize = 200;

/// The queries of one worker; only the lease holder sends them.
pub struct Polls {
    queries: Vec<Query>,
    news: bool,
    failing: bool,
}

struct Query {
    upstream: usize,
    signal: usize,
    path: String,
    due: Time,
    pending: Option<u32>,
}

impl Polls {
    /// One query for each signal, its path prepared, the first due at once.
    pub fn new(config: &Config, now: Time, _rng: &mut Rng) -> Polls {
        let mut queries = Vec::new();
        if let Some(of) = &config.prometheus {
            for (upstream, balanced) in config.upstreams.iter().enumerate() {
                queries.extend(balanced.signals.iter().enumerate().map(|(signal, s)| Query {
                    upstream,
                    signal,
                    path: prometheus::request_path(&of.path_prefix, &s.query, of.timeout),
                    due: now,
                    pending: None,
                }));
            }
        }
        Polls { queries, news: false, failing: false }
    }

    /// Whether there is anything to ask.
    pub fn any(&self) -> bool {
        !self.queries.is_empty()
    }

    /// Whether something has changed since the last call.
    pub fn take_news(&mut self) -> bool {
        core::mem::take(&mut self.news)
    }

    /// Sends what is due.
    pub fn tick(
        &mut self,
        host: &dyn Host,
        config: &Config,
        snapshot: &mut Snapshot,
        rng: &mut Rng,
        now: Time,
    ) {
        let Some(prometheus) = &config.prometheus else { return };
        let interval = prometheus.interval.as_secs_f64();
        for at in 0..self.queries.len() {
            let Some(query) = self.queries.get_mut(at) else { return };
            let clock_stepped_back = query.due.seconds_since(now) > 2.0 * interval;
            if now < query.due && !clock_stepped_back {
                continue;
            }
            // Envoy answers every call within its time-out, which is within the interval; one that is still
            // pending after a whole further interval was lost with the clock.
            query.due = now.after_secs(interval * (1.0 + JITTER * (2.0 * rng.unit() - 1.0)));
            query.pending = host.call(&Call {
                cluster: &prometheus.cluster,
                authority: &prometheus.authority,
                path: &query.path,
                headers: &prometheus.headers,
                timeout: prometheus.timeout,
            });
            snapshot.stats.polls += 1;
            if query.pending.is_none() {
                let error = format!("cluster {:?} is unknown to Envoy", prometheus.cluster);
                self.failed(host, snapshot, &error);
            }
        }
    }

    /// An answer came; whether it was to one of these queries.
    pub fn answered(
        &mut self,
        host: &dyn Host,
        engine: &Engine,
        snapshot: &mut Snapshot,
        token: u32,
        answer: (Option<u32>, &[u8]),
    ) -> bool {
        let Some(query) = self.queries.iter_mut().find(|q| q.pending == Some(token)) else { return false };
        query.pending = None;
        let Some(upstream) = engine.upstream(query.upstream) else { return true };
        let Some(signal) = upstream.config().signals.get(query.signal) else { return true };
        let now = host.now();
        match read(signal, upstream, answer, now) {
            Ok(samples) => {
                snapshot.put(upstream.cluster(), &signal.name, samples);
                snapshot.stats.last_success = now;
                self.news = true;
                if core::mem::take(&mut self.failing) {
                    host.log(log::Level::Info, "Prometheus answers again");
                }
            }
            Err(error) => {
                let error = format!("signal {:?} of {:?}: {error}", signal.name, upstream.cluster());
                self.failed(host, snapshot, &error);
            }
        }
        true
    }

    /// Counts a failure, and logs the first of a row.
    fn failed(&mut self, host: &dyn Host, snapshot: &mut Snapshot, error: &str) {
        snapshot.stats.failures += 1;
        snapshot.stats.last_error = error.chars().take(LONGEST_ERROR).collect();
        self.news = true;
        if !core::mem::replace(&mut self.failing, true) {
            host.log(log::Level::Warn, &format!("Prometheus does not help: {}", snapshot.stats.last_error));
        }
    }
}

/// The samples in an answer, one an endpoint.
fn read(
    signal: &crate::config::Signal,
    upstream: &crate::engine::Upstream,
    (status, body): (Option<u32>, &[u8]),
    now: Time,
) -> Result<Samples, String> {
    let Some(status) = status else { return Err("no answer in time".into()) };
    let answer = prometheus::parse(status, body, &signal.address_label).map_err(|error| error.to_string())?;
    let fleet = upstream.fleet();
    let index = EndpointIndex::new(fleet.iter().map(|(_, endpoint)| endpoint.spec.address));
    let assigned = index.assign(&answer.samples, signal.port);
    let values = fleet
        .iter()
        .zip(assigned.values)
        .filter_map(|((_, endpoint), value)| Some((endpoint.hash, value?)))
        .collect();
    Ok(Samples { at: now, values })
}
