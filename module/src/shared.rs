//! Shared data among the workers of the process: values under keys, each with a version. It stands in for the shared
//! data of proxy-wasm, so that workers exchange reports in the same way.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use evenkeel::host::SharedError;

/// Maximum number of keys; a set of workers needs a few dozen.
const MAX_KEYS: usize = 65_536;

#[derive(Default)]
struct Values {
    entries: HashMap<String, (Vec<u8>, u32)>,
    last_version: u32,
}

static VALUES: OnceLock<Mutex<Values>> = OnceLock::new();

fn values() -> MutexGuard<'static, Values> {
    // No code between lock and unlock can panic halfway through a change.
    VALUES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// The value and its version.
pub fn get(key: &str) -> Option<(Vec<u8>, u32)> {
    values().entries.get(key).cloned()
}

/// Releases the values of all keys that begin with this.
pub fn release(prefix: &str) {
    values().entries.retain(|key, _| !key.starts_with(prefix));
}

/// Writes a value; with a version, only if that is still the current one.
pub fn set(key: &str, value: &[u8], version: Option<u32>) -> Result<(), SharedError> {
    let mut values = values();
    let current = values.entries.get(key).map(|(_, version)| *version);
    if version.is_some_and(|version| current.is_some_and(|current| current != version)) {
        return Err(SharedError::Conflict);
    }
    if current.is_none() && values.entries.len() >= MAX_KEYS {
        return Err(SharedError::Refused);
    }
    // In proxy-wasm, version 0 means any version.
    values.last_version = values.last_version.wrapping_add(1).max(1);
    let version = values.last_version;
    match values.entries.get_mut(key) {
        Some(entry) => {
            entry.0.clear();
            entry.0.extend_from_slice(value);
            entry.1 = version;
        }
        None => _ = values.entries.insert(key.to_owned(), (value.to_vec(), version)),
    }
    Ok(())
}
