//! Ordinary fleets on which the adaptive policy once lost to Envoy's own, alternating with `least_request`. Prints the
//! results and asserts nothing, because timings on a busy machine prove nothing.
//!
//! `cargo test --test e2e -- --ignored --nocapture roads`

use std::time::Duration;

use testbed::anyhow::Result;
use testbed::backend::{self, Behaviour};
use testbed::envoy::{self, Policy};
use testbed::load::Load;
use testbed::tokio::io::AsyncWriteExt;
use testbed::tokio::net::TcpStream;
use testbed::{tokio, wait};

use crate::scene::{Scene, Stage};

const RUNS: u64 = 3;
const LENGTH_S: f64 = 20.0;

/// A scenario: a fleet and its load.
struct Road {
    name: &'static str,
    backends: usize,
    slots: usize,
    sigma: f64,
    behaviour: Behaviour,
    rate: f64,
    /// Whether each endpoint holds a request that it never answers.
    held: bool,
}

const ROADS: [Road; 3] = [
    Road {
        name: "idle streams",
        backends: 3,
        slots: 4,
        sigma: 0.46,
        behaviour: Behaviour::Healthy,
        rate: 30.0,
        held: true,
    },
    Road {
        name: "rare errors",
        backends: 2,
        slots: 4,
        sigma: 0.46,
        behaviour: Behaviour::ErrorRatio(0.002),
        // 60 % utilization of eight slots.
        rate: 216.0,
        held: false,
    },
    Road {
        name: "wide work",
        backends: 4,
        slots: 16,
        sigma: 1.0,
        behaviour: Behaviour::Heavy { ratio: 0.1, factor: 10.0 },
        // 80 % utilization of 64 slots, where a request takes 33 ms and a tenth of them ten times that.
        rate: 817.0,
        held: false,
    },
];

impl Road {
    async fn open(&self, bare: bool, seed: u64) -> Result<Scene> {
        let backend = backend::Config {
            slots: self.slots,
            median: Duration::from_millis(20),
            sigma: self.sigma,
            seed: 100 * seed + 1,
            behaviour: self.behaviour,
            ..backend::Config::default()
        };
        let policy = if bare { Policy::LeastRequest } else { Policy::evenkeel() };
        let proxy = envoy::Config { route_timeout: Duration::from_secs(600), ..envoy::Config::default() };
        let upstream = testbed::serde_json::json!({});
        Stage { backends: self.backends, backend, policy, bare, proxy, upstream, ..Stage::default() }
            .open()
            .await
    }

    /// Requests that stay open until the streams are dropped.
    async fn hold(&self, scene: &Scene) -> Result<Vec<TcpStream>> {
        scene.backends.iter().for_each(|backend| backend.set(Behaviour::BlackHole));
        let mut streams = Vec::new();
        while self.held && scene.backends.iter().any(|backend| backend.counts().in_flight == 0) {
            let before: u64 = crate::scene::received(&scene.backends).iter().sum();
            let mut stream = TcpStream::connect(scene.envoy().address()).await?;
            stream.write_all(b"GET /held HTTP/1.1\r\nHost: e2e\r\n\r\n").await?;
            streams.push(stream);
            wait::until("the request to arrive", Duration::from_secs(5), || {
                let arrived = crate::scene::received(&scene.backends).iter().sum::<u64>() > before;
                async move { arrived.then_some(()) }
            })
            .await?;
        }
        scene.backends.iter().for_each(|backend| backend.set(self.behaviour));
        Ok(streams)
    }

    async fn run(&self, bare: bool, seed: u64) -> Result<()> {
        let scene = self.open(bare, seed).await?;
        let held = self.hold(&scene).await?;
        let load = Load { rate: self.rate, connections: 64, seed: seed + 7, ..scene.load(LENGTH_S) };
        let wave = scene.wave_of(load).await?;
        let ms = |percentile| wave.summary.percentile_ms(percentile);
        let shares: Vec<String> =
            (0..self.backends).map(|index| format!("{:.2}", wave.share(index))).collect();
        println!(
            "{} seed {seed} {}: p50 {:.1} p90 {:.1} p99 {:.1} ms, {} of {} failed, shares {}, {} held",
            self.name,
            if bare { "least_request" } else { "adaptive" },
            ms(50.0),
            ms(90.0),
            ms(99.0),
            wave.summary.failed,
            wave.summary.requests,
            shares.join(" "),
            held.len(),
        );
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures for minutes"]
async fn in_turns_with_least_request() -> Result<()> {
    let first: u64 = std::env::var("ROADS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for road in &ROADS {
        for seed in first..first + RUNS {
            for bare in [false, true] {
                road.run(bare, seed).await?;
            }
        }
    }
    Ok(())
}
