//! `make soak`: churn of endpoints, configurations and faults under load through one Envoy, and a check for drift.

use std::path::PathBuf;
use std::time::Duration;

use chaos::report;
use chaos::soak::{self, drift};
use testbed::anyhow::{Result, bail, ensure};
use testbed::{process, tokio};

const HELP: &str = "\
Churn at load through one Envoy: does memory, anything that is counted, or latency drift?

  --minutes N     for how long                                                    [60]
  --picture FILE  where all series are drawn                                      [target/soak.svg]
  --into FILE     also write the verdict into the section `soak` of this document
";

#[tokio::main(crate = "testbed::tokio")]
async fn main() -> Result<()> {
    use lexopt::prelude::*;
    let (mut minutes, mut picture, mut into) = (60.0_f64, PathBuf::from("target/soak.svg"), None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => {
                print!("{HELP}");
                return Ok(());
            }
            Long("minutes") => minutes = parser.value()?.parse()?,
            Long("picture") => picture = parser.value()?.into(),
            Long("into") => into = Some(PathBuf::from(parser.value()?)),
            other => bail!("{}; --help tells what there is", other.unexpected()),
        }
    }
    ensure!(minutes > 0.0 && minutes < 10_000.0, "--minutes {minutes}: not a number of minutes");
    process::until_signal(run(Duration::from_secs_f64(minutes * 60.0), picture, into)).await
}

async fn run(time: Duration, picture: PathBuf, into: Option<PathBuf>) -> Result<()> {
    let course = soak::run(time, |cycle| {
        let v = cycle.values;
        println!(
            "{:>5.0} s: {:.0} MB ({:.0} allocated), {:.0} handles, {:.0} stats; p50 {:.1} and {:.1} ms, p99 {:.1} and {:.1} ms",
            cycle.at, v[0], v[1], v[2], v[3], v[4], v[5], v[7], v[8]
        );
    })
    .await?;
    let lines = drift::lines(&course);
    let text = drift::markdown(&course, &lines);
    println!("\n{text}");
    drift::draw(&course, &picture)?;
    if let Some(file) = &into {
        report::write(file, "soak", &text)?;
    }
    ensure!(course.traps.is_empty(), "a VM ended: {:?}", course.traps);
    ensure!(course.chance() >= chaos::chance::LEVEL, "more failed with evenkeel than without");
    let growing: Vec<&str> =
        lines.iter().filter(|line| line.verdict == drift::Verdict::Grows).map(|line| line.name).collect();
    ensure!(growing.is_empty(), "grows: {growing:?}");
    Ok(())
}
