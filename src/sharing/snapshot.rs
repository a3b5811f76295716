//! The latest signals that the lease holder has read from Prometheus, for every worker.

use super::codec::{Reader, Writer};
use engine::time::Time;
use engine::{Balancer, rng};

/// The samples of one signal of one upstream, from one poll.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// When they were read; never (`Time::ZERO`) as long as there were none.
    pub at: Time,
    /// How the series of the response match the endpoints.
    pub fit: Fit,
    /// The values by endpoint.
    pub values: Vec<Value>,
}

/// The value of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Value {
    /// The endpoint's identity.
    pub endpoint: u64,
    /// The value.
    pub value: f64,
    /// Its age when it was read, seconds; never negative.
    pub age_s: f32,
}

/// How the series of a response match the endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fit {
    /// The number of series in the response.
    pub series: u32,
    /// The number of series that belong to an endpoint.
    pub matched: u32,
    /// The mismatch, printable, as the log says it; empty if a series belongs to an endpoint, or while no endpoint is
    /// known.
    pub problem: String,
}

/// The state of the polls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PollStats {
    /// Polls sent.
    pub polls: u64,
    /// Polls without a usable response.
    pub failures: u64,
    /// When the last usable response came.
    pub last_success: Time,
    /// The last error, printable; empty if there was none.
    pub last_error: String,
    /// The present poll interval, seconds: longer than configured while there is no traffic.
    pub pause_s: f32,
    /// The queries that fail at present, so that the next lease holder knows what has been logged.
    pub failing: Vec<u64>,
}

/// All signals, by (cluster, signal) identity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The state of the polls.
    pub stats: PollStats,
    /// The latest samples.
    pub signals: Vec<((u64, u64), Samples)>,
}

