//! Bytes that the host hands over, most of them short enough to need no allocation.

use core::ops::Deref;

/// The value of a header or a property.
#[derive(Clone, Debug)]
pub struct Bytes(Form);

#[derive(Clone, Debug)]
enum Form {
    Few { size: u8, bytes: [u8; Bytes::FEW] },
    Many(Vec<u8>),
}

impl Bytes {
    /// The longest value that is held without an allocation: addresses, statuses, and cluster names as most control
    /// planes make them.
    pub const FEW: usize = 88;

    /// The bytes as a vector.
    pub fn into_vec(self) -> Vec<u8> {
        match self.0 {
            Form::Few { .. } => self.to_vec(),
            Form::Many(bytes) => bytes,
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Form::Few { size, bytes } => bytes.get(..usize::from(*size)).unwrap_or_default(),
            Form::Many(bytes) => bytes,
        }
    }
}

impl Default for Bytes {
    fn default() -> Bytes {
        Bytes(Form::Few { size: 0, bytes: [0; Bytes::FEW] })
    }
}

impl From<&[u8]> for Bytes {
    fn from(from: &[u8]) -> Bytes {
        let mut bytes = [0; Bytes::FEW];
        match (bytes.get_mut(..from.len()), u8::try_from(from.len())) {
            (Some(place), Ok(size)) => {
                place.copy_from_slice(from);
                Bytes(Form::Few { size, bytes })
            }
            _ => Bytes(Form::Many(from.to_vec())),
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes(Form::Many(bytes))
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn bytes_are_the_same_however_many_they_are() {
        for size in [0, 1, Bytes::FEW - 1, Bytes::FEW, Bytes::FEW + 1, 255, 256, 5000] {
            let bytes: Vec<u8> = (0..size).map(|at| at as u8).collect();
            let few = Bytes::from(bytes.as_slice());
            assert_eq!(matches!(few.0, Form::Few { .. }), size <= Bytes::FEW);
            assert_eq!((&*few, &*Bytes::from(bytes.clone())), (bytes.as_slice(), bytes.as_slice()));
            assert_eq!(few.into_vec(), bytes);
        }
        assert_eq!(&*Bytes::default(), b"");
    }
}
