//! An open-loop load generator.
//!
//! Requests are sent at their intended times whatever happened to earlier ones, and latency counts from the intended
//! time, so a stall is not hidden (no coordinated omission).

mod cli;
mod connections;
mod report;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Method};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;

pub use cli::run as run_from_command_line;
pub use report::{Outcome, Record, Report, Summary};

use crate::clock;
use connections::{Call, Connections};

/// The load to generate.
#[derive(Clone, Debug)]
pub struct Load {
    /// The address to send requests to.
    pub target: SocketAddr,
    /// The path with its query.
    pub path: String,
    /// Paths that the requests have in turn instead, if there are any.
    pub paths: Vec<String>,
    /// The method.
    pub method: Method,
    /// Further request headers.
    pub headers: Vec<(String, String)>,
    /// Requests per second.
    pub rate: f64,
    /// Time during which requests are started.
    pub duration: Duration,
    /// Changes of the rate, in order: from this time on it is `rate` times this factor; before the first, `rate`.
    pub steps: Vec<(Duration, f64)>,
    /// The spacing of requests.
    pub arrivals: Arrivals,
    /// Seed of the arrivals.
    pub seed: u64,
    /// The timeout of a request, from its sending.
    pub timeout: Duration,
    /// Connections that are opened in advance and used in turn, so that all of Envoy's workers get requests; more are
    /// opened when all are busy.
    pub connections: usize,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            target: (crate::ports::LOOPBACK, 0).into(),
            path: "/".to_owned(),
            paths: Vec::new(),
            method: Method::GET,
            headers: Vec::new(),
            rate: 100.0,
            duration: Duration::from_secs(10),
            steps: Vec::new(),
            arrivals: Arrivals::Poisson,
            seed: 1,
            timeout: Duration::from_secs(5),
            connections: 64,
        }
    }
}

/// The spacing of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// Independent of each other, like those of many users.
    Poisson,
    /// Evenly spaced.
    Even,
}

/// A running load. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    sender: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    results: Mutex<Report>,
    connections: Connections,
    call: Call,
}

impl Load {
    /// Starts the load on the current runtime.
    pub async fn start(self) -> Result<Running> {
        ensure!(self.rate > 0.0 && self.rate.is_finite(), "the rate must be positive");
        let paths = if self.paths.is_empty() { std::slice::from_ref(&self.path) } else { &self.paths };
        let paths = paths.iter().map(|path| PathAndQuery::try_from(path.as_str()));
        let call = Call {
            method: self.method.clone(),
            paths: paths.collect::<Result<_, _>>()?,
            headers: header_map(&self.headers, self.target)?,
            timeout: self.timeout,
        };
        let connections = Connections::open(self.target, self.connections).await;
        let shared = Arc::new(Shared { start: clock::now(), results: Mutex::default(), connections, call });
        let sender = tokio::spawn(send_all(self, shared.clone()));
        Ok(Running { shared, sender })
    }

    /// Starts the load and waits for its end.
    pub async fn run(self) -> Result<Report> {
        Ok(self.start().await?.finish().await)
    }

    /// The intended times, from the start.
    fn schedule(&self) -> impl Iterator<Item = Duration> + use<> {
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut chance = StdRng::seed_from_u64(!self.seed);
        let (arrivals, duration, steps) = (self.arrivals, self.duration, self.steps.clone());
        // Requests are drawn for the highest rate; at lower rates a part of them is kept.
        let most = steps.iter().map(|step| step.1).fold(1.0, f64::max);
        let rate = self.rate * most;
        let mut kept = move |at: &Duration| {
            let multiple = steps.iter().rev().find(|step| step.0 <= *at).map_or(1.0, |step| step.1);
            multiple >= most || chance.random::<f64>() * most < multiple
        };
        let mut at = 0.0;
        (1_u32..)
            .map(move |count| match arrivals {
                Arrivals::Even => f64::from(count) / rate,
                // The inverse of the exponential distribution; 1 - u is never 0.
                Arrivals::Poisson => {
                    at -= (1.0 - random.random::<f64>()).ln() / rate;
                    at
                }
            })
            .map(Duration::from_secs_f64)
            .take_while(move |at| *at <= duration)
            .filter(move |at| kept(at))
    }
}

impl Running {
    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        clock::now() - self.shared.start
    }

    /// The time of the start, from which offsets in the report count.
    pub fn started(&self) -> Instant {
        self.shared.start
    }

    /// The measurements so far.
    pub fn report(&self) -> Report {
        self.shared.results().clone()
    }

    /// A summary of the requests that ended within the last `time`, for live tables.
    pub fn recent(&self, time: Duration) -> Summary {
        let since = self.elapsed().saturating_sub(time);
        self.shared.results().summarise(|record| record.end() >= since)
    }

    /// Waits for the last response or timeout.
    pub async fn finish(mut self) -> Report {
        // Fails only if sending panicked; the measurements are valid all the same.
        let _ = (&mut self.sender).await;
        let mut report = std::mem::take(&mut *self.shared.results());
        report.records.sort_by_key(|record| record.at_us);
        report
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.sender.abort();
    }
}

impl Shared {
    fn results(&self) -> MutexGuard<'_, Report> {
        self.results.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

async fn send_all(load: Load, shared: Arc<Shared>) {
    let mut calls = tokio::task::JoinSet::new();
    for (number, at) in load.schedule().enumerate() {
        clock::sleep_until(shared.start + at).await;
        let shared = shared.clone();
        calls.spawn(async move {
            let (outcome, backend) = shared.connections.call(&shared.call, number).await;
            let latency = clock::now() - (shared.start + at);
            let mut results = shared.results();
            let backend = results.index_of(backend);
            results.records.push(Record {
                at_us: u32::try_from(at.as_micros()).unwrap_or(u32::MAX),
                latency_us: u32::try_from(latency.as_micros()).unwrap_or(u32::MAX),
                outcome,
                backend,
            });
        });
        while calls.try_join_next().is_some() {}
    }
    while calls.join_next().await.is_some() {}
}

fn header_map(headers: &[(String, String)], target: SocketAddr) -> Result<HeaderMap> {
    let mut map = HeaderMap::new();
    map.insert("host", target.to_string().parse()?);
    for (name, value) in headers {
        map.insert(hyper::header::HeaderName::try_from(name.as_str())?, value.parse()?);
    }
    Ok(map)
}

#[cfg(test)]
mod tests;
