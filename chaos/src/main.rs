//! `make chaos`: every fault in turn, with evenkeel and without it at the same time.

use std::path::PathBuf;

use chaos::faults::{self, Fault};
use chaos::trial::{self, Length, Outcome};
use chaos::world::AS_BACKEND;
use chaos::{chance, report};
use testbed::anyhow::{Result, bail, ensure};
use testbed::{backend, process, table, tokio};

const HELP: &str = "\
Faults on a real Envoy, with evenkeel and without it at the same time.

  --seconds N     how long each fault lasts                  [12]
  --only TEXT     only the faults whose names contain this; can be given several times
  --module        with the native module in place of the filter
  --list          the names of all faults
  --into FILE     also write the table into the section `chaos` of this document
";

struct Flags {
    seconds: u64,
    only: Vec<String>,
    list: bool,
    module: bool,
    into: Option<PathBuf>,
}

fn flags(mut parser: lexopt::Parser) -> Result<Option<Flags>> {
    use lexopt::prelude::*;
    let mut flags = Flags { seconds: 12, only: Vec::new(), list: false, module: false, into: None };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(None),
            Long("seconds") => flags.seconds = parser.value()?.parse()?,
            Long("only") => flags.only.push(parser.value()?.string()?),
            Long("module") => flags.module = true,
            Long("list") => flags.list = true,
            Long("into") => flags.into = Some(parser.value()?.into()),
            other => bail!("{}; --help tells what there is", other.unexpected()),
        }
    }
    Ok(Some(flags))
}

#[tokio::main(crate = "testbed::tokio")]
async fn main() -> Result<()> {
    if std::env::var_os(AS_BACKEND).is_some() {
        return backend::run_from_command_line().await;
    }
    let Some(flags) = flags(lexopt::Parser::from_env())? else {
        print!("{HELP}");
        return Ok(());
    };
    process::until_signal(run(flags)).await
}

async fn run(flags: Flags) -> Result<()> {
    let all = faults::all(&std::env::current_exe()?);
    let level = chance::LEVEL / all.len() as f64;
    let wanted =
        |fault: &Fault| flags.only.is_empty() || flags.only.iter().any(|part| fault.name.contains(part));
    // The module has no VM.
    let there = |fault: &Fault| !(flags.module && fault.setting.fuse);
    let mut chosen: Vec<Fault> = all.into_iter().filter(|fault| wanted(fault) && there(fault)).collect();
    chosen.iter_mut().for_each(|fault| fault.setting.module = flags.module);
    ensure!(!chosen.is_empty(), "no fault of that name; --list tells which there are");
    if flags.list {
        chosen.iter().for_each(|fault| println!("{}", fault.name));
        return Ok(());
    }
    let (mut outcomes, mut broken) = (Vec::new(), Vec::new());
    for fault in chosen {
        let name = fault.name;
        match trial::run(fault, Length::of(flags.seconds), level).await {
            Ok(outcome) => {
                say(&outcome);
                outcomes.push(outcome);
            }
            Err(error) => {
                println!("{name}: {error:#}");
                broken.push(name);
            }
        }
    }
    println!("{}", report::screen(&outcomes));
    if let Some(file) = &flags.into {
        report::write(file, "chaos", &report::markdown(&outcomes))?;
    }
    let failing: Vec<&str> = outcomes.iter().filter(|o| !o.complaints.is_empty()).map(|o| o.name).collect();
    ensure!(
        failing.is_empty() && broken.is_empty(),
        "does not hold: {failing:?}; could not be run: {broken:?}"
    );
    Ok(())
}

fn say(outcome: &Outcome) {
    let megabytes = |bytes: u64| bytes >> 20;
    println!(
        "{}: {} of {} failed with, {} alone (p {:.2}); the first had {} of the answers, {}; back after {}; {} to {} MB",
        outcome.name,
        outcome.with.failed,
        outcome.with.requests,
        outcome.alone.failed,
        outcome.chance,
        table::percent(outcome.shares[0]),
        table::percent(outcome.shares[1]),
        outcome.back.map_or("never".to_owned(), |time| format!("{:.0} s", time.as_secs_f64())),
        megabytes(outcome.resident.0),
        megabytes(outcome.resident.1),
    );
    outcome.complaints.iter().for_each(|complaint| println!("    {complaint}"));
}
