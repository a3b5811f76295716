//! Attempts that failed for an unknown reason: Envoy retried elsewhere, and only the last attempt's answer is visible.
//!
//! The endpoint may have crashed, or have shed load with a 429 that the route retries. The answers in between tell the
//! two apart: an endpoint that sheds half of its load answers the other half well. So each unseen failure adds to the
//! error penalty, and several in a row without a good answer count as one failure for health.

/// Number of unseen failures in a row that count as one: an endpoint that sheds half of its requests has that many in a
/// row one time in sixteen, and the next good answer clears it.
const UNSEEN_PER_FAILURE: u8 = 4;

/// Unseen failures since the last good answer, by endpoint index.
#[derive(Debug, Default)]
pub(super) struct UnseenFailures {
    of: Vec<u8>,
}

impl UnseenFailures {
    /// Makes room for `places` endpoints.
    pub fn make_room(&mut self, places: usize) {
        self.of.resize(places, 0);
    }

    /// Counts an unseen failure at `index`; returns whether it completes a row.
    pub fn another(&mut self, index: u32) -> bool {
        let Some(row) = self.of.get_mut(index as usize) else { return false };
        *row += 1;
        let complete = *row >= UNSEEN_PER_FAILURE;
        if complete {
            *row = 0;
        }
        complete
    }

    /// Resets the count after a good answer, or when the slot passes to another endpoint.
    pub fn forget(&mut self, index: u32) {
        if let Some(row) = self.of.get_mut(index as usize) {
            *row = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn several_in_a_row_make_a_failure() {
        let mut unseen = UnseenFailures::default();
        unseen.make_room(3);
        let failures = (0..12).filter(|_| unseen.another(1)).count();
        assert_eq!(failures, 3);
        (0..100).for_each(|_| {
            assert!(!(0..3).any(|_| unseen.another(1)));
            unseen.forget(1);
        });
        assert!(!unseen.another(7), "no such place");
        unseen.forget(9);
    }
}
