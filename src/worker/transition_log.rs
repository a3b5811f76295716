//! Log lines for endpoints that were ejected or have recovered, written by one worker for the whole process.

use super::Worker;
use crate::host::Host;
use crate::host::event::{Event, Field};
use crate::telemetry::status;
use config::LogFormat;
use engine::health::State;
use engine::time::Time;
use engine::{Change, Cluster};

impl Worker {
    /// Logs the transitions since the last tick. The text format leaves out suspects, most of which are cleared within
    /// a second; the JSON format has every transition, for collectors of events.
    #[inline(never)]
    pub(super) fn log_transitions(&mut self, host: &dyn Host, now: Time) {
        let every = self.config.log.format == LogFormat::Json;
        for at in 0..self.engine.upstreams().len() {
            let Some(upstream) = self.engine.upstream_mut(at) else { continue };
            let fail_after = upstream.config().health.fail_after;
            for change in upstream.take_changes() {
                match sentence(&change, fail_after) {
                    Some((level, what)) => log_change(host, upstream, &change, (level, &what), now),
                    None if every => {
                        log_change(host, upstream, &change, (log::Level::Info, kind(&change)), now)
                    }
                    None => {}
                }
            }
        }
    }
}

fn log_change(
    host: &dyn Host,
    upstream: &Cluster,
    change: &Change,
    (level, what): (log::Level, &str),
    now: Time,
) {
    let Some(endpoint) = upstream.fleet().get(change.index) else { return };
    let [from, to] = change.states.map(word);
    let because = match (upstream.endpoint(change.index), upstream.explain(change.index, now)) {
        (Some(state), Some(explained)) => status::reason(upstream, (&state, change.index), &explained),
        _ => "",
    };
    host.log_event(&Event {
        level,
        name: kind(change),
        message: &format!(
            "outlier ejection: cluster={} endpoint={} {what}",
            upstream.cluster(),
            endpoint.text
        ),
        fields: &[
            ("upstream", Field::Text(upstream.cluster())),
            ("endpoint", Field::Text(endpoint.text)),
            ("from", Field::Text(from)),
            ("to", Field::Text(to)),
            ("eligible", Field::Flag(change.eligible[1])),
            ("because", Field::text(Some(because).filter(|because| !because.is_empty()))),
        ],
    });
}

/// The event's name. A suspect is only avoided until another request has decided: one failure ejects no endpoint.
fn kind(change: &Change) -> &'static str {
    match (change.eligible, change.states) {
        ([true, false], [_, State::Failed | State::Stalled]) => "ejected",
        ([false, true], [State::Failed | State::Stalled | State::Recovering, _]) => "reinstated",
        _ => "state_changed",
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Healthy => "healthy",
        State::Suspect | State::Stalled => "suspect",
        State::Failed => "failed",
        State::Recovering => "recovering",
    }
}

/// What the text format says of a change, if anything; `fail_after` is the limit of consecutive failures.
fn sentence(change: &Change, fail_after: u32) -> Option<(log::Level, String)> {
    let [before, after] = change.states;
    match (before, after) {
        (State::Healthy | State::Suspect | State::Stalled, State::Failed) if change.eligible[1] => {
            Some((log::Level::Warn, "failed, not ejected: ejection limit reached".to_owned()))
        }
        (State::Healthy | State::Suspect | State::Stalled, State::Failed) => {
            Some((log::Level::Warn, format!("ejected: consecutive failures (fail_after {fail_after})")))
        }
        (State::Failed | State::Recovering, State::Healthy) => {
            Some((log::Level::Info, "recovered, back in traffic".to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn only_what_fails_or_hangs_is_ejected() {
        let kind = |eligible, states| kind(&Change { index: 0, states, eligible });
        assert_eq!(kind([true, false], [State::Healthy, State::Suspect]), "state_changed");
        assert_eq!(kind([false, true], [State::Suspect, State::Healthy]), "state_changed");
        assert_eq!(kind([true, false], [State::Suspect, State::Failed]), "ejected");
        assert_eq!(kind([true, false], [State::Healthy, State::Stalled]), "ejected");
        assert_eq!(kind([false, true], [State::Recovering, State::Healthy]), "reinstated");
        assert_eq!(kind([true, true], [State::Healthy, State::Failed]), "state_changed");
    }
}
