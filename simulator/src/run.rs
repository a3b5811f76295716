//! The results of one run.

use crate::scenario::{Measure, Scenario, View};

/// One request as its client saw it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    /// Start, microseconds into the run.
    pub started_us: u32,
    /// Time until the answer or the timeout, microseconds.
    pub latency_us: u32,
    /// The endpoint of the last attempt.
    pub endpoint: u32,
    /// Whether it failed.
    pub failed: bool,
}

/// One task of an asynchronous worker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Task {
    /// When it was accepted, microseconds into the run.
    pub accepted_us: u32,
    /// Time until it was done, microseconds.
    pub sojourn_us: u32,
}

/// State of the fleet at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fleet {
    /// Time, seconds into the run.
    pub at: f64,
    /// Number of endpoints in traffic.
    pub present: usize,
    /// Number of endpoints that are starting.
    pub starting: usize,
    /// Desired number of replicas.
    pub wanted: Option<u32>,
    /// Pressure on the endpoints, as the balancer reports it.
    pub pressure: Option<f64>,
}

/// One second of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Second {
    /// 99th percentile of the latency of requests that started in it, milliseconds.
    pub p99_ms: f64,
    /// Share of the first endpoint.
    pub first_share: f64,
}

/// The results of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// All requests.
    pub records: Vec<Record>,
    /// All tasks.
    pub tasks: Vec<Task>,
    /// The fleet at each second, if it is scaled.
    pub fleet: Vec<Fleet>,
    /// Number of endpoints.
    pub endpoints: usize,
}

/// A percentile (0..=1) by nearest rank; zero if there are no values.
pub fn percentile(values: &mut [u32], p: f64) -> u32 {
    if values.is_empty() {
        return 0;
    }
    let rank = ((values.len() as f64 * p).ceil() as usize).clamp(1, values.len()) - 1;
    *values.select_nth_unstable(rank).1
}

impl Run {
    fn within(&self, (from, to): (f64, f64)) -> impl Iterator<Item = &Record> {
        let (from, to) = ((from * 1e6) as u32, (to * 1e6) as u32);
        self.records.iter().filter(move |r| (from..to).contains(&r.started_us))
    }

    /// A percentile of the latency of requests that started in `window`, milliseconds.
    pub fn latency(&self, p: f64, window: (f64, f64)) -> f64 {
        let mut values: Vec<u32> = self.within(window).map(|r| r.latency_us).collect();
        f64::from(percentile(&mut values, p)) / 1000.0
    }

    /// Number of failed requests among those that started in `window`.
    pub fn failed(&self, window: (f64, f64)) -> usize {
        self.within(window).filter(|r| r.failed).count()
    }

    /// 50th, 90th and 99th percentile of latency, milliseconds, and the fraction of requests that failed. A request that
    /// failed before its `timeout`, in seconds, is not a fast one: it counts among the failures only.
    pub fn judged(&self, timeout: f64) -> [f64; 4] {
        let given_up = (timeout * 1e6) as u32;
        let counts = self.records.iter().filter(|r| !r.failed || r.latency_us >= given_up);
        let mut latencies: Vec<u32> = counts.map(|r| r.latency_us).collect();
        let mut ms = |p| f64::from(percentile(&mut latencies, p).max(1)) / 1e3;
        let failed = self.records.iter().filter(|r| r.failed).count();
        [ms(0.5), ms(0.9), ms(0.99), failed as f64 / self.records.len().max(1) as f64]
    }

    /// Share of each endpoint in the requests that started in `window`.
    pub fn shares(&self, window: (f64, f64)) -> Vec<f64> {
        let mut counts = vec![0.0; self.endpoints];
        let mut all = 0.0;
        for record in self.within(window) {
            all += 1.0;
            if let Some(count) = counts.get_mut(record.endpoint as usize) {
                *count += 1.0;
            }
        }
        counts.iter().map(|c| c / f64::max(all, 1.0)).collect()
    }

