//! The short form of `make chaos`, a part of `make test`: four faults of five seconds each, and a harm that must be
//! detected.

use std::path::Path;

use chaos::chance;
use chaos::faults::{self, Fault};
use chaos::trial::{self, Length, Outcome};
use testbed::anyhow::{Context, Result};
use testbed::serde_json::json;
use testbed::tokio;
use testbed::tokio::sync::Semaphore;

/// At most two trials at a time, so that they do not starve each other on a small machine.
static TURN: Semaphore = Semaphore::const_new(2);

async fn run(name: &str, change: impl FnOnce(&mut Fault)) -> Result<Outcome> {
    let _turn = TURN.acquire().await?;
    let all = faults::all(Path::new(env!("CARGO_BIN_EXE_chaos")));
    let level = chance::LEVEL / all.len() as f64;
    let mut fault: Fault =
        all.into_iter().find(|fault| fault.name == name).with_context(|| name.to_owned())?;
    change(&mut fault);
    let outcome = trial::run(fault, Length::of(5), level).await?;
    assert!(outcome.with.requests > 100 && outcome.alone.requests > 100, "{outcome:?}");
    Ok(outcome)
}

async fn holds(name: &str) -> Result<()> {
    let outcome = run(name, |_| {}).await?;
    assert!(outcome.complaints.is_empty(), "{name}: {:?}", outcome.complaints);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_killed() -> Result<()> {
    holds("kill -9 of a backend").await
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_reset_in_the_body() -> Result<()> {
    holds("reset in the body").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_that_lies() -> Result<()> {
    holds("Prometheus lies").await
}

#[tokio::test(flavor = "multi_thread")]
async fn configurations_that_flap() -> Result<()> {
    holds("a new configuration every second").await
}

/// Control, since a comparison that cannot fail proves nothing: configured to eject nothing and to ignore latency,
/// evenkeel does worse.
#[tokio::test(flavor = "multi_thread")]
async fn harm_is_found() -> Result<()> {
    let harmed = |fault: &mut Fault| {
        fault.setting.upstream = json!({ "policy": "round_robin", "health": { "max_ejected_percent": 0 } });
    };
    let outcome = run("503 from one", harmed).await?;
    assert!(
        outcome.complaints.iter().any(|complaint| complaint.contains("failed with evenkeel")),
        "{outcome:?}"
    );
    Ok(())
}
