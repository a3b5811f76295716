//! `make demo-autoscale`: the closed loop with real parts on this machine. A real Envoy with evenkeel, a real
//! Prometheus, and replicas that are processes of their own: they are started and stopped according to
//! `evenkeel_upstream_desired_replicas`, while the load rises to five times its initial rate and falls again.
//!
//! A replica takes four seconds from its start to its first answer. It then joins Envoy's cluster over EDS, where
//! evenkeel discovers it, and Prometheus' targets. One that is to stop leaves both, finishes its requests, and is
//! ended.
//!
//! `OUT=` is the directory for the chart and the figures, `PACE=2` runs the story twice as fast.

mod live;
mod outcome;
mod replicas;
mod stage;
mod story;

use std::time::Duration;

use testbed::anyhow::Result;
use testbed::{clock, process, tokio};

use live::Screen;
use outcome::Moment;
use replicas::Replicas;
use stage::Stage;
use story::Story;

/// Interval between two reads of the desired number.
const LOOK: Duration = Duration::from_millis(500);
/// Deadline for Prometheus and evenkeel to see the replicas before the load starts.
const READY: Duration = Duration::from_secs(30);

#[tokio::main(crate = "testbed::tokio")]
async fn main() -> Result<()> {
    if replicas::is_one_of_them() {
        return replicas::serve().await;
    }
    process::until_signal(play()).await
}

async fn play() -> Result<()> {
    let story = Story::new(&std::env::var("PACE").unwrap_or_default())?;
    story.tell();
    let directory = testbed::tempfile::Builder::new().prefix("demo-autoscale-").tempdir()?;
    let mut replicas = Replicas::new(directory.path(), story.boot);
    replicas.want(story.min)?;
    replicas.all_serving(READY).await?;
    let mut stage = Stage::set(&story, &replicas.addresses()).await?;
    stage.ready(READY).await?;

    let load = story.load(stage.address()).start().await?;
    let mut screen = Screen::new(&story);
    let mut moments: Vec<Moment> = Vec::new();
    while load.elapsed() < story.length {
        let number = stage.number().await;
        if let Some(wanted) = number.desired {
            replicas.want(wanted as usize)?;
        }
        if replicas.settle().await? {
            stage.members(replicas.addresses()).await?;
        }
        moments.push(Moment::new(load.elapsed(), &number, &replicas, story.multiple(load.elapsed())));
        screen.show(&load, &number, &replicas)?;
        clock::sleep(LOOK).await;
    }
    let report = load.finish().await;
    screen.end()?;
    outcome::show(&story, &report, &moments)
}
