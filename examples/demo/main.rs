//! `make demo`: the same load against Envoy's round robin, Envoy's least request with outlier detection, and
//! evenkeel, on real parts on this machine.
//!
//! - Act 1: eight services, one slow from the start, one that degrades half-way, one that starts failing fast.
//! - Act 2: eight asynchronous workers that accept at once; three are slow, which only `task_queue_depth` in
//!   Prometheus shows.
//!
//! `KEEP=1` leaves evenkeel's two stages up until Ctrl-C. `ONLY=round_robin,evenkeel` runs some of the three,
//! `LENGTH=10` makes each run ten seconds long, `OUT=` is the directory for the chart and the figures.

mod act;
mod contender;
mod live;
mod outcome;
mod stage;

use std::time::Duration;

use testbed::anyhow::{Result, bail, ensure};
use testbed::{process, tokio};

use act::Act;
use contender::Contender;
use stage::Stage;

const LENGTH: Duration = Duration::from_secs(18);

#[tokio::main(crate = "testbed::tokio")]
async fn main() -> Result<()> {
    process::until_signal(play()).await
}

async fn play() -> Result<()> {
    let contenders = contenders()?;
    let length = length()?;
    contender::check_tools(&contenders)?;
    let acts = Act::all(length)?;
    let prometheus = stage::prometheus(&acts).await?;
    let (mut outcomes, mut kept) = (Vec::new(), Vec::new());
    for (number, act) in acts.iter().enumerate() {
        println!("\nAct {} of {}: {}", number + 1, acts.len(), act.title);
        for story in &act.story {
            println!("  · {story}");
        }
        for (run, &contender) in contenders.iter().enumerate() {
            let stage = Stage::set(act, contender, &prometheus).await?;
            let title = format!("{} ({} of {})", contender.name(), run + 1, contenders.len());
            outcomes.push(live::watch(&title, act, &stage).await?);
            if keep() && contender == Contender::Evenkeel {
                kept.push(stage);
            }
        }
    }
    outcome::show(&acts, &contenders, &outcomes)?;
    if keep() {
        ensure!(!kept.is_empty(), "KEEP=1 keeps evenkeel's stages, and ONLY leaves evenkeel out");
        stage::keep(&acts, kept, &prometheus).await?;
    }
    Ok(())
}

fn keep() -> bool {
    std::env::var("KEEP").is_ok_and(|value| !value.is_empty() && value != "0")
}

fn contenders() -> Result<Vec<Contender>> {
    let only = std::env::var("ONLY").unwrap_or_default();
    let names: Vec<&str> = only.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if let Some(unknown) = names.iter().find(|name| Contender::ALL.iter().all(|known| known.name() != **name))
    {
        let known: Vec<&str> = Contender::ALL.iter().map(|known| known.name()).collect();
        bail!("ONLY={unknown}: these are: {}", known.join(", "));
    }
    let wanted = |contender: &Contender| names.is_empty() || names.contains(&contender.name());
    Ok(Contender::ALL.into_iter().filter(wanted).collect())
}

fn length() -> Result<Duration> {
    match std::env::var("LENGTH") {
        Err(_) => Ok(LENGTH),
        Ok(text) => match text.parse() {
            Ok(seconds @ 2..=600) => Ok(Duration::from_secs(seconds)),
            _ => bail!("LENGTH={text}: not a number of seconds between 2 and 600"),
        },
    }
}
