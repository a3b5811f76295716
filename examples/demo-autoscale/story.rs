//! The story: the load, the replicas' capacity, and evenkeel's configuration.

use std::net::SocketAddr;
use std::time::Duration;

use testbed::anyhow::{Result, ensure};
use testbed::load::Load;
use testbed::serde_json::{Value, json};

/// Initial rate, requests/s.
const RATE: f64 = 140.0;
/// Slots of a replica, and the mean of its work: log-normal around 20 ms with a sigma of 0.46.
const SLOTS: f64 = 4.0;
const MEAN_WORK_S: f64 = 0.0222;
/// The load over time: seconds, and multiple of the rate. It doubles every seventeen seconds.
const RUSH: [(f64, f64); 16] = [
    (15.0, 1.18),
    (19.0, 1.38),
    (23.0, 1.62),
    (27.0, 1.90),
    (31.0, 2.24),
    (35.0, 2.63),
    (39.0, 3.09),
    (43.0, 3.63),
    (47.0, 4.26),
    (51.0, 5.0),
    (80.0, 4.2),
    (84.0, 3.4),
    (88.0, 2.6),
    (92.0, 1.8),
    (96.0, 1.0),
    (97.0, 1.0),
];
/// Delay from the load to the desired number, seconds: the window of the query, and two periods above the target.
const NOTICED_S: f64 = 2.5 + 2.0 * PERIOD_S;
/// How long pressure is averaged, and how long a replica takes to its first answer.
const PERIOD_S: f64 = 2.5;
const BOOT_S: f64 = 4.0;

/// The story's durations, at the chosen pace.
pub struct Story {
    pub length: Duration,
    /// Time from a replica's start to its first answer.
    pub boot: Duration,
    pub min: usize,
    pub max: usize,
    pub target: f64,
    pace: f64,
}

impl Story {
    pub fn new(pace: &str) -> Result<Story> {
        let pace: f64 = if pace.is_empty() { 1.0 } else { pace.parse()? };
        ensure!((0.2..=4.0).contains(&pace), "PACE={pace}: not between 0.2 and 4");
        let seconds = |seconds: f64| Duration::from_secs_f64(seconds / pace);
        Ok(Story { length: seconds(130.0), boot: seconds(BOOT_S), min: 2, max: 10, target: 0.7, pace })
    }

    pub fn tell(&self) {
        println!("Replicas that come and go as evenkeel says");
        println!(
            "  · {} replicas can do {:.0} requests/s each; a new one takes {:?} to start",
            self.min,
            capacity(),
            self.boot
        );
        println!(
            "  · the load rises from {RATE:.0} to {:.0} requests/s and falls again, over {:?}",
            RATE * 5.0,
            self.length
        );
        println!(
            "  · pressure is half what Prometheus says is busy, half what evenkeel sees in flight; it is to stay at {}",
            self.target
        );
    }

    pub fn load(&self, target: SocketAddr) -> Load {
        let steps = RUSH.iter().map(|(at, multiple)| (self.seconds(*at), *multiple)).collect();
        Load { target, rate: RATE, duration: self.length, steps, seed: 7, ..Load::default() }
    }

    /// The multiple of the rate at this time.
    pub fn multiple(&self, elapsed: Duration) -> f64 {
        RUSH.iter().rev().find(|(at, _)| self.seconds(*at) <= elapsed).map_or(1.0, |(_, multiple)| *multiple)
    }

    /// Number of replicas that hold the target at this multiple of the load.
    pub fn needed(&self, multiple: f64) -> f64 {
        (multiple * RATE / (capacity() * self.target)).max(self.min as f64)
    }

    /// evenkeel's configuration: the endpoints' source, one PromQL query, and the autoscaling.
    pub fn plugin(&self, prometheus: SocketAddr, status: &str) -> Value {
        let time = |seconds: f64| format!("{}ms", self.seconds(seconds).as_millis().max(1000));
        json!({
            "prometheus": {
                "cluster": "prometheus", "authority": prometheus.to_string(), "interval": "1s", "timeout": "500ms",
            },
            "upstreams": [{
                "cluster": "web",
                "endpoints": { "envoy_admin": { "cluster": "envoy_admin", "interval": "1s" } },
                "signals": [{
                    "name": "busy",
                    "query": "rate(http_request_duration_seconds_sum{job=\"web\"}[5s])",
                    "weight": 0,
                    "smoothing": 1,
                }],
                "slow_start": time(3.0),
                "autoscale": {
                    "target_pressure": self.target, "min": self.min, "max": self.max,
                    "period": time(PERIOD_S), "for": 2, "cool_down": time(12.0),
                    // The time until new replicas help.
                    "look_ahead": time(NOTICED_S + BOOT_S),
                    "pressure": [
                        { "signal": "busy", "weight": 0.5, "at": SLOTS },
                        { "signal": "occupancy", "weight": 0.5 },
                    ],
                },
            }],
            "status": { "path": status },
        })
    }

    fn seconds(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds / self.pace)
    }
}

/// Capacity of a replica, requests/s.
pub fn capacity() -> f64 {
    SLOTS / MEAN_WORK_S
}