    /// The seconds of a run of this `length`.
    pub fn seconds(&self, length: f64) -> Vec<Second> {
        let mut latencies = vec![Vec::new(); length.ceil() as usize];
        let mut first = vec![0u32; latencies.len()];
        for record in &self.records {
            let second = (record.started_us / 1_000_000) as usize;
            if let (Some(latencies), Some(first)) = (latencies.get_mut(second), first.get_mut(second)) {
                latencies.push(record.latency_us);
                *first += u32::from(record.endpoint == 0);
            }
        }
        latencies
            .iter_mut()
            .zip(first)
            .map(|(latencies, first)| Second {
                p99_ms: f64::from(percentile(latencies, 0.99)) / 1000.0,
                first_share: f64::from(first) / latencies.len().max(1) as f64,
            })
            .collect()
    }

    /// The value of `view`.
    pub fn measure(&self, view: &View, scenario: &Scenario) -> f64 {
        match view.what {
            Measure::Latency(p) => self.latency(p, view.window),
            Measure::Share { of, .. } => self.shares(view.window).get(of).copied().unwrap_or(0.0),
            Measure::Local => {
                let local = scenario.zones.map_or(scenario.endpoints, |zones| zones.local);
                self.shares(view.window).iter().take(local).sum()
            }
            Measure::Task(p) => {
                let (from, to) = ((view.window.0 * 1e6) as u32, (view.window.1 * 1e6) as u32);
                let within = self.tasks.iter().filter(|t| (from..to).contains(&t.accepted_us));
                let mut values: Vec<u32> = within.map(|t| t.sojourn_us).collect();
                f64::from(percentile(&mut values, p)) / 1000.0
            }
            Measure::Spread => {
                let shares = &self.shares(view.window)[..scenario.present];
                let most = shares.iter().copied().fold(0.0, f64::max);
                let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
                (most - least) * scenario.present as f64
            }
            Measure::Herding => self.herding(view.window, scenario.present),
            Measure::Replicas => {
                let (from, to) = view.window;
                let within =
                    self.fleet.iter().filter(|f| (from..to).contains(&f.at)).map(|f| f.present as f64);
                let (count, sum) = within.fold((0.0, 0.0), |(count, sum), there| (count + 1.0, sum + there));
                if count > 0.0 { sum / count } else { scenario.present as f64 }
            }
            Measure::Recovery(endpoint) => self.recovery(view.window, endpoint, scenario.present),
        }
    }

    fn herding(&self, (from, to): (f64, f64), endpoints: usize) -> f64 {
        let means = self.shares((from, to));
        let mut worst = 0.0f64;
        for second in 0..(to - from) as usize {
            let window = (from + second as f64, from + second as f64 + 1.0);
            let requests = self.within(window).count() as f64;
            for (share, mean) in self.shares(window).iter().zip(&means).take(endpoints) {
                let noise = 3.0 * (mean * (1.0 - mean) / requests.max(1.0)).sqrt();
                worst = worst.max(((share - mean).abs() - noise) / mean.max(1e-9));
            }
        }
        worst
    }

    /// In sliding windows of two seconds.
    fn recovery(&self, (from, to): (f64, f64), endpoint: usize, endpoints: usize) -> f64 {
        let mut start = from;
        while start + 2.0 <= to {
            let share = self.shares((start, start + 2.0)).get(endpoint).copied().unwrap_or(0.0);
            if share >= 0.9 / endpoints as f64 {
                return start - from;
            }
            start += 0.5;
        }
        f64::INFINITY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_go_by_nearest_rank() {
        let mut values: Vec<u32> = (1..=100).rev().collect();
        assert_eq!(percentile(&mut values, 0.99), 99);
        assert_eq!(percentile(&mut values, 0.5), 50);
        assert_eq!(percentile(&mut values, 1.0), 100);
        assert_eq!(percentile(&mut [], 0.5), 0);
    }
}