impl Snapshot {
    /// Replaces the samples of one signal.
    pub fn put(&mut self, cluster: &str, signal: &str, samples: Samples) {
        let key = (rng::hash(cluster.as_bytes()), rng::hash(signal.as_bytes()));
        match self.signals.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = samples,
            None => self.signals.push((key, samples)),
        }
    }

    /// Something is wrong with one signal; its latest samples, if it ever had any, stay.
    pub fn doubt(&mut self, cluster: &str, signal: &str, problem: String) {
        let key = (rng::hash(cluster.as_bytes()), rng::hash(signal.as_bytes()));
        match self.signals.iter_mut().find(|(k, _)| *k == key) {
            Some((_, samples)) => samples.fit.problem = problem,
            None => {
                let fit = Fit { problem, ..Fit::default() };
                self.signals.push((key, Samples { fit, ..Samples::default() }));
            }
        }
    }

    /// The latest samples of one signal.
    pub fn get(&self, cluster: u64, signal: &str) -> Option<&Samples> {
        let key = (cluster, rng::hash(signal.as_bytes()));
        self.signals.iter().find(|(k, _)| *k == key).map(|(_, samples)| samples)
    }

    /// Treats samples from after `now`, taken before the clock stepped back, as taken now.
    pub fn not_after(&mut self, now: Time) {
        self.stats.last_success = self.stats.last_success.min(now);
        self.signals.iter_mut().for_each(|(_, samples)| samples.at = samples.at.min(now));
    }

    /// Encodes for shared data.
    #[inline(never)]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::versioned();
        w.u64(self.stats.polls);
        w.u64(self.stats.failures);
        w.time(self.stats.last_success);
        w.text(&self.stats.last_error);
        w.f32(self.stats.pause_s);
        w.u32(self.stats.failing.len() as u32);
        self.stats.failing.iter().for_each(|query| w.u64(*query));
        w.u32(self.signals.len() as u32);
        for ((cluster, signal), samples) in &self.signals {
            w.u64(*cluster);
            w.u64(*signal);
            w.time(samples.at);
            w.u32(samples.fit.series);
            w.u32(samples.fit.matched);
            w.text(&samples.fit.problem);
            w.u32(samples.values.len() as u32);
            for Value { endpoint, value, age_s } in &samples.values {
                w.u64(*endpoint);
                w.f64(*value);
                w.f32(*age_s);
            }
        }
        w.0
    }

    /// From bytes of shared data; `None` if they are malformed.
    #[inline(never)]
    pub fn decode(bytes: &[u8]) -> Option<Snapshot> {
        let mut r = Reader::versioned(bytes)?;
        let mut stats = PollStats {
            polls: r.u64()?,
            failures: r.u64()?,
            last_success: r.time()?,
            last_error: r.text()?.into(),
            pause_s: r.f32()?.max(0.0),
            failing: Vec::new(),
        };
        for _ in 0..r.u32()? {
            stats.failing.push(r.u64()?);
        }
        let mut signals = Vec::new();
        for _ in 0..r.u32()? {
            let key = (r.u64()?, r.u64()?);
            let at = r.time()?;
            let fit = Fit { series: r.u32()?, matched: r.u32()?, problem: r.text()?.into() };
            let mut samples = Samples { at, fit, values: Vec::new() };
            for _ in 0..r.u32()? {
                let (endpoint, value, age_s) = (r.u64()?, r.f64()?, r.f32()?.max(0.0));
                samples.values.push(Value { endpoint, value, age_s });
            }
            signals.push((key, samples));
        }
        Some(Snapshot { stats, signals })
    }

    /// Drops signals that `engine` does not have: those of former configurations.
    #[inline(never)]
    pub fn retain(&mut self, engine: &Balancer) {
        self.signals.retain(|((cluster, signal), _)| {
            let upstream = engine.index_of_hash(*cluster).and_then(|u| engine.upstream(u));
            upstream.is_some_and(|u| u.config().signals.iter().any(|s| identity(s) == *signal))
        });
    }

    /// Passes every sample to the engine.
    #[inline(never)]
    pub fn apply(&self, engine: &mut Balancer) {
        for ((cluster, signal), samples) in self.signals.iter().filter(|(_, of)| of.at != Time::ZERO) {
            let Some(upstream) = engine.index_of_hash(*cluster).and_then(|u| engine.upstream_mut(u)) else {
                continue;
            };
            let signals = &upstream.config().signals;
            let Some(signal) = signals.iter().position(|s| identity(s) == *signal) else { continue };
            for Value { endpoint, value, age_s } in &samples.values {
                upstream.set_signal(signal, *endpoint, *value, samples.at.before_secs(f64::from(*age_s)));
            }
            upstream.record_signal_answer(signal, samples.values.len(), samples.at);
        }
    }
}

fn identity(signal: &engine::settings::Signal) -> u64 {
    rng::hash(signal.name.as_bytes())
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
            pause_s: 5.0,
        };
        let mut snapshot = Snapshot { stats, signals: Vec::new() };
        let value = |endpoint, value| Value { endpoint, value, age_s: 0.5 };
        let fit = Fit { series: 3, matched: 2, problem: "none".into() };
        let samples = |at, values| Samples { at: Time(at), fit: fit.clone(), values };
        snapshot.put("web", "queue", samples(1, vec![value(1, 0.5)]));
        snapshot.put("web", "queue", samples(4, vec![value(1, 1.5), value(2, 2.5)]));
        let bytes = snapshot.encode();
        assert_eq!(Snapshot::decode(&bytes), Some(snapshot.clone()));
        assert_eq!(snapshot.signals.len(), 1);
        (0..bytes.len()).for_each(|cut| assert_eq!(Snapshot::decode(&bytes[..cut]), None, "{cut}"));
    }

    #[test]
    fn samples_from_before_a_step_of_the_clock_grow_old_as_all_do() {
        let mut snapshot = Snapshot::default();
        snapshot.stats.last_success = Time(9);
        snapshot.put("web", "queue", Samples { at: Time(9), ..Samples::default() });
        snapshot.put("web", "load", Samples { at: Time(3), ..Samples::default() });
        snapshot.not_after(Time(5));
        let at = |signal| snapshot.get(rng::hash(b"web"), signal).map(|samples| samples.at);
        assert_eq!(
            (at("queue"), at("load"), snapshot.stats.last_success),
            (Some(Time(5)), Some(Time(3)), Time(5))
        );
    }
}
