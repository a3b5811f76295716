//! What the lease holder has read from Prometheus, for every worker.

use super::codec::{Reader, Writer};
use crate::engine::Engine;
use crate::random;
use crate::time::Time;

/// The samples of one signal of one upstream, as one poll brought them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// When they were read.
    pub at: Time,
    /// Endpoint identities with their values.
    pub values: Vec<(u64, f64)>,
}

/// How the polls go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PollStats {
    /// Polls sent.
    pub polls: u64,
    /// Polls without a usable answer.
    pub failures: u64,
    /// When the last usable answer came.
    pub last_success: Time,
    /// What the last failure was, printable; empty if there was none.
    pub last_error: String,
    /// Which questions have not been answered of late: whoever takes over the asking knows what has been logged.
    pub failing: Vec<u64>,
}

/// Everything read, by (cluster, signal) identity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// How the polls go.
    pub stats: PollStats,
    /// The latest samples.
    pub signals: Vec<((u64, u64), Samples)>,
}

impl Snapshot {
    /// Replaces the samples of one signal.
    pub fn put(&mut self, cluster: &str, signal: &str, samples: Samples) {
        let key = (random::hash(cluster.as_bytes()), random::hash(signal.as_bytes()));
        match self.signals.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = samples,
            None => self.signals.push((key, samples)),
        }
    }

    /// Takes what was read after `now`, before the clock stepped back, for read now.
    pub fn not_after(&mut self, now: Time) {
        self.stats.last_success = self.stats.last_success.min(now);
        self.signals.iter_mut().for_each(|(_, samples)| samples.at = samples.at.min(now));
    }

    /// As bytes for shared data.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::versioned();
        w.u64(self.stats.polls);
        w.u64(self.stats.failures);
        w.time(self.stats.last_success);
        w.text(&self.stats.last_error);
        w.u32(self.stats.failing.len() as u32);
        self.stats.failing.iter().for_each(|question| w.u64(*question));
        w.u32(self.signals.len() as u32);
        for ((cluster, signal), samples) in &self.signals {
            w.u64(*cluster);
            w.u64(*signal);
            w.time(samples.at);
            w.u32(samples.values.len() as u32);
            for (hash, value) in &samples.values {
                w.u64(*hash);
                w.f64(*value);
            }
        }
        w.0
    }

    /// From bytes of shared data; `None` if they are malformed.
    pub fn decode(bytes: &[u8]) -> Option<Snapshot> {
        let mut r = Reader::versioned(bytes)?;
        let mut stats = PollStats {
            polls: r.u64()?,
            failures: r.u64()?,
            last_success: r.time()?,
            last_error: r.text()?.into(),
            failing: Vec::new(),
        };
        for _ in 0..r.u32()? {
            stats.failing.push(r.u64()?);
        }
        let mut signals = Vec::new();
        for _ in 0..r.u32()? {
            let key = (r.u64()?, r.u64()?);
            let mut samples = Samples { at: r.time()?, values: Vec::new() };
            for _ in 0..r.u32()? {
                samples.values.push((r.u64()?, r.f64()?));
            }
            signals.push((key, samples));
        }
        Some(Snapshot { stats, signals })
    }

    /// Drops what `engine` has not asked for: signals of configurations that are gone.
    pub fn retain(&mut self, engine: &Engine) {
        self.signals.retain(|((cluster, signal), _)| {
            let upstream = engine.index_of_hash(*cluster).and_then(|u| engine.upstream(u));
            upstream.is_some_and(|u| u.config().signals.iter().any(|s| identity(s) == *signal))
        });
    }

    /// Tells the engine every sample.
    pub fn apply(&self, engine: &mut Engine) {
        for ((cluster, signal), samples) in &self.signals {
            let Some(upstream) = engine.index_of_hash(*cluster).and_then(|u| engine.upstream_mut(u)) else {
                continue;
            };
            let signals = &upstream.config().signals;
            let Some(signal) = signals.iter().position(|s| identity(s) == *signal) else { continue };
            for (hash, value) in &samples.values {
                upstream.set_signal(signal, *hash, *value, samples.at);
            }
            upstream.signal_answered(signal, samples.values.len(), samples.at);
        }
    }
}

fn identity(signal: &crate::config::Signal) -> u64 {
    random::hash(signal.name.as_bytes())
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn survives_the_journey_and_refuses_every_cut() {
        let stats = PollStats {
            polls: 3,
            failures: 1,
            last_success: Time(5),
            last_error: "no".into(),
            failing: vec![7],
        };
        let mut snapshot = Snapshot { stats, signals: Vec::new() };
        snapshot.put("web", "queue", Samples { at: Time(1), values: vec![(1, 0.5)] });
        snapshot.put("web", "queue", Samples { at: Time(4), values: vec![(1, 1.5), (2, 2.5)] });
        let bytes = snapshot.encode();
        assert_eq!(Snapshot::decode(&bytes), Some(snapshot.clone()));
        assert_eq!(snapshot.signals.len(), 1);
        (0..bytes.len()).for_each(|cut| assert_eq!(Snapshot::decode(&bytes[..cut]), None, "{cut}"));
    }
}
