//! Metrics: values per process, ids per VM.

use crate::abi::Status;
use std::collections::BTreeMap;

/// Kinds by their ABI number, which Envoy keeps in the two low bits of a metric's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Counter = 0,
    Gauge = 1,
    Histogram = 2,
}

type Key = (Kind, String);

/// The values; a histogram keeps all of its samples.
#[derive(Debug, Default)]
pub(crate) struct Metrics(BTreeMap<Key, Vec<u64>>);

/// The metrics that one VM has defined; the id is derived from the index.
#[derive(Debug, Default)]
pub(crate) struct Definitions(Vec<Key>);

impl Definitions {
    pub(crate) fn define(&mut self, kind: u32, name: String) -> Option<u32> {
        let kind = *[Kind::Counter, Kind::Gauge, Kind::Histogram].get(kind as usize)?;
        self.0.push((kind, name));
        Some((self.0.len() as u32) * 4 + kind as u32)
    }

    pub(crate) fn find(&self, id: u32) -> Option<&Key> {
        self.0.get((id / 4).checked_sub(1)? as usize).filter(|(kind, _)| *kind as u32 == id % 4)
    }
}

impl Metrics {
    pub(crate) fn define(&mut self, key: &Key) {
        let start = if key.0 == Kind::Histogram { vec![] } else { vec![0] };
        self.0.entry(key.clone()).or_insert(start);
    }

    pub(crate) fn increment(&mut self, key: &Key, offset: i64) -> Status {
        match (key.0, self.0.get_mut(key).and_then(|values| values.first_mut())) {
            (Kind::Counter, Some(value)) if offset > 0 => *value = value.wrapping_add_signed(offset),
            (Kind::Gauge, Some(value)) => *value = value.wrapping_add_signed(offset),
            _ => return Status::BadArgument,
        }
        Status::Ok
    }

    /// Records a value: sets a gauge, adds to a counter, samples a histogram.
    pub(crate) fn record(&mut self, key: &Key, value: u64) {
        let values = self.0.entry(key.clone()).or_default();
        match (key.0, values.first_mut()) {
            (Kind::Counter, Some(counter)) => *counter = counter.wrapping_add(value),
            (Kind::Gauge, Some(gauge)) => *gauge = value,
            _ => values.push(value),
        }
    }

    pub(crate) fn value(&self, key: &Key) -> Option<u64> {
        (key.0 != Kind::Histogram).then(|| self.0.get(key)?.first().copied())?
    }

    pub(crate) fn samples(&self, name: &str) -> Vec<u64> {
        self.0.get(&(Kind::Histogram, name.to_owned())).cloned().unwrap_or_default()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.0.keys().map(|(_, name)| name.clone()).collect()
    }
}
