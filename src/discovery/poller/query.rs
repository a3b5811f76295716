//! Queries: what to ask, which server, and when to ask next.

use core::time::Duration;

use crate::discovery::prometheus::Request;
use crate::host::Host;
use crate::sharing::snapshot::Samples;
use config::{Config, HeaderValue, is_header_value};
use engine::time::Time;

/// Relative variation of the interval in either direction, so that proxies do not poll in step.
pub(super) const JITTER: f64 = 0.1;
/// The longest pause between two polls without traffic, seconds; until then it grows with the idle time.
const MAX_PAUSE_S: f64 = 300.0;

/// The purpose of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PollKind {
    /// The signal at this position.
    Signal(usize),
    /// The timestamps of the values of the signal at this position.
    Timestamps(usize),
    /// Endpoints, from the labels of series.
    Endpoints,
}

/// The idle time of the process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rest {
    /// Whether there is traffic now.
    pub busy: bool,
    /// Time since the last traffic, seconds.
    pub idle_s: f64,
}

impl Rest {
    /// The pause between polls whose configured interval is `interval_s`, seconds.
    pub fn pause_s(self, interval_s: f64) -> f64 {
        self.idle_s.clamp(interval_s, interval_s.max(MAX_PAUSE_S))
    }
}

pub(super) struct Query {
    pub upstream: usize,
    pub kind: PollKind,
    pub request: Request,
    /// Time when it was last sent; `None` if a poll is wanted at once.
    pub sent: Option<Time>,
    /// The pause that follows, seconds.
    pub pause_s: f64,
    /// The factor by which that pause is varied.
    pub varied: f64,
    pub pending: Option<u32>,
    /// The query's identity, the same in all workers.
    pub identity: u64,
    /// Whether this worker has seen it fail since its last answer.
    pub failed: bool,
    /// The values of a signal that wait for this query's timestamps; without any it is not sent.
    pub held: Option<Samples>,
}

impl Query {
    pub fn new(upstream: usize, kind: PollKind, request: Request, identity: u64) -> Query {
        Query {
            upstream,
            kind,
            request,
            sent: None,
            pause_s: 0.0,
            varied: 1.0,
            pending: None,
            identity,
            failed: false,
            held: None,
        }
    }

    /// Whether to send it now; `interval_s` is the poll interval under traffic.
    pub fn is_due(&self, interval_s: f64, busy: bool, now: Time) -> bool {
        if matches!(self.kind, PollKind::Timestamps(_)) {
            let lost = self.sent.is_none_or(|sent| now >= sent.after_secs(interval_s) || sent > now);
            return self.held.is_some() && (self.pending.is_none() || lost);
        }
        let Some(sent) = self.sent else { return true };
        let pause_s = if busy { self.pause_s.min(interval_s) } else { self.pause_s };
        // Sent after now means before the clock stepped back. Envoy answers every call within its timeout, which is
        // within the interval; a poll pending after another whole interval was lost with the clock.
        sent.from_the_future(now) || now >= sent.after_secs(pause_s * self.varied)
    }

    /// Marks it as sent now, after `idle_s` seconds without traffic; returns the pause until the next poll, seconds.
    pub fn mark_sent(&mut self, interval_s: f64, idle_s: f64, varied: f64, now: Time) -> f64 {
        self.sent = Some(now);
        self.varied = 1.0 + JITTER * varied;
        self.pause_s = Rest { busy: false, idle_s }.pause_s(interval_s);
        self.pause_s
    }
}

/// How a query is sent.
pub(super) struct PollSettings<'c> {
    pub cluster: &'c str,
    pub authority: &'c str,
    pub headers: &'c [(String, String)],
    pub interval: Duration,
    pub timeout: Duration,
    /// Whether it may be sent less often without traffic; not if autoscaling depends on it.
    pub rests: bool,
}

impl Query {
    /// The settings by `config`, with these headers for Prometheus.
    pub fn settings<'c>(
        &self,
        config: &'c Config,
        headers: &'c [(String, String)],
    ) -> Option<PollSettings<'c>> {
        let upstream = config.upstreams.get(self.upstream)?;
        let rests = upstream.autoscale.is_none();
        config.prometheus.as_ref().map(|of| PollSettings {
            cluster: &of.cluster,
            authority: &of.authority,
            headers,
            interval: of.interval,
            timeout: of.timeout,
            rests,
        })
    }
}

/// The headers for Prometheus, including those from the environment; an error names what is missing there.
///
/// Envoy also starts without a secret that its server does not have yet, and refuses only what needs it; polls do the
/// same.
pub(super) fn headers(host: &dyn Host, config: &Config) -> Result<Vec<(String, String)>, String> {
    let mut headers = Vec::new();
    for (name, value) in config.prometheus.iter().flat_map(|of| &of.headers) {
        match value {
            HeaderValue::Given(value) => headers.push((name.clone(), value.clone())),
            HeaderValue::Environment { variable, prefix } => match host.environment(variable) {
                Some(value) if !value.is_empty() && is_header_value(value.trim()) => {
                    headers.push((name.clone(), format!("{prefix}{}", value.trim())));
                }
                found => {
                    let found = match found {
                        None => format!("no variable {variable:?} in the plugin's environment"),
                        Some(_) => format!("{variable:?} to be no header value (not shown)"),
                    };
                    return Err(format!(
                        "$.prometheus.headers[{name:?}].env: found {found}; vm_config.environment_variables gives \
                         variables to the plugin"
                    ));
                }
            },
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn s(seconds: f64) -> Time {
        Time::from_secs_f64(1e9 + seconds)
    }

    fn query() -> Query {
        Query::new(0, PollKind::Endpoints, Request::default(), 0)
    }

    /// The seconds at which it is sent, without traffic from the start.
    fn asked_without_traffic(interval_s: f64, for_s: u32) -> Vec<u32> {
        let mut query = query();
        let due = |query: &mut Query, second: u32| {
            let now = s(f64::from(second));
            let due = query.is_due(interval_s, false, now);
            if due {
                query.mark_sent(interval_s, f64::from(second), 0.0, now);
            }
            due
        };
        (0..for_s).filter(|second| due(&mut query, *second)).collect()
    }

    #[test]
    fn without_traffic_the_pause_doubles_up_to_a_bound() {
        assert_eq!(asked_without_traffic(5.0, 1300), [0, 5, 10, 20, 40, 80, 160, 320, 620, 920, 1220]);
        assert_eq!(asked_without_traffic(600.0, 1300), [0, 600, 1200], "never more often than configured");
    }

    #[test]
    fn the_first_request_makes_good_what_was_left_out() {
        let mut query = query();
        assert!(query.is_due(5.0, false, s(0.0)), "nothing is known yet");
        query.mark_sent(5.0, 100.0, 0.0, s(100.0));
        assert!(!query.is_due(5.0, false, s(199.0)));
        assert!(query.is_due(5.0, true, s(106.0)));
        assert!(!query.is_due(5.0, true, s(104.0)), "not before its time");
        assert!(query.is_due(5.0, false, s(10.0)), "the clock stepped back");
        assert!(!query.is_due(5.0, false, s(99.9)), "a moment is no step");
    }
}
