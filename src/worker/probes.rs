//! Out-of-band probes (`health.probe`): sent through the balanced cluster to the endpoint that the steering header
//! names.

use super::{Worker, hints};
use crate::host::{Body, Call, Host};
use crate::request::{header_hints, load_report};
use config::{Config, Via};
use engine::settings::{Failures, Probe};
use engine::time::Time;
use engine::{Failure, Outcome, RequestHandle};

/// The highest number of one worker's probes in flight.
const MAX_UNDER_WAY: usize = 32;
/// The beginning of Envoy's local reply for an endpoint that could not be reached.
const NOT_REACHED: &[u8] = b"upstream connect error";
/// The beginning of Envoy's local reply for an endpoint that did not answer in time.
const TOO_LATE: &[u8] = b"upstream request timeout";
/// The beginning of Envoy's local reply for a request that was sent to no endpoint.
const NOT_SENT: &[u8] = b"no healthy upstream";
/// The header of a local reply that an open circuit breaker caused.
const OVERLOADED: &str = "x-envoy-overloaded";

/// This worker's probes in flight, by the tokens of their calls.
pub(super) type UnderWay = Vec<(u32, RequestHandle)>;

/// The upstreams with probes: index, cluster and settings.
fn probed(config: &Config) -> impl Iterator<Item = (usize, &str, &Probe)> {
    let upstreams = config.upstreams.iter().enumerate();
    upstreams
        .filter_map(|(at, upstream)| Some((at, upstream.cluster.as_str(), upstream.health.probe.as_ref()?)))
}

impl Worker {
    /// Disables probes, because no cluster follows the steering header and none would reach its endpoint.
    pub fn probe_none(&mut self, host: &dyn Host) {
        for (at, upstream) in self.config.upstreams.iter_mut().enumerate() {
            if upstream.health.probe.take().is_some() {
                self.engine.probe_none(at);
                hints::without_effect(host, &format!("health.probe of {:?}", upstream.cluster));
            }
        }
        self.clusters.probe_none();
    }

    /// Sends the probes that are due.
    #[inline(never)]
    pub(super) fn probe(&mut self, host: &dyn Host, now: Time) {
        for (upstream, cluster, probe) in probed(&self.config) {
            while self.probes.len() < MAX_UNDER_WAY
                && let Some(handle) = self.engine.take_probe(upstream, now)
            {
                let index = handle.endpoint.index;
                let text = self.engine.upstream(upstream).and_then(|upstream| upstream.fleet().text(index));
                let address = text.and_then(|text| core::str::from_utf8(text).ok()).unwrap_or_default();
                let steering = &self.config.steering;
                let headers = [(steering.header.clone(), address.to_owned())];
                let call = Call {
                    cluster: if steering.via == Via::ClusterHeader { address } else { cluster },
                    authority: probe.authority.as_deref().unwrap_or(address),
                    path: &probe.path,
                    headers: &headers,
                    form: None,
                    timeout: probe.timeout,
                };
                match host.call(&call) {
                    Ok(token) => self.probes.push((token, handle)),
                    Err(_) => self.engine.record_probe(&handle, Outcome::Unrelated, now),
                }
            }
        }
    }

    /// Gives up the probes in flight: Envoy cancels the calls of a configuration that goes without a word, and this worker goes
    /// on with another. An answer that still comes is ignored.
    pub fn lose_probes(&mut self, host: &dyn Host) {
        for (_, handle) in core::mem::take(&mut self.probes) {
            self.engine.record_probe(&handle, Outcome::Unrelated, host.now());
        }
    }

    /// Takes the probe with this token, if there is one.
    pub(super) fn take_probe(&mut self, token: u32) -> Option<RequestHandle> {
        let at = self.probes.iter().position(|(of, _)| *of == token)?;
        Some(self.probes.swap_remove(at).1)
    }

    /// The response to the probe of `handle`, or `None` if there was none.
    #[inline(never)]
    pub(super) fn receive_probe(
        &mut self,
        host: &dyn Host,
        handle: &RequestHandle,
        (status, body): (Option<u32>, &dyn Body),
    ) {
        let now = host.now();
        let outcome = self.engine.counts(handle.upstream).map(|counts| outcome(status, body, counts));
        let mut outcome = outcome.unwrap_or(Outcome::Unrelated);
        if outcome == Outcome::Good
            && self.engine.heeds_headers(handle.upstream)
            && body.header(header_hints::FAILING).is_some()
        {
            outcome = Outcome::Failed(Failure::Status);
        }
        if outcome == Outcome::Good {
            load_report::take(&mut self.engine, handle, || now, |name| body.header(name));
        }
        self.engine.record_probe(handle, outcome, now);
    }
}

/// The outcome that a response means for the endpoint, by the configured failures.
fn outcome(status: Option<u32>, body: &dyn Body, counts: &Failures) -> Outcome {
    let Some(status) = status.and_then(|status| u16::try_from(status).ok()) else {
        return Failure::Refused.counted(counts).map_or(Outcome::Unrelated, Outcome::Failed);
    };
    let is = |text: &[u8]| body.part(0, text.len()) == text;
    let failure = match status {
        503 if body.header(OVERLOADED).is_some() || is(NOT_SENT) => return Outcome::Unrelated,
        503 if is(NOT_REACHED) => Failure::Refused.counted(counts),
        504 if is(TOO_LATE) => Failure::Timeout.counted(counts),
        _ => Failure::of_status(status, counts).filter(|failure| *failure != Failure::TooMany),
    };
    failure.map_or(Outcome::Good, Outcome::Failed)
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::host::Bytes;

    /// A response body, and whether the response has the header of an open circuit breaker.
    struct Reported(&'static str, bool);

    impl Body for Reported {
        fn size(&self) -> usize {
            self.0.len()
        }

        fn part(&self, from: usize, most: usize) -> Vec<u8> {
            self.0.as_bytes().part(from, most)
        }

        fn header(&self, name: &str) -> Option<Bytes> {
            (self.1 && name == OVERLOADED).then(|| b"true".to_vec().into())
        }
    }

    #[test]
    fn probe_outcome_ignores_envoys_own_answers() {
        let of =
            |status, text, overloaded| outcome(status, &Reported(text, overloaded), &Failures::default());
        assert_eq!(of(Some(200), "", false), Outcome::Good);
        assert_eq!(of(Some(404), "", false), Outcome::Good, "it answers");
        assert_eq!(of(Some(429), "", false), Outcome::Good, "it has enough to do, and answers");
        assert_eq!(of(Some(500), "", false), Outcome::Failed(Failure::Status5xx));
        assert_eq!(of(Some(503), "upstream connect error or", false), Outcome::Failed(Failure::Refused));
        assert_eq!(of(Some(504), "upstream request timeout", false), Outcome::Failed(Failure::Timeout));
        for status in [None, Some(0x1_0000)] {
            assert_eq!(of(status, "", false), Outcome::Failed(Failure::Refused));
        }
        // Requests that were sent to no endpoint.
        assert_eq!(of(Some(503), "no healthy upstream", false), Outcome::Unrelated);
        assert_eq!(of(Some(503), "upstream connect error", true), Outcome::Unrelated);
    }
}
