//! A trial of one fault, with evenkeel and without it at the same time.

use std::time::Duration;

use testbed::anyhow::{Context, Result};
use testbed::clock;
use testbed::load::{Report, Summary};

use crate::chance::{Arm, explained};
use crate::faults::Fault;
use crate::rest;
use crate::world::World;

/// The duration of each part of a trial.
#[derive(Clone, Copy, Debug)]
pub struct Length {
    /// Load before the fault.
    pub before: Duration,
    /// The fault.
    pub fault: Duration,
    /// Load after it.
    pub after: Duration,
}

impl Length {
    /// A trial whose fault lasts `seconds`.
    pub fn of(seconds: u64) -> Self {
        let part = Duration::from_secs((seconds / 3).clamp(2, 6));
        Self { before: part, fault: Duration::from_secs(seconds), after: part }
    }
}

/// The result of a trial.
#[derive(Debug)]
pub struct Outcome {
    /// The fault.
    pub name: &'static str,
    /// The requests through evenkeel's listener from the fault's beginning on.
    pub with: Summary,
    /// The requests through the other listener from the fault's beginning on.
    pub alone: Summary,
    /// The first endpoint's fraction of the responses during the fault, with evenkeel and without.
    pub shares: [f64; 2],
    /// The time from the end of the load until every endpoint had its share again; `None` if that did not happen.
    pub back: Option<Duration>,
    /// Resident bytes before and after.
    pub resident: (u64, u64),
    /// The probability that the difference in failures is chance.
    pub chance: f64,
    /// The promises that did not hold.
    pub complaints: Vec<String>,
}

impl Outcome {
    /// Failures and requests of an arm.
    pub fn arm(summary: &Summary) -> Arm {
        Arm { failed: summary.failed, requests: summary.requests }
    }
}

/// Runs a trial. `level` is the probability below which a difference counts.
pub async fn run(fault: Fault, length: Length, level: f64) -> Result<Outcome> {
    let name = fault.name;
    attempt(fault, length, level).await.with_context(|| name.to_owned())
}

async fn attempt(fault: Fault, length: Length, level: f64) -> Result<Outcome> {
    let mut world = World::open(fault.setting).await?;
    let all = (length.before + length.fault + length.after).as_secs_f64();
    let (with, alone) = (world.load(true, all).start().await?, world.load(false, all).start().await?);
    let begin = with.started() + length.before;
    clock::sleep_until(begin).await;
    let before = world.memory().await?;
    fault.deed.begin(&mut world).await?;
    let mut second = 1;
    let end = begin + length.fault;
    while begin + Duration::from_secs(second as u64) < end {
        clock::sleep_until(begin + Duration::from_secs(second as u64)).await;
        fault.deed.turn(&mut world, second).await?;
        second += 1;
    }
    clock::sleep_until(end).await;
    fault.deed.end(&mut world).await?;
    let (with, alone) = (with.finish().await, alone.finish().await);
    let first = world.names().remove(0);
    let during = |report: &Report| report.between(length.before, length.before + length.fault).share(&first);
    let shares = [during(&with), during(&alone)];
    let since = |report: &Report| report.between(length.before, Duration::MAX);
    let (with, alone) = (since(&with), since(&alone));
    let chance = explained(Outcome::arm(&with), Outcome::arm(&alone));
    let mut complaints = Vec::new();
    if chance < level {
        complaints.push(format!(
            "{} failed with evenkeel, {} without: p = {chance:.1e}; {:?}, {:?}",
            with.failed, alone.failed, with.statuses, alone.statuses
        ));
    }
    let (back, after) = rest::check(&mut world, before, fault.deed.ends_a_vm(), &mut complaints).await?;
    Ok(Outcome {
        name: fault.name,
        with,
        alone,
        shares,
        back,
        resident: (before.1, after.1),
        chance,
        complaints,
    })
}
