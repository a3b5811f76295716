//! JSON out of an answer, at once where it is small, and in parts where it is not.

use std::io::{BufReader, Read, Result};

use serde::de::DeserializeSeed;

use crate::discovery::json::{Fields, Object};
use crate::host::Body;

/// Answers up to this size are read as a whole, which is several times quicker.
const AT_ONCE: usize = 8 << 20;
/// Of larger ones, so many bytes are held at a time.
const PART: usize = 256 << 10;

/// Reads an object into `to`, and nothing behind it.
pub(super) fn read<T>(body: &dyn Body, to: &mut T) -> serde_json::Result<()>
where
    T: for<'de> Fields<'de>,
{
    if body.size() <= AT_ONCE {
        let whole = body.part(0, AT_ONCE);
        let mut input = serde_json::Deserializer::from_slice(&whole);
        return Object(to).deserialize(&mut input).and_then(|()| input.end());
    }
    let mut input =
        serde_json::Deserializer::from_reader(BufReader::with_capacity(PART, Parts { body, at: 0 }));
    Object(to).deserialize(&mut input).and_then(|()| input.end())
}

/// A body from its beginning on.
struct Parts<'b> {
    body: &'b dyn Body,
    at: usize,
}

impl Read for Parts<'_> {
    fn read(&mut self, to: &mut [u8]) -> Result<usize> {
        let part = self.body.part(self.at, to.len());
        let read = part.len().min(to.len());
        if let (Some(to), Some(part)) = (to.get_mut(..read), part.get(..read)) {
            to.copy_from_slice(part);
        }
        self.at += read;
        Ok(read)
    }
}
