//! The log of polls that fail: one line for an outage of the admin interface, however many upstreams it concerns, and one
//! for the clusters that an answer cannot be used for, which Envoy may have removed. Such a cluster fails every poll, and
//! must not hide an outage.

use super::MAX_ERROR;
use crate::discovery::notices;
use crate::discovery::source::Origin;
use crate::discovery::sources::{Discovery, Failing};
use crate::host::Host;

/// Counts a poll that had no answer for an upstream, and logs the first of several in a row.
#[inline(never)]
pub(super) fn fail(host: &dyn Host, discovery: &mut Discovery, (upstream, name): (usize, &str), error: &str) {
    let error = shown(name, error);
    let before = discovery.failing(Origin::Envoy);
    discovery.failed(upstream, Origin::Envoy, &error);
    if !before.outage {
        notices::log_fails(host, (Origin::Envoy, name), &error);
    }
}

/// What an answer changes in what is failing.
pub(super) struct Changes {
    before: Failing,
    /// Whether it can be used for any upstream.
    pub usable: bool,
    /// The first upstream that it cannot be used for, and that the answer before could, with the error.
    first: Option<(String, String)>,
    /// The number of the others.
    others: usize,
}

impl Changes {
    /// Before the answer is taken.
    pub fn new(discovery: &Discovery) -> Changes {
        Changes { before: discovery.failing(Origin::Envoy), usable: false, first: None, others: 0 }
    }

    /// The answer cannot be used for this upstream.
    #[inline(never)]
    pub fn unusable(&mut self, discovery: &mut Discovery, (upstream, name): (usize, &str), error: &str) {
        let error = shown(name, error);
        if !discovery.failed_alone(upstream, Origin::Envoy, &error) {
            return;
        }
        match self.first {
            Some(_) => self.others += 1,
            None => self.first = Some((name.to_owned(), error)),
        }
    }

    /// Logs what has changed.
    #[inline(never)]
    pub fn log(self, host: &dyn Host, discovery: &mut Discovery) {
        if self.usable {
            discovery.answered(Origin::Envoy);
        }
        if let Some((name, error)) = self.first {
            let others = match self.others {
                0 => String::new(),
                1 => " (and 1 more upstream)".to_owned(),
                others => format!(" (and {others} more upstreams)"),
            };
            notices::log_fails(host, (Origin::Envoy, &name), &format!("{error}{others}"));
        }
        let Failing { outage, alone } = discovery.failing(Origin::Envoy);
        if !outage && (self.before.outage || (self.before.alone && !alone)) {
            notices::log_answers(host, Origin::Envoy);
        }
    }
}

fn shown(name: &str, error: &str) -> String {
    format!("cluster={name} endpoints: {error}").chars().take(MAX_ERROR).collect()
}
