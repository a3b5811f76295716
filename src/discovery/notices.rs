//! Log lines on the state of discovery, written when a problem begins and not again until it has ended.

use crate::discovery::source::{Origin, Source};
use crate::host::Host;
use crate::host::event::{Event, Field};
use core::net::SocketAddr;

/// The problems of one upstream that have been logged.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    /// The number of addresses that Envoy's cluster does not have.
    pub unknown: usize,
    /// By source: whether entries without an address have been logged.
    skipped: [bool; 2],
    /// By source: whether absent endpoints have been logged.
    absent: [bool; 2],
    /// By source: whether it has been logged that it names no endpoint.
    none: [bool; 2],
}

impl Notices {
    /// Notes how many addresses are not in Envoy's cluster, and one of them. Without a host another worker logs it.
    pub fn unknown_to_envoy(
        &mut self,
        host: Option<&dyn Host>,
        upstream: &str,
        (addresses, first): (usize, Option<SocketAddr>),
    ) {
        let before = core::mem::replace(&mut self.unknown, addresses);
        let Some(host) = host.filter(|_| before == 0 && addresses > 0) else { return };
        let first = first.map(|first| first.to_string()).unwrap_or_default();
        host.log_event(&Event {
            level: log::Level::Warn,
            name: "unknown_to_envoy",
            message: &format!(
                "discovery: cluster={upstream}: {addresses} configured or discovered addresses are not in Envoy's cluster and \
                 get no requests: {first}{}",
                if addresses > 1 { ", …" } else { "" }
            ),
            fields: &[
                ("upstream", Field::Text(upstream)),
                ("addresses", Field::Whole(addresses as u64)),
                ("first", Field::Text(&first)),
            ],
        });
    }

    /// Notes the state of a source. Without a host another worker logs it.
    pub fn source(&mut self, host: Option<&dyn Host>, (upstream, origin): (&str, Origin), source: &Source) {
        let [of_prometheus, of_envoy] = &mut self.skipped;
        let logged = if origin == Origin::Prometheus { of_prometheus } else { of_envoy };
        let before = core::mem::replace(logged, source.skipped > 0);
        if let Some(host) = host.filter(|_| !before && source.skipped > 0) {
            log_skipped(host, upstream, origin, source);
        }
        let [of_prometheus, of_envoy] = &mut self.none;
        let logged = if origin == Origin::Prometheus { of_prometheus } else { of_envoy };
        let none = source.answers > 0 && source.found.is_empty() && source.skipped == 0;
        let before = core::mem::replace(logged, none);
        if let Some(host) = host.filter(|_| !before && none) {
            log_none(host, upstream, origin);
        }
        let [of_prometheus, of_envoy] = &mut self.absent;
        let logged = if origin == Origin::Prometheus { of_prometheus } else { of_envoy };
        // Responses that alternate for a short time are not logged.
        let absent = source.absences.lasting();
        let before = core::mem::replace(logged, absent > 0);
        if let Some(host) = host.filter(|_| !before && absent > 0) {
            log_absent(host, (upstream, origin), (absent, source.found.len()));
        }
    }
}

/// Logs that polls of a source have begun to fail, for this upstream first.
#[inline(never)]
pub(crate) fn log_fails(host: &dyn Host, (origin, upstream): (Origin, &str), error: &str) {
    host.log_event(&Event {
        level: log::Level::Warn,
        name: "source_fails",
        message: &format!("{} poll failed: {error}", origin.name()),
        fields: &[
            ("source", Field::Text(origin.name())),
            ("upstream", Field::Text(upstream)),
            ("error", Field::Text(error)),
        ],
    });
}

/// Logs that polls of a source succeed again.
#[inline(never)]
pub(crate) fn log_answers(host: &dyn Host, origin: Origin) {
    host.log_event(&Event {
        level: log::Level::Info,
        name: "source_answers",
        message: &format!("{} poll succeeded again", origin.name()),
        fields: &[("source", Field::Text(origin.name()))],
    });
}

fn log_skipped(host: &dyn Host, upstream: &str, origin: Origin, source: &Source) {
    let all =
        source.skipped as usize + source.found.len() - source.absences.open.len().min(source.found.len());
    let Source { skipped, examples, unsteerable, .. } = source;
    let (what, then) = match origin {
        Origin::Prometheus => ("series have no address and are left out", String::new()),
        Origin::Envoy => (
            "hosts have no IP address and cannot be steered to",
            format!("; {:.0} % of the requests are left to Envoy's own policy", 100.0 * unsteerable),
        ),
    };
    host.log_event(&Event {
        level: log::Level::Warn,
        name: "endpoints_without_address",
        message: &format!(
            "discovery: cluster={upstream} source={}: {skipped} of {all} {what}: {examples}{then}",
            origin.name()
        ),
        fields: &[
            ("upstream", Field::Text(upstream)),
            ("source", Field::Text(origin.name())),
            ("skipped", Field::Whole(u64::from(*skipped))),
            ("of", Field::Whole(all as u64)),
            ("examples", Field::Text(examples)),
        ],
    });
}

fn log_none(host: &dyn Host, upstream: &str, origin: Origin) {
    host.log_event(&Event {
        level: log::Level::Warn,
        name: "endpoints_none",
        message: &format!(
            "discovery: cluster={upstream} source={}: the answer has no endpoints",
            origin.name()
        ),
        fields: &[("upstream", Field::Text(upstream)), ("source", Field::Text(origin.name()))],
    });
}

fn log_absent(host: &dyn Host, (upstream, origin): (&str, Origin), (absent, of): (usize, usize)) {
    host.log_event(&Event {
        level: log::Level::Info,
        name: "endpoints_absent",
        message: &format!(
            "discovery: cluster={upstream} source={}: {absent} of {of} endpoints are no longer listed; kept for now unless \
             they fail",
            origin.name()
        ),
        fields: &[
            ("upstream", Field::Text(upstream)),
            ("source", Field::Text(origin.name())),
            ("absent", Field::Whole(absent as u64)),
            ("of", Field::Whole(of as u64)),
        ],
    });
}
