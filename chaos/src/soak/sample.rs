//! Samples: of Envoy every two seconds, and of each cycle.

use testbed::anyhow::Result;
use testbed::load::Summary;

use crate::chance::median;
use crate::world::World;

/// The state of Envoy at one time.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    resident: f64,
    allocated: f64,
    handles: f64,
    stats: f64,
}

/// Takes a sample of Envoy.
pub async fn take(world: &mut World) -> Result<Sample> {
    let (allocated, resident) = world.memory().await?;
    let handles = std::fs::read_dir(format!("/proc/{}/fd", world.envoy.process().id()))?.count();
    // Counters, gauges and histograms, one per line.
    let stats = world.envoy.admin_get("/stats").await?.lines().count();
    Ok(Sample {
        resident: resident as f64,
        allocated: allocated as f64,
        handles: handles as f64,
        stats: stats as f64,
    })
}

/// The figures of a cycle, in the order of [`NAMES`].
#[derive(Clone, Debug)]
pub struct Cycle {
    /// The middle of the cycle, seconds from the start.
    pub at: f64,
    /// The figures.
    pub values: [f64; 10],
}

/// The names of the figures.
pub const NAMES: [&str; 10] = [
    "resident memory, MB",
    "allocated memory, MB",
    "open file handles",
    "statistics",
    "p50 with evenkeel, ms",
    "p50 alone, ms",
    "p50 with / alone",
    "p99 with evenkeel, ms",
    "p99 alone, ms",
    "p99 with / alone",
];

impl Cycle {
    pub(super) fn new(at: f64, samples: &[Sample], [with, alone]: [Summary; 2]) -> Self {
        let middle = |of: fn(&Sample) -> f64| median(samples.iter().map(of).collect()).unwrap_or(0.0);
        let ratio = |percentile: f64| {
            let alone = alone.percentile_ms(percentile);
            if alone > 0.0 { with.percentile_ms(percentile) / alone } else { 0.0 }
        };
        let values = [
            middle(|sample| sample.resident) / 1e6,
            middle(|sample| sample.allocated) / 1e6,
            middle(|sample| sample.handles),
            middle(|sample| sample.stats),
            with.percentile_ms(50.0),
            alone.percentile_ms(50.0),
            ratio(50.0),
            with.percentile_ms(99.0),
            alone.percentile_ms(99.0),
            ratio(99.0),
        ];
        Self { at, values }
    }
}
