//! Decisions as header values. The endpoint set keeps addresses as text, so that a request only copies bytes.

use config::{Config, Via};
use engine::endpoint::EndpointSet;
use engine::policy::{Candidates, MAX_CANDIDATES};
use engine::settings::{NoneEligible, Upstream};

/// The configured way of steering, and a buffer for header values.
#[derive(Debug)]
pub struct SteeringHeader {
    via: Via,
    header: String,
    want: usize,
    strips_first: bool,
    /// By upstream: the header value for its safe endpoint, empty if it has none.
    safe: Vec<Box<[u8]>>,
    buffer: Vec<u8>,
}

impl SteeringHeader {
    /// Steering as `config` says.
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

    /// Adds the next upstream.
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

    /// The name of the steering header.
    pub fn header(&self) -> &str {
        &self.header
    }

    /// Whether the client's header is removed before anything else, because routes may depend on it. Otherwise the
    /// decision overwrites it, which saves a host call.
    pub fn strips_first(&self) -> bool {
        self.strips_first
    }

    /// Limits decisions to one endpoint.
    pub fn name_one(&mut self) {
        self.want = 1;
    }

    /// Number of endpoints that a decision names.
    pub fn want(&self) -> usize {
        self.want
    }

    /// Whether responses may carry the steering header too, as `stateful_session` adds it.
    pub fn comes_back(&self) -> bool {
        self.via == Via::StatefulSession
    }

    /// The header and its value for `candidates` of `fleet`; `None` if one of them is not in it.
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

/// Appends an endpoint in the form that the Envoy mechanism expects: base64 for `stateful_session`, the name of the
/// cluster (the address itself) for `cluster_header`, and `ip:port` for the others.
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
