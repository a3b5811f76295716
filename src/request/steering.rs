//! How a decision becomes a header value: the fleet has the addresses as text, so a request only copies bytes.

use config::{Config, Via};
use engine::endpoint::EndpointSet;
use engine::policy::{Candidates, MAX_CANDIDATES};
use engine::settings::{NoneEligible, Upstream};

/// The way of steering, and a buffer to write header values in.
#[derive(Debug)]
pub struct SteeringHeader {
    via: Via,
    header: String,
    want: usize,
    strips_first: bool,
    /// By upstream: the value for its safe endpoint, empty if it has none.
    safe: Vec<Box<[u8]>>,
    buffer: Vec<u8>,
}

impl SteeringHeader {
    /// The configured way of steering.
    pub fn new(config: &Config) -> SteeringHeader {
        let mut steer = SteeringHeader {
            via: config.steering.via,
            header: config.steering.header.clone(),
            want: if config.steering.via == Via::OverrideHost { config.steering.candidates } else { 1 },
            strips_first: matches!(config.steering.via, Via::OriginalDst | Via::ClusterHeader),
            safe: Vec::new(),
            buffer: Vec::with_capacity(64 * MAX_CANDIDATES),
        };
        config.upstreams.iter().for_each(|upstream| steer.add(upstream));
        steer
    }

    /// The next upstream after those that are known.
    pub fn add(&mut self, upstream: &Upstream) {
        self.safe.push(match &upstream.failover.none_eligible {
            NoneEligible::SafeEndpoint(address) => {
                let mut value = Vec::new();
                write(self.via, address.to_string().as_bytes(), &mut value);
                value.into()
            }
            _ => Box::default(),
        });
    }

    /// The steering header's name.
    pub fn header(&self) -> &str {
        &self.header
    }

    /// Whether the client's header has to go before a request is looked at: because routes may follow it. Else a
    /// decision takes its place, which saves a trip.
    pub fn strips_first(&self) -> bool {
        self.strips_first
    }

    /// A decision names one endpoint from here on.
    pub fn name_one(&mut self) {
        self.want = 1;
    }

    /// How many endpoints a decision names.
    pub fn want(&self) -> usize {
        self.want
    }

    /// Whether the response may carry the steering header too, set by `stateful_session`.
    pub fn comes_back(&self) -> bool {
        self.via == Via::StatefulSession
    }

    /// The header and its value for `candidates` out of `fleet`; `None` if one of them is unknown there.
    pub fn towards(&mut self, fleet: &EndpointSet, candidates: &Candidates) -> Option<(&str, &[u8])> {
        self.buffer.clear();
        for index in candidates.as_slice() {
            let text = fleet.text(*index)?;
            if !self.buffer.is_empty() {
                self.buffer.push(b',');
            }
            write(self.via, text, &mut self.buffer);
        }
        Some((&self.header, &self.buffer))
    }

    /// The header and its value for the upstream's safe endpoint, if it has one.
    pub fn to_safety(&self, upstream: usize) -> Option<(&str, &[u8])> {
        self.safe.get(upstream).filter(|v| !v.is_empty()).map(|v| (self.header.as_str(), &**v))
    }
}

/// Appends what the Envoy mechanism expects for an endpoint: `stateful_session` takes base64, `cluster_header` the name
/// of a cluster, which is the address itself, and the others `ip:port`.
fn write(via: Via, address: &[u8], to: &mut Vec<u8>) {
    match via {
        Via::StatefulSession => write_base64(address, to),
        Via::OverrideHost | Via::OriginalDst | Via::ClusterHeader => to.extend_from_slice(address),
    }
}

/// Standard base64 with padding (RFC 4648, section 4).
fn write_base64(bytes: &[u8], to: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let six = (bits >> (18 - 6 * digit) & 63) as usize;
            to.push(if digit > chunk.len() { b'=' } else { ALPHABET.get(six).copied().unwrap_or(b'=') });
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn base64_gives_the_vectors_of_rfc_4648() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
            ("127.0.0.1:8080", "MTI3LjAuMC4xOjgwODA="),
        ] {
            let mut written = Vec::new();
            write_base64(plain.as_bytes(), &mut written);
            assert_eq!(written, coded.as_bytes());
        }
    }
}
