//! evenkeel's metrics as Envoy stats. Envoy defines a metric only while a configuration is being created, with labels
//! that are filled in later; the filter asks for a series by a name that includes its labels. This file maps one to the
//! other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use evenkeel::host::MetricKind;
use evenkeel::telemetry::{Template, parts_of, templates};

use crate::abi::{ConfigHandle, StreamHandle};

/// Maximum number of series; Envoy keeps each for the life of the process.
const MAX_SERIES: usize = 4096;
/// Counter of panics in this module.
const PANICS: Template = Template { kind: MetricKind::Counter, name: "panics_total", labels: &[] };

fn all() -> &'static [Template] {
    static ALL: OnceLock<Vec<Template>> = OnceLock::new();
    ALL.get_or_init(|| templates().into_iter().chain([PANICS]).collect())
}

/// A configuration's metrics by Envoy's ids, in the order of the templates.
pub struct Defined {
    config: ConfigHandle,
    ids: Vec<Option<usize>>,
    /// Values that wait for a stream: Envoy 1.38 records nothing without one.
    waiting: Mutex<Vec<Waiting>>,
    any_waits: AtomicBool,
}

struct Waiting {
    kind: MetricKind,
    id: usize,
    labels: Vec<String>,
    value: u64,
}

impl Defined {
    /// Defines all metrics; to be called while the configuration is being created.
    pub fn by(config: ConfigHandle) -> Defined {
        let define = |t: &Template| config.define(t.kind, &format!("evenkeel.fleet_{}", t.name), t.labels);
        let ids = all().iter().map(define).collect();
        Defined { config, ids, waiting: Mutex::default(), any_waits: AtomicBool::new(false) }
    }

    /// The configuration that the metrics belong to.
    pub fn config(&self) -> ConfigHandle {
        self.config
    }

    fn record(&self, template: usize, labels: &[String], value: u64) {
        if let (Some(Some(id)), Some(of)) = (self.ids.get(template), all().get(template))
            && !self.config.record(of.kind, *id, labels, value)
        {
            self.wait(Waiting { kind: of.kind, id: *id, labels: labels.to_vec(), value });
        }
    }

    fn wait(&self, new: Waiting) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |old: &&mut Waiting| (old.kind, old.id) == (new.kind, new.id) && old.labels == new.labels;
        let full = waiting.len() >= MAX_SERIES;
        match (new.kind, waiting.iter_mut().find(same)) {
            (MetricKind::Counter, Some(old)) => old.value = old.value.saturating_add(new.value),
            (MetricKind::Gauge, Some(old)) => old.value = new.value,
            _ if full => {}
            (_, _) => waiting.push(new),
        }
        self.any_waits.store(true, Ordering::Relaxed);
    }

    /// Records all waiting values with this stream.
    pub fn record_with(&self, stream: StreamHandle) {
        if self.any_waits.load(Ordering::Relaxed) && self.any_waits.swap(false, Ordering::Relaxed) {
            let waiting = core::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            waiting.iter().for_each(|w| stream.record(w.kind, w.id, &w.labels, w.value));
        }
    }

    /// Counts a panic.
    pub fn count_panic(&self) {
        self.record(all().len().saturating_sub(1), &[], 1);
    }
}

struct One {
    template: usize,
    labels: Vec<String>,
}

#[derive(Default)]
struct SeriesTable {
    numbers: HashMap<String, u32>,
    list: Vec<One>,
}

/// The series that have been requested so far.
#[derive(Default)]
pub struct Series(Mutex<SeriesTable>);

impl Series {
    fn known(&self) -> MutexGuard<'_, SeriesTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of the series with this name; `None` without a matching template, or if there are too many series.
    pub fn number(&self, kind: MetricKind, name: &str) -> Option<u32> {
        let mut known = self.known();
        if let Some(number) = known.numbers.get(name) {
            return Some(*number);
        }
        let (base, labels) = parts_of(name)?;
        let fits = |t: &Template| {
            t.kind == kind && t.name == base && t.labels.iter().eq(labels.iter().map(|(label, _)| label))
        };
        let template = all().iter().position(fits)?;
        if known.list.len() >= MAX_SERIES {
            return None;
        }
        let number = u32::try_from(known.list.len()).ok()?;
        let labels = labels.into_iter().map(|(_, value)| value.to_owned()).collect();
        known.list.push(One { template, labels });
        known.numbers.insert(name.to_owned(), number);
        Some(number)
    }

    /// Adds to a counter, sets a gauge, or records a histogram value.
    pub fn record(&self, defined: &Defined, number: u32, value: u64) {
        let known = self.known();
        if let Some(one) = usize::try_from(number).ok().and_then(|at| known.list.get(at)) {
            defined.record(one.template, &one.labels, value);
        }
    }
}
