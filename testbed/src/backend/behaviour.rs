//! The behaviours of a backend, and their form on the command line.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// How a backend treats requests that arrive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Behaviour {
    /// Works as configured.
    Healthy,
    /// Work takes this many times as long.
    Slow(f64),
    /// Answers `status` after `after`, without a slot and without work.
    FailFast {
        /// The status code.
        status: u16,
        /// The time until the answer.
        after: Duration,
    },
    /// Answers `status` at once, without a slot and without work, to this fraction of the requests.
    FailSome {
        /// The status code.
        status: u16,
        /// The fraction, 0..=1.
        ratio: f64,
    },
    /// Accepts connections and requests, and answers none, not even scrapes.
    BlackHole,
    /// Closes the listener and cuts the connections: connecting is refused.
    Refuse,
    /// Resets the connection (TCP RST) instead of answering.
    Reset,
    /// Stops everything for `length` at the end of every `every`.
    Pause {
        /// The length of a pause.
        length: Duration,
        /// The period.
        every: Duration,
    },
    /// Works, then answers 500 to this fraction of the requests.
    ErrorRatio(f64),
    /// Work takes `factor` times as long for a fraction of the requests.
    Heavy {
        /// The fraction, 0..=1.
        ratio: f64,
        /// The factor.
        factor: f64,
    },
    /// Answers 200 at once with this `grpc-status`, as a header or in trailers.
    Grpc {
        /// The gRPC status code; 0 is OK.
        status: u8,
        /// Whether it is in trailers after a body instead of in the headers.
        in_trailers: bool,
    },
    /// Works, and asks in every response to be ejected at once.
    TellsToFail,
    /// Answers 200 at once with this `grpc-status` in the last frame of the body, as in gRPC-Web.
    GrpcWeb {
        /// The gRPC status code.
        status: u8,
    },
}

impl Behaviour {
    /// 503 after a millisecond: the failing endpoint that looks fast.
    pub const FAIL_FAST: Self = Self::FailFast { status: 503, after: Duration::from_millis(1) };

    /// The factor on the duration of work; `luck` is uniform in 0..1.
    pub(super) fn work_factor(self, luck: f64) -> f64 {
        match self {
            Self::Slow(factor) => factor,
            Self::Heavy { ratio, factor } if luck < ratio => factor,
            _ => 1.0,
        }
    }
}

impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Healthy => write!(f, "healthy"),
            Self::Slow(factor) => write!(f, "slow:{factor}"),
            Self::FailFast { status, after } => write!(f, "fail:{status}:{after:?}"),
            Self::FailSome { status, ratio } => write!(f, "some:{status}:{ratio}"),
            Self::BlackHole => write!(f, "black-hole"),
            Self::Refuse => write!(f, "refuse"),
            Self::Reset => write!(f, "reset"),
            Self::Pause { length, every } => write!(f, "pause:{length:?}:{every:?}"),
            Self::ErrorRatio(ratio) => write!(f, "errors:{ratio}"),
            Self::Heavy { ratio, factor } => write!(f, "heavy:{ratio}:{factor}"),
            Self::Grpc { status, in_trailers: false } => write!(f, "grpc:{status}"),
            Self::Grpc { status, in_trailers: true } => write!(f, "grpc-trailers:{status}"),
            Self::TellsToFail => write!(f, "tells-to-fail"),
            Self::GrpcWeb { status } => write!(f, "grpc-web:{status}"),
        }
    }
}

