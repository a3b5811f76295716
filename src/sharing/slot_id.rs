//! The place of a worker's records in shared data: a number that is part of their keys, and an id that ends each
//! record.
//!
//! Numbers are reused, ids are not. A worker that writes late, to a number that another has by now, does no harm: its
//! record has the wrong id and is ignored until the owner writes again at its next tick.

use crate::host::{Host, SharedError};

/// A worker's id and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotId {
    /// The worker.
    pub id: u64,
    /// The number in its keys, its own for as long as it is registered.
    pub number: u32,
}

impl SlotId {
    /// The key of its record of this kind.
    pub fn key(&self, kind: &str) -> String {
        // Formatted by hand: a tick builds one key per worker.
        let mut key = String::with_capacity(kind.len() + 11);
        key.push_str(kind);
        key.push('/');
        let digits = self.number.checked_ilog10().unwrap_or(0);
        (0..=digits).rev().for_each(|digit| {
            let digit = self.number / 10u32.pow(digit) % 10;
            key.push(char::from(b'0' + digit as u8));
        });
        key
    }

    /// Writes a record.
    pub fn write(&self, host: &dyn Host, kind: &str, mut record: Vec<u8>) -> Result<(), SharedError> {
        record.extend_from_slice(&self.id.to_le_bytes());
        host.shared_set(&self.key(kind), &record, None)
    }

    /// Reads its record, if there is one.
    pub fn read(&self, host: &dyn Host, kind: &str) -> Option<Vec<u8>> {
        let (mut bytes, _) = host.shared_get(&self.key(kind))?;
        let length = self.owned(&bytes)?;
        bytes.truncate(length);
        Some(bytes)
    }

    /// Clears its record; a record of another worker stays.
    pub fn clear(&self, host: &dyn Host, kind: &str) {
        let key = self.key(kind);
        let Some((bytes, version)) = host.shared_get(&key) else { return };
        if self.owned(&bytes).is_some() {
            let _another_has_the_number = host.shared_set(&key, &[], Some(version));
        }
    }

    /// The length of the record if it is this worker's.
    fn owned(&self, bytes: &[u8]) -> Option<usize> {
        let (record, id) = bytes.split_last_chunk()?;
        (u64::from_le_bytes(*id) == self.id).then_some(record.len())
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::sharing::fake::Shared;

    #[test]
    fn keys_end_with_the_number() {
        for number in [0, 9, 10, 305, 511, u32::MAX] {
            assert_eq!(SlotId { id: 1, number }.key("a/slot"), format!("a/slot/{number}"));
        }
    }

    #[test]
    fn no_worker_reads_or_clears_what_another_wrote_under_the_same_number() {
        let shared = Shared::default();
        let [old, new] = [1, 2].map(|id| SlotId { id, number: 3 });
        old.write(&shared, "slot", vec![7]).unwrap();
        assert_eq!((old.read(&shared, "slot"), new.read(&shared, "slot")), (Some(vec![7]), None));
        new.write(&shared, "slot", vec![8, 9]).unwrap();
        old.clear(&shared, "slot");
        assert_eq!((old.read(&shared, "slot"), new.read(&shared, "slot")), (None, Some(vec![8, 9])));
        new.clear(&shared, "slot");
        assert_eq!(new.read(&shared, "slot"), None);
        shared.put("slot/3", b"short");
        assert_eq!(new.read(&shared, "slot"), None);
    }
}
