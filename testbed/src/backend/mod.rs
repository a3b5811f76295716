//! A backend like those of users: an HTTP/1.1 and h2c server with a few slots, log-normal work, a FIFO queue,
//! Prometheus metrics, and faults that can be switched while it runs.
//!
//! A request takes a slot, works, and is answered with 200; requests beyond the slots queue. An asynchronous worker
//! ([`Kind::Worker`]) answers 202 at once and works later, so only `task_queue_depth` shows its overload. Some paths
//! stream: `/events`, `/chat`, `/bytes/N`; a client that asks for an upgrade has every byte echoed. A path that ends in
//! `/say/BEHAVIOUR` sets the behaviour for that request, `/work/20ms` its work on a backend of normal speed.

mod behaviour;
mod cli;
mod metrics;
mod server;
mod service;
mod streams;
mod tasks;
mod work;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use behaviour::{Behaviour, Step, parse_schedule};
pub use cli::run as run_from_command_line;

use crate::{clock, ports};

/// The settings of a backend.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address to listen on; port 0 takes a free one.
    pub address: SocketAddr,
    /// Synchronous service or asynchronous worker.
    pub kind: Kind,
    /// Requests (or tasks) in progress at the same time.
    pub slots: usize,
    /// Median of the log-normal work.
    pub median: Duration,
    /// Sigma of the log-normal work: 0.46 makes p99 2.9 medians.
    pub sigma: f64,
    /// Factor on all work.
    pub slowness: f64,
    /// The seed of everything random in this backend.
    pub seed: u64,
    /// The behaviour at the start.
    pub behaviour: Behaviour,
    /// Whether the headers of each request are recorded for [`Backend::requests`].
    pub record_requests: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: (ports::LOOPBACK, 0).into(),
            kind: Kind::Service { queue: None },
            slots: 4,
            median: Duration::from_millis(20),
            sigma: 0.46,
            slowness: 1.0,
            seed: 1,
            behaviour: Behaviour::Healthy,
            record_requests: false,
        }
    }
}

/// How requests are accepted and processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answers when the work is done. At most `queue` requests wait for a slot, others get 503.
    Service {
        /// The bound of the queue; `None` is unbounded.
        queue: Option<usize>,
    },
    /// Answers 202 at once and works later; 503 when `queue` tasks wait.
    Worker {
        /// The bound of the queue.
        queue: usize,
    },
}

impl Kind {
    /// A worker like those of users, with a queue of 100.
    pub const WORKER: Self = Self::Worker { queue: 100 };
}

/// A request as a backend saw it.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    /// The path with its query.
    pub path: String,
    /// The headers, names in lower case.
    pub headers: BTreeMap<String, String>,
}

/// A task that a worker has finished.
#[derive(Clone, Copy, Debug)]
pub struct FinishedTask {
    /// When it was accepted.
    pub accepted: Instant,
    /// From acceptance to its end.
    pub sojourn: Duration,
}

/// The counters of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests received, without scrapes.
    pub received: u64,
    /// Responses by status code.
    pub answered: BTreeMap<u16, u64>,
    /// Requests in progress or waiting.
    pub in_flight: u64,
    /// Requests or tasks waiting.
    pub queued: u64,
    /// Tasks that were accepted and are not finished, for a worker.
    pub unfinished: u64,
}

/// A running backend. Dropping it ends it.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
    schedule: Mutex<Option<JoinHandle<()>>>,
}

