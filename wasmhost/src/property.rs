//! Properties (Envoy's attributes): bytes by path, encoded as in Envoy.

use std::collections::BTreeMap;
use std::time::Duration;

/// A value with the encoding that Envoy passes to guests.
pub trait PropertyValue {
    /// The encoded bytes.
    fn encode(&self) -> Vec<u8>;
}

impl PropertyValue for [u8] {
    fn encode(&self) -> Vec<u8> {
        self.to_vec()
    }
}

impl<const N: usize> PropertyValue for [u8; N] {
    fn encode(&self) -> Vec<u8> {
        self.to_vec()
    }
}

impl PropertyValue for str {
    fn encode(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}

/// Integers are eight bytes, little endian.
impl PropertyValue for i64 {
    fn encode(&self) -> Vec<u8> {
        self.to_le_bytes().to_vec()
    }
}

impl PropertyValue for bool {
    fn encode(&self) -> Vec<u8> {
        vec![u8::from(*self)]
    }
}

/// Durations are nanoseconds, as an integer.
impl PropertyValue for Duration {
    fn encode(&self) -> Vec<u8> {
        (self.as_nanos() as i64).encode()
    }
}

/// Values by path; the parts of a path are joined by zero bytes, as the ABI sends them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Properties(BTreeMap<Vec<u8>, Vec<u8>>);

impl Properties {
    pub(crate) fn get(&self, joined: &[u8]) -> Option<Vec<u8>> {
        self.0.get(joined).cloned()
    }

    pub(crate) fn set(&mut self, joined: Vec<u8>, value: Vec<u8>) {
        self.0.insert(joined, value);
    }
}

pub(crate) fn join(path: &[&str]) -> Vec<u8> {
    path.join("\0").into_bytes()
}
