//! Signals that some worker has published something since this one last looked: a key that each worker writes after its
//! other records, so that one read replaces one per worker.

use crate::host::Host;

/// The key, and its version at the last look.
#[derive(Debug)]
pub struct News {
    key: String,
    seen: Option<u32>,
}

impl News {
    /// The news of the plugin with this prefix.
    pub fn under(prefix: &str) -> News {
        News { key: format!("{prefix}/news"), seen: None }
    }

    /// Signals that this worker has published something.
    pub fn spread(&self, host: &dyn Host) {
        let _the_others_look_all_the_same_a_little_later =
            host.shared_set(&self.key, &[super::VERSION], None);
    }

    /// Whether a worker has signalled since the last look. Records read after this call contain what was published
    /// before it.
    pub fn any(&mut self, host: &dyn Host) -> bool {
        let version = host.shared_get(&self.key).map(|(_, version)| version);
        version.is_none() || core::mem::replace(&mut self.seen, version) != version
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::sharing::fake::Shared;

    #[test]
    fn news_is_taken_once_by_each_worker() {
        let shared = Shared::default();
        let [mut one, mut other] = [News::under("a"), News::under("a")];
        assert!(one.any(&shared) && one.any(&shared), "nothing is known of the others yet");
        one.spread(&shared);
        assert_eq!([one.any(&shared), other.any(&shared)], [true, true]);
        assert_eq!([one.any(&shared), other.any(&shared)], [false, false]);
        other.spread(&shared);
        assert_eq!([one.any(&shared), one.any(&shared)], [true, false]);
    }
}
