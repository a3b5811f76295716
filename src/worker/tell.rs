//! Telling the log who was taken out of traffic, and who is back: one worker of the process for all.

use super::Worker;
use crate::engine::Change;
use crate::health::State;
use crate::host::Host;

impl Worker {
    /// Logs what has changed since the last tick. Suspects are not worth a line: most are cleared within a second.
    pub(super) fn tell_changes(&mut self, host: &dyn Host) {
        for at in 0..self.engine.upstreams().len() {
            let Some(upstream) = self.engine.upstream_mut(at) else { continue };
            for change in upstream.take_changes() {
                let Some((level, what)) = told(&change) else { continue };
                let Some(endpoint) = upstream.fleet().get(change.index) else { continue };
                host.log(level, &format!("{}: {} {what}", upstream.cluster(), endpoint.text));
            }
        }
    }
}

fn told(change: &Change) -> Option<(log::Level, &'static str)> {
    let [before, after] = change.states;
    match (before, after) {
        (State::Healthy | State::Suspect, State::Failed) if change.eligible[1] => {
            Some((log::Level::Warn, "fails, but too few others are left: it stays in traffic"))
        }
        (State::Healthy | State::Suspect, State::Failed) => {
            Some((log::Level::Warn, "fails: taken out of traffic"))
        }
        (State::Failed | State::Recovering, State::Healthy) => {
            Some((log::Level::Info, "is well again: back in traffic"))
        }
        _ => None,
    }
}