impl Backend {
    /// Starts a backend on the current runtime.
    pub async fn start(config: Config) -> Result<Self> {
        let listener = match config.address.port() {
            0 => ports::listen().await?,
            _ => TcpListener::bind(config.address)
                .await
                .with_context(|| format!("backend cannot listen on {}", config.address))?,
        };
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(address, &config));
        let mut tasks = vec![tokio::spawn(server::serve(listener, address, shared.clone()))];
        if let Kind::Worker { .. } = config.kind {
            tasks.extend((0..config.slots).map(|_| tokio::spawn(tasks::work_off(shared.clone()))));
        }
        Ok(Self { address, shared, tasks, schedule: Mutex::default() })
    }

    /// Starts `count` backends that differ only in their seed.
    pub async fn start_many(count: usize, config: Config) -> Result<Vec<Self>> {
        let mut all = Vec::with_capacity(count);
        for index in 0..count {
            all.push(Self::start(Config { seed: config.seed + index as u64, ..config.clone() }).await?);
        }
        Ok(all)
    }

    /// The address it listens on, and the value of the response header `x-backend`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Switches the behaviour of requests that arrive from now on.
    pub fn set(&self, behaviour: Behaviour) {
        self.shared.switch(behaviour);
    }

    /// The present behaviour.
    pub fn behaviour(&self) -> Behaviour {
        self.shared.mode.borrow().behaviour
    }

    /// The counters so far.
    pub fn counts(&self) -> Counts {
        self.shared.metrics.counts()
    }

    /// The requests received, if `record_requests` is set.
    pub fn requests(&self) -> Vec<SeenRequest> {
        lock(&self.shared.seen).clone()
    }

    /// The tasks finished, for a worker.
    pub fn finished_tasks(&self) -> Vec<FinishedTask> {
        lock(&self.shared.finished).clone()
    }

    /// The work of each request that was started, without queueing.
    pub fn work(&self) -> Vec<Duration> {
        self.shared.work.drawn()
    }

    /// Follows a schedule from now on, replacing an earlier one.
    pub fn follow(&self, schedule: Vec<Step>) {
        let (start, shared) = (clock::now(), self.shared.clone());
        let follower = tokio::spawn(async move {
            for step in schedule {
                clock::sleep_until(start + step.at).await;
                shared.switch(step.behaviour);
            }
        });
        if let Some(earlier) = lock(&self.schedule).replace(follower) {
            earlier.abort();
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.cut_connections();
        for task in self.tasks.iter().chain(lock(&self.schedule).iter()) {
            task.abort();
        }
    }
}

/// A behaviour and when it began.
#[derive(Clone, Copy, Debug)]
struct Mode {
    behaviour: Behaviour,
    since: Instant,
}

/// State shared by connections, handlers and worker tasks.
#[derive(Debug)]
struct Shared {
    name: String,
    kind: Kind,
    mode: watch::Sender<Mode>,
    /// Incremented to cut every open connection.
    cuts: watch::Sender<u64>,
    slots: tokio::sync::Semaphore,
    queue: tasks::Queue,
    work: work::Work,
    metrics: metrics::Metrics,
    seen: Mutex<Vec<SeenRequest>>,
    record: bool,
    finished: Mutex<Vec<FinishedTask>>,
}

impl Shared {
    fn new(address: SocketAddr, config: &Config) -> Self {
        let bound = match config.kind {
            Kind::Worker { queue } => queue,
            Kind::Service { .. } => 0,
        };
        Self {
            name: address.to_string(),
            kind: config.kind,
            mode: watch::Sender::new(Mode { behaviour: config.behaviour, since: clock::now() }),
            cuts: watch::Sender::new(0),
            slots: tokio::sync::Semaphore::new(config.slots),
            queue: tasks::Queue::new(bound),
            work: work::Work::new(config.median, config.sigma, config.slowness, config.seed),
            metrics: metrics::Metrics::new(),
            seen: Mutex::default(),
            record: config.record_requests,
            finished: Mutex::default(),
        }
    }

    fn mode(&self) -> Mode {
        *self.mode.borrow()
    }

    fn switch(&self, behaviour: Behaviour) {
        self.mode.send_replace(Mode { behaviour, since: clock::now() });
        if let Behaviour::Refuse | Behaviour::Reset = behaviour {
            self.cut_connections();
        }
    }

    fn cut_connections(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests;