impl FromStr for Behaviour {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        Ok(match *parts.as_slice() {
            ["healthy"] => Self::Healthy,
            ["slow", factor] => Self::Slow(positive(factor)?),
            ["fail"] => Self::FAIL_FAST,
            ["fail", status] => {
                Self::FailFast { status: status_code(status)?, after: Duration::from_millis(1) }
            }
            ["fail", status, after] => {
                Self::FailFast { status: status_code(status)?, after: duration(after)? }
            }
            ["some", status, ratio] => Self::FailSome { status: status_code(status)?, ratio: share(ratio)? },
            ["black-hole"] => Self::BlackHole,
            ["refuse"] => Self::Refuse,
            ["reset"] => Self::Reset,
            ["pause", length, every] => {
                let (length, every) = (duration(length)?, duration(every)?);
                ensure!(length < every, "{text}: the pause must be shorter than its period");
                Self::Pause { length, every }
            }
            ["errors", ratio] => Self::ErrorRatio(share(ratio)?),
            ["heavy", ratio, factor] => Self::Heavy { ratio: share(ratio)?, factor: positive(factor)? },
            ["grpc", status] => Self::Grpc { status: status.parse()?, in_trailers: false },
            ["grpc-trailers", status] => Self::Grpc { status: status.parse()?, in_trailers: true },
            ["tells-to-fail"] => Self::TellsToFail,
            ["grpc-web", status] => Self::GrpcWeb { status: status.parse()? },
            _ => bail!(
                "{text}: not a behaviour; these are: healthy, slow:10, fail:503:1ms, some:429:0.1, black-hole, refuse, \
                 reset, pause:200ms:1s, errors:0.1, heavy:0.05:10, grpc:14, grpc-trailers:14, grpc-web:14, tells-to-fail"
            ),
        })
    }
}

/// A step of a schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The time from the start.
    pub at: Duration,
    /// The behaviour from then on.
    pub behaviour: Behaviour,
}

/// Reads a schedule: `30s=slow:10,60s=healthy`, times ascending.
pub fn parse_schedule(text: &str) -> Result<Vec<Step>> {
    let steps: Vec<Step> = text
        .split(',')
        .map(str::trim)
        .filter(|step| !step.is_empty())
        .map(|step| {
            let (at, behaviour) =
                step.split_once('=').with_context(|| format!("{step}: not TIME=BEHAVIOUR"))?;
            Ok(Step { at: duration(at)?, behaviour: behaviour.parse()? })
        })
        .collect::<Result<_>>()?;
    ensure!(steps.is_sorted_by_key(|step| step.at), "{text}: the times must ascend");
    Ok(steps)
}

pub(super) fn duration(text: &str) -> Result<Duration> {
    humantime::parse_duration(text).with_context(|| format!("{text}: not a duration such as 20ms"))
}

fn positive(text: &str) -> Result<f64> {
    let value: f64 = text.parse().with_context(|| format!("{text}: not a number"))?;
    ensure!(value.is_finite() && value > 0.0, "{text}: not a positive number");
    Ok(value)
}

fn share(text: &str) -> Result<f64> {
    let value: f64 = text.parse().with_context(|| format!("{text}: not a number"))?;
    ensure!((0.0..=1.0).contains(&value), "{text}: not between 0 and 1");
    Ok(value)
}

fn status_code(text: &str) -> Result<u16> {
    let code: u16 = text.parse().with_context(|| format!("{text}: not a status code"))?;
    ensure!((200..=599).contains(&code), "{text}: not between 200 and 599");
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        for text in [
            "healthy",
            "slow:10",
            "fail:503:1ms",
            "some:429:0.1",
            "black-hole",
            "refuse",
            "reset",
            "pause:200ms:1s",
            "errors:0.1",
            "heavy:0.05:10",
            "grpc:14",
            "grpc-trailers:14",
            "grpc-web:14",
            "tells-to-fail",
        ] {
            let behaviour: Behaviour = text.parse().unwrap();
            assert_eq!(behaviour.to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "slow", "slow:0", "slow:x", "fail:99", "errors:2", "pause:2s:1s", "heavy:0.1"] {
            assert!(text.parse::<Behaviour>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_schedule_ascends() {
        let steps = parse_schedule("30s=slow:10, 1m=healthy").unwrap();
        assert_eq!(steps[0], Step { at: Duration::from_secs(30), behaviour: Behaviour::Slow(10.0) });
        assert_eq!(steps[1].at, Duration::from_secs(60));
        assert!(parse_schedule("1m=healthy,30s=slow:10").is_err());
        assert!(parse_schedule("").unwrap().is_empty());
    }
}
