//! The load generator as a program: the same load in rounds, with a line after each.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::Load;
use crate::{clock, process};

const HELP: &str = "\
Open-loop load, in rounds, until it is stopped; after each round a line with what was measured.

  --target HOST:PORT   where to                               [127.0.0.1:10000]
  --path PATH          the path                               [/]
  --rate NUMBER        requests a second                      [100]
  --round SECONDS      the length of a round                  [10]
  --rounds N           how many                               [no end]
";

#[derive(Clone, Debug, PartialEq)]
struct Settings {
    target: String,
    path: String,
    rate: f64,
    round: Duration,
    rounds: u64,
}

/// Reads the flags and generates load until the last round, SIGINT or SIGTERM.
pub async fn run() -> Result<()> {
    let Some(settings) = read(lexopt::Parser::from_env())? else {
        print!("{HELP}");
        return Ok(());
    };
    process::until_signal(make_load(settings)).await
}

async fn make_load(settings: Settings) -> Result<()> {
    for round in 1..=settings.rounds {
        let begun = clock::now();
        if let Err(error) = one_round(&settings, round).await {
            // Containers start in any order: the target may not be up yet.
            println!("{error:#}");
            clock::sleep_until(begun + Duration::from_secs(1)).await;
        }
    }
    Ok(())
}

async fn one_round(settings: &Settings, round: u64) -> Result<()> {
    // Looked up for each round: a name may resolve to another address by then.
    let target = &settings.target;
    let mut found = tokio::net::lookup_host(target).await.with_context(|| format!("cannot find {target}"))?;
    let load = Load {
        target: found.next().with_context(|| format!("{target} has no address"))?,
        path: settings.path.clone(),
        rate: settings.rate,
        duration: settings.round,
        seed: round,
        ..Load::default()
    };
    let summary = load.run().await?.summary();
    println!(
        "{} requests, {} failed, p50 {:.0} ms, p99 {:.0} ms",
        summary.requests,
        summary.failed,
        summary.percentile_ms(50.0),
        summary.percentile_ms(99.0),
    );
    Ok(())
}

fn read(mut parser: lexopt::Parser) -> Result<Option<Settings>> {
    let mut settings = Settings {
        target: "127.0.0.1:10000".to_owned(),
        path: "/".to_owned(),
        rate: 100.0,
        round: Duration::from_secs(10),
        rounds: u64::MAX,
    };
    while let Some(argument) = parser.next()? {
        let lexopt::Arg::Long(name) = argument else {
            match argument {
                lexopt::Arg::Short('h') => return Ok(None),
                other => bail!("{}; --help tells what there is", other.unexpected()),
            }
        };
        let name = name.to_owned();
        if name == "help" {
            return Ok(None);
        }
        let value = parser.value()?.to_string_lossy().into_owned();
        let number = || {
            value.parse::<f64>().with_context(|| format!("--{name} {value}: not a number")).and_then(positive)
        };
        match name.as_str() {
            "target" => settings.target = value,
            "path" => settings.path = value,
            "rate" => settings.rate = number()?,
            "round" => settings.round = Duration::from_secs_f64(number()?.min(3600.0)),
            "rounds" => settings.rounds = number()? as u64,
            _ => bail!("unknown flag --{name}; --help tells what there is"),
        }
    }
    Ok(Some(settings))
}

fn positive(number: f64) -> Result<f64> {
    ensure!(number > 0.0 && number.is_finite(), "{number} is not above 0");
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{self, Backend};

    #[test]
    fn flags_override_the_defaults_and_faults_name_them() {
        let given = ["--target", "envoy:80", "--rate", "2.5", "--round", "1", "--rounds", "3"];
        let settings = read(lexopt::Parser::from_args(given)).unwrap().unwrap();
        assert_eq!((settings.target.as_str(), settings.rate, settings.rounds), ("envoy:80", 2.5, 3));
        assert_eq!((settings.path.as_str(), settings.round), ("/", Duration::from_secs(1)));
        assert_eq!(read(lexopt::Parser::from_args(["--help"])).unwrap(), None);
        for bad in [["--rate", "fast"], ["--rate", "0"], ["--ratte", "1"]] {
            let error = format!("{:#}", read(lexopt::Parser::from_args(bad)).unwrap_err());
            assert!(error.contains(bad[0]) || error.contains("above 0"), "{error}");
        }
    }

    #[tokio::test]
    async fn rounds_reach_the_target() -> Result<()> {
        let backend = Backend::start(backend::Config::default()).await?;
        let target = backend.address().to_string();
        let flags = ["--target", &target, "--rate", "50", "--round", "0.2", "--rounds", "2"];
        let settings = read(lexopt::Parser::from_args(flags))?.context("settings")?;
        make_load(settings).await?;
        assert!(backend.counts().received > 5, "{:?}", backend.counts());
        Ok(())
    }
}
