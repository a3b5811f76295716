//! The measurements of a load.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::table;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A complete response with this status.
    Status(u16),
    /// No response in time.
    Timeout,
    /// The connection was refused.
    Refused,
    /// The connection ended before the response was complete.
    Disconnected,
}

impl Outcome {
    /// Whether the status is 500 or more, or there is no response.
    pub fn failed(self) -> bool {
        !matches!(self, Self::Status(status) if status < 500)
    }
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The intended time, microseconds from the start.
    pub at_us: u32,
    /// From the intended time to the end of the response, microseconds.
    pub latency_us: u32,
    /// The outcome.
    pub outcome: Outcome,
    /// Index into [`Report::backends`], or [`Record::NO_BACKEND`].
    pub backend: u16,
}

impl Record {
    /// The index if the response names no backend.
    pub const NO_BACKEND: u16 = u16::MAX;

    /// The end of the request, from the start.
    pub fn end(&self) -> Duration {
        Duration::from_micros(u64::from(self.at_us) + u64::from(self.latency_us))
    }
}

/// All measurements, request by request.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The requests by intended time.
    pub records: Vec<Record>,
    /// The values of the header `x-backend`.
    pub backends: Vec<String>,
}

impl Report {
    /// The index of a backend, which is added if it is new.
    pub(super) fn index_of(&mut self, backend: Option<String>) -> u16 {
        let Some(name) = backend else { return Record::NO_BACKEND };
        let known = self.backends.iter().position(|known| *known == name);
        let index = known.unwrap_or_else(|| {
            self.backends.push(name);
            self.backends.len() - 1
        });
        u16::try_from(index).unwrap_or(Record::NO_BACKEND)
    }

    /// Adds the measurements of another load that began at the same time.
    pub fn merge(&mut self, other: Report) {
        let indices: Vec<u16> = other.backends.into_iter().map(|name| self.index_of(Some(name))).collect();
        let known = |record: Record| {
            let backend = indices.get(usize::from(record.backend)).copied().unwrap_or(Record::NO_BACKEND);
            Record { backend, ..record }
        };
        self.records.extend(other.records.into_iter().map(known));
        self.records.sort_by_key(|record| record.at_us);
    }

    /// The summary of all requests.
    pub fn summary(&self) -> Summary {
        self.summarise(|_| true)
    }

    /// The summary of requests with an intended time from `from` on and before `to`.
    pub fn between(&self, from: Duration, to: Duration) -> Summary {
        let (from, to) = (from.as_micros(), to.as_micros());
        self.summarise(|record| (from..to).contains(&u128::from(record.at_us)))
    }

    /// Summaries of `parts` windows of equal length that cover `duration`.
    pub fn parts(&self, duration: Duration, parts: u32) -> Vec<Summary> {
        let edge = |index| duration * index / parts.max(1);
        (0..parts).map(|index| self.between(edge(index), edge(index + 1))).collect()
    }

    /// The summary of the requests that `wanted` selects.
    pub fn summarise(&self, wanted: impl Fn(&Record) -> bool) -> Summary {
        let mut summary = Summary::default();
        for record in self.records.iter().filter(|record| wanted(record)) {
            summary.add(record, self.backends.get(usize::from(record.backend)));
        }
        summary
    }
}

/// Figures over several requests.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The number of requests.
    pub requests: u64,
    /// Failed requests: status 500 or more, timeouts, connection errors.
    pub failed: u64,
    /// Requests without a response in time.
    pub timeouts: u64,
    /// Responses by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Responses by backend (value of `x-backend`).
    pub by_backend: BTreeMap<String, u64>,
    /// Latencies of all requests, including failed ones, microseconds.
    pub latency_us: Histogram<u64>,
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            requests: 0,
            failed: 0,
            timeouts: 0,
            statuses: BTreeMap::new(),
            by_backend: BTreeMap::new(),
            // Three digits, auto-resizing: 3 is within the 0..=5 that is allowed.
            latency_us: Histogram::new(3).expect("three significant digits are allowed"),
        }
    }
}

impl Summary {
    fn add(&mut self, record: &Record, backend: Option<&String>) {
        self.requests += 1;
        self.failed += u64::from(record.outcome.failed());
        match record.outcome {
            Outcome::Status(status) => *self.statuses.entry(status).or_default() += 1,
            Outcome::Timeout => self.timeouts += 1,
            Outcome::Refused | Outcome::Disconnected => {}
        }
        if let Some(name) = backend {
            *self.by_backend.entry(name.clone()).or_default() += 1;
        }
        // Recording fails only if a histogram must not grow; this one may. `saturating_record` would not let it.
        let _ = self.latency_us.record(u64::from(record.latency_us));
    }

    /// A latency percentile (0..=100) in milliseconds; 0 if there were no requests.
    pub fn percentile_ms(&self, percentile: f64) -> f64 {
        table::percentile_ms(&self.latency_us, percentile)
    }

    /// The fraction of responses from this backend.
    pub fn share(&self, backend: &str) -> f64 {
        let all: u64 = self.by_backend.values().sum();
        let own = self.by_backend.get(backend).copied().unwrap_or(0);
        if all == 0 { 0.0 } else { own as f64 / all as f64 }
    }
}
