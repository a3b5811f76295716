//! A backend as a program.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::behaviour::{duration, parse_schedule};
use super::{Backend, Behaviour, Config, Kind, Step};

const HELP: &str = "\
A backend with a few slots, log-normal work, Prometheus metrics under /metrics, and faults.

Each flag can also be given as an environment variable: --median as BACKEND_MEDIAN.

  --listen ADDRESS     where to listen                        [0.0.0.0:8080]
  --kind KIND          service, or worker (202 at once)       [service]
  --queue N            how many may wait; then 503            [service: no bound, worker: 100]
  --slots N            worked on at the same time             [4]
  --median TIME        median of the log-normal work          [20ms]
  --sigma NUMBER       its sigma                              [0.46]
  --seed N             seed of everything random              [1]
  --behaviour WHAT     healthy, slow:10, fail:503:1ms, some:429:0.1, black-hole, refuse, reset, pause:200ms:1s,
                       errors:0.1, heavy:0.05:10, grpc:14, grpc-trailers:14  [healthy]
  --schedule LIST      changes after the start: 30s=slow:10,60s=healthy
";

const FLAGS: [&str; 9] =
    ["listen", "kind", "queue", "slots", "median", "sigma", "seed", "behaviour", "schedule"];

/// Reads flags and environment, and serves until SIGINT or SIGTERM.
pub async fn run() -> Result<()> {
    let given = flags(lexopt::Parser::from_env())?;
    if given.is_none() {
        print!("{HELP}");
        return Ok(());
    }
    let given = given.unwrap_or_default();
    let from_environment = |name: &str| std::env::var(format!("BACKEND_{}", name.to_uppercase())).ok();
    let (config, schedule) = settings(|name| {
        let flag = given.iter().rev().find(|(flag, _)| flag == name).map(|(_, value)| value.clone());
        flag.or_else(|| from_environment(name)).filter(|value| !value.is_empty())
    })?;
    let backend = Backend::start(config).await?;
    println!("listening on {}", backend.address());
    backend.follow(schedule);
    use tokio::signal::unix::{SignalKind, signal};
    // As the first process of a container it would otherwise ignore SIGTERM.
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}

fn flags(mut parser: lexopt::Parser) -> Result<Option<Vec<(String, String)>>> {
    let mut given = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => return Ok(None),
            lexopt::Arg::Long(name) if FLAGS.contains(&name) => {
                let name = name.to_owned();
                let value = parser.value()?.to_string_lossy().into_owned();
                given.push((name, value));
            }
            other => bail!("{}; --help tells what there is", other.unexpected()),
        }
    }
    Ok(Some(given))
}

fn settings(value: impl Fn(&str) -> Option<String>) -> Result<(Config, Vec<Step>)> {
    let number = |name: &str| -> Result<Option<usize>> {
        value(name)
            .map(|text| text.parse().with_context(|| format!("--{name} {text}: not a number")))
            .transpose()
    };
    let defaults = Config::default();
    let queue = number("queue")?;
    let kind = match value("kind").as_deref() {
        None | Some("service") => Kind::Service { queue },
        Some("worker") => queue.map_or(Kind::WORKER, |queue| Kind::Worker { queue }),
        Some(other) => bail!("--kind {other}: neither service nor worker"),
    };
    let sigma: f64 = match value("sigma") {
        None => defaults.sigma,
        Some(text) => text.parse().with_context(|| format!("--sigma {text}: not a number"))?,
    };
    if !(0.0..=5.0).contains(&sigma) {
        bail!("--sigma {sigma}: not between 0 and 5");
    }
    let config = Config {
        address: match value("listen") {
            None => SocketAddr::from(([0, 0, 0, 0], 8080)),
            Some(text) => {
                text.parse().with_context(|| format!("--listen {text}: not an address with a port"))?
            }
        },
        kind,
        slots: number("slots")?.unwrap_or(defaults.slots),
        median: value("median")
            .map_or(Ok(defaults.median), |text| duration(&text))?
            .max(Duration::from_micros(1)),
        sigma,
        slowness: defaults.slowness,
        seed: number("seed")?.map_or(defaults.seed, |seed| seed as u64),
        behaviour: value("behaviour").map_or(Ok(Behaviour::Healthy), |text| text.parse())?,
        record_requests: false,
    };
    Ok((config, value("schedule").map_or(Ok(Vec::new()), |text| parse_schedule(&text))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<(Config, Vec<Step>)> {
        settings(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn settings_override_the_defaults() {
        let (config, schedule) = read(&[
            ("listen", "127.0.0.1:9000"),
            ("kind", "worker"),
            ("median", "5ms"),
            ("behaviour", "slow:4"),
            ("schedule", "1s=healthy"),
        ])
        .unwrap();
        assert_eq!(config.address.port(), 9000);
        assert_eq!(config.kind, Kind::WORKER);
        assert_eq!(config.median, Duration::from_millis(5));
        assert_eq!(config.behaviour, Behaviour::Slow(4.0));
        assert_eq!(config.slots, 4);
        assert_eq!(schedule.len(), 1);
    }

    #[test]
    fn faults_name_the_flag() {
        for (name, value) in [("listen", "nowhere"), ("kind", "batch"), ("slots", "x"), ("sigma", "-1")] {
            let error = format!("{:#}", read(&[(name, value)]).unwrap_err());
            assert!(error.contains(&format!("--{name}")), "{error}");
        }
    }

    #[test]
    fn unknown_flags_are_refused() {
        assert!(flags(lexopt::Parser::from_args(["--meadian", "5ms"])).is_err());
        assert!(flags(lexopt::Parser::from_args(["--help"])).unwrap().is_none());
        let given = flags(lexopt::Parser::from_args(["--slots", "2"])).unwrap().unwrap();
        assert_eq!(given, [("slots".to_owned(), "2".to_owned())]);
    }
}
