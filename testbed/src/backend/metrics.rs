//! The metrics that users' services export, with the same names.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{Counts, lock};

/// The content type of the text that `prometheus_client` writes.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The default buckets of Prometheus' clients.
const BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: u16,
}

#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    in_flight: Gauge,
    queue_depth: Gauge,
    durations: Histogram,
    answers: Family<Status, Counter>,
    busy_seconds: Counter<f64, AtomicU64>,
    tasks: Counter,
    task_durations: Histogram,
    unfinished: Gauge,
    counts: Mutex<(u64, BTreeMap<u16, u64>)>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let metrics = Self {
            registry: Registry::default(),
            in_flight: Gauge::default(),
            queue_depth: Gauge::default(),
            durations: Histogram::new(BUCKETS),
            answers: Family::default(),
            busy_seconds: Counter::default(),
            tasks: Counter::default(),
            task_durations: Histogram::new(BUCKETS),
            unfinished: Gauge::default(),
            counts: Mutex::default(),
        };
        let mut registry = Registry::default();
        registry.register("http_inflight_requests", "Requests being handled", metrics.in_flight.clone());
        registry.register("task_queue_depth", "Requests or tasks that wait", metrics.queue_depth.clone());
        registry.register(
            "http_request_duration_seconds",
            "Time from a request to its answer",
            metrics.durations.clone(),
        );
        // The encoder adds `_total` to counters.
        registry.register("http_requests", "Answers by status", metrics.answers.clone());
        registry.register(
            "process_cpu_seconds",
            "Seconds of work done: each slot stands for a core",
            metrics.busy_seconds.clone(),
        );
        registry.register("tasks_processed", "Tasks done", metrics.tasks.clone());
        registry.register(
            "task_processing_duration_seconds",
            "Time from a task's acceptance to its end",
            metrics.task_durations.clone(),
        );
        Self { registry, ..metrics }
    }

    /// The text for scrapes.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    pub(super) fn counts(&self) -> Counts {
        let counts = lock(&self.counts);
        Counts {
            received: counts.0,
            answered: counts.1.clone(),
            in_flight: u64::try_from(self.in_flight.get()).unwrap_or(0),
            queued: u64::try_from(self.queue_depth.get()).unwrap_or(0),
            unfinished: u64::try_from(self.unfinished.get()).unwrap_or(0),
        }
    }

    /// An ORCA load report with the length of the queue.
    pub(super) fn load_report(&self) -> String {
        format!("TEXT named_metrics.queue={}", self.queue_depth.get())
    }

    /// Counts a request, which is in flight until the guard is dropped.
    pub(super) fn arrived(&self) -> Held {
        lock(&self.counts).0 += 1;
        Held::new(&self.in_flight)
    }

    /// Counts something that waits until the guard is dropped.
    pub(super) fn waits(&self) -> Held {
        Held::new(&self.queue_depth)
    }

    /// Counts an accepted task, which is unfinished until the guard is dropped.
    pub(super) fn accepted(&self) -> Held {
        Held::new(&self.unfinished)
    }

    pub(super) fn answered(&self, status: u16, after: Duration) {
        self.answers.get_or_create(&Status { status }).inc();
        self.durations.observe(after.as_secs_f64());
        *lock(&self.counts).1.entry(status).or_default() += 1;
    }

    pub(super) fn worked(&self, work: Duration) {
        self.busy_seconds.inc_by(work.as_secs_f64());
    }

    pub(super) fn task_done(&self, sojourn: Duration) {
        self.tasks.inc();
        self.task_durations.observe(sojourn.as_secs_f64());
    }
}

/// One unit of a gauge, returned on drop: also when the client cancels and the handler is dropped.
#[derive(Debug)]
pub(super) struct Held(Gauge);

impl Held {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}
