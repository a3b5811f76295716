//! Turn by turn.

use std::time::Duration;

use testbed::anyhow::{Context, Result, ensure};
use testbed::envoy::Envoy;
use testbed::load::Load;
use testbed::process::Signal;
use testbed::serde_json::Value;
use testbed::tempfile::TempDir;
use testbed::{clock, http, tempfile};

use crate::backend::Backends;
use crate::carrier::Carrier;
use crate::closed::Loop;
use crate::flags::Flags;
use crate::machine;

const ENDPOINTS: usize = 10;
/// Enough that the kernel gives each worker its share of them.
const CONNECTIONS: usize = 32;
/// What comes first in each turn is not counted: connections are made, and what was stopped wakes up.
const WARM_UP: Duration = Duration::from_millis(700);
/// After the last request, until evenkeel is at rest, too.
const COOL_DOWN: Duration = Duration::from_secs(4);
/// Rests are cut in so many, each a figure of its own.
const RESTS: u32 = 4;
/// Turns with few requests a second are so many times as long.
const FEW: u32 = 3;

/// What one carrier used, one figure a turn.
#[derive(Default)]
pub struct Used {
    /// By rate: processor time a request, microseconds.
    pub request_us: Vec<Vec<f64>>,
    /// By rate: the median latency, microseconds; nothing for a closed loop.
    pub latency_us: Vec<Vec<f64>>,
    /// By rate: requests a second.
    pub rate: Vec<Vec<f64>>,
    /// From its start until it serves, seconds.
    pub start_s: Vec<f64>,
    /// At rest: processor time a minute, seconds.
    pub rest_s: Vec<f64>,
    /// At rest, after the load: megabytes.
    pub memory_mb: f64,
}

/// What all used with so many workers.
pub struct Results {
    pub workers: u32,
    /// Whether there was load, too.
    pub loaded: bool,
    /// In the order of the carriers.
    pub used: Vec<Used>,
    pub envoy: String,
}

/// Measures everything. Each turn starts all Envoys anew: the same binary in another process differs by a tenth.
pub async fn all(flags: &Flags) -> Result<Vec<Results>> {
    let backends = Backends::start(ENDPOINTS).await?;
    let mut results = Vec::new();
    let loaded = flags.workers.iter().map(|workers| (*workers, true));
    for (workers, loaded) in loaded.chain(flags.idle.iter().map(|workers| (*workers, false))) {
        let rates = if loaded { flags.rates.as_slice() } else { &[] };
        let of_each = || vec![Vec::new(); rates.len()];
        let one =
            || Used { request_us: of_each(), latency_us: of_each(), rate: of_each(), ..Used::default() };
        let mut used: Vec<Used> = flags.carriers.iter().map(|_| one()).collect();
        let mut envoy = String::new();
        let turns = if loaded { flags.turns } else { flags.turns.min(3) };
        for turn in 0..turns {
            let mut field = Field::open(flags, &backends, workers, used).await?;
            for (at, rate) in rates.iter().enumerate() {
                field.turn(turn, (at, *rate), flags.turn).await?;
            }
            if turn + 1 == turns {
                field.rest(flags.rest).await?;
            }
            (used, envoy) = (field.used, field.envoy);
        }
        results.push(Results { workers, loaded, used, envoy });
    }
    Ok(results)
}

/// The Envoys that are compared, all but one of them stopped.
struct Field {
    carriers: Vec<Carrier>,
    envoys: Vec<Envoy>,
    used: Vec<Used>,
    envoy: String,
    workers: u32,
    _folder: TempDir,
}

impl Field {
    async fn open(flags: &Flags, backends: &Backends, workers: u32, used: Vec<Used>) -> Result<Field> {
        let folder = tempfile::Builder::new().prefix("bench-envoy-").tempdir()?;
        let mut field = Field {
            carriers: flags.carriers.clone(),
            envoys: Vec::new(),
            used,
            envoy: String::new(),
            workers,
            _folder: folder,
        };
        for (nth, carrier) in flags.carriers.iter().enumerate() {
            let config = carrier.config(&backends.addresses, workers, field._folder.path())?;
            let begun = clock::now();
            let mut envoy = Envoy::start(config).await.context(carrier.title())?;
            field.used[nth].start_s.push((clock::now() - begun).as_secs_f64());
            let info: Value = http::get(envoy.admin(), "/server_info").await?.json()?;
            let version = info["version"].as_str().and_then(|version| version.split('/').nth(1));
            field.envoy = version.unwrap_or("of an unknown version").to_owned();
            envoy.process().signal(Signal::STOP)?;
            field.envoys.push(envoy);
        }
        Ok(field)
    }

