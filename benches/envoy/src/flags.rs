//! What is to be measured.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use testbed::anyhow::{Result, bail, ensure};

use crate::carrier::Carrier;

pub const HELP: &str = "\
What evenkeel costs a real Envoy.

  --only A,B         of: none empty lua filter module             [all]
  --workers N,N      worker threads of Envoy                      [1,2,4]
  --idle N,N         worker threads, measured at rest only        [16]
  --rates N,N        requests a second; 0 is the closed loop      [0,30,600,3000]
  --turns N          repetitions of everything                    [5]
  --seconds N        length of a turn; at 30/s three times that   [4]
  --rest SECONDS     how long the cost at rest is measured        [20]
  --quick            two turns of two seconds with two workers
  --into FILE        also write the Markdown there
";

/// Everything that can be chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Flags {
    pub carriers: Vec<Carrier>,
    pub workers: Vec<u32>,
    pub idle: Vec<u32>,
    /// Requests a second; 0 is the closed loop.
    pub rates: Vec<u32>,
    pub turns: usize,
    pub turn: Duration,
    pub rest: Duration,
    pub into: Option<PathBuf>,
}

impl Default for Flags {
    fn default() -> Flags {
        Flags {
            carriers: Carrier::ALL.to_vec(),
            workers: vec![1, 2, 4],
            idle: vec![16],
            rates: vec![0, 30, 600, 3000],
            turns: 5,
            turn: Duration::from_secs(4),
            rest: Duration::from_secs(20),
            into: None,
        }
    }
}

/// Reads them; nothing where help is asked for.
pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Option<Flags>> {
    let mut parser = lexopt::Parser::from_iter(arguments);
    let mut flags = Flags::default();
    while let Some(argument) = parser.next()? {
        let lexopt::Arg::Long(name) = argument else {
            bail!("{}; --help tells what there is", argument.unexpected())
        };
        let name = name.to_owned();
        match name.as_str() {
            "help" => return Ok(None),
            "quick" => {
                (flags.workers, flags.idle) = (vec![2], Vec::new());
                (flags.turns, flags.turn, flags.rest) = (2, Duration::from_secs(2), Duration::from_secs(5));
                continue;
            }
            _ => {}
        }
        let value = parser.value()?.to_string_lossy().into_owned();
        let seconds = || Ok::<_, testbed::anyhow::Error>(Duration::from_secs(number(&name, &value)?.into()));
        match name.as_str() {
            "only" => flags.carriers = value.split(',').map(Carrier::named).collect::<Result<_>>()?,
            "workers" => flags.workers = numbers(&name, &value)?,
            "idle" => flags.idle = numbers(&name, &value)?,
            "rates" => flags.rates = numbers(&name, &value)?,
            "turns" => flags.turns = number(&name, &value)? as usize,
            "seconds" => flags.turn = seconds()?,
            "rest" => flags.rest = seconds()?,
            "into" => flags.into = Some(value.into()),
            _ => bail!("unknown flag --{name}; --help tells what there is"),
        }
    }
    ensure!(flags.turns > 0 && !flags.turn.is_zero(), "--turns and --seconds are 1 at least");
    let threads = || flags.workers.iter().chain(&flags.idle);
    ensure!(threads().all(|workers| (1..=256).contains(workers)), "workers are 1 to 256");
    ensure!(
        flags.carriers.first() == Some(&Carrier::None),
        "everything is compared with `none`: it comes first"
    );
    Ok(Some(flags))
}

fn number(name: &str, value: &str) -> Result<u32> {
    value.parse().map_err(|_| testbed::anyhow::anyhow!("--{name} {value}: not a whole number"))
}

fn numbers(name: &str, value: &str) -> Result<Vec<u32>> {
    value.split(',').filter(|part| !part.is_empty()).map(|part| number(name, part)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(given: &[&str]) -> Result<Option<Flags>> {
        read(std::iter::once("bench-envoy").chain(given.iter().copied()).map(OsString::from))
    }

    #[test]
    fn flags_override_the_defaults_and_faults_name_them() {
        assert_eq!(flags(&[]).unwrap(), Some(Flags::default()));
        assert_eq!(flags(&["--help"]).unwrap(), None);
        let some = flags(&["--only", "none,module", "--workers", "2", "--idle", "", "--rates", "0,30"]);
        let some = some.unwrap().unwrap();
        assert_eq!(some.carriers, [Carrier::None, Carrier::Module]);
        assert_eq!((some.workers, some.idle, some.rates), (vec![2], vec![], vec![0, 30]));
        for bad in [["--only", "none,rust"], ["--workers", "0"], ["--turns", "few"], ["--only", "filter"]] {
            let error = format!("{:#}", flags(&bad).unwrap_err());
            assert!(
                error.contains(bad[0].trim_start_matches('-'))
                    || error.contains("rust")
                    || error.contains("none"),
                "{error}"
            );
        }
    }
}
