//! Checks after a fault: nothing of it must remain.

use std::time::Duration;

use testbed::anyhow::Result;
use testbed::serde_json::Value;
use testbed::{clock, wait};

use crate::world::{ENDPOINTS, World};

/// Time within which requests in flight must end after the load; Envoy's timeouts are far shorter.
const PATIENCE: Duration = Duration::from_secs(15);
/// Maximum time that a healthy endpoint may stay out of traffic. It is ejected for 10 s at first and twice as long
/// after each failed probe, of which a dozen seconds contain two; then slow start takes 10 s.
pub const RETURN: Duration = Duration::from_secs(60);
/// The lowest fraction of its fair share with which an endpoint counts as back: of 160 requests a fair fifth is 32,
/// with a standard deviation of 5, and measured endpoints differ a little.
const EVEN: f64 = 0.4;
const WAVE_S: f64 = 2.0;
/// How much more memory than before the fault Envoy may have allocated, bytes: for connections it keeps and statistics
/// of new responses.
const ALLOCATED: u64 = 16 << 20;
/// How much larger than before the fault the process may be, bytes: its pages stay, and WebAssembly memory never
/// shrinks. Each of three VMs may have copied and parsed an answer of 8 MiB.
const RESIDENT: u64 = 160 << 20;
/// Lines that Envoy logs when a VM ends, which it also counts. A refused configuration is not among them.
const TRAPS: [&str; 4] = ["in-VM backtrace", "panicked", "Function: proxy_", "RuntimeError"];

/// Allocated and resident memory, bytes.
pub type Memory = (u64, u64);

/// Adds to `complaints` what remains of the fault; returns how long it took until all endpoints were back, if they are.
pub async fn check(
    world: &mut World,
    before: Memory,
    trapped: bool,
    complaints: &mut Vec<String>,
) -> Result<(Option<Duration>, Memory)> {
    in_flight(world, complaints).await;
    let back = returned(world).await?;
    if let Err(state) = &back {
        complaints.push(format!("not back after {RETURN:?}: {state}"));
    }
    let mut seen = Vec::new();
    traps(world, &mut seen).await?;
    match (trapped, seen.is_empty()) {
        (true, true) => complaints.push("no VM ended".to_owned()),
        (true, false) => {}
        (false, _) => complaints.append(&mut seen),
    }
    let after = memory(world, before, complaints).await?;
    Ok((back.ok(), after))
}

async fn in_flight(world: &World, complaints: &mut Vec<String>) {
    let none = wait::until("nothing in flight", PATIENCE, || async {
        let states = world.states().await.ok()?;
        let stats = world.envoy.stats().await.ok()?;
        let active = |cluster: &str| stats.get(&format!("cluster.{cluster}.upstream_rq_active")).copied();
        let idle = states.iter().all(|endpoint| endpoint["in_flight"].as_i64() == Some(0));
        (idle && [active("web"), active("alone")] == [Some(0), Some(0)]).then_some(())
    });
    if none.await.is_err() {
        let counts: Vec<Value> = world
            .states()
            .await
            .unwrap_or_default()
            .iter()
            .map(|endpoint| endpoint["in_flight"].clone())
            .collect();
        complaints.push(format!("in flight at rest: {counts:?}"));
    }
}

/// Waits until every endpoint is eligible and gets its share of the requests, and no request fails.
async fn returned(world: &World) -> Result<std::result::Result<Duration, String>> {
    let (began, names) = (clock::now(), world.names());
    loop {
        let wave = testbed::load::Load { rate: 80.0, path: "/".to_owned(), ..world.load(true, WAVE_S) };
        let summary = wave.run().await?.summary();
        let states = world.states().await?;
        let eligible = states.iter().filter(|endpoint| endpoint["eligible"] == true).count();
        let shares: Vec<f64> = names.iter().map(|name| summary.share(name)).collect();
        let even = shares.iter().all(|share| *share >= EVEN / ENDPOINTS as f64);
        if eligible == ENDPOINTS && even && summary.failed == 0 {
            return Ok(Ok(began.elapsed()));
        }
        if began.elapsed() > RETURN {
            let state = format!("{eligible} eligible, shares {shares:.2?}, {} failed", summary.failed);
            return Ok(Err(state));
        }
    }
}

/// Adds what Envoy's log and statistics say about VMs that ended.
pub async fn traps(world: &World, complaints: &mut Vec<String>) -> Result<()> {
    let log = world.envoy.log();
    complaints
        .extend(log.lines().find(|line| TRAPS.iter().any(|trap| line.contains(trap))).map(str::to_owned));
    let stats = world.envoy.stats().await?;
    let ended = stats.iter().filter(|(name, count)| name.contains("vm_reload") && **count > 0);
    complaints.extend(ended.map(|(name, count)| format!("{name} is {count}")));
    Ok(())
}

async fn memory(world: &mut World, before: Memory, complaints: &mut Vec<String>) -> Result<Memory> {
    let began = clock::now();
    loop {
        let after = world.memory().await?;
        let grown = after.0 > before.0 + ALLOCATED || after.1 > before.1 + RESIDENT;
        if !grown {
            return Ok(after);
        }
        if began.elapsed() > PATIENCE {
            complaints.push(format!("memory grew: {before:?} to {after:?}"));
            return Ok(after);
        }
        clock::sleep(Duration::from_millis(200)).await;
    }
}