    /// Each carrier under the same load, one after the other.
    async fn turn(&mut self, turn: usize, (at, rate): (usize, u32), length: Duration) -> Result<()> {
        let few = rate > 0 && rate < 100;
        let length = if few { length * FEW } else { length };
        // Another begins each time, and the order is turned round, so that what drifts does not favour one.
        let mut order: Vec<usize> = (0..self.envoys.len()).collect();
        order.rotate_left(turn % self.envoys.len());
        if turn % 2 == 1 {
            order.reverse();
        }
        for nth in order {
            let envoy = &mut self.envoys[nth];
            envoy.process().signal(Signal::CONT)?;
            let measured = match rate {
                0 => closed_loop(envoy, length).await,
                rate => open_loop(envoy, f64::from(rate), length, turn as u64).await,
            };
            envoy.process().signal(Signal::STOP)?;
            let carrier = self.carriers[nth];
            let Measured { cpu_s, sleeps, requests, latency_us, seconds } =
                measured.context(carrier.title())?;
            ensure!(requests > 0, "{}: no requests", carrier.title());
            let used = &mut self.used[nth];
            let request_us = cpu_s * 1e6 / requests as f64;
            used.request_us[at].push(request_us);
            used.latency_us[at].extend(latency_us);
            used.rate[at].push(requests as f64 / seconds);
            println!(
                "{} workers, {rate}/s, turn {}: {} {request_us:.1} µs a request ({requests}), {:.0} sleeps a second",
                self.workers,
                turn + 1,
                carrier.name(),
                sleeps as f64 / seconds
            );
        }
        Ok(())
    }

    /// All of them at once, without a request.
    async fn rest(&mut self, length: Duration) -> Result<()> {
        for envoy in &mut self.envoys {
            envoy.process().signal(Signal::CONT)?;
        }
        // Each worker of each has carried traffic: those that have not take no part in what workers tell each other.
        for envoy in &self.envoys {
            let ended = Loop::start(envoy.address(), 16 * self.workers as usize).await?;
            clock::sleep(Duration::from_millis(500)).await;
            ended.answered()?;
        }
        clock::sleep(COOL_DOWN).await;
        for _ in 0..RESTS {
            let ids: Vec<u32> = self.envoys.iter_mut().map(|envoy| envoy.process().id()).collect();
            let before: Vec<f64> = ids.iter().map(|id| machine::cpu_s(*id)).collect::<Result<_>>()?;
            let begun = clock::now();
            clock::sleep(length / RESTS).await;
            let minutes = (clock::now() - begun).as_secs_f64() / 60.0;
            for ((used, id), before) in self.used.iter_mut().zip(ids).zip(before) {
                used.rest_s.push((machine::cpu_s(id)? - before) / minutes);
                used.memory_mb = machine::memory_mb(id)?;
            }
        }
        Ok(())
    }
}

/// What an Envoy did under load.
struct Measured {
    cpu_s: f64,
    /// How often its threads went to sleep, which is how often something woke them.
    sleeps: u64,
    requests: u64,
    /// The median, if it says something.
    latency_us: Option<f64>,
    seconds: f64,
}

async fn closed_loop(envoy: &mut Envoy, length: Duration) -> Result<Measured> {
    let id = envoy.process().id();
    let asking = Loop::start(envoy.address(), CONNECTIONS).await?;
    clock::sleep(WARM_UP).await;
    let (cpu, sleeps) = (machine::cpu_s(id)?, machine::sleeps(id)?);
    let (answered, begun) = (asking.answered()?, clock::now());
    clock::sleep(length).await;
    let seconds = (clock::now() - begun).as_secs_f64();
    Ok(Measured {
        cpu_s: machine::cpu_s(id)? - cpu,
        sleeps: machine::sleeps(id)? - sleeps,
        requests: asking.answered()? - answered,
        latency_us: None,
        seconds,
    })
}

async fn open_loop(envoy: &mut Envoy, rate: f64, length: Duration, seed: u64) -> Result<Measured> {
    let id = envoy.process().id();
    let load = Load {
        target: envoy.address(),
        rate,
        duration: WARM_UP + length,
        seed,
        connections: CONNECTIONS,
        ..Load::default()
    };
    let running = load.start().await?;
    clock::sleep_until(running.started() + WARM_UP).await;
    let (cpu, sleeps) = (machine::cpu_s(id)?, machine::sleeps(id)?);
    clock::sleep_until(running.started() + WARM_UP + length).await;
    let (cpu_s, sleeps) = (machine::cpu_s(id)? - cpu, machine::sleeps(id)? - sleeps);
    let summary = running.finish().await.between(WARM_UP, WARM_UP + length);
    ensure!(summary.failed == 0, "{} of {} requests failed", summary.failed, summary.requests);
    let latency_us = Some(summary.percentile_ms(50.0) * 1000.0);
    Ok(Measured { cpu_s, sleeps, requests: summary.requests, latency_us, seconds: length.as_secs_f64() })
}
