//! Shared data with the semantics of Envoy's host: compare-and-swap, no deletion, no create-if-absent.

use std::collections::BTreeMap;

/// Values by key, each with the number that a compare-and-swap must name.
#[derive(Debug, Default)]
pub(crate) struct SharedData {
    entries: BTreeMap<String, (Vec<u8>, u32)>,
    last_cas: u32,
}

impl SharedData {
    pub(crate) fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.entries.get(key).cloned()
    }

    /// Returns false on a mismatch. `cas` 0 overwrites; any `cas` succeeds where the key is absent.
    #[must_use]
    pub(crate) fn set(&mut self, key: &str, value: Vec<u8>, cas: u32) -> bool {
        if cas != 0 && self.entries.get(key).is_some_and(|(_, current)| *current != cas) {
            return false;
        }
        // Zero means "no number" to the guest, so the counter skips it when it wraps.
        self.last_cas = self.last_cas.checked_add(1).unwrap_or(1);
        self.entries.insert(key.to_owned(), (value, self.last_cas));
        true
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cas_zero_overwrites_and_a_stale_cas_does_not() {
        let mut data = SharedData::default();
        assert!(data.set("k", b"a".to_vec(), 0));
        let (_, first) = data.get("k").unwrap();
        assert!(data.set("k", b"b".to_vec(), 0));
        let (_, second) = data.get("k").unwrap();
        assert!(second > first);
        assert!(!data.set("k", b"c".to_vec(), first));
        assert!(data.set("k", b"d".to_vec(), second));
        assert_eq!(data.get("k").unwrap().0, b"d");
    }

    #[test]
    fn any_cas_creates_what_is_absent() {
        let mut data = SharedData::default();
        assert!(data.set("k", b"a".to_vec(), 77));
        assert_eq!(data.get("k"), Some((b"a".to_vec(), 1)));
    }

    #[test]
    fn numbers_grow_across_keys() {
        let mut data = SharedData::default();
        assert!(data.set("a", vec![], 0) && data.set("b", vec![], 0));
        assert_eq!((data.get("a").unwrap().1, data.get("b").unwrap().1), (1, 2));
    }
}
