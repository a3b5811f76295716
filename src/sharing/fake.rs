//! A host for tests that has shared data and nothing else.

use core::cell::RefCell;
use hashbrown::HashMap;

use crate::host::{Call, CallError, Host, SharedError};
use engine::time::Time;

/// Values and versions by key.
#[derive(Default)]
pub struct Shared(RefCell<HashMap<String, (Vec<u8>, u32)>>);

impl Shared {
    /// Overwrites a value, whatever its version.
    pub fn put(&self, key: &str, value: &[u8]) {
        let mut entries = self.0.borrow_mut();
        let version = entries.get(key).map_or(1, |(_, version)| version + 1);
        entries.insert(key.into(), (value.into(), version));
    }
}

impl Host for Shared {
    fn now(&self) -> Time {
        Time::ZERO
    }

    fn shared_get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.0.borrow().get(key).cloned()
    }

    fn shared_set(&self, key: &str, value: &[u8], version: Option<u32>) -> Result<(), SharedError> {
        let current = self.0.borrow().get(key).map(|(_, version)| *version);
        if version.is_some_and(|version| current.is_some_and(|current| current != version)) {
            return Err(SharedError::Conflict);
        }
        self.put(key, value);
        Ok(())
    }

    fn call(&self, _call: &Call<'_>) -> Result<u32, CallError> {
        Err(CallError::UnknownCluster)
    }

    fn log(&self, _level: log::Level, _message: &str) {}
}
