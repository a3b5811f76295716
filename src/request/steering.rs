//! Decisions as header values. The endpoint set keeps addresses as text, so that a request only copies bytes.

use crate::host::StreamHost;
use config::{Config, Via};
use engine::endpoint::EndpointSet;
use engine::policy::{Candidates, MAX_CANDIDATES};
use engine::settings::{NoneEligible, Upstream};

/// The property with the name of the steering header that a filter has set, for those of other plugins behind it.
pub const MARK: &[&str] = &["evenkeel_steered"];

/// The configured way of steering, and a buffer for header values.
#[derive(Debug)]
pub struct SteeringHeader {
    via: Via,
    header: String,
    want: usize,
    strips_first: bool,
    /// Whether decisions are marked as evenkeel's, because other plugins of it see the request, too.
    pub marks: bool,
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
            marks: false,
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

    /// Whether what the header names is a cluster of one endpoint.
    pub fn names_a_cluster(&self) -> bool {
        self.via == Via::ClusterHeader
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

    /// Names `candidates` of `fleet` in the header; not if one of them is not in it. Returns whether it does.
    pub fn towards(&mut self, fleet: &EndpointSet, candidates: &Candidates, host: &dyn StreamHost) -> bool {
        self.buffer.clear();
        for index in candidates.as_slice() {
            let Some(text) = fleet.text(*index) else { return false };
            if !self.buffer.is_empty() {
                self.buffer.push(b',');
            }
            write(self.via, text, &mut self.buffer);
        }
        self.name(&self.buffer, host);
        true
    }

    /// Names the upstream's safe endpoint in the header, if it has one. Returns whether it does.
    pub fn to_safety(&self, upstream: usize, host: &dyn StreamHost) -> bool {
        let value = self.safe.get(upstream).filter(|value| !value.is_empty());
        value.iter().for_each(|value| self.name(value, host));
        value.is_some()
    }

    fn name(&self, value: &[u8], host: &dyn StreamHost) {
        host.steer(&self.header, value);
        if self.marks {
            host.set_property(MARK, self.header.as_bytes());
        }
    }
}

/// Removes the client's steering header, but not that of a filter before this one, which has another configuration.
pub fn strip(header: &str, host: &dyn StreamHost) {
    if host.request_header(header).is_some() && !is_marked(header, host) {
        host.remove_request_header(header);
    }
}

#[inline(never)]
fn is_marked(header: &str, host: &dyn StreamHost) -> bool {
    host.property(MARK).is_some_and(|mark| *mark == *header.as_bytes())
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
