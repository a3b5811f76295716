//! How a decision becomes a header value, prepared so that a request only copies bytes.

use crate::config::{Config, Via};
use crate::engine::Engine;
use crate::policy::{Candidates, MAX_CANDIDATES};

/// Prepared header values and a buffer to join them in.
#[derive(Debug)]
pub struct Steer {
    via: Via,
    header: String,
    want: usize,
    /// By upstream and endpoint index.
    values: Vec<Vec<Box<[u8]>>>,
    safe: Vec<Box<[u8]>>,
    buffer: Vec<u8>,
}

impl Steer {
    /// The configured way of steering.
    pub fn new(config: &Config) -> Steer {
        let safe = config.upstreams.iter().map(|u| match &u.failover.none_eligible {
            crate::config::NoneEligible::SafeEndpoint(address) => {
                value(config.steering.via, address.to_string().as_bytes())
            }
            _ => Box::default(),
        });
        Steer {
            via: config.steering.via,
            header: config.steering.header.clone(),
            want: if config.steering.via == Via::OverrideHost { config.steering.candidates } else { 1 },
            values: Vec::new(),
            safe: safe.collect(),
            buffer: Vec::with_capacity(64 * MAX_CANDIDATES),
        }
    }

    /// Prepares the values of all endpoints; called when the fleet changes.
    pub fn refresh(&mut self, engine: &Engine) {
        self.values = engine
            .upstreams()
            .iter()
            .map(|upstream| {
                let mut values = vec![Box::default(); upstream.fleet().places()];
                for (index, endpoint) in upstream.fleet().iter() {
                    if let Some(slot) = values.get_mut(index as usize) {
                        *slot = value(self.via, endpoint.text.as_bytes());
                    }
                }
                values
            })
            .collect();
    }

    /// The steering header's name.
    pub fn header(&self) -> &str {
        &self.header
    }

    /// How many endpoints a decision names.
    pub fn want(&self) -> usize {
        self.want
    }

    /// Whether the response may carry the steering header too, set by `stateful_session`.
    pub fn comes_back(&self) -> bool {
        self.via == Via::StatefulSession
    }

    /// The header and its value for `candidates`; `None` if one of them is unknown here.
    pub fn towards(&mut self, upstream: usize, candidates: &Candidates) -> Option<(&str, &[u8])> {
        self.buffer.clear();
        let values = self.values.get(upstream)?;
        for index in candidates.as_slice() {
            let value = values.get(*index as usize).filter(|v| !v.is_empty())?;
            if !self.buffer.is_empty() {
                self.buffer.push(b',');
            }
            self.buffer.extend_from_slice(value);
        }
        Some((&self.header, &self.buffer))
    }

    /// The header and its value for the upstream's safe endpoint, if it has one.
    pub fn to_safety(&self, upstream: usize) -> Option<(&str, &[u8])> {
        self.safe.get(upstream).filter(|v| !v.is_empty()).map(|v| (self.header.as_str(), &**v))
    }
}

/// What the Envoy mechanism expects for an endpoint: `stateful_session` takes base64, `cluster_header` the name
/// of a cluster, which is the address itself, and the others `ip:port`.
fn value(via: Via, address: &[u8]) -> Box<[u8]> {
    match via {
        Via::StatefulSession => base64(address).into(),
        Via::OverrideHost | Via::OriginalDst | Via::ClusterHeader => address.into(),
    }
}

/// Standard base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let six = (bits >> (18 - 6 * digit) & 63) as usize;
            out.push(if digit > chunk.len() { b'=' } else { ALPHABET.get(six).copied().unwrap_or(b'=') });
        }
    }
    out
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
        ] {
            assert_eq!(base64(plain.as_bytes()), coded.as_bytes());
        }
        assert_eq!(base64(b"127.0.0.1:8080"), b"MTI3LjAuMC4xOjgwODA=");
    }
}
